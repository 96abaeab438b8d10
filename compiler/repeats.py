"""Counts of `repeat` for a wanted number of units.

Owns: which counts may change, and the best choice. Refuses: everything inside units.

Counts of outermost repeats keep their proportions and stay at least 1, so that every motif is
still there; those of inner repeats change only where that is not enough. Units outside of repeats
stay as they are. A backbone without repeats is one motif: it is repeated whole to grow, and what it
writes out several times in a row counts as a repeat.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from starc.compiler.holes import walk
from starc.compiler.sizes import is_number
from starc.compiler.unroll import count_units
from starc.grammar import nodes

Value = Callable[[nodes.Expr, Mapping[str, Fraction]], int | None]
"""The whole number that an expression is, given other values for some settings; None if none."""

_UNLIMITED = 10**9
_MOST_TRIED = 600


@dataclass(frozen=True)
class Count:
    """A number that counts follow from: a count, or a setting that counts name."""

    expr: nodes.Expr
    setting: str | None
    value: int
    inner: bool


class Repeats:
    """The repeats of a model and the numbers that they depend on."""

    def __init__(self, model: nodes.Model, value: Value) -> None:
        self._backbone, self._value = model.backbone, value
        self._counts: dict[int, Count] = {}
        """By the expression of the count, those that are a number of their own."""
        self.numbers: list[Count] = []
        own = {s.name: s.value for s in model.settings if is_number(s.value)}
        settings: dict[str, bool] = {}
        for repeat, inner in _repeats(model.backbone, False):
            names = {n.name for n in walk(repeat.count) if isinstance(n, nodes.Name)}
            if names and names <= own.keys():
                for name in names:
                    settings[name] = settings.get(name, False) or inner
                continue
            found = value(repeat.count, {})
            if found:
                count = Count(repeat.count, None, found, inner)
                self._counts[id(repeat.count)] = count
                self.numbers.append(count)
        for name, inner in settings.items():
            found = value(own[name], {})
            if found:
                self.numbers.append(Count(own[name], name, found, inner))

    def units(self, chosen: Mapping[int, int] | None = None) -> int | None:
        """Units with other values for some numbers (by place in `numbers`); None if impossible."""
        chosen = chosen or {}
        settings = {
            n.setting: Fraction(chosen.get(i, n.value))
            for i, n in enumerate(self.numbers)
            if n.setting is not None
        }
        counts = {
            id(n.expr): chosen.get(i, n.value)
            for i, n in enumerate(self.numbers)
            if n.setting is None
        }

        def times(layer: nodes.Repeat | nodes.Loop) -> int:
            if id(layer.count) in counts:
                return counts[id(layer.count)]
            found = self._value(layer.count, settings)
            before = self._value(layer.count, {})
            if found is None or (found == 0 and before != 0):
                raise _Impossible
            return found

        try:
            return count_units(self._backbone, times, _UNLIMITED)[0]
        except _Impossible:
            return None

    def choose(self, wanted: int) -> dict[int, int]:
        """Values of `numbers` with which the number of units is nearest to `wanted`."""
        now = self.units() or 1
        outer = [i for i, n in enumerate(self.numbers) if not n.inner]
        inner = [i for i, n in enumerate(self.numbers) if n.inner]
        chosen = self._scaled({}, outer, wanted, Fraction(wanted, now))
        total = self.units(chosen) or now
        if total > wanted and inner:
            chosen = self._scaled(chosen, inner, wanted, Fraction(wanted, total))
        return self._improved(chosen, wanted)

    def outermost(self, count: int) -> dict[int, int]:
        """Values with which outermost repeats are done `count` times: settings that their counts
        follow from are set so that as many as possible are."""
        chosen = {i: count for i, n in enumerate(self.numbers) if not n.inner and n.setting is None}
        exprs = [r.count for r, inner in _repeats(self._backbone, False) if not inner]
        settings: dict[str, Fraction] = {}
        for i, number in sorted(enumerate(self.numbers), key=lambda item: item[1].value):
            if number.setting is None or number.inner:
                continue
            reached = {}
            for value in range(1, number.value * (count + 1) + 1):
                settings[number.setting] = Fraction(value)
                found = [self._value(expr, settings) for expr in exprs]
                if None not in found:
                    reached[value] = sum(n == count for n in found)
            chosen[i] = max(reached, key=lambda v: (reached[v], -v), default=number.value)
            settings[number.setting] = Fraction(chosen[i])
        return chosen

    def _scaled(
        self, chosen: dict[int, int], which: Sequence[int], wanted: int, factor: Fraction
    ) -> dict[int, int]:
        """The numbers of `which` times one factor, the nearest to `factor` of the best ones."""
        factors = {factor}
        for i in which:
            value = self.numbers[i].value
            most = min(wanted, math.ceil(2 * factor * value)) + 1
            factors |= {Fraction(k, value) for k in range(1, most + 1)}
        nearest = sorted(factors, key=lambda f: abs(math.log(f / factor)))[:_MOST_TRIED]
        best, least = chosen, (math.inf, 0.0)
        for f in nearest:
            scaled = {i: max(1, round(f * self.numbers[i].value)) for i in which}
            total = self.units({**chosen, **scaled})
            if total is None:
                continue
            distance = (abs(total - wanted), abs(math.log(f / factor)))
            if distance < least:
                best, least = {**chosen, **scaled}, distance
        return best

    def _improved(self, chosen: dict[int, int], wanted: int) -> dict[int, int]:
        """Single steps of outermost numbers for as long as they come nearer to `wanted`."""
        distance = abs((self.units(chosen) or 0) - wanted)
        while distance:
            steps = [
                {**chosen, i: value + step}
                for i, value in chosen.items()
                for step in (1, -1)
                if value + step >= 1 and not self.numbers[i].inner
            ]
            totals = [
                (abs(total - wanted), i) for i, s in enumerate(steps) if (total := self.units(s))
            ]
            if not totals or min(totals)[0] >= distance:
                break
            distance, best = min(totals)
            chosen = steps[best]
        return chosen


class _Impossible(Exception):
    pass


def _repeats(body: Sequence[nodes.Layer], inner: bool) -> Iterator[tuple[nodes.Repeat, bool]]:
    for layer in body:
        if isinstance(layer, nodes.Repeat):
            yield layer, inner
        if not isinstance(layer, nodes.Unit):
            yield from _repeats(layer.body, inner or isinstance(layer, nodes.Repeat))


@dataclass(frozen=True)
class Run:
    """Layers `first` to `first + period * times` of a backbone say the same thing `times` times."""

    first: int
    period: int
    times: int


def runs(body: Sequence[nodes.Layer]) -> list[Run]:
    """Stretches that repeat themselves, the longest at each place; none holds a label."""
    found: list[Run] = []
    first = 0
    while first < len(body):
        best = Run(first, 1, 1)
        for period in range(1, (len(body) - first) // 2 + 1):
            motif = body[first : first + period]
            if any(_labelled(layer) for layer in motif):
                break
            times = 1
            while body[first + times * period : first + (times + 1) * period] == motif:
                times += 1
            if times > 1 and times * period > best.times * best.period:
                best = Run(first, period, times)
        if best.times > 1:
            found.append(best)
        first += best.period * best.times
    return found


def _labelled(layer: nodes.Layer) -> bool:
    return isinstance(layer, nodes.Unit | nodes.Parallel) and layer.label is not None
