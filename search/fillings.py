"""Fillings of a space as lists of decisions, and as points of a box of reals.

A filling is decided hole by hole, in the order of the text; decision k takes one of so many
options. As reals, coordinate x in [0, 1) takes option floor(x * options): random keys (Bean 1994,
doi 10.1287/ijoc.6.2.154). A hole inside an option is asked only where that option was taken, so
that later coordinates may then decide another hole; coordinates that nothing asks for are not read.

Owns: decisions and back. Refuses: filling (space.py), and whether a filling verifies.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from starc.grammar import nodes
from starc.grammar.printer import format_program
from starc.search.space import Space, every, fill


@dataclass(frozen=True)
class Filling:
    """A filled space: the option taken at each decision, how many there were, the program."""

    decisions: tuple[int, ...]
    options: tuple[int, ...]
    program: nodes.Program

    @property
    def text(self) -> str:
        return format_program(self.program)

    @property
    def point(self) -> list[float]:
        """The middle of its cell in [0, 1)^n."""
        return [(d + 0.5) / n for d, n in zip(self.decisions, self.options, strict=True)]


def filling(space: Space, take: Callable[[int, int], int]) -> Filling:
    """The filling where decision k of n options takes `take(k, n)`, in 0 .. n - 1."""
    decisions: list[int] = []
    options: list[int] = []

    def choose(n: int) -> int:
        decisions.append(take(len(decisions), n))
        options.append(n)
        return decisions[-1]

    program = fill(space, choose)
    return Filling(tuple(decisions), tuple(options), program)


def drawn(space: Space, rng: random.Random) -> Filling:
    """A random filling, each option of a hole as likely as the others."""
    return filling(space, lambda k, n: rng.randrange(n))


def decided(space: Space, decisions: Sequence[int]) -> Filling:
    """The filling of a list of decisions; those that are missing take the first option."""
    return filling(space, lambda k, n: decisions[k] % n if k < len(decisions) else 0)


def at(space: Space, point: Sequence[float]) -> Filling:
    """The filling at a point; coordinates outside [0, 1) are clipped, missing ones are 0."""
    return filling(
        space, lambda k, n: min(max(int(point[k] * n), 0), n - 1) if k < len(point) else 0
    )


def find(space: Space, program: nodes.Program) -> Filling | None:
    """The filling that a program is, None where it is none: at every decision the option with which
    trees agree longest, read in the order of the text."""
    words = _words(program)
    decisions: list[int] = []
    while True:
        now = decided(space, decisions)
        if len(now.decisions) == len(decisions):
            return now if _words(now.program) == words else None
        options = range(now.options[len(decisions)])
        tries = [_words(decided(space, [*decisions, option]).program) for option in options]
        alike = [_alike(found, words) for found in tries]
        decisions.append(alike.index(max(alike)))


def _words(program: nodes.Program) -> list[object]:
    """What the nodes of a program say, one by one."""
    return [
        (type(node), *(v for v in map(vars(node).get, _SAYING) if isinstance(v, str | tuple)))
        for declaration in program.declarations
        for node in every(declaration)
    ]


_SAYING = ("function", "name", "label", "mode", "text", "unit", "operator", "path", "names", "kind")


def _alike(a: Sequence[object], b: Sequence[object]) -> int:
    """How many words two programs begin with alike."""
    pairs = enumerate(zip(a, b, strict=False))
    return next((i for i, (x, y) in pairs if x != y), min(len(a), len(b)))
