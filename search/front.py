"""The best of a search: programs that no other is better than in every objective.

Owns: the front, and its table. Refuses: plots and pages.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pymoo.util.nds.non_dominated_sorting import NonDominatedSorting

from starc.search.algorithms import Individual
from starc.search.archive import feasible
from starc.search.objectives import Objective


def front(individuals: Sequence[Individual], rung: int | None = None) -> list[Individual]:
    """Those of the highest rung (or of `rung`) that no other dominates, best first objective first.

    Of programs that mean the same the first stands for all. Empty when none is feasible.
    """
    left = feasible(individuals)
    if rung is None:
        rung = max((individual.rung for individual in left), default=0)
    distinct = {i.identity: i for i in reversed(left) if i.rung == rung}
    left = sorted(distinct.values(), key=lambda individual: individual.id)
    if not left:
        return []
    values = np.array([individual.objectives for individual in left])
    best = NonDominatedSorting().do(values, only_non_dominated_front=True)
    return sorted((left[i] for i in best), key=lambda i: (i.objectives, i.id))


FIGURES = ("parameters", "cache_bytes", "flops_decode")
"""Shown beside the objectives, whatever those are."""


def front_table(
    members: Sequence[Individual], objectives: Sequence[Objective]
) -> tuple[list[str], list[list[str]]]:
    """Headings and rows: the number of each, its objectives, some figures, its parents."""
    names = [objective.name for objective in objectives]
    units = {objective.name: objective.unit for objective in objectives}
    columns = names + [name for name in FIGURES if name not in names]
    headings = ["member", *(_heading(name, units.get(name, "")) for name in columns), "parents"]
    rows = [
        [
            str(member.id),
            *(number(member.figures[name]) if name in member.figures else "" for name in columns),
            " ".join(map(str, member.parents)),
        ]
        for member in members
    ]
    return headings, rows


def number(value: float) -> str:
    """A figure for people: four digits, thousands apart."""
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:.4g}" if abs(value) < 1e4 else f"{value:,.0f}"


def _heading(name: str, unit: str) -> str:
    return f"{name} ({unit})" if unit and unit != name.rpartition("_")[2] else name
