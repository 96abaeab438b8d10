"""Successive halving over training tokens (arXiv 1502.07943) with several objectives.

A bracket begins with a population of programs on the lowest rung; the best share of them, by
constrained non-dominated rank and then crowding, goes on to the next rung, from the checkpoint that
it has there, and so on to the full budget. Then the next bracket begins.

Owns: brackets and promotion. Refuses: training from a checkpoint (the evaluator does).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from starc.grammar.errors import Diagnostic, StarError
from starc.search.algorithms import Context, Individual, Proposal
from starc.search.algorithms.breeding import OPTIONS, bred, first
from starc.search.algorithms.nsga2 import generator, survivors
from starc.search.objectives import FAILED


class Halving:
    """One in `eta` is promoted. `breed` is the share of a bracket's programs that are children of
    the best of those before, each of the highest rung that any reached; the rest are fresh."""

    OPTIONS: Mapping[str, Any] = {**OPTIONS, "eta": 3, "breed": 0.5}

    def __init__(self, context: Context) -> None:
        self.context = context
        if context.last_rung < 1:
            raise StarError(
                Diagnostic(
                    "too-few-rungs",
                    "successive halving needs an evaluator with at least two rungs.",
                    hint="--evaluator lm,rungs=3",
                )
            )
        if context.options["eta"] < 2:
            raise StarError(Diagnostic("bad-algorithm-option", "'eta' of halving is at least 2."))
        self.bracket = self.rung = 0
        self.left = self.size = context.population
        self.queue: list[int] = []
        self.done: list[int] = []
        self.best: list[Individual] = []

    def ask(self, n: int) -> list[Proposal]:
        """New programs on the lowest rung, promotions on the others."""
        made: list[Proposal] = []
        while self.left and len(made) < n:
            self.left -= 1
            made.append(self._promoted() if self.rung else self._new())
        return made

    def _new(self) -> Proposal:
        context = self.context
        breeding = context.generator(context.number, "breed").random() < context.options["breed"]
        if not self.best or not breeding:
            return first(context, generation=self.bracket, rung=0)
        number, rng = context.next()
        return bred(
            context,
            number,
            rng,
            [self.best[rng.randrange(len(self.best))] for _ in range(2)],
            generation=self.bracket,
            crossover=context.options["crossover"],
            mutation=context.options["mutation"],
            rung=0,
        )

    def _promoted(self) -> Proposal:
        return promoted(self.context, self.queue.pop(0), self.bracket, self.rung)

    def tell(self, individuals: Sequence[Individual]) -> None:
        """When a rung is full, promote its best, or begin the next bracket."""
        self.done += [individual.id for individual in individuals]
        if len(self.done) < self.size:
            return
        told = [self.context.individuals[id] for id in self.done]
        alive = [individual for individual in told if individual.violation < FAILED]
        count = max(1, self.size // self.context.options["eta"])
        draw = generator(self.context, self.done[-1], "survival")
        chosen = survivors(alive, count, draw)
        if self.rung == self.context.last_rung or not chosen:
            self.best = self._best([*self.best, *alive])
            self.bracket, self.rung, self.queue = self.bracket + 1, 0, []
            self.left = self.size = self.context.population
        else:
            self.rung, self.queue = self.rung + 1, [individual.id for individual in chosen]
            self.left = self.size = len(chosen)
        self.done = []

    def _best(self, individuals: list[Individual]) -> list[Individual]:
        """The best on the highest rung there is, half a population at most."""
        top = max((individual.rung for individual in individuals), default=0)
        left = [individual for individual in individuals if individual.rung == top]
        draw = generator(self.context, self.done[-1], "best")
        return survivors(left, max(2, self.context.population // 2), draw)

    def state(self) -> dict[str, Any]:
        return {
            "bracket": self.bracket,
            "rung": self.rung,
            "left": self.left,
            "size": self.size,
            "queue": list(self.queue),
            "done": list(self.done),
            "best": [individual.id for individual in self.best],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        self.bracket, self.rung = state["bracket"], state["rung"]
        self.left, self.size = state["left"], state["size"]
        self.queue, self.done = list(state["queue"]), list(state["done"])
        self.best = [self.context.individuals[id] for id in state["best"]]


def promoted(context: Context, id: int, generation: int, rung: int) -> Proposal:
    """The program of an individual once more, on a higher rung."""
    number, _ = context.next()
    program = context.variation.check(context.individuals[id].text)
    return Proposal(number, program, (id,), "promote", "", generation, rung)
