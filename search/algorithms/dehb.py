"""DEHB (arXiv 2105.09821): differential evolution inside the rungs of Hyperband, for several
objectives.

A bracket begins on some rung and goes up to the full budget, with a share 1 / eta of the programs
on each next rung; brackets begin on the lowest rung, the next higher and so on by turns. Where a
rung has no population yet it gets the best of the rung below, from their checkpoints, or random
points. Where it has one, every member is challenged by a trial: a mutant a + F (b - c) of three
points, crossed with the member coordinate by coordinate (rand/1/bin); on a higher rung a, b, c are
of the best of the rung below, as the paper has it. A member that is dominated by its trial goes, as
does a trial by its member; of what is left the best by rank and crowding are the next population
(GDE3: Kukkonen and Lampinen 2005). One rung makes it plain differential evolution.

Points outside of the box are drawn back into it by reflection; how points are programs is said in
search/encoding.py. A mutant that does not verify is drawn again.

Owns: brackets, populations of points, trials. Refuses: what a point means.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

from starc.grammar.errors import Diagnostic, StarError
from starc.search.algorithms import Context, Individual, Proposal
from starc.search.algorithms.breeding import first
from starc.search.algorithms.halving import promoted
from starc.search.algorithms.nsga2 import generator, survivors
from starc.search.encoding import Encoding, Point
from starc.search.objectives import FAILED
from starc.search.variation import Program

_LEAST = 4
"""So many points a mutant and its member are made of."""

_REDRAWS = 30


class Dehb:
    """`factor` is F, `crossover` the probability that a coordinate is the mutant's."""

    OPTIONS: Mapping[str, Any] = {"eta": 3, "factor": 0.5, "crossover": 0.5}

    def __init__(self, context: Context) -> None:
        self.context, self.encoding = context, Encoding(context.variation)
        if context.options["eta"] < 2:
            raise StarError(Diagnostic("bad-algorithm-option", "'eta' of dehb is at least 2."))
        self.points: dict[int, Point] = {}
        self.populations: list[list[int]] = [[] for _ in context.share]
        self.bracket = self.rung = 0
        self.plan: list[int] = []
        self.asked: list[int] = []
        self.done: list[int] = []
        self._begin(0)

    # --- the order of rungs ----------------------------------------------------------------------

    def _size(self, rung: int) -> int:
        """Points on a rung: fewer by eta on each higher one."""
        share: int = self.context.options["eta"] ** rung
        return max(_LEAST, self.context.population // share)

    def _begin(self, rung: int) -> None:
        """Plan the trials of a rung: the members that are challenged (or promoted, or -1 for a new
        point)."""
        self.rung, self.asked, self.done = rung, [], []
        own = self.populations[rung]
        if own:
            self.plan = list(own)
        elif rung and self.populations[rung - 1]:
            self.plan = self._elite(rung - 1, self._size(rung))
        else:
            self.plan = [-1] * self._size(rung)

    def _elite(self, rung: int, count: int) -> list[int]:
        """The best of a rung's population."""
        members = [self.context.individuals[id] for id in self.populations[rung]]
        draw = generator(self.context, self.context.number, f"elite {rung}")
        return [one.id for one in survivors(members, count, draw)]

    def ask(self, n: int) -> list[Proposal]:
        """What is left of the rung at hand."""
        made: list[Proposal] = []
        while len(self.asked) < len(self.plan) and len(made) < n:
            made.append(self._proposal(self.plan[len(self.asked)]))
            self.asked.append(made[-1].number)
        return made

    def tell(self, individuals: Sequence[Individual]) -> None:
        """When the rung is full, let members and trials compete and go on to the next."""
        self.done += [individual.id for individual in individuals]
        if len(self.done) < len(self.plan):
            return
        known = self.context.individuals
        kept = [id for id in self.asked if known[id].violation < FAILED]
        if self.populations[self.rung]:
            kept = []
            for member, trial in zip(self.plan, self.asked, strict=True):
                if not _better(known[trial], known[member]):
                    kept.append(member)
                if not _better(known[member], known[trial]):
                    kept.append(trial)
        draw = generator(self.context, self.done[-1], "survival")
        size = self._size(self.rung)
        left = list(dict.fromkeys(kept))
        self.populations[self.rung] = [
            one.id for one in survivors([known[id] for id in left], size, draw)
        ]
        if self.rung < self.context.last_rung:
            self._begin(self.rung + 1)
        else:
            self.bracket += 1
            self._begin(self.bracket % len(self.populations))
        needed = {*self.plan, *(id for ids in self.populations for id in ids)}
        self.points = {id: point for id, point in self.points.items() if id in needed}

    # --- trials ----------------------------------------------------------------------------------

    def _proposal(self, member: int) -> Proposal:
        context = self.context
        if member >= 0 and not self.populations[self.rung]:
            made = promoted(context, member, self.bracket, self.rung)
            self.points[made.number] = self.points[member]
            return made
        starts = len(context.variation.seeds) + (context.variation.origin is not None)
        if member < 0 and context.number < starts:
            seed = first(context, generation=self.bracket, rung=self.rung)
            point = self.encoding.point(seed.program.text)
            self.points[seed.number] = point or [0.5] * self.encoding.size
            return seed
        number, rng = context.next()
        point, program = self._new(member, rng)
        self.points[number] = point
        context.identities.setdefault(program.identity, number)
        parents = () if member < 0 else (member,)
        operation = "draw" if member < 0 else "differential"
        return Proposal(number, program, parents, operation, "", self.bracket, self.rung)

    def _new(self, member: int, rng: random.Random) -> tuple[Point, Program]:
        """A trial of a member, or a random point: the first that is a new program."""
        found: tuple[Point, Program] | None = None
        for nth in range(2 * _REDRAWS):
            around = member >= 0 and nth < _REDRAWS  # else nothing new lies there
            point = self._trial(member, rng) if around else self._random(rng)
            program = self.encoding.program(point)
            if program is None:
                continue
            if program.identity not in self.context.identities:
                return point, program
            found = found or (point, program)
        if found is None:
            program = self.context.variation.fresh(rng).program
            found = self.encoding.point(program.text) or self._random(rng), program
        return found

    def _random(self, rng: random.Random) -> Point:
        return [rng.random() for _ in range(self.encoding.size)]

    def _trial(self, member: int, rng: random.Random) -> Point:
        """rand/1/bin."""
        options = self.context.options
        below = self.populations[self.rung - 1] if self.rung else []
        pool = self._elite(self.rung - 1, self._size(self.rung)) if len(below) >= _LEAST else []
        pool = [id for id in pool or self.populations[self.rung] if id != member]
        vectors = [self.points[id] for id in pool]
        vectors += [self._random(rng) for _ in range(3 - len(vectors))]
        a, b, c = rng.sample(vectors, 3)
        own = self.points[member]
        certain = rng.randrange(len(own)) if own else 0
        return [
            (
                _within(a[k] + options["factor"] * (b[k] - c[k]))
                if k == certain or rng.random() < options["crossover"]
                else own[k]
            )
            for k in range(min(map(len, (a, b, c, own))))
        ]

    # --- state -----------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        return {
            "bracket": self.bracket,
            "rung": self.rung,
            "plan": list(self.plan),
            "asked": list(self.asked),
            "done": list(self.done),
            "populations": [list(ids) for ids in self.populations],
            "points": {str(id): point for id, point in self.points.items()},
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        self.bracket, self.rung = state["bracket"], state["rung"]
        self.plan, self.asked = list(state["plan"]), list(state["asked"])
        self.done = list(state["done"])
        self.populations = [list(ids) for ids in state["populations"]]
        self.points = {int(id): list(point) for id, point in state["points"].items()}


def _better(one: Individual, other: Individual) -> bool:
    """Constrained dominance (Deb et al. 2002)."""
    if max(one.violation, other.violation) > 0:
        return one.violation < other.violation
    pairs = list(zip(one.objectives, other.objectives, strict=True))
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)


def _within(x: float) -> float:
    """Reflected into [0, 1)."""
    x = abs(x) % 2.0
    return min(2.0 - x if x >= 1.0 else x, 1.0 - 1e-9)
