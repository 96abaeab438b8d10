"""Search algorithms: which programs to evaluate next, from what came of those before.

A new algorithm is one module with a class like the ones here, and one entry in ALGORITHMS. It is
made with a `Context` and then only asked and told, by the driver:

    ask(n)               at most n proposals, each begun by `context.next()`; none while it waits
                         for results, or for good when it has none outstanding
    tell(individuals)    what came of proposals, in the order of their numbers, each once
    state(), restore()   everything but the proposals and individuals, as small JSON
    notes()              optional: what there is to say since the last time, for people

All that happens must follow from the order of these calls, the state, `context.individuals` and the
generators that come with the numbers of proposals: that is what makes a resumed search go on as if
it had never been cut.

Owns: these interfaces, and finding algorithms by name. Refuses: evaluating, and the store.
"""

from __future__ import annotations

import importlib
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from starc.grammar.errors import Diagnostic, StarError, suggest
from starc.search.objectives import Objective
from starc.search.variation import Program, Variation


@dataclass(frozen=True)
class Proposal:
    """A program to be evaluated on a rung. `parents` are numbers of earlier proposals.

    `operation` says what made it ("draw", "seed", "crossover: backbone", "insert", "promote", ...)
    and `level` which of the three levels changed, if one did; `repairs` what its making took.
    """

    number: int
    program: Program
    parents: tuple[int, ...] = ()
    operation: str = "draw"
    level: str = ""
    generation: int = 0
    rung: int = 0
    repairs: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Individual:
    """What came of a proposal; `id` is its number.

    `objectives` are to be made small, and finite; with `violation` above 0 a constraint is missed
    or the evaluation failed (`status`), and such a one is worse than any without.
    """

    id: int
    text: str
    identity: str
    figures: Mapping[str, float]
    objectives: tuple[float, ...]
    violation: float
    rung: int
    generation: int
    parents: tuple[int, ...]
    status: str = "done"


@dataclass
class Context:
    """What an algorithm may know and use.

    `share` is what an evaluation on each rung costs, of a full one, were it made from nothing.
    `individuals` are all that were told, by id; `identities` all that were proposed, by identity.
    `evaluations` is the budget in full evaluations, and `generations` that in batches of
    `population`: one of them is None.
    """

    variation: Variation
    objectives: tuple[Objective, ...]
    population: int
    seed: int
    generations: int | None = None
    evaluations: float | None = None
    share: tuple[float, ...] = (1.0,)
    steady: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)
    individuals: dict[int, Individual] = field(default_factory=dict)
    identities: dict[str, int] = field(default_factory=dict)
    number: int = 0

    @property
    def last_rung(self) -> int:
        """The full budget."""
        return len(self.share) - 1

    def next(self) -> tuple[int, random.Random]:
        """The number of the next proposal, and all the randomness for it."""
        number, self.number = self.number, self.number + 1
        return number, self.generator(number)

    def generator(self, number: int, purpose: str = "") -> random.Random:
        """The randomness of a proposal, or what else is drawn when it is told."""
        return random.Random(f"{self.seed}:{number}:{purpose}")


class Algorithm(Protocol):
    """See the module. `OPTIONS` are the names and defaults of what it takes from
    `context.options`. A larger budget leads on from where a smaller one ended."""

    OPTIONS: Mapping[str, Any]

    def ask(self, n: int) -> list[Proposal]: ...

    def tell(self, individuals: Sequence[Individual]) -> None: ...

    def state(self) -> dict[str, Any]: ...

    def restore(self, state: Mapping[str, Any]) -> None: ...


ALGORITHMS = {
    "nsga2": "starc.search.algorithms.nsga2:Nsga2",
    "random": "starc.search.algorithms.random_search:RandomSearch",
    "evolution": "starc.search.algorithms.evolution:Evolution",
    "ga": "starc.search.algorithms.ga:Genetic",
    "halving": "starc.search.algorithms.halving:Halving",
    "dehb": "starc.search.algorithms.dehb:Dehb",
    "surrogate": "starc.search.algorithms.surrogate:Surrogate",
}
"""Classes by name, loaded when asked for."""


def find_algorithm(name: str) -> Any:
    """The class of that name; raises StarError when there is none."""
    if name not in ALGORITHMS:
        raise StarError(
            Diagnostic(
                "unknown-algorithm",
                f"there is no algorithm '{name}'.",
                hint=suggest(name, ALGORITHMS) or f"there are {', '.join(ALGORITHMS)}.",
            )
        )
    module, _, kind = ALGORITHMS[name].partition(":")
    return getattr(importlib.import_module(module), kind)


def make_algorithm(name: str, context: Context) -> Algorithm:
    """The algorithm of that name, with the options it knows at their defaults.

    Raises StarError for unknown names and for options that it does not have or that are of another
    type.
    """
    kind = find_algorithm(name)
    options = dict(kind.OPTIONS)
    for option, value in context.options.items():
        if option not in options:
            known = ", ".join(options) or "none"
            raise StarError(
                Diagnostic(
                    "unknown-algorithm-option",
                    f"the algorithm '{name}' has no option '{option}'.",
                    hint=suggest(option, options) or f"it has {known}.",
                )
            )
        default = options[option]
        if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if type(value) is not type(default):
            raise StarError(
                Diagnostic(
                    "bad-algorithm-option",
                    f"the option '{option}' of '{name}' cannot be {value!r}.",
                    hint=f"its default is {default!r}.",
                )
            )
        options[option] = value
    if "stages" in options:
        from starc.search.algorithms.breeding import stages

        stages(options["stages"])  # refused before the search begins
    context.options = options
    algorithm: Algorithm = kind(context)
    return algorithm
