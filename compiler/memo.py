"""What resolving one program leaves behind for the next one that shares syntax nodes with it.

A search resolves thousands of programs, each a few nodes away from another. Entries are found by
the identity of syntax nodes and keep those nodes alive, so that an identity never changes its
meaning. Only what succeeded is remembered: a faulty program is resolved, and reported, anew.

Owns: the keys and the lifetime of what is remembered. Refuses: resolving (resolve.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from textwrap import wrap

from starc.compiler.ir import Attribute, Operator, Parameter, Value
from starc.compiler.numbers import Numeric
from starc.compiler.settings import Settings
from starc.grammar import nodes


@dataclass(frozen=True)
class Body:
    """A resolved operator before its outputs are chosen.

    `uses` are the names that it read, `calls` the operators of the program that it called.
    """

    node: nodes.Operator
    arguments: tuple[tuple[str, Attribute], ...]
    values: tuple[Value, ...]
    bindings: Mapping[str, int]
    parameters: Mapping[str, Parameter]
    uses: frozenset[str]
    calls: tuple[tuple[str, nodes.Operator], ...] = ()
    inner: tuple[Operator, ...] = ()

    @cached_property
    def weights(self) -> dict[tuple[str, ...], tuple[str, ...]]:
        """What `weights_of` found for bindings of this body."""
        return {}


Key = tuple[object, ...]


class Memo:
    """Bodies by operator and arguments, calls by place, frozen operators, settings."""

    def __init__(self) -> None:
        self.bodies: dict[Key, Body] = {}
        self._of: dict[int, list[Body]] = {}
        self._calls: dict[Key, tuple[nodes.Call, Body]] = {}
        self._operators: dict[Key, tuple[Body, Operator]] = {}
        self._settings: dict[int, tuple[tuple[nodes.Setting, ...], Settings]] = {}
        self._contexts: dict[Key, int] = {}
        self._routed: dict[nodes.Call, tuple[nodes.Operator, nodes.Call]] = {}

    def keep(self, key: Key, body: Body) -> None:
        """Remember a body by what it was made of."""
        found = self._of.setdefault(id(body.node), [])
        if key in self.bodies:
            found.remove(self.bodies[key])
        found.append(body)
        self.bodies[key] = body

    def of(self, node: nodes.Operator) -> list[Body]:
        """What an operator was resolved to so far."""
        return self._of.get(id(node), [])

    def context(self, numbers: Mapping[str, Numeric]) -> int:
        """A small name for the numbers that a model sets, quick to compare."""
        return self._contexts.setdefault(tuple(numbers.items()), len(self._contexts))

    def routed(self, call: nodes.Call) -> tuple[nodes.Operator, nodes.Call]:
        """A unit `experts(...)` as an operator `y = x |> experts(...)`, and the call of that: the
        same ones for the same text."""
        if call not in self._routed:
            places = {"name_span": call.name_span, "span": call.span}
            y = nodes.Pipe(nodes.Name("x", span=call.name_span), call, span=call.span)
            body = (nodes.Binding("y", y, **places),)
            text = " ".join(call.span.text.split()).replace("( ", "(").replace(", )", ")")
            doc = "\n".join(wrap(text, 88))
            node = nodes.Operator(call.function, (), body, doc, **places)
            self._routed[call] = node, nodes.Call(call.function, (), **places)
        return self._routed[call]

    def settings(self, model: nodes.Model) -> Settings | None:
        """The settings of a model with this very tuple of settings; not to be changed."""
        known = self._settings.get(id(model.settings))
        return known[1] if known else None

    def keep_settings(self, model: nodes.Model, settings: Settings) -> None:
        self._settings[id(model.settings)] = model.settings, settings

    def call(self, call: nodes.Call, node: nodes.Operator, given: Key, place: Key) -> Body | None:
        """The body that this very call of this operator had.

        `given` is what every body depends on, `place` what a body depends on that reads it.
        """
        known = self._calls.get((id(call), given)) or self._calls.get((id(call), given, place))
        return known[1] if known and known[1].node is node else None

    def keep_call(self, call: nodes.Call, body: Body, given: Key, place: Key | None) -> None:
        """Remember a call; `place` is None when neither its arguments nor its body depend on it."""
        key: Key = (id(call), given) if place is None else (id(call), given, place)
        self._calls[key] = call, body

    def operator(self, body: Body, made: Key) -> Operator | None:
        """The operator made of this very body; `made` is what else it depends on."""
        known = self._operators.get((id(body), made))
        return known[1] if known else None

    def keep_operator(self, body: Body, made: Key, operator: Operator) -> None:
        self._operators[id(body), made] = body, operator
