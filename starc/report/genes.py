"""What programs are made of, generation by generation, and which of it goes with being good.

Owns: reading programs back, and statistics of motifs. Refuses: what a motif is (search/motifs.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from starc.grammar.errors import StarError
from starc.grammar.parser import parse
from starc.grammar.source import Source
from starc.report.record import Member
from starc.search.motifs import REUSES, SHARES, Motif, motif
from starc.search.objectives import Objective
from starc.search.verifying import Verifier

METHOD = (
    "A gene is a class of units, a pair of classes that follow each other (counted by their "
    "occurrences in a program), a kind of sharing, the width or the number of units. Shown is "
    "Spearman's rank correlation of each gene with the objective over all programs that were "
    "evaluated on the full budget, with its 95 % interval (Bonett and Wright 2000); to the right "
    "is better. Beside it, permutation importance: by how much a ridge regression of the "
    "objective's ranks on all genes loses of its held-out R² (five folds) when the gene is "
    "shuffled. Both describe the programs that the search chose to try; neither shows a cause."
)

_GENES = 18
_LEAST = 8
"""Programs without which no correlation is shown."""
_GRAMS = 12
_DISTANCES = 24


@dataclass(frozen=True)
class Anatomy:
    """A program's motif and width."""

    motif: Motif
    width: int


def anatomies(members: Iterable[Member]) -> dict[int, Anatomy]:
    """What the programs of members are made of, by program id; without those that this version of
    starc cannot read."""
    verifier = Verifier()
    found: dict[int, Anatomy] = {}
    for member in members:
        row = member.program
        if row.id in found:
            continue
        try:
            model = verifier.check(parse(Source(f"#{member.number}", row.text))).ir
        except StarError:
            continue
        found[row.id] = Anatomy(motif(model), model.width)
    return found


# --- motifs over generations ---------------------------------------------------------------------


def motif_statistics(members: Sequence[Member], known: Mapping[int, Anatomy]) -> dict[str, Any]:
    """Counts of classes, runs and sharing distances per generation, of the programs proposed in it.

    `counts` has for each generation the units of each class; `rates` are occurrences per program.
    """
    groups: dict[int, list[Motif]] = {}
    for member in members:
        if member.program.id in known:
            groups.setdefault(member.generation, []).append(known[member.program.id].motif)
    generations = sorted(groups)
    rows = [groups[generation] for generation in generations]
    counted = [Counter(place for m in row for place in m.places) for row in rows]
    total: Counter[str] = sum(counted, Counter())
    classes = [name for name, _ in sorted(total.items(), key=lambda item: (-item[1], item[0]))]
    return {
        "generations": generations,
        "programs": [len(row) for row in rows],
        "classes": classes,
        "counts": [[count[name] for name in classes] for count in counted],
        "grams": [_grams(n, rows) for n in (2, 3)],
        "sharing": [_sharing(kind, rows) for kind in (SHARES, REUSES)],
    }


def _grams(n: int, rows: Sequence[Sequence[Motif]]) -> dict[str, Any]:
    counted: list[Counter[str]] = [sum((m.grams(n) for m in row), Counter()) for row in rows]
    total: Counter[str] = sum(counted, Counter())
    names = sorted(total, key=lambda name: (-total[name], name))[:_GRAMS]
    return {
        "n": n,
        "rows": [
            {
                "name": name,
                "total": total[name],
                "rates": [_rate(c[name], row) for c, row in zip(counted, rows, strict=True)],
            }
            for name in names
        ],
    }


def _sharing(kind: str, rows: Sequence[Sequence[Motif]]) -> dict[str, Any]:
    counted = [Counter(d for m in row for k, d in m.distances if k == kind) for row in rows]
    total: Counter[int] = sum(counted, Counter())
    often = sorted(total, key=lambda distance: (-total[distance], distance))[:_DISTANCES]
    distances = sorted(often)
    return {
        "kind": kind,
        "distances": distances,
        "rates": [
            [_rate(c[distance], row) for c, row in zip(counted, rows, strict=True)]
            for distance in distances
        ],
    }


def _rate(count: int, row: Sequence[Motif]) -> float:
    return round(count / len(row), 4) if row else 0.0


# --- importance ----------------------------------------------------------------------------------


def importance(
    members: Sequence[Member], objectives: Sequence[Objective], known: Mapping[int, Anatomy]
) -> dict[str, Any]:
    """How genes go with objectives; METHOD says what the numbers are."""
    programs = {m.program.id: m for m in members if m.evaluated and m.program.id in known}
    chosen = list(programs.values())
    found = []
    if len(chosen) >= _LEAST:
        names, table = _genes([known[m.program.id] for m in chosen])
        for objective in objectives:
            good = np.array([-objective.sign * float(m.figures[objective.name]) for m in chosen])
            found.append({"objective": objective.name, "genes": _ranked(names, table, good)})
    return {"method": METHOD, "programs": len(chosen), "objectives": found}


def _genes(rows: Sequence[Anatomy]) -> tuple[list[str], NDArray[np.float64]]:
    """Names of genes that vary and are not too rare, and their values (programs, genes)."""
    counted: list[dict[str, float]] = []
    for row in rows:
        genes: dict[str, float] = dict(Counter(row.motif.places))
        genes.update(row.motif.grams(2))
        for kind in (SHARES, REUSES):
            genes[f"shared {kind}"] = sum(1 for k, _ in row.motif.distances if k == kind)
        genes["units"], genes["width"] = len(row.motif.places), row.width
        counted.append(genes)
    names = sorted({name for genes in counted for name in genes})
    table = np.array([[genes.get(name, 0.0) for name in names] for genes in counted])
    least = max(3, len(rows) // 50)
    common = [
        place
        for place in range(len(names))
        if len(rows) - np.unique(table[:, place], return_counts=True)[1].max() >= least
    ]
    return [names[place] for place in common], table[:, common]


def _ranked(
    names: Sequence[str], table: NDArray[np.float64], good: NDArray[np.float64]
) -> list[dict[str, Any]]:
    if not names or np.ptp(good) == 0:
        return []
    n = len(good)
    ranks = average_ranks(good)
    columns = np.apply_along_axis(average_ranks, 0, table)
    weights = permutation_importance(columns, ranks)
    rows: list[dict[str, Any]] = []
    for place, name in enumerate(names):
        r = float(np.corrcoef(columns[:, place], ranks)[0, 1])
        z, deviation = np.arctanh(np.clip(r, -0.9999, 0.9999)), np.sqrt((1 + r * r / 2) / (n - 3))
        low, high = np.tanh(z - 1.96 * deviation), np.tanh(z + 1.96 * deviation)
        rows.append(
            {
                "gene": name,
                "correlation": round(r, 4),
                "low": round(float(low), 4),
                "high": round(float(high), 4),
                "permutation": round(float(weights[place]), 4),
                "programs": int((table[:, place] != 0).sum()),
            }
        )
    rows.sort(key=lambda row: (-abs(row["correlation"]), row["gene"]))
    return sorted(rows[:_GENES], key=lambda row: (-row["correlation"], row["gene"]))


def average_ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks from 1 up of values (n,), equal ones sharing their mean: scipy.stats.rankdata without
    its import of a second."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2)[places], np.float64)


def permutation_importance(
    columns: NDArray[np.float64], target: NDArray[np.float64], *, folds: int = 5, repeats: int = 10
) -> NDArray[np.float64]:
    """By how much held-out R² of a ridge regression falls when a column is shuffled: (columns,).

    The columns and the target are standardised, the penalty is a tenth of the examples; the same
    data give the same numbers.
    """
    rng = np.random.default_rng(0)
    spread = columns.std(axis=0)
    x = (columns - columns.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    y = (target - target.mean()) / (target.std() or 1.0)
    places = rng.permutation(len(y))
    lost = np.zeros(x.shape[1])
    for fold in range(folds):
        out = places[fold::folds]
        learn = np.setdiff1d(places, out)
        if not len(out) or not len(learn):
            continue
        gram = x[learn].T @ x[learn] + 0.1 * len(learn) * np.eye(x.shape[1])
        weights = np.linalg.solve(gram, x[learn].T @ y[learn])
        error = ((x[out] @ weights - y[out]) ** 2).sum()
        for _ in range(repeats):
            shuffled = x[rng.permutation(out)]
            changed = x[out] @ weights - y[out]
            each = changed[:, None] + (shuffled - x[out]) * weights
            lost += ((each**2).sum(axis=0) - error) / repeats
    return lost / float((y**2).sum() or 1.0)
