"""NSGA-II (Deb et al. 2002), with pymoo's sorting, crowding, survival and tournaments.

Parents are chosen by constrained tournaments; parents and children compete for the next population
by rank, then crowding. Steady, every single result competes with the population.

Owns: the population. Refuses: pymoo's loop, whose individuals change under one's hands.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pymoo.core.individual import Individual as Solution
from pymoo.core.population import Population
from pymoo.operators.selection.tournament import TournamentSelection
from pymoo.operators.survival.rank_and_crowding import RankAndCrowding

from starc.search.algorithms import Context, Individual, Proposal
from starc.search.algorithms.breeding import OPTIONS, bred, distinct, first

_CONSTRAINED = SimpleNamespace(has_constraints=lambda: True)
"""All that pymoo's survival asks of a problem."""


class Nsga2:
    """`tournament` is how many compete for being a parent."""

    OPTIONS: Mapping[str, Any] = {**OPTIONS, "tournament": 2}
    open_ended = True

    def __init__(self, context: Context) -> None:
        self.context = context
        self.population: list[Individual] = []
        self._pool: Population | None = None

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
            self._take(survivors(merged, self.context.population, draw))

    def state(self) -> dict[str, Any]:
        return {"population": [individual.id for individual in self.population]}

    def restore(self, state: Mapping[str, Any]) -> None:
        self._take([self.context.individuals[id] for id in state["population"]])

    def _take(self, population: list[Individual]) -> None:
        # Rank and crowding are those within the survivors, so that a restored state has the same.
        self.population, self._pool = population, ranked(population)

    def _parents(self, number: int) -> list[Individual]:
        pressure = min(self.context.options["tournament"], len(self.population))
        selection = TournamentSelection(func_comp=_winners, pressure=max(1, pressure))
        draw = generator(self.context, number, "parents")
        chosen = selection.do(None, self._pool, 1, n_parents=2, to_pop=False, random_state=draw)
        return [self.population[int(place)] for place in chosen[0]]


def generator(context: Context, number: int, purpose: str) -> np.random.Generator:
    """numpy's generator for a number and a purpose."""
    return np.random.default_rng(context.generator(number, purpose).getrandbits(64))


def ranked(individuals: Sequence[Individual]) -> Population:
    """Individuals as pymoo's, in this order, with `rank` and `crowding` set on the feasible."""
    solutions = Population.create(*[_solution(individual) for individual in individuals])
    if len(solutions):
        RankAndCrowding().do(_CONSTRAINED, solutions, random_state=np.random.default_rng(0))
    return solutions


def survivors(
    individuals: Sequence[Individual], count: int, draw: np.random.Generator
) -> list[Individual]:
    """The best by constrained rank and crowding, in their order; `draw` decides between equals."""
    if len(individuals) <= count:
        return list(individuals)
    solutions = Population.create(*[_solution(individual) for individual in individuals])
    kept = RankAndCrowding().do(_CONSTRAINED, solutions, n_survive=count, random_state=draw)
    places = {id(solution): place for place, solution in enumerate(solutions)}
    return [individuals[place] for place in sorted(places[id(solution)] for solution in kept)]


def _solution(individual: Individual) -> Solution:
    solution = Solution(
        F=np.array(individual.objectives), G=np.array([individual.violation]), H=np.array([])
    )
    solution.set("rank", 10**6)
    solution.set("crowding", 0.0)
    return solution


def _winners(
    pool: Population, groups: NDArray[np.int64], random_state: np.random.Generator, **_: Any
) -> NDArray[np.int64]:
    """Of each group of places the best: least violation, then rank, then crowding, then by lot."""
    found = []
    for group in groups:
        lots = random_state.random(len(group))
        keys = [
            (max(0.0, float(pool[i].G[0])), pool[i].get("rank"), -pool[i].get("crowding"), lot)
            for i, lot in zip(group, lots, strict=True)
        ]
        found.append(group[min(range(len(keys)), key=keys.__getitem__)])
    return np.array(found)
