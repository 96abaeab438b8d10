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

from starc.compiler.ir import Attribute, Operator, Parameter, Residual, Value
from starc.compiler.numbers import Numeric
from starc.compiler.settings import Settings
from starc.grammar import nodes


@dataclass(frozen=True)
class Body:
    """A resolved operator before its outputs are chosen.

    `uses` are the names that it read, `calls` the operators of the program that it called, `flat`
    says that it called none at all.
    """

    node: nodes.Operator
    arguments: tuple[tuple[str, Attribute], ...]
    values: tuple[Value, ...]
    bindings: Mapping[str, int]
    parameters: Mapping[str, Parameter]
    uses: frozenset[str]
    calls: tuple[tuple[str, nodes.Operator], ...] = ()
    inner: tuple[Operator, ...] = ()
    flat: bool = False

    @cached_property
    def weights(self) -> dict[tuple[str, ...], tuple[str, ...]]:
        """What `weights_of` found for bindings of this body."""
        return {}


Key = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class KnownUnit:
    """What a unit was resolved to, with labels in the place of other layers.

    `inputs` are (name here, label, name there), `shares` (weights, label); `kept` is what the key
    says by identity.
    """

    node: nodes.Operator
    body: Body
    residual: Residual
    suffixes: tuple[str, ...]
    inputs: tuple[tuple[str, str, str], ...]
    shares: tuple[tuple[tuple[str, ...], str], ...]
    kept: Key


@dataclass(frozen=True, eq=False, slots=True)
class Told:
    """What a unit says; `words` of it may be labels of others."""

    words: tuple[str, ...]


def _words(unit: nodes.Unit) -> tuple[str, ...]:
    found = [m.label for m in unit.modifiers if not isinstance(m, nodes.With)]
    if isinstance(unit.operator, nodes.Call):
        for argument in unit.operator.arguments:
            value = argument.value
            found.append(getattr(value, "unit", None) or getattr(value, "name", None))
    return tuple(dict.fromkeys(word for word in found if word))


class Memo:
    """Bodies by operator and arguments, units by what they name, frozen operators, settings."""

    def __init__(self) -> None:
        self.bodies: dict[Key, Body] = {}
        self.units: dict[Key, KnownUnit] = {}
        self._told: dict[int, tuple[nodes.Unit, Told]] = {}
        self._alike: dict[nodes.Unit, Told] = {}
        self._operators: dict[Key, tuple[Body, Operator]] = {}
        self._settings: dict[int, tuple[tuple[nodes.Setting, ...], Settings]] = {}
        self._contexts: dict[Key, int] = {}
        self._routed: dict[nodes.Call, tuple[nodes.Operator, nodes.Call]] = {}

    def told(self, unit: nodes.Unit) -> Told:
        """What a unit says: the same object for units that say the same."""
        known = self._told.get(id(unit))
        if known is None:
            told = self._alike.get(unit)
            if told is None:
                self._alike[unit] = told = Told(_words(unit))
            self._told[id(unit)] = known = unit, told
        return known[1]

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

    def operator(self, body: Body, made: Key) -> Operator | None:
        """The operator made of this very body; `made` is what else it depends on."""
        known = self._operators.get((id(body), made))
        return known[1] if known else None

    def keep_operator(self, body: Body, made: Key, operator: Operator) -> None:
        self._operators[id(body), made] = body, operator
