"""One operator for given arguments: its parameters, its bindings from top to bottom, its output.

Owns: the body of an operator as a whole, calls of operators, and warnings about what is never read.
Refuses: expressions (expressions.py) and where the operator stands in the backbone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from starc.compiler.arguments import count_words, size_of
from starc.compiler.builder import Builder
from starc.compiler.expressions import RESERVED, Expressions, Poison, Poisoned, Ref
from starc.compiler.faults import duplicate, error
from starc.compiler.ir import Attribute
from starc.compiler.memo import Body
from starc.compiler.numbers import Numeric
from starc.compiler.sharing import Features
from starc.compiler.types import Feature, describe
from starc.grammar import nodes
from starc.grammar.errors import Diagnostic, StarError, suggest
from starc.grammar.source import Span

_SMALLEST_INTEGER = -(2**31)


@dataclass(frozen=True)
class Request:
    """What a unit asks of an operator: numbers, and features in place of parameters or bindings."""

    node: nodes.Operator
    arguments: Mapping[str, Numeric]
    features: Features


def instantiate(
    request: Request,
    scope: Mapping[str, Numeric],
    width: int,
    operators: Mapping[str, nodes.Operator],
    warn: Callable[[Diagnostic], None],
) -> Body:
    """The operator's body. `scope` are the numbers known everywhere (width, layer, ...).

    Raises StarError with every fault of the body, or Poisoned when they are known already.
    """
    return _Instance(request, scope, width, operators, warn).resolve()


def match_arguments(call: nodes.Call, node: nodes.Operator) -> dict[str, nodes.Argument]:
    """The arguments of a call by the parameter that each is for."""
    declared = {p.name: p for p in node.parameters}
    given: dict[str, nodes.Argument] = {}
    for position, argument in enumerate(call.arguments):
        name = argument.name
        if name is None:
            if position >= len(node.parameters):
                raise error(
                    "wrong-argument",
                    f"'{node.name}' takes {count_words(len(declared))}, not {len(call.arguments)}.",
                    argument.span,
                    "one too many",
                    operator_signature(node),
                )
            name = node.parameters[position].name
        if name not in declared:
            raise error(
                "wrong-argument",
                f"'{node.name}' has no parameter '{name}'.",
                argument.span,
                "unknown",
                suggest(name, declared) or operator_signature(node),
            )
        if name in given:
            raise error(
                "wrong-argument",
                f"'{node.name}' is given '{name}' twice.",
                argument.span,
                hint=operator_signature(node),
            )
        given[name] = argument
    for parameter in node.parameters:
        if parameter.name not in given and parameter.default is None:
            raise error(
                "wrong-argument",
                f"'{node.name}' needs '{parameter.name}'.",
                call.span,
                f"'{parameter.name}' missing",
                operator_signature(node),
            )
    return given


def check_kind(
    number: Numeric, parameter: nodes.Parameter, node: nodes.Operator, span: Span
) -> None:
    """Refuse a fraction for a parameter declared `int`."""
    if parameter.kind == "int":
        size_of(number, f"'{parameter.name}' of '{node.name}'", span, smallest=_SMALLEST_INTEGER)


def operator_signature(node: nodes.Operator) -> str:
    """How an operator is called, for hints."""
    shown = [
        p.name
        + (f": {p.kind}" if p.kind else "")
        + (f" = {p.default.span.text}" if p.default else "")
        for p in node.parameters
    ]
    return f"{node.name}({', '.join(shown)})"


class _Instance:
    def __init__(
        self,
        request: Request,
        scope: Mapping[str, Numeric],
        width: int,
        operators: Mapping[str, nodes.Operator],
        warn: Callable[[Diagnostic], None],
    ) -> None:
        self.node, self.given, self.features = request.node, request.arguments, request.features
        self.width, self.warn = width, warn
        self.builder = Builder()
        self.places = {p.name: p.span for p in reversed(self.node.parameters)}
        later = {b.name: b.name_span for b in reversed(self.node.body)}
        self.expressions = Expressions(self.builder, scope, operators, later)
        self.failed: list[Diagnostic] = []

    def resolve(self) -> Body:
        arguments = self._parameters()
        shape = {"name": "x", "heads": 1, "channels": self.width}
        x = self.builder.emit("input", (), shape, self.node.span)
        self.expressions.names["x"] = Ref(x)
        bindings: dict[str, int] = {}
        for binding in self.node.body:
            if self._has_meaning(binding.name):
                first = self.places.get(binding.name)
                self._duplicate(binding.name, binding.name_span, first)
                self.expressions.names.setdefault(binding.name, Poison())
                continue
            self.places[binding.name] = binding.name_span
            self._bind(binding, bindings)
        self._check_output(bindings)
        if self.failed:
            raise StarError(self.failed)
        self._warn()
        return Body(
            self.node,
            tuple(arguments.items()),
            tuple(self.builder.values),
            bindings,
            dict(self.builder.parameters),
            frozenset(self.expressions.read),
        )

    def _has_meaning(self, name: str) -> bool:
        return name in self.expressions.names or (name in RESERVED and name != "y")

    def _duplicate(self, name: str, span: Span, first: Span | None) -> None:
        meaning = RESERVED.get(name)
        reason = f": {meaning}" if meaning and first is None else ""
        message = f"'{name}' already has a meaning here{reason}."
        self.failed += duplicate(message, span, first).diagnostics

    def _parameters(self) -> dict[str, Attribute]:
        names = self.expressions.names
        arguments: dict[str, Attribute] = {}
        for parameter in self.node.parameters:
            name = parameter.name
            if name in names or name in RESERVED:
                self._duplicate(name, parameter.span, None)
            elif name in self.features:
                names[name] = self._input(name)
            elif name in self.given:
                names[name] = arguments[name] = self.given[name]
            elif (value := self._default(parameter)) is not None:
                names[name] = arguments[name] = value
            else:
                names[name] = Poison()
        return arguments

    def _default(self, parameter: nodes.Parameter) -> Numeric | None:
        """The default of a parameter; None when it is at fault."""
        assert parameter.default is not None  # match_arguments saw to it
        try:
            value = self.expressions.number(parameter.default, f"the default of '{parameter.name}'")
            check_kind(value, parameter, self.node, parameter.default.span)
        except StarError as failure:
            self.failed += failure.diagnostics
        except Poisoned:
            pass
        else:
            return value
        return None

    def _input(self, name: str) -> Ref:
        type_ = self.features[name].type
        assert isinstance(type_, Feature)
        attributes = {"name": name, "heads": type_.heads, "channels": type_.channels}
        return Ref(self.builder.emit("input", (), attributes, self.node.span, name))

    def _bind(self, binding: nodes.Binding, bindings: dict[str, int]) -> None:
        names, name = self.expressions.names, binding.name
        try:
            result = self.expressions.evaluate(binding.value)
            if isinstance(result, Ref):
                self.builder.name_parameters(name)
                if name in self.features:
                    result = self._replaced(binding, result)
                self.builder.label(result.id, name)
                bindings[name] = result.id
            names[name] = result
        except StarError as failure:
            self.failed += failure.diagnostics
            names[name] = Poison()
        except Poisoned:
            names[name] = Poison()
        self.builder.discard_unnamed()

    def _replaced(self, binding: nodes.Binding, own: Ref) -> Ref:
        """A binding whose value is another unit's must have the type of its own expression."""
        taken = self.features[binding.name]
        ours = self.builder.type(own.id)
        if taken.type != ours:
            raise StarError(
                Diagnostic(
                    "sharing-type",
                    f"'{binding.name}' is a {describe(ours)} in operator '{self.node.name}', "
                    f"but '{taken.ref.unit}' has a {describe(taken.type)}.",
                    taken.place,
                    f"a {describe(taken.type)}",
                    "units that share a feature need it in the same shape.",
                    ((binding.span, f"a {describe(ours)}"),),
                )
            )
        return self._input(binding.name)

    def _check_output(self, bindings: Mapping[str, int]) -> None:
        node, names = self.node, self.expressions.names
        if "y" not in names:
            self.failed.append(
                Diagnostic(
                    "no-output",
                    f"operator '{node.name}' does not bind y.",
                    node.name_span,
                    "no y",
                    "y is what the operator gives: y = ... |> dense(width).",
                )
            )
            return
        if isinstance(names["y"], Poison):
            return
        wanted = Feature(1, self.width)
        type_ = self.builder.type(bindings["y"]) if "y" in bindings else None
        if type_ == wanted:
            return
        found = f"a {describe(type_)}" if type_ else "a number"
        hint = "y = T @ V |> dense(width), for example."
        if isinstance(type_, Feature):
            merged = type_.heads > 1 and type_.heads * type_.channels == self.width
            hint = "end with '|> merge'." if merged else "end with '|> dense(width)'."
            if type_.heads > 1 and not merged:
                hint = "end with '|> merge |> dense(width)'."
        self.failed.append(
            Diagnostic(
                "wrong-output",
                f"y of operator '{node.name}' must be a feature {wanted}, not {found}.",
                next(b.value.span for b in node.body if b.name == "y"),
                f"this is {found}",
                hint,
            )
        )

    def _warn(self) -> None:
        read = self.expressions.read
        found = [(b.name, b.name_span, "binding") for b in self.node.body if b.name != "y"]
        found += [(p.name, p.span, "parameter") for p in self.node.parameters]
        for name, span, what in found:
            if name not in read:
                self.warn(
                    Diagnostic(
                        "unread-binding",
                        f"{what} '{name}' of operator '{self.node.name}' is never read.",
                        span,
                        "unread",
                        "remove it, or use it in y.",
                        severity="warning",
                    )
                )
