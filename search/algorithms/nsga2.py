"""NSGA-II (Deb et al. 2002), with pymoo's non-dominated sorting, crowding and tournaments.

Parents are chosen by constrained tournaments; parents and children compete for the next population
by rank, then crowding. Steady, every single result competes with the population.

Owns: the population. Refuses: pymoo's loop, whose individuals change under one's hands.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pymoo.operators.selection.tournament import TournamentSelection
from pymoo.operators.survival.rank_and_crowding.metrics import get_crowding_function
from pymoo.util.nds.non_dominated_sorting import NonDominatedSorting

from starc.search.algorithms import Context, Individual, Proposal
from starc.search.algorithms.breeding import OPTIONS, bred, distinct, first

Standing = tuple[float, int, float]
"""Violation, rank, and crowding with its sign turned: the smaller the better."""


class Nsga2:
    """`tournament` is how many compete for being a parent."""

    OPTIONS: Mapping[str, Any] = {**OPTIONS, "tournament": 2}

    def __init__(self, context: Context) -> None:
        self.context = context
        self.population: list[Individual] = []
        self._crowding = Crowding()
        self._standings: list[Standing] | None = None

    def ask(self, n: int) -> list[Proposal]:
        """Fresh programs for the first population, then children."""
        return [self._proposal() for _ in range(n)]

    def _proposal(self) -> Proposal:
        context = self.context
        if context.number < context.population or not self.population:
            return first(context)
        number, rng = context.next()
        return bred(
            context,
            number,
            rng,
            self._parents(number),
            generation=number // context.population,
            crossover=context.options["crossover"],
            mutation=context.options["mutation"],
        )

    def tell(self, individuals: Sequence[Individual]) -> None:
        """Let parents and children compete."""
        if individuals:
            merged = distinct([*self.population, *individuals])
            draw = generator(self.context, individuals[-1].id, "survival")
            self._take(survivors(merged, self.context.population, draw, self._crowding))

    def state(self) -> dict[str, Any]:
        return {"population": [individual.id for individual in self.population]}

    def restore(self, state: Mapping[str, Any]) -> None:
        self._take([self.context.individuals[id] for id in state["population"]])

    def _take(self, population: list[Individual]) -> None:
        self.population, self._standings = population, None

    def _parents(self, number: int) -> list[Individual]:
        if self._standings is None:  # those among the survivors: a restored state has the same
            self._standings = standings(self.population, self._crowding)
        pressure = max(1, min(self.context.options["tournament"], len(self.population)))
        selection = TournamentSelection(func_comp=_winners, pressure=pressure)
        draw = generator(self.context, number, "parents")
        known = self._standings
        chosen = selection.do(None, known, 1, n_parents=2, to_pop=False, random_state=draw)
        return [self.population[int(place)] for place in chosen[0]]


def generator(context: Context, number: int, purpose: str) -> np.random.Generator:
    """numpy's generator for a number and a purpose."""
    return np.random.default_rng(context.generator(number, purpose).getrandbits(64))


class Crowding:
    """Distances to the neighbours in a front, those of fronts that stay from one population to the
    next remembered: a single result changes few of them."""

    def __init__(self) -> None:
        self._distance = get_crowding_function("cd")
        self._known: dict[bytes, list[float]] = {}

    def of(self, fronts: Sequence[NDArray[np.float64]]) -> list[list[float]]:
        """The distances of each point in each front, points by objectives."""
        before, self._known = self._known, {}
        found = []
        for front in fronts:
            key = front.tobytes()
            apart = before.get(key)
            if apart is None:
                apart = [float(d) for d in self._distance.do(front)]
            self._known[key] = apart
            found.append(apart)
        return found


def standings(
    individuals: Sequence[Individual], crowding: Crowding | None = None
) -> list[Standing]:
    """How individuals stand among each other: those that miss a constraint by what they miss it by,
    the others by rank, then by the distance to their neighbours in the front."""
    found: list[Standing] = [(max(0.0, one.violation), 0, 0.0) for one in individuals]
    feasible = [place for place, standing in enumerate(found) if not standing[0]]
    if not feasible:
        return found
    values = np.array([individuals[place].objectives for place in feasible])
    fronts = NonDominatedSorting().do(values)
    distances = (crowding or Crowding()).of([values[front] for front in fronts])
    for rank, (front, apart) in enumerate(zip(fronts, distances, strict=True)):
        for place, distance in zip(front.tolist(), apart, strict=True):
            found[feasible[place]] = 0.0, rank, -distance
    return found


def survivors(
    individuals: Sequence[Individual],
    count: int,
    draw: np.random.Generator,
    crowding: Crowding | None = None,
) -> list[Individual]:
    """The best by constrained rank and crowding, in their order; `draw` decides between equals."""
    if len(individuals) <= count:
        return list(individuals)
    lots = draw.random(len(individuals)).tolist()
    keys = list(zip(standings(individuals, crowding), lots, strict=True))
    best = sorted(range(len(individuals)), key=keys.__getitem__)[:count]
    return [individuals[place] for place in sorted(best)]


def _winners(
    known: Sequence[Standing],
    groups: NDArray[np.int64],
    random_state: np.random.Generator,
    **_: Any,
) -> NDArray[np.int64]:
    """Of each group of places the one that stands best, between equals by lot."""
    found = []
    for group in groups:
        lots = random_state.random(len(group))
        keys = [(known[place], lot) for place, lot in zip(group, lots, strict=True)]
        found.append(group[min(range(len(keys)), key=keys.__getitem__)])
    return np.array(found)
