"""New programs for a search: drawn from its space, mutated, crossed; each verified and costed.

Every function follows from the texts of the parents and the generator alone, whatever was asked
before.

Owns: from texts to `Program`s. Refuses: choosing parents (the algorithms), and what operations do.
"""

from __future__ import annotations

import random
from collections import Counter, OrderedDict
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from starc.compiler import ir
from starc.compiler.cost import CostModel
from starc.compiler.holes import is_hole
from starc.compiler.options import Options
from starc.grammar import nodes
from starc.grammar.errors import Diagnostic, StarError
from starc.grammar.printer import format_program
from starc.grammar.source import Source
from starc.search.crossover import Crossing
from starc.search.mutate import Mutator
from starc.search.objectives import static_figures
from starc.search.pool import Pool, pool_of_program, pool_of_space
from starc.search.sampling import PATIENCE
from starc.search.site import Bounds
from starc.search.space import Space, every, open_space, sample
from starc.search.texts import text_of, tree_of
from starc.search.trees import Workshop
from starc.search.verifying import Checked, Verifier

STEPS = (1, 8)
"""So many mutations lie between a program without holes and a random program of its family."""

TREES = 2_048
"""So many programs are kept beside their texts."""

REDRAWS = 8
"""So often a child that was proposed before is changed again, before it is proposed twice."""


@dataclass(frozen=True)
class Program:
    """A verified program: its text, what it means (`Verifier.identity`), what its units are, and
    the figures that need no training."""

    text: str
    identity: str
    units: tuple[Mapping[str, Any], ...] = field(repr=False, default=())
    figures: Mapping[str, float] = field(repr=False, default_factory=dict)


@dataclass(frozen=True)
class Made:
    """A new program and how it came to be: the words of a Proposal."""

    program: Program
    operation: str
    level: str = ""
    repairs: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class _Changing:
    """A program under change: what it is by now, and what that took."""

    checked: Checked
    names: list[str] = field(default_factory=list)
    level: str = ""
    repairs: list[str] = field(default_factory=list)
    rejected: list[tuple[str, str]] = field(default_factory=list)

    def mutate(self, mutator: Mutator, rng: random.Random, level: str | None) -> None:
        """Change it once more."""
        done = mutator.mutate(self.checked.program, rng, level=level)
        self._took(done.checked, done.name, done.repairs, done.rejected)
        self.level = done.level

    def cross(self, crossing: Crossing, other: nodes.Program, rng: random.Random) -> None:
        """Cross it with another."""
        done = crossing.cross(self.checked.program, other, rng)
        self._took(done.checked, f"crossover: {done.name}", done.repairs, done.rejected)

    def _took(
        self,
        checked: Checked,
        name: str,
        repairs: Sequence[str],
        rejected: Sequence[tuple[str, str]],
    ) -> None:
        self.checked = checked
        self.names.append(name)
        self.repairs += repairs
        self.rejected += rejected

    def made(self, variation: Variation) -> Made:
        """The result."""
        repairs = _repairs(self.repairs, self.rejected)
        program = variation.program(self.checked)
        return Made(program, " + ".join(self.names), self.level, repairs)


class Variation:
    """Makes programs of one space, or of the family of one program.

    `length` (tokens, None: each program's context) and `dtype` are those of the figures; `units`
    bounds the size of programs. `seeds` are programs without holes to start from.
    """

    def __init__(
        self,
        source: Source,
        options: Options | None = None,
        *,
        seeds: Sequence[Source] = (),
        length: int | None = None,
        dtype: str = "bf16",
        units: int = 64,
        constrained: bool = True,
        points: int = 2,
    ) -> None:
        options = options or Options()
        self.length, self.dtype = length, dtype
        self.verifier, self.costs = Verifier(options.limits), CostModel()
        self._trees: OrderedDict[str, nodes.Program] = OrderedDict()
        self.space = _standing_alone(open_space(source, options), options)
        self.holes = self.space.holes
        plain = nodes.Program((*self.space.others, self.space.model), source)
        if self.holes:
            first = self._filled(random.Random("pool"))[0]
        else:
            first = self.verifier.check(plain)
        self.pool = self._pool(first)
        origin = self.program(first)  # a dtype or length that makes no sense is said now
        self.origin = None if self.holes else origin
        bounds = Bounds(units=units)
        self.mutator = Mutator(
            self.pool, verifier=self.verifier, bounds=bounds, constrained=constrained
        )
        self.crossing = Crossing(verifier=self.verifier, bounds=bounds, points=points)
        self.seeds = tuple(self._seed(seed, options) for seed in seeds)

    def fresh(self, rng: random.Random) -> Made:
        """A random filling of the space; without holes, a few mutations of its program."""
        if self.origin is not None:
            return self.mutated(self.origin.text, rng, times=rng.randint(*STEPS))
        checked, rejected = self._filled(rng)
        return Made(self.program(checked), "draw", "", _repairs((), [("draw", "")] * rejected))

    def mutated(
        self, text: str, rng: random.Random, *, times: int = 1, level: str | None = None
    ) -> Made:
        """A program after so many mutations, at least one."""
        change = self._changing(text)
        for _ in range(max(1, times)):
            change.mutate(self.mutator, rng, level)
        return change.made(self)

    def crossed(self, first: str, second: str, rng: random.Random) -> Made:
        """A child of two programs."""
        change = self._changing(first)
        change.cross(self.crossing, self._parsed(second), rng)
        return change.made(self)

    def child(
        self,
        parents: Sequence[str],
        rng: random.Random,
        *,
        crossover: float,
        mutation: float,
        known: Collection[str] = (),
        level: str | None = None,
    ) -> Made:
        """A child of one or two programs: crossed with probability `crossover`, then mutated once
        for each unit with probability `mutation`; what was not crossed is mutated at least once.

        What means the same as a known identity is mutated further. Where nothing verifies, a fresh
        program takes its place.
        """
        change = self._changing(parents[0])
        try:
            if len(parents) > 1 and parents[0] != parents[1] and rng.random() < crossover:
                with suppress(StarError):  # parents that have no child that verifies
                    change.cross(self.crossing, self._parsed(parents[1]), rng)
            times = sum(rng.random() < mutation for _ in range(change.checked.units))
            for _ in range(max(times, not change.names)):
                change.mutate(self.mutator, rng, level)
            for _ in range(REDRAWS):
                if change.checked.identity not in known:
                    break
                change.mutate(self.mutator, rng, level)
        except StarError:  # a program that no mutation can be made of
            if not change.names:
                return self.fresh(rng)
        return change.made(self)

    def check(self, text: str) -> Program:
        """The program of a text; raises StarError for what is wrong with it."""
        return self.program(self.verified(text))

    def verified(self, text: str) -> Checked:
        """The checked program of a text; raises StarError for what is wrong with it."""
        return self.verifier.check(self._parsed(text))

    def program(self, checked: Checked) -> Program:
        """A checked program as text, with its figures."""
        figures = static_figures(checked, length=self.length, dtype=self.dtype, costs=self.costs)
        text = text_of(checked.program)
        self._keep(text, checked.program)
        return Program(text, checked.identity, described_units(checked.ir), figures)

    def _changing(self, text: str) -> _Changing:
        return _Changing(self.verified(text))

    def _parsed(self, text: str) -> nodes.Program:
        """The program of a text: the one that it was printed of, if that was not long ago. That
        makes no difference, as nothing looks at where the parts of a program stand."""
        known = self._trees.get(text)
        if known is None:
            known = tree_of(text, self.space.source)
        self._keep(text, known)
        return known

    def _keep(self, text: str, program: nodes.Program) -> None:
        self._trees[text] = program
        self._trees.move_to_end(text)
        if len(self._trees) > TREES:
            self._trees.popitem(last=False)

    def _filled(self, rng: random.Random) -> tuple[Checked, int]:
        """A filling that verifies, and how many before it did not."""
        for rejected in range(PATIENCE):
            try:
                return self.verifier.check(sample(self.space, rng)), rejected
            except StarError as failure:
                last = failure
        refusal = Diagnostic(
            "no-valid-filling",
            f"none of {PATIENCE:,} random fillings of this space verifies; what follows is wrong "
            "with the last one.",
            hint="narrow the options of its holes.",
        )
        raise StarError([refusal, *last.diagnostics[:3]])

    def _pool(self, first: Checked) -> Pool:
        if self.holes:
            return pool_of_space(self.space, first, self.verifier)
        return pool_of_program(first, self.verifier)

    def _seed(self, seed: Source, options: Options) -> Program:
        space = _standing_alone(open_space(seed, replace(options, model=None)), options)
        program = nodes.Program((*space.others, space.model), seed)
        if any(is_hole(node) for d in program.declarations for node in every(d)):
            raise StarError(
                Diagnostic(
                    "hole-left",
                    f"'{seed.name}' has holes: a search starts from whole programs.",
                    hint="starc sample fills the holes.",
                )
            )
        Verifier(options.limits).check(program)  # says where something is wrong
        return self.check(text_of(program))


def described_units(model: ir.Model) -> tuple[Mapping[str, Any], ...]:
    """The units of a model in order: `path`, `operator`, paths of those that it `shares` weights
    with, and (feature, path of its unit) for what it `reuses`."""
    return tuple(
        {
            "path": unit.path,
            "operator": unit.operator,
            "shares": sorted({owner for _, owner in unit.shares} | {t.unit for t in unit.ties}),
            "reuses": [[ref.name, ref.unit] for _, ref in unit.inputs if ref.unit != unit.path],
        }
        for unit in ir.units(model.layers)
    )


def alone(source: Source, options: Options) -> str:
    """The text of a program or space with the operators of other files, but the standard library's,
    declared in it; the text as it is where it uses none."""
    space = open_space(source, options)
    standing = _standing_alone(space, options)
    if standing is space:
        return source.text
    return format_program(nodes.Program((*standing.others, standing.model), source))


def _standing_alone(space: Space, options: Options) -> Space:
    """The space with operators of other files, but the standard library's, declared in it: workers
    are given text, and no folder to look in."""
    foreign = [d for d in space.others if isinstance(d, nodes.Use) and d.path[0] != "std"]
    if not foreign:
        return space
    program = nodes.Program((*space.others, space.model), space.source)
    shop = Workshop.of(program, space.operators, options.limits)
    for use in foreign:
        name = use.path[-1]
        shop.own(name, space.operators[name], space.operators[name].body)
    declared = sorted(shop.declared.values(), key=lambda node: isinstance(node, nodes.Operator))
    return replace(space, others=tuple(declared), operators=dict(shop.operators))


def _repairs(repairs: Sequence[str], rejected: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """What a making took, as JSON: kinds of repairs, and draws that came to nothing by reason."""
    reasons = Counter(f"{name}: {reason}" if reason else name for name, reason in rejected)
    return {"repairs": list(repairs), "rejected": dict(sorted(reasons.items()))}
