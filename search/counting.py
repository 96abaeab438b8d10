"""How many programs a space holds.

Owns: counting fillings exactly. Refuses: telling which of them verify, or mean the same: both need
the program itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from functools import cache

from starc.compiler.holes import is_hole
from starc.grammar import nodes
from starc.search.space import (
    Space,
    decided_anew,
    every,
    feature_groups,
    options_of,
    rewrite,
    whole,
)

_STATES = 3_000
"""Beyond so many different situations, ties are no longer counted."""


@dataclass(frozen=True)
class Count:
    """`fillings`: ways to decide the holes. Exact, or (`bound`) without the ties left open."""

    fillings: int
    bound: bool = False

    def __str__(self) -> str:
        n = self.fillings
        shown = f"{n:,}" if n < 10**9 else f"{n:.2e}" if n < 10**300 else f"10^{len(str(n)) - 1}"
        return f"more than {shown}" if self.bound else shown


def count(space: Space) -> Count:
    """The number of fillings of a space; with ties left open in long backbones a lower bound."""
    try:
        return Count(_Counter(space.operators, ties=True).program(space))
    except _TooMany:
        return Count(_Counter(space.operators, ties=False).program(space), bound=True)


class _TooMany(Exception):
    """More situations than are kept apart."""


_Named = frozenset[tuple[str, int]]
"""What named holes were decided to be."""

_Seen = tuple[tuple[int, int], ...]
"""How many earlier units have each call, calls by their numbers."""


@dataclass(frozen=True)
class _State:
    named: _Named = frozenset()
    seen: _Seen = ()


_States = Mapping[_State, int]


@dataclass
class _Once:
    """Puts `new` in the place of `old`, but not of equal holes elsewhere: each is decided alone."""

    old: nodes.Node
    new: nodes.Node

    def __call__(self, node: nodes.Node) -> nodes.Node:
        return self.new if node is self.old else node


class _Counter:
    """Goes through a space in the order of the text, with the ways to get to every situation."""

    def __init__(self, operators: Mapping[str, nodes.Operator], *, ties: bool) -> None:
        self.operators, self.ties = operators, ties
        self.calls: dict[nodes.Node, int] = {}
        self.groups: list[int] = []

    def program(self, space: Space) -> int:
        states: _States = {_State(): 1}
        for part in (*space.model.settings, *space.others):
            states = self.holes(part, states)
        return sum(self.body(space.model.backbone, states).values())

    def body(self, layers: Iterable[nodes.Layer], states: _States) -> _States:
        for layer in layers:
            states = self.layer(layer, states)
        return states

    def layer(self, layer: nodes.Layer, states: _States) -> _States:
        match layer:
            case nodes.Unit():
                return self.unit(layer, states)
            case nodes.Parallel():
                return self.parallel(layer, (), states)
            case nodes.Loop():
                return self.apart(layer.body, self.holes(layer.count, states))
        anew = any(decided_anew(node) for part in layer.body for node in every(part))
        found: Counter[_State] = Counter()
        for state, ways in states.items():
            for times, named in self.filled(layer.count, state):
                one: _States = {replace(state, named=named): ways}
                for _ in range(whole(times) if anew else 0):
                    one = self.body(layer.body, one)
                found.update(one if anew else self.apart(layer.body, one))
        return self.checked(found)

    def apart(self, body: tuple[nodes.Layer, ...], states: _States) -> _States:
        """A body whose units are not seen from outside, nor see what is before them."""
        found: Counter[_State] = Counter()
        for state, ways in states.items():
            for after, more in self.body(body, {replace(state, seen=()): ways}).items():
                found[replace(after, seen=state.seen)] += more
        return found

    def parallel(
        self, layer: nodes.Parallel, ties: tuple[nodes.Modifier, ...], states: _States
    ) -> _States:
        for branch in layer.body:
            if ties and isinstance(branch, nodes.Unit):
                branch = replace(branch, modifiers=branch.modifiers + ties)
            states = self.layer(branch, states)
        for modifier in layer.modifiers:
            states = self.holes(modifier, states)
        return states

    def unit(self, unit: nodes.Unit, states: _States) -> _States:
        found: Counter[_State] = Counter()
        ties = tuple(m for m in unit.modifiers if is_hole(m))
        fillings = cache(lambda chosen, named: list(self.numbered(unit, chosen, named)))
        for chosen, before, ways in self.choices(unit.operator, states):
            if isinstance(chosen, nodes.Parallel):
                found.update(self.parallel(chosen, ties, {before: ways}))
                continue
            if not self.ties:
                found.update(self.holes(chosen, {before: ways}))
                continue
            for call, named in fillings(chosen, before.named):
                seen, more = dict(before.seen), ways
                same = seen.get(call, 0)
                for tie in ties:
                    more *= 1 + same * (1 if isinstance(tie, nodes.Shares) else self.groups[call])
                seen[call] = same + 1
                found[_State(named, tuple(sorted(seen.items())))] += more
        result: _States = self.checked(found)
        for modifier in unit.modifiers:
            if not is_hole(modifier):
                result = self.holes(modifier, result)
        return result

    def choices(
        self, operator: nodes.Expr | nodes.Parallel, states: _States
    ) -> Iterator[tuple[nodes.Expr | nodes.Parallel, _State, int]]:
        """What stands for a unit's operator, itself perhaps with holes inside."""
        for state, ways in states.items():
            if not isinstance(operator, nodes.Hole):
                yield operator, state, ways
                continue
            for option, named in self.decisions(operator, state):
                yield from self.choices(option, {replace(state, named=named): ways})

    def decisions(
        self, hole: nodes.Hole, state: _State
    ) -> Iterator[tuple[nodes.Expr | nodes.Parallel, _Named]]:
        options = options_of(hole)
        decided = dict(state.named).get(hole.name or "")
        for index, option in enumerate(options):
            if hole.name is None:
                yield option, state.named
            elif decided in (None, index):
                yield option, state.named | {(hole.name, index)}

    def numbered(
        self, unit: nodes.Unit, chosen: nodes.Node, named: _Named
    ) -> Iterator[tuple[int, _Named]]:
        """Every filling of a unit's call as the number of that call."""
        for call, after in self.filled(chosen, _State(named)):
            if call not in self.calls:
                self.calls[call] = len(self.calls)
                filled = replace(unit, operator=call)  # type: ignore[arg-type]
                self.groups.append(len(feature_groups(filled, self.operators)))
            yield self.calls[call], after

    def filled(self, node: nodes.Node, state: _State) -> Iterator[tuple[nodes.Node, _Named]]:
        """Every filling of an expression, and what named holes are after it."""
        hole = next((n for n in every(node) if isinstance(n, nodes.Hole)), None)
        if hole is None:
            yield node, state.named
            return
        for option, named in self.decisions(hole, state):
            rest = rewrite(node, _Once(hole, option))
            yield from self.filled(rest, replace(state, named=named))

    def holes(self, node: nodes.Node, states: _States) -> _States:
        """After the holes of an expression, whatever they are filled with."""
        if not isinstance(node, nodes.Hole):
            for f in fields(node):
                value = getattr(node, f.name)
                for item in value if isinstance(value, tuple) else (value,):
                    if isinstance(item, nodes.Node):
                        states = self.holes(item, states)
            return states
        found: Counter[_State] = Counter()
        for state, ways in states.items():
            for option, named in self.decisions(node, state):
                found.update(self.holes(option, {replace(state, named=named): ways}))
        return self.checked(found)

    def checked(self, states: Counter[_State]) -> _States:
        if self.ties and len(states) > _STATES:
            raise _TooMany
        return states
