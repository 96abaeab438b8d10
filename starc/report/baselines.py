"""Programs that a front is compared with: the run's seeds, and programs that are named.

Owns: finding their evaluations in the run, at equal budget, and the comparison. Refuses: training
anything.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from starc.grammar.library import read_source
from starc.grammar.parser import parse
from starc.report.record import Member, Record
from starc.search.objectives import Objective, static_figures
from starc.search.verifying import Verifier

SEED = "seed"
"""The operation of proposals that were given to the search."""


@dataclass(frozen=True)
class Baseline:
    """A program to compare with. `member` is it in the run, None where it was not evaluated; then
    `figures` are those that need no training."""

    name: str
    member: Member | None
    figures: dict[str, float]

    def value(self, objective: Objective) -> float | None:
        """Its objective, None if unknown."""
        return self.figures.get(objective.name)


def seeds(members: Sequence[Member]) -> list[Baseline]:
    """The seed programs among members, each once."""
    found: dict[int, Baseline] = {}
    for member in members:
        if member.operation == SEED and member.program.id not in found:
            found[member.program.id] = _baseline(model_name(member.program.text), member)
    return list(found.values())


def open_baselines(files: Sequence[str], record: Record) -> list[Baseline]:
    """Programs from files, with what the run knows of them; raises StarError for what is wrong
    with one."""
    by_identity: dict[str, Member] = {}
    for member in record.members:
        if member.rung == record.full_rung and member.evaluated:
            by_identity.setdefault(member.program.identity, member)
    verifier = Verifier()
    found = []
    for file in files:
        checked = verifier.check(parse(read_source(file)))
        known = by_identity.get(checked.identity)
        if known is not None:
            found.append(_baseline(checked.model.name, known))
        else:
            asked = record.settings
            figures = static_figures(checked, length=asked.length, dtype=asked.dtype)
            found.append(Baseline(checked.model.name, None, figures))
    return found


def _baseline(name: str, member: Member) -> Baseline:
    return Baseline(name, member, dict(member.figures) if member.evaluated else {})


def model_name(text: str) -> str:
    """The name of the (first) model of a program's text."""
    found = re.search(r"^\s*model\s+(\w+)", text, re.MULTILINE)
    return found[1] if found else "program"


def compare(
    baselines: Sequence[Baseline], front: Sequence[Member], objectives: Sequence[Objective]
) -> list[dict[str, Any]]:
    """For each baseline its values, and for each objective the front member that is best in it
    among those that are no worse in the first one; changes are relative to the baseline."""
    rows = []
    used: set[tuple[str, int | None]] = set()
    for baseline in baselines:
        number = baseline.member.number if baseline.member else None
        if (baseline.name, number) in used:
            continue
        used.add((baseline.name, number))
        rows.append(
            {
                "name": baseline.name,
                "number": number,
                "evaluated": baseline.member is not None and baseline.member.evaluated,
                "values": [baseline.value(objective) for objective in objectives],
                "figures": {
                    name: baseline.figures[name]
                    for name in ("parameters", "cache_bytes", "flops_train", "units")
                    if name in baseline.figures
                },
                "dominated_by": [m.number for m in front if _dominates(m, baseline, objectives)],
                "against": _against(baseline, front, objectives),
            }
        )
    return rows


def _against(
    baseline: Baseline, front: Sequence[Member], objectives: Sequence[Objective]
) -> list[dict[str, Any]]:
    first = objectives[0]
    own = baseline.value(first)
    if own is None:
        return []
    no_worse = [m for m in front if first.sign * m.figures[first.name] <= first.sign * own]
    rows: list[dict[str, Any]] = []
    for objective in objectives:
        ranked = sorted(no_worse, key=lambda m: objective.sign * m.figures[objective.name])
        if ranked and ranked[0].number not in [row["number"] for row in rows]:
            rows.append({"best_in": objective.name, **_changes(ranked[0], baseline, objectives)})
    return rows


def _changes(member: Member, baseline: Baseline, objectives: Sequence[Objective]) -> dict[str, Any]:
    names = dict.fromkeys([*(o.name for o in objectives), "parameters", "cache_bytes"])
    changes: dict[str, float | None] = {}
    for name in names:
        before, after = baseline.figures.get(name), member.figures.get(name)
        if after is not None:
            known = before is not None and before != 0
            changes[name] = (after - before) / abs(before) if known and before else None
    return {"number": member.number, "changes": changes}


def _dominates(member: Member, baseline: Baseline, objectives: Sequence[Objective]) -> bool:
    pairs = []
    for objective in objectives:
        own = baseline.value(objective)
        if own is None:
            return False
        pairs.append((objective.sign * member.figures[objective.name], objective.sign * own))
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)
