"""Regularised evolution (Real et al. 2018, arXiv 1802.01548): the oldest dies, not the worst.

Each child is a mutation of the best of a random sample of the population, by a weighted sum.

Owns: the queue. Refuses: crossover, which the paper has none of.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from starc.search.algorithms import Context, Individual, Proposal
from starc.search.algorithms.breeding import bred, first
from starc.search.algorithms.scalar import WeightedSum


class Evolution:
    """`sample` is how many compete for being the parent; `mutation` as for all that breed (0: one
    mutation a child, as in the paper)."""

    OPTIONS: Mapping[str, Any] = {"sample": 5, "mutation": 0.0, "weights": ""}

    def __init__(self, context: Context) -> None:
        self.context = context
        self.queue: list[Individual] = []
        self.sum = WeightedSum(context.options["weights"], len(context.objectives))

    def ask(self, n: int) -> list[Proposal]:
        """Fresh programs for the first population, then mutations."""
        return [self._proposal() for _ in range(n)]

    def _proposal(self) -> Proposal:
        context = self.context
        if context.number < context.population or not self.queue:
            return first(context)
        number, rng = context.next()
        count = max(1, min(context.options["sample"], len(self.queue)))
        parent = min(rng.sample(self.queue, count), key=self.sum.key)
        return bred(
            context,
            number,
            rng,
            [parent],
            generation=number // context.population,
            crossover=0.0,
            mutation=context.options["mutation"],
        )

    def tell(self, individuals: Sequence[Individual]) -> None:
        """The newest come in, the oldest go."""
        self.sum.see(individuals)
        self.queue = [*self.queue, *individuals][-self.context.population :]

    def state(self) -> dict[str, Any]:
        return {"queue": [individual.id for individual in self.queue]}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.sum.see(self.context.individuals.values())
        self.queue = [self.context.individuals[id] for id in state["queue"]]
