"""A program at another size: narrower or wider, shallower or deeper, for other tokens.

Owns: new values for the numbers of a program, so that the result passes every check.
Refuses: which numbers follow what (sizes.py), counts of repeats (repeats.py), and measuring
(fitting.py).

The result is text again: what is not a size stays as it was written, comments too. Settings that
are not asked for keep their values, even where they were computed from one that changes. Numbers
follow by their roles (sizes.py); an expression such as `heads = width / 64` stays if what it
gives at the new width still fits, and becomes a number if not. Counts of heads keep dividing what
they divided. Where the first choice does not pass the checks, others near it are tried.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from starc.compiler.driver import resolve_source, run_passes
from starc.compiler.edits import (
    Edits,
    Program,
    alone,
    edited,
    formatted,
    number_of,
    where,
    whole_number,
)
from starc.compiler.ir import Model
from starc.compiler.numbers import Numeric
from starc.compiler.options import Options
from starc.compiler.program import Linked, file_scope
from starc.compiler.repeats import Repeats, Run, runs
from starc.compiler.settings import SIZES
from starc.compiler.sizes import Place, Roles, Use, is_number
from starc.grammar import nodes
from starc.grammar.errors import Diagnostic, StarError
from starc.grammar.source import Source, Span

MOST_TRIED = 80
"""Programs that are checked before a size is given up."""


def resize(
    source: Source,
    options: Options,
    *,
    width: int | None = None,
    units: int | None = None,
    repeat: int | None = None,
    vocab: int | None = None,
    context: int | None = None,
) -> Source:
    """The program of one model at another size; what is None stays as it is.

    `units` is the number of units wanted, repeats unrolled and branches counted, and the nearest
    that repeats allow is taken; `repeat` sets the count of every outermost repeat instead. The
    result has `options.model` alone and the overrides of `options` written into it, so it is
    compiled without them. Raises StarError `cannot-resize` when no program of that size passes the
    checks, and whatever is wrong with the program as it is.
    """
    asked = {"width": width, "vocab": vocab, "context": context}
    for name, value in (*asked.items(), ("units", units), ("repeat", repeat)):
        if value is not None and value < 1:
            raise _error(f"'{name}' must be at least 1, not {value}.", "give a positive number.")
    if units is not None and repeat is not None:
        raise _error("both 'units' and 'repeat' say how deep it is.", "give one of them.")
    source = alone(source, options)
    plain = replace(options, model=None, overrides=())
    resolve_source(source, plain)
    if units is not None or repeat is not None:
        source = _deeper(source, plain, units, repeat)
    wanted = {name: value for name, value in asked.items() if value is not None}
    return formatted(_Sizes(source, plain, wanted).fitted(), plain)


def checked(source: Source, options: Options) -> Model:
    """The model after every pass; raises StarError for what is wrong with it."""
    return run_passes(resolve_source(source, options)[0])


def count_units(source: Source, options: Options) -> int:
    """Units of a model: repeats unrolled, branches counted, those of a loop once."""
    program = Program(source, options)
    return Repeats(program.model, program.whole).units() or 0


# --- depth ---------------------------------------------------------------------------------------


def _deeper(source: Source, options: Options, units: int | None, repeat: int | None) -> Source:
    """The program with other counts of its repeats."""
    source = _folded(source, options)
    program = Program(source, options)
    repeats = Repeats(program.model, program.whole)
    now = repeats.units() or 1
    if not repeats.numbers:
        times = repeat or max(1, round(Fraction(units or now, now)))
        return _wrapped(source, program.model.backbone, times) if times > 1 else source
    chosen = repeats.choose(units) if units else repeats.outermost(repeat or 1)
    edits: Edits = {
        where(repeats.numbers[i].expr.span): str(value)
        for i, value in chosen.items()
        if value != repeats.numbers[i].value
    }
    return edited(source, edits)


def _wrapped(source: Source, body: Sequence[nodes.Layer], times: int) -> Source:
    first, last = body[0].span.start, body[-1].span.end
    return edited(source, {(first, first): f"repeat {times} {{ ", (last, last): " }"})


def _folded(source: Source, options: Options) -> Source:
    """The program with repeats in place of what its backbone writes out several times in a row."""
    program = Program(source, options)
    if any(isinstance(layer, nodes.Repeat) for layer in program.model.backbone):
        return source
    body = program.model.backbone
    edits: Edits = {}
    if not (found := runs(body)):
        return source
    for run in found:
        start, end, stop = _ends(body, run)
        edits[start, start] = f"repeat {run.times} {{ "
        edits[end, stop] = " }"
    folded = edited(source, edits)
    try:
        checked(folded, options)
    except StarError:  # the units differ by where they stand
        return source
    return folded


def _ends(body: Sequence[nodes.Layer], run: Run) -> tuple[int, int, int]:
    last = run.first + run.period - 1
    final = run.first + run.period * run.times - 1
    return body[run.first].span.start, body[last].span.end, body[final].span.end


# --- sizes ---------------------------------------------------------------------------------------


@dataclass
class _Quantity:
    """A number in the text with a role, what it was and what it becomes."""

    place: Place
    old: int
    new: int
    written: bool
    """Whether the text has to say the new value."""

    @property
    def span(self) -> Span:
        return self.place.expr.span


class _Sizes:
    """New values for all numbers of a program that follow its width or its context."""

    def __init__(self, source: Source, options: Options, asked: Mapping[str, int]) -> None:
        self.program = Program(source, options)
        self.options = options
        settings = self.program.settings
        self.old = {name: int(getattr(settings, name)) for name in SIZES}
        self.size = {**self.old, **asked}
        self.ratio = Fraction(self.size["width"], self.old["width"])
        self.stretch = Fraction(self.size["context"], self.old["context"])
        self.scope: dict[str, Numeric] = {n: Fraction(v) for n, v in self.size.items()}
        self.settings = self._pinned()
        self.quantities: list[_Quantity] = []

    def fitted(self) -> Source:
        """The program at the new size; raises StarError when there is none that passes."""
        if self.size != self.old:
            self._choose()
        failure: StarError | None = None
        for edits in self._attempts():
            candidate = edited(self.program.source, {**self.settings, **edits})
            try:
                checked(candidate, self.options)
            except StarError as found:
                failure = failure or found
            else:
                return candidate
        assert failure is not None
        raise self._failure(failure)

    def _pinned(self) -> Edits:
        """The sizes that are asked for, and the values of those that are not."""
        edits: Edits = {}
        written = {s.name: s.value for s in self.program.model.settings}
        for name in SIZES:
            value = whole_number(written[name], self.scope)
            if value != self.size[name] or self.size[name] != self.old[name]:
                edits[where(written[name].span)] = str(self.size[name])
        return edits

    def _choose(self) -> None:
        linked, model = self.program.linked, self.program.model
        roles = Roles(lambda node: _callable(node, linked, self.options))
        old = self.program.scope()
        groups: dict[str, list[Place]] = {}
        for place in self._places(roles):
            groups.setdefault(place.group, []).append(place)
        own = groups.pop("", [])
        self._group(own, old, self.scope)
        for name, number in self._own(own).items():
            self.scope[name] = number
        for group, places in groups.items():
            inside = group.startswith("unit ")
            before = old if inside else self.program.settings.numbers()
            after = self.scope if inside else {n: Fraction(v) for n, v in self.size.items()}
            self._group(places, before, after)
        self._counts(model)

    def _places(self, roles: Roles) -> Iterator[Place]:
        linked, model = self.program.linked, self.program.model
        yield from roles.model(model, linked.operators)
        for node in linked.operators.values():
            if node.span.source == self.program.source:
                yield from roles.places(node)

    def _own(self, places: Sequence[Place]) -> dict[str, Numeric]:
        """The model's own numbers at the new size, those without a role among them."""
        new = {id(q.place.expr): Fraction(q.new) for q in self.quantities}
        scope: dict[str, Numeric] = dict(self.scope)
        for setting in self.program.model.settings:
            if setting.name in self.program.settings.own:
                number = new.get(id(setting.value), number_of(setting.value, scope))
                scope[setting.name] = (
                    self.program.settings.own[setting.name] if number is None else number
                )
        return scope

    def _counts(self, model: nodes.Model) -> None:
        """Keep the counts of repeats that are computed from the width or the context."""
        for node in _repeats(model.backbone):
            before = self.program.whole(node.count, {})
            if before is not None and whole_number(node.count, self.scope) != before:
                self.settings[where(node.count.span)] = str(before)

    # --- the numbers of one group -----------------------------------------------------------------

    def _group(
        self, places: Sequence[Place], old: Mapping[str, Numeric], new: Mapping[str, Numeric]
    ) -> None:
        known = []
        for place in places:
            before = whole_number(place.expr, old)
            if before:
                known.append((place, before))
        known.sort(key=lambda item: (item[0].use, -item[1]))
        names = {id(s.value): s.name for s in self.program.model.settings}
        new = dict(new)
        fixed: list[_Quantity] = []
        for place, before in known:
            twin = next((q for q in fixed if q.old == before and q.place.use is place.use), None)
            value = self._value(place, before, fixed) if twin is None else twin.new
            stays = None if is_number(place.expr) else whole_number(place.expr, new)
            if stays and self._fits(place, before, stays, fixed):
                value = stays
            written = value != (before if is_number(place.expr) else stays)
            fixed.append(_Quantity(place, before, value, written))
            if id(place.expr) in names:  # later settings may read it
                new[names[id(place.expr)]] = Fraction(value)
        self.quantities += fixed

    def _value(self, place: Place, old: int, fixed: Sequence[_Quantity]) -> int:
        match place.use:
            case Use.HEADS:
                return self._heads(place, old, fixed)
            case Use.SIZE:
                return self._channels(old, fixed)
            case Use.HEAD_SIZE:
                return self._head_size(old, fixed)
            case Use.BLOCKS:
                width = self.size["width"]
                parts = [width, *(q.new for q in fixed if q.place.use is Use.SIZE)]
                return math.gcd(old, *parts) if self.old["width"] % old == 0 else old
            case Use.TOKENS:
                return max(1, math.ceil(old * self.stretch))
            case Use.STATE:
                return old

    def _heads(self, place: Place, old: int, fixed: Sequence[_Quantity]) -> int:
        target = old * self.ratio
        most = max(1, math.ceil(2 * target))
        if target.denominator == 1 and self._fits(place, old, int(target), fixed):
            return int(target)
        legal = [n for n in range(1, min(most, 65_536) + 1) if self._fits(place, old, n, fixed)]
        if not legal:
            return max(1, round(target))
        return min(legal, key=lambda n: (abs(math.log(n / target)), n))

    def _fits(self, place: Place, old: int, new: int, fixed: Sequence[_Quantity]) -> bool:
        """Whether a number divides what it divided: the width, and larger counts of heads."""
        if place.use is not Use.HEADS:
            return True
        whole = [(self.old["width"], self.size["width"])]
        whole += [(q.old, q.new) for q in fixed if q.place.use is Use.HEADS]
        for before, after in whole:
            if before % old == 0 and after % new:
                return False
        before, after = whole[0]
        even = before % (2 * old) == 0 and after % 2 == 0
        return not even or after % (2 * new) == 0

    def _head_size(self, old: int, fixed: Sequence[_Quantity]) -> int:
        heads = [q for q in fixed if q.place.use is Use.HEADS and q.old > 1]
        if not heads:
            return old
        most = max(heads, key=lambda q: q.old)
        share = most.old * self.ratio / most.new
        if most.new > 1 or share >= 1:
            return old
        return _rounded(old * share, 2 if old % 2 == 0 else 1, old)

    def _channels(self, old: int, fixed: Sequence[_Quantity]) -> int:
        step = 1
        for q in fixed:
            if q.place.use is Use.HEADS and old % q.old == 0:
                even = 2 if (old // q.old) % 2 == 0 else 1
                step = math.lcm(step, even * q.new)
        return _rounded(old * self.ratio, step, old)

    # --- attempts ---------------------------------------------------------------------------------

    def _attempts(self) -> Iterator[Edits]:
        """The chosen values; then with single ones, then pairs, changed; no more than allowed."""
        chosen = {where(q.span): str(q.new) for q in self.quantities if q.written}
        yield chosen
        inside = {where(q.span) for q in self.quantities if not _of_model(q)}
        yield {place: text for place, text in chosen.items() if place not in inside}
        steps = [step for q in self.quantities for step in self._near(q)]
        tried = 2
        for step in steps:
            yield {**chosen, **step}
            tried += 1
            if tried >= MOST_TRIED:
                return
        for i, first in enumerate(steps):
            for second in steps[i + 1 :]:
                if first.keys() == second.keys():
                    continue
                yield {**chosen, **first, **second}
                tried += 1
                if tried >= MOST_TRIED:
                    return

    def _near(self, q: _Quantity) -> list[Edits]:
        """Other values of one number, the nearest first; equal numbers of a group go together."""
        alike = [
            where(other.span)
            for other in self.quantities
            if (other.place.group, other.old, other.new) == (q.place.group, q.old, q.new)
        ]
        if alike[0] != where(q.span):
            return []
        width = self.size["width"]
        if q.place.use in (Use.HEADS, Use.BLOCKS):
            values = [n for n in _divisors(width) if n <= 4 * q.new]
        elif q.place.use is Use.TOKENS:
            values = [self.size["context"]]
        else:
            values = [q.new // 2, q.new // 4, width, q.new * 2, 2, 1]
        values = [n for n in dict.fromkeys(values) if n >= 1 and n != q.new]
        values.sort(key=lambda n: abs(math.log(n / q.new)))
        return [{place: str(n) for place in alike} for n in values[:6]]

    def _failure(self, failure: StarError) -> StarError:
        first = failure.diagnostics[0]
        changed = ", ".join(
            f"{name} = {value}" for name, value in self.size.items() if value != self.old[name]
        )
        changed = changed or "other counts of its repeats"
        return StarError(
            Diagnostic(
                "cannot-resize",
                f"'{self.program.model.name}' does not pass the checks with {changed}: "
                f"{first.message}",
                self.program.model.name_span,
                hint="try a multiple of a power of two for the width, or write sizes in terms of "
                "the width (heads = width / 64).",
            )
        )


def _of_model(q: _Quantity) -> bool:
    return q.place.group == "" or q.place.group.startswith("unit ")


def _rounded(value: Fraction, step: int, old: int) -> int:
    """`value` if it is a multiple of `step`; else the nearest multiple of a rounder step."""
    if value.denominator == 1 and int(value) % step == 0:
        return int(value)
    while 16 * step <= value and old % (2 * step) == 0:
        step *= 2
    return max(step, round(value / step) * step)


def _divisors(n: int) -> list[int]:
    small = [d for d in range(1, math.isqrt(n) + 1) if n % d == 0]
    return sorted({*small, *(n // d for d in small)})


def _callable(
    node: nodes.Operator, linked: Linked, options: Options
) -> Mapping[str, nodes.Operator]:
    """The operators that the body of one may call."""
    if node.span.source == linked.program.source:
        return linked.operators
    return file_scope(node.span.source, options.limits)


def _repeats(body: Sequence[nodes.Layer]) -> Iterator[nodes.Repeat | nodes.Loop]:
    for layer in body:
        if isinstance(layer, nodes.Repeat | nodes.Loop):
            yield layer
        if not isinstance(layer, nodes.Unit):
            yield from _repeats(layer.body)


def _error(message: str, hint: str) -> StarError:
    return StarError(Diagnostic("cannot-resize", message, hint=hint))
