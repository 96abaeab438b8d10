"""A genetic algorithm on a weighted sum of the objectives, with elites.

Owns: the population. Refuses: several objectives at once (nsga2.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from starc.search.algorithms import Context, Individual, Proposal
from starc.search.algorithms.breeding import OPTIONS, bred, distinct, first
from starc.search.algorithms.scalar import WeightedSum


class Genetic:
    """`elite` is how many of a population live on beside its children; steady, the best of all do.
    `tournament` is how many compete for being a parent; `weights` such as "2:1" are those of the
    sum."""

    OPTIONS: Mapping[str, Any] = {**OPTIONS, "tournament": 2, "elite": 2, "weights": ""}

    def __init__(self, context: Context) -> None:
        self.context = context
        self.population: list[Individual] = []
        self.sum = WeightedSum(context.options["weights"], len(context.objectives))

    def ask(self, n: int) -> list[Proposal]:
        """Fresh programs for the first population, then children."""
        return [self._proposal() for _ in range(n)]

    def _proposal(self) -> Proposal:
        context = self.context
        if context.number < context.population or not self.population:
            return first(context)
        number, rng = context.next()
        count = max(1, min(context.options["tournament"], len(self.population)))
        parents = [min(rng.sample(self.population, count), key=self.sum.key) for _ in range(2)]
        return bred(
            context,
            number,
            rng,
            parents,
            generation=number // context.population,
            crossover=context.options["crossover"],
            mutation=context.options["mutation"],
        )

    def tell(self, individuals: Sequence[Individual]) -> None:
        """Children take the place of all but the elite."""
        self.sum.see(individuals)
        size = self.context.population
        kept = self.population
        if not self.context.steady:
            kept = sorted(kept, key=self.sum.key)[: self.context.options["elite"]]
        self.population = sorted(distinct([*kept, *individuals]), key=self.sum.key)[:size]

    def state(self) -> dict[str, Any]:
        return {"population": [individual.id for individual in self.population]}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.sum.see(self.context.individuals.values())
        self.population = [self.context.individuals[id] for id in state["population"]]
