"""Mutation of programs: random changes on three levels, verified.

    change = mutate(program, random.Random(0))
    print(format_program(change.program))

Owns: which operation is drawn, drawing again, and what is reported. Refuses: the operations
(`backbone`, `operators`, `featurizers`) and repair (`repair`).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from starc.compiler.options import Options
from starc.grammar import nodes
from starc.grammar.errors import Diagnostic, StarError
from starc.grammar.parser import parse
from starc.grammar.source import Source
from starc.search.backbone import BACKBONE
from starc.search.featurizers import FEATURIZER
from starc.search.operators import OPERATOR
from starc.search.pool import Pool, pool_of_program, pool_of_space
from starc.search.repair import Rejected, Repairs, mend
from starc.search.sampling import draw
from starc.search.site import Bounds, Operation, Site
from starc.search.space import open_space, undecided
from starc.search.verifying import Checked, Verifier

OPERATIONS: tuple[Operation, ...] = (*BACKBONE, *OPERATOR, *FEATURIZER)
LEVELS = ("backbone", "operator", "featurizer")
PATIENCE = 1000
"""So many draws in a row that come to nothing, and mutating stops."""


@dataclass(frozen=True)
class Mutation:
    """A mutated program, verified: which operation made it, and what that took.

    `repairs` are those of the program, `rejected` the draws before it as (operation, reason).
    """

    checked: Checked
    name: str
    level: str
    repairs: tuple[str, ...]
    rejected: tuple[tuple[str, str], ...]

    @property
    def program(self) -> nodes.Program:
        return self.checked.program


class Mutator:
    """Mutates programs of one space or family, faster than one by one.

    `repairs` counts the outcomes of all draws.
    """

    def __init__(
        self,
        pool: Pool | None = None,
        *,
        verifier: Verifier | None = None,
        bounds: Bounds | None = None,
        constrained: bool = True,
        operations: Sequence[Operation] = OPERATIONS,
    ) -> None:
        self.pool, self.bounds = pool, bounds or Bounds()
        self.verifier = verifier or Verifier()
        self.constrained = constrained
        self.operations = tuple(operations)
        self.repairs = Repairs()
        self._levels: dict[str | None, tuple[list[Operation], list[int]]] = {}

    def mutate(
        self, program: nodes.Program, rng: random.Random, *, level: str | None = None
    ) -> Mutation:
        """A changed program that verifies and means another architecture.

        The settings but `residual` stay. The same program and state of `rng` give the same result.
        Raises StarError for a program that is faulty or has holes, and when PATIENCE draws fail.
        """
        checked = self._checked(program)
        pool = self.pool or pool_of_program(checked, self.verifier)
        site = Site(checked, pool, self.bounds, rng, self.verifier, self.constrained)
        operations, weights = self._drawn_from(level)
        mode = "constrained" if self.constrained else "unconstrained"
        rejected: list[tuple[str, str]] = []
        for _ in range(PATIENCE):
            operation = rng.choices(operations, cum_weights=weights)[0]
            try:
                made = self._draw(operation, site)
            except Rejected as reason:
                self.repairs.reject(mode, operation.level, operation.name, reason)
                rejected.append((operation.name, str(reason)))
                continue
            if made is None:
                continue
            result, repairs = made
            self.repairs.accept(mode, operation.level, operation.name, repairs)
            return Mutation(
                result, operation.name, operation.level, tuple(repairs), tuple(rejected)
            )
        raise StarError(
            Diagnostic(
                "no-valid-mutation",
                f"none of {PATIENCE:,} random changes of this program is one that verifies.",
                hint="allow other levels, or more units.",
            )
        )

    def _drawn_from(self, level: str | None) -> tuple[list[Operation], list[int]]:
        """The operations of a level, and the sums of their weights so far."""
        if level not in self._levels:
            operations = [o for o in self.operations if level in (None, o.level)]
            self._levels[level] = operations, list(accumulate(o.weight for o in operations))
        return self._levels[level]

    def _draw(self, operation: Operation, site: Site) -> tuple[Checked, list[str]] | None:
        draft = operation.draw(site)
        if draft is None:
            return None
        most = max(self.bounds.units, site.checked.units)
        result = mend(draft, site.checked, self.verifier, most=most, repair=not self.constrained)
        if result[0].identity == site.checked.identity:
            raise Rejected("unchanged")
        return result

    def _checked(self, program: nodes.Program) -> Checked:
        if known := self.verifier.known(program):
            return known
        for declaration in program.declarations:
            if undecided(declaration):
                raise StarError(
                    Diagnostic(
                        "hole-left",
                        "a program with holes is a space: nothing of it can be mutated yet.",
                        declaration.span,
                        hint="starc sample fills the holes.",
                    )
                )
        return self.verifier.check(program)


def mutate(
    program: nodes.Program,
    rng: random.Random,
    *,
    pool: Pool | None = None,
    level: str | None = None,
    bounds: Bounds | None = None,
    constrained: bool = True,
) -> Mutation:
    """One mutation of a program; see Mutator."""
    mutator = Mutator(pool, bounds=bounds, constrained=constrained)
    return mutator.mutate(program, rng, level=level)


def opened(
    source: Source, options: Options, rng: random.Random
) -> tuple[nodes.Program, Pool, Verifier]:
    """The program of one model to mutate, what may be put into it, and what verifies it.

    Of a space that is a random filling, and the units of its holes. Raises StarError for a faulty
    program.
    """
    verifier = Verifier(options.limits)
    space = open_space(source, options)
    if not space.holes:
        program = nodes.Program((*space.others, space.model), source)
        checked = verifier.check(program)
        return program, pool_of_program(checked, verifier), verifier
    drawn = parse(Source(source.name, draw(space, rng, options.limits).text))
    return drawn, pool_of_space(space, verifier.check(drawn), verifier), verifier
