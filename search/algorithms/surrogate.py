"""NSGA-II whose children are chosen by a predictor before any is trained.

Of each generation's many children, those are proposed that would survive among the population if
the predictor were right; it is refitted for every generation on all that was evaluated. Objectives
that need no training are not predicted. In the manner of NSGA-Net V2 (arXiv 2007.10396).

Owns: screening. Refuses: the population (nsga2.py), the regressor (predictor.py).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from scipy.stats import spearmanr

from starc.search.algorithms import Context, Individual, Proposal
from starc.search.algorithms.breeding import bred, first
from starc.search.algorithms.nsga2 import Nsga2, standings
from starc.search.features import features
from starc.search.predictor import Predictor, fit
from starc.search.variation import Program


class Surrogate(Nsga2):
    """`candidates` children are made for each that is proposed; the share `explore` of a
    generation's proposals is taken from them blindly. `least` examples come before the first
    prediction."""

    OPTIONS: Mapping[str, Any] = {**Nsga2.OPTIONS, "candidates": 10, "explore": 0.1, "least": 12}

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.guesses: dict[int, tuple[float, ...]] = {}
        self.lines: list[str] = []
        self._known: dict[str, Mapping[str, float]] = {}
        self._fitted: tuple[int, list[Predictor | None]] | None = None

    def ask(self, n: int) -> list[Proposal]:
        """Fresh programs for the first population, then the most promising children."""
        context = self.context
        made: list[Proposal] = []
        while len(made) < n and (context.number < context.population or not self.population):
            made.append(first(context))
        wanted = n - len(made)
        if not wanted:
            return made
        predictors = self._predictors()
        if predictors is None:
            return made + [self._proposal() for _ in range(wanted)]
        return made + self._screened(wanted, predictors)

    def tell(self, individuals: Sequence[Individual]) -> None:
        """Compare with what was predicted, then as NSGA-II."""
        self._compare([one for one in individuals if one.violation <= 0])
        super().tell(individuals)

    def notes(self) -> list[str]:
        """What there is to say since the last time: how well the newest were predicted."""
        said, self.lines = self.lines, []
        return said

    def state(self) -> dict[str, Any]:
        guesses = {str(id): list(guess) for id, guess in self.guesses.items()}
        return {**super().state(), "guesses": guesses}

    def restore(self, state: Mapping[str, Any]) -> None:
        super().restore(state)
        self.guesses = {int(id): tuple(guess) for id, guess in state["guesses"].items()}

    # --- screening -------------------------------------------------------------------------------

    def _screened(self, wanted: int, predictors: Sequence[Predictor | None]) -> list[Proposal]:
        """Proposals, numbered in the order in which their children were made."""
        context, options = self.context, self.context.options
        number, before = context.number, dict(context.identities)
        children = [
            bred(
                context,
                number,
                context.generator(number, f"candidate {nth}"),
                self._parents(number, nth),
                generation=number // context.population,
                crossover=options["crossover"],
                mutation=options["mutation"],
            )
            for nth in range(max(1, options["candidates"]) * wanted)
        ]
        context.identities.clear()  # only what is proposed counts as known
        context.identities.update(before)
        new = [child for child in children if child.program.identity not in before]
        children = new if len(new) >= wanted else children
        guesses = self._guessed([child.program for child in children], predictors)
        draw = context.generator(number, "explore")
        blind = sum(draw.random() < options["explore"] for _ in range(wanted))
        order = self._promising(children, guesses)
        chosen, rest = order[: wanted - blind], order[wanted - blind :]
        chosen += draw.sample(rest, blind)
        proposals = []
        for place in sorted(chosen):
            number, _ = context.next()
            proposals.append(replace(children[place], number=number))
            context.identities.setdefault(children[place].program.identity, number)
            self.guesses[number] = guesses[place]
        return proposals

    def _promising(
        self, children: Sequence[Proposal], guesses: Sequence[tuple[float, ...]]
    ) -> list[int]:
        """The places of children, best first by rank and then crowding beside the population."""
        imagined = [
            Individual(
                id=place,
                text=child.program.text,
                identity=child.program.identity,
                figures=child.program.figures,
                objectives=guess,
                violation=0.0,
                rung=child.rung,
                generation=child.generation,
                parents=child.parents,
            )
            for place, (child, guess) in enumerate(zip(children, guesses, strict=True))
        ]
        stands = standings([*self.population, *imagined])[len(self.population) :]
        return sorted(range(len(children)), key=lambda place: (stands[place], place))

    def _parents(self, number: int, nth: int = 0) -> list[Individual]:
        return super()._parents(number * 1000 + nth)

    # --- predicting ------------------------------------------------------------------------------

    def _predictors(self) -> list[Predictor | None] | None:
        """One for each objective that needs training; None while there are too few examples."""
        told = [
            one
            for one in self.context.individuals.values()
            if one.violation <= 0 and one.rung == self.context.last_rung
        ]
        told = list({one.identity: one for one in sorted(told, key=lambda one: one.id)}.values())
        if len(told) < max(2, self.context.options["least"]):
            return None
        if self._fitted is None or self._fitted[0] != len(told):
            examples = [self._features(one.text, one.identity) for one in told]
            found: list[Predictor | None] = [
                None if objective.static else fit(examples, [one.objectives[k] for one in told])
                for k, objective in enumerate(self.context.objectives)
            ]
            self._fitted = len(told), found
        return self._fitted[1]

    def _guessed(
        self, programs: Sequence[Program], predictors: Sequence[Predictor | None]
    ) -> list[tuple[float, ...]]:
        """Objectives of programs, those that are known and those that are predicted."""
        seen = [self._features(program.text, program.identity) for program in programs]
        columns = [
            (
                [objective.value(program.figures) for program in programs]
                if predictor is None
                else [float(value) for value in predictor.predict(seen)]
            )
            for objective, predictor in zip(self.context.objectives, predictors, strict=True)
        ]
        return [tuple(row) for row in zip(*columns, strict=True)]

    def _features(self, text: str, identity: str) -> Mapping[str, float]:
        if identity not in self._known:
            if len(self._known) > 20_000:
                self._known.clear()
            checked = self.context.variation.verified(text)
            figures = self.context.variation.program(checked).figures
            self._known[identity] = features(checked, figures)
        return self._known[identity]

    def _compare(self, told: Sequence[Individual]) -> None:
        pairs = [(one, self.guesses[one.id]) for one in told if one.id in self.guesses]
        for one in told:
            self.guesses.pop(one.id, None)
        for k, objective in enumerate(self.context.objectives):
            if objective.static or len(pairs) < 3:
                continue
            rank = float(
                spearmanr([g[k] for _, g in pairs], [one.objectives[k] for one, _ in pairs])[0]
            )
            said = "undefined" if math.isnan(rank) else f"{rank:.2f}"
            generation = pairs[-1][0].generation
            self.lines.append(
                f"generation {generation}: rank correlation of predicted {objective.name} "
                f"{said} over {len(pairs)} programs"
            )
