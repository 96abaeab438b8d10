"""All that a report says, as JSON: the page, the plots, the terminal and `--json` draw from it.

Owns: what is computed over a run. Refuses: the record's rows (record.py) and any looks.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from starc.report.baselines import Baseline, compare, seeds
from starc.report.genes import anatomies, importance, motif_statistics
from starc.report.record import RUNNING, WAITING, Member, Record
from starc.search.archive import INFEASIBLE
from starc.search.engine import STATUSES
from starc.search.front import front
from starc.search.hypervolume import growth
from starc.search.mutate import OPERATIONS
from starc.search.objectives import unit_of

AXES = ("parameters", "cache_bytes", "flops_train", "flops_decode", "units")
"""Figures beside the objectives that parallel coordinates show."""

LEFT_OUT = "The text is left out of this page; the run's search.db has it."

_LEVELS = {operation.name: operation.level for operation in OPERATIONS}

_MOST_TEXT = 600_000
_MOST_MEMBERS = 2_000
_MOST_EVENTS = 200
"""A page of so many characters of programs, members and events stays below 2 MB."""


def build_report(record: Record, baselines: Sequence[Baseline] = ()) -> dict[str, Any]:
    """What a run found and how: a key for each part of docs/report.md, JSON throughout."""
    members = record.members
    full = record.full
    found = front_of(full)
    compared = [*seeds(full), *baselines]
    known = anatomies(members)
    best = [m.number for m in found]
    shown = _shown(members, found, compared)
    on_front = set(best)
    programs, places = _programs(shown, found, members)
    return {
        "run": _run(record),
        "objectives": [{"name": o.name, "sign": o.sign, "unit": o.unit} for o in record.objectives],
        "constraints": [str(constraint) for constraint in record.constraints],
        "units": {name: unit_of(name) for name in AXES},
        "axes": _axes(record),
        "counts": _counts(record),
        "statuses": _statuses(members),
        "front": best,
        "chosen": _chosen(found, full),
        "members": [_row(m, m.number in on_front, places, record) for m in shown],
        "left_out_members": len(members) - len(shown),
        "left_out": LEFT_OUT,
        "programs": programs,
        "hypervolume": _hypervolume(full, record),
        "generations": _generations(full, members, record),
        "motifs": motif_statistics(full, known),
        "operations": _operations(members, record),
        "failures": _failures(record),
        "importance": importance(full, record.objectives, known),
        "baselines": compare(compared, found, record.objectives),
    }


def front_of(members: Sequence[Member]) -> list[Member]:
    """The members that no other one dominates, each program once, by the first objective."""
    known = {m.number: m for m in members}
    found = front([m.individual for m in members if m.individual is not None])
    return [known[individual.id] for individual in found]


def _small(member: Member) -> tuple[float, ...]:
    """The objectives of a feasible member, less being better."""
    assert member.individual is not None
    return member.individual.objectives


def _run(record: Record) -> dict[str, Any]:
    run = record.run
    ended = max((row.began + row.seconds for row in record.attempts), default=run.began)
    ended = max([ended, *(event.time for event in record.events)])
    last = record.events[-1].kind if record.events else "began"
    return {
        "name": record.folder.resolve().name,
        "folder": str(record.folder),
        "command": run.command,
        "versions": dict(run.versions),
        "device": run.device,
        "data_digest": run.data_digest,
        "settings": record.settings.to_json(),
        "algorithm": record.settings.algorithm,
        "evaluator": record.settings.evaluator,
        "seed": record.settings.seed,
        "began": run.began,
        "ended": ended,
        "state": last,
        "evaluators": sorted({row.evaluator for row in record.attempts}),
        "events": [
            {"time": e.time, "kind": e.kind, "text": e.text[:500]}
            for e in record.events[-_MOST_EVENTS:]
        ],
    }


def _axes(record: Record) -> list[dict[str, Any]]:
    axes: list[dict[str, Any]] = [
        {"name": o.name, "unit": o.unit, "sign": o.sign, "objective": place}
        for place, o in enumerate(record.objectives)
    ]
    names = {objective.name for objective in record.objectives}
    for name in AXES:
        if name not in names and len(axes) < 7:
            axes.append({"name": name, "unit": unit_of(name), "sign": 1, "objective": None})
    return axes


def _counts(record: Record) -> dict[str, Any]:
    ended = [row for row in record.attempts if row.status != RUNNING]
    statuses = Counter(m.status for m in record.members)
    busy = sum(row.seconds for row in ended)
    return {
        "members": len(record.members),
        "programs": len({m.program.id for m in record.members}),
        "generations": len({m.generation for m in record.members}),
        "attempts": len(ended),
        "evaluated": sum(1 for m in record.members if m.order),
        "statuses": {name: statuses[name] for name in _statuses(record.members)},
        "retried": sum(1 for row in ended if row.attempt > 0),
        "repaired": sum(1 for m in record.members if m.repairs.repairs),
        "seconds": busy,
    }


def _statuses(members: Sequence[Member]) -> list[str]:
    """Those that occur, the good one first and unfinished ones last."""
    found = {m.status for m in members}
    known = [*STATUSES, INFEASIBLE]
    others = sorted(found - {*known, RUNNING, WAITING})
    return [name for name in [*known, *others, RUNNING, WAITING] if name in found]


def _chosen(front: Sequence[Member], members: Sequence[Member]) -> int | None:
    if front:
        return front[0].number
    return members[0].number if members else None


def _row(member: Member, on_front: bool, places: dict[int, int], record: Record) -> dict[str, Any]:
    missed = member.individual.violation if member.individual and member.evaluated else 0.0
    return {
        "number": member.number,
        "program": places.get(member.program.id),
        "parents": list(member.parents),
        "operation": member.operation,
        "level": member.level,
        "generation": member.generation,
        "rung": member.rung,
        "status": member.status,
        "values": [_digits(member.value(objective)) for objective in record.objectives],
        "violation": _digits(missed),
        "front": on_front,
        "figures": {n: _digits(member.figures[n]) for n in AXES if n in member.figures},
    }


def _digits(value: float | None) -> float | None:
    """Six significant digits are more than anyone reads off a page."""
    if value is None or not np.isfinite(value):
        return None
    return value if float(value).is_integer() else float(f"{value:.6g}")


def _shown(
    members: Sequence[Member], front: Sequence[Member], baselines: Sequence[Baseline]
) -> list[Member]:
    """Members that a page has: all, or the front, its ancestors, baselines and some others."""
    if len(members) <= _MOST_MEMBERS:
        return list(members)
    kept = {m.number for m in _ancestry(front, members)}
    kept |= {b.member.number for b in baselines if b.member}
    every = -(-len(members) // max(1, _MOST_MEMBERS - len(kept)))
    kept |= {m.number for m in members[::every]}
    return [m for m in members if m.number in kept]


def _ancestry(front: Sequence[Member], members: Sequence[Member]) -> list[Member]:
    """The front and all its ancestors, nearest first."""
    known = {m.number: m for m in members}
    queue = [m.number for m in front]
    found: dict[int, Member] = {}
    for number in queue:
        if number in known and number not in found:
            found[number] = known[number]
            queue += known[number].parents
    return list(found.values())


def _programs(
    shown: Sequence[Member], front: Sequence[Member], members: Sequence[Member]
) -> tuple[list[str], dict[int, int]]:
    """Texts as far as a page has room, those of the front and its ancestors first, and the place of
    each program's."""
    texts: list[str] = []
    places: dict[int, int] = {}
    room = _MOST_TEXT
    for member in (*_ancestry(front, members), *shown):
        row = member.program
        if row.id not in places and len(row.text) <= room:
            room -= len(row.text)
            places[row.id] = len(texts)
            texts.append(row.text)
    return texts, places


def _hypervolume(members: Sequence[Member], record: Record) -> dict[str, Any]:
    ended = sorted((m for m in members if m.order), key=lambda m: m.order)
    nothing = (np.inf,) * len(record.objectives)
    points = np.array([_small(m) if m.feasible else nothing for m in ended], dtype=np.float64)
    found = growth(points.reshape(len(ended), len(nothing)))
    signs = [objective.sign for objective in record.objectives]
    return {
        "ideal": [s * v for s, v in zip(signs, found.ideal, strict=False)],
        "reference": [s * v for s, v in zip(signs, found.reference, strict=False)],
        "curve": [[count, round(volume, 6)] for count, volume in found.curve],
        "final": found.curve[-1][1] if found.curve else 0.0,
        "note": "Share of the box between the best value of each objective and a reference beyond "
        "the worst one that is no outlier; it compares within this run only.",
    }


def _generations(
    full: Sequence[Member], members: Sequence[Member], record: Record
) -> list[dict[str, Any]]:
    groups: dict[int, list[Member]] = {}
    for member in members:
        groups.setdefault(member.generation, []).append(member)
    judged = {m.number for m in full}
    best: list[float | None] = [None] * len(record.objectives)
    rows = []
    for generation in sorted(groups):
        group = groups[generation]
        good = [m for m in group if m.feasible and m.number in judged]
        middle: list[float | None] = []
        quartiles: list[list[float | None] | None] = []
        for place, objective in enumerate(record.objectives):
            values = [float(m.figures[objective.name]) for m in good]
            for value in values:
                now = best[place]
                if now is None or objective.sign * value < objective.sign * now:
                    best[place] = value
            low, half, high = np.quantile(values, (0.25, 0.5, 0.75)) if values else (None,) * 3
            middle.append(_digits(half))
            quartiles.append([_digits(low), _digits(high)] if values else None)
        rows.append(
            {
                "generation": generation,
                "members": len(group),
                "statuses": dict(Counter(m.status for m in group)),
                "repaired": sum(1 for m in group if m.repairs.repairs),
                "best": [_digits(value) for value in best],
                "median": middle,
                "quartiles": quartiles,
            }
        )
    return rows


def _operations(members: Sequence[Member], record: Record) -> list[dict[str, Any]]:
    """How the ways of making proposals fared, the most frequent first; a proposal that several
    operations made counts for each of them."""
    known = {m.number: m for m in members}
    groups: dict[str, list[Member]] = {}
    for member in members:
        for name in dict.fromkeys(member.operation.split(" + ")):
            groups.setdefault(name, []).append(member)
    rows = []
    for name, group in groups.items():
        ended = [m for m in group if m.order]
        pairs = [(m, known[m.parents[0]]) for m in group if m.parents and m.parents[0] in known]
        pairs = [(a, b) for a, b in pairs if a.feasible and b.feasible]
        better = sum(1 for a, b in pairs if _dominates(_small(a), _small(b)))
        repairs: Counter[str] = Counter()
        rejected = 0
        for member in group:
            repairs.update(set(member.repairs.repairs))
            rejected += sum(
                count
                for reason, count in member.repairs.rejected.items()
                if reason.partition(":")[0] == name or name.startswith("crossover")
            )
        rows.append(
            {
                "operation": name,
                "level": _LEVELS.get(name, ""),
                "proposals": len(group),
                "ended": len(ended),
                "done": sum(1 for m in ended if m.status == "done"),
                "repaired": sum(1 for m in group if m.repairs.repairs),
                "repairs": dict(sorted(repairs.items())),
                "rejected": rejected,
                "compared": len(pairs),
                "dominate_parent": better,
            }
        )
    return sorted(rows, key=lambda row: (-row["proposals"], row["operation"]))


def _dominates(a: Sequence[float], b: Sequence[float]) -> bool:
    return all(x <= y for x, y in zip(a, b, strict=True)) and list(a) != list(b)


def _failures(record: Record) -> list[dict[str, Any]]:
    """Reasons of attempts that failed, numbers in them left out, the most frequent first."""
    found: Counter[tuple[str, str]] = Counter()
    example: dict[tuple[str, str], str] = {}
    for row in record.attempts:
        if row.status not in ("done", RUNNING):
            reason = " ".join(row.reason.split())[:300]
            key = row.status, re.sub(r"\d[\d.,]*", "…", reason)
            found[key] += 1
            example.setdefault(key, reason)
    return [
        {"status": status, "attempts": count, "reason": example[status, reason]}
        for (status, reason), count in found.most_common(20)
    ]
