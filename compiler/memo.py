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
from typing import NamedTuple

from starc.compiler.ir import Attribute, Operator, Parameter, Residual, Value
from starc.compiler.numbers import Numeric
from starc.compiler.settings import Settings
from starc.grammar import nodes
from starc.grammar.copying import changed


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

PLACE = frozenset({"layer", "depth"})
"""Numbers that differ between places of a backbone, or between backbones."""

_SAID = 50_000
"""What so many units say is forgotten at once: every mutation makes a few new ones."""


@dataclass(frozen=True, eq=False, slots=True)
class KnownUnit:
    """What units that say the same were resolved to; other layers are numbered as `words_of` has
    the words that name them.

    `inputs` are (name here, layer, name there), `shares` (weights, layer); `kept` is what the key
    says by identity.
    """

    node: nodes.Operator
    body: Body
    inputs: tuple[tuple[str, int, str], ...]
    shares: tuple[tuple[tuple[str, ...], int], ...]
    kept: Key


class Said(NamedTuple):
    """What a `unit` says: but for labels as `plain`, the same object for all that say the same;
    `words` may be labels of others, and `residual` says that it has one of its own."""

    unit: nodes.Unit
    plain: nodes.Unit
    words: tuple[str, ...]
    residual: bool


class Start(NamedTuple):
    """Numbers that `settings` put in scope, the `names` of all that are in scope of units, and a
    small name for what bodies depend on, quick to compare."""

    settings: Settings
    numbers: Mapping[str, Numeric]
    names: frozenset[str]
    context: int


def words_of(unit: nodes.Unit) -> tuple[str, ...]:
    """The words of a unit that may be labels of others, each once."""
    found = [m.label for m in unit.modifiers if not isinstance(m, nodes.With)]
    if isinstance(unit.operator, nodes.Call):
        for argument in unit.operator.arguments:
            if isinstance(argument.value, nodes.Member):
                found.append(argument.value.unit)
            elif isinstance(argument.value, nodes.Name):
                found.append(argument.value.name)
    return tuple(dict.fromkeys(word for word in found if word))


def _numbered(unit: nodes.Unit, words: tuple[str, ...]) -> nodes.Unit:
    """A unit without its label, and with numbers in the place of its words."""
    numbers = {word: f"#{i}" for i, word in enumerate(words)}
    call, modifiers = unit.operator, list[nodes.Modifier]()
    for modifier in unit.modifiers:
        if not isinstance(modifier, nodes.With) and modifier.label:
            modifier = changed(modifier, label=numbers[modifier.label])
        modifiers.append(modifier)
    if isinstance(call, nodes.Call) and call.arguments:
        arguments = []
        for argument in call.arguments:
            value = argument.value
            if isinstance(value, nodes.Member):
                argument = changed(argument, value=changed(value, unit=numbers[value.unit]))
            elif isinstance(value, nodes.Name):
                argument = changed(argument, value=changed(value, name=numbers[value.name]))
            arguments.append(argument)
        call = changed(call, arguments=tuple(arguments))
    return changed(unit, label=None, operator=call, modifiers=tuple(modifiers))


class Memo:
    """Bodies by operator and arguments, units by what they name, frozen operators, settings."""

    def __init__(self) -> None:
        self.bodies: dict[Key, Body] = {}
        self.units: dict[Key, KnownUnit] = {}
        self.residuals: dict[Key, tuple[nodes.Unit, Residual, Residual]] = {}
        self.seen: dict[int, Said] = {}
        self._alike: dict[nodes.Unit, nodes.Unit] = {}
        self._operators: dict[Key, tuple[Body, Operator]] = {}
        self._settings: dict[int, tuple[tuple[nodes.Setting, ...], Settings]] = {}
        self._contexts: dict[Key, int] = {}
        self._starts: dict[int, Start] = {}
        self._routed: dict[nodes.Call, tuple[nodes.Operator, nodes.Call]] = {}

    def said(self, unit: nodes.Unit) -> Said:
        """What a unit says."""
        known = self.seen.get(id(unit))
        if known is None:
            words = words_of(unit)
            plain = unit if unit.label is None and not words else _numbered(unit, words)
            plain = self._alike.setdefault(plain, plain)
            own = any(isinstance(modifier, nodes.With) for modifier in unit.modifiers)
            if len(self.seen) >= _SAID:
                self.seen.clear()
            self.seen[id(unit)] = known = Said(unit, plain, words, own)
        return known

    def start(self, settings: Settings) -> Start:
        """What a model's units see of its settings."""
        known = self._starts.get(id(settings))
        if known is None:
            numbers, hyper = settings.numbers(), settings.residual.hyper
            seen = settings.causal, hyper.streams if hyper else 1
            key = (*numbers.items(), *settings.own.items(), *seen)
            context = self._contexts.setdefault(key, len(self._contexts))
            names = frozenset((*settings.own, *numbers, *PLACE))
            self._starts[id(settings)] = known = Start(settings, numbers, names, context)
        return known

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
