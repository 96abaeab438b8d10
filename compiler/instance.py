"""One operator for given arguments: its parameters, its bindings from top to bottom, its output.

An operator that stands as a stage is resolved into the values of the operator that calls it: its x
is the operand, its width the operand's channels.

Owns: the body of an operator as a whole, operators as stages, and warnings about what is never
read. Refuses: expressions (expressions.py) and where the operator stands in the backbone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction

from starc.compiler.builder import Builder
from starc.compiler.calls import Surroundings, check_kind, in_call, match_arguments
from starc.compiler.experts import routed
from starc.compiler.expressions import RESERVED, Expressions
from starc.compiler.faults import duplicate, error, fail
from starc.compiler.ir import Attribute
from starc.compiler.memo import Body
from starc.compiler.numbers import Numeric
from starc.compiler.results import Opened, Poison, Poisoned, Ref, Result
from starc.compiler.sharing import Features, Taken
from starc.compiler.types import Constant, Feature, Problem, Type, describe
from starc.grammar import nodes
from starc.grammar.errors import Diagnostic, StarError
from starc.grammar.source import Span


@dataclass(frozen=True)
class Request:
    """What a unit asks of an operator: numbers, and features in place of parameters or bindings."""

    node: nodes.Operator
    arguments: Mapping[str, Numeric]
    features: Features


def instantiate(request: Request, around: Surroundings) -> Body:
    """The operator's body.

    Raises StarError with every fault of the body, or Poisoned when they are known already.
    """
    return Instance(request.node, around, request.features).resolve(request.arguments)


def with_features(body: Body, features: Features) -> Body | None:
    """What the operator of a body is when it takes these features in place of bindings: equal to
    `instantiate`, but that nothing is resolved again. None where that does not follow from the body
    alone."""
    replaced: dict[int, str] = {}
    for name, feature in features.items():
        id = body.bindings.get(name, 0)
        value = body.values[id]
        if not id or value.name != name or value.type != feature.type or name == "y":
            return None
        replaced[id] = name
    shared = len(set(body.bindings.values())) < len(body.bindings)
    if not body.flat or shared or any(value.op == "transposed" for value in body.values):
        return None
    builder, new = Builder(), list[int]()
    for id, value in enumerate(body.values):
        made = builder.keep(value, tuple(new[i] for i in value.inputs), ())
        if id in replaced:  # the binding's own value stays, and nothing reads it
            builder.values[made] = replace(builder.values[made], name="")
            made = _input(builder, body.node, replaced[id], value.type)
        new.append(made)
    bindings = {name: new[id] for name, id in body.bindings.items()}
    return replace(body, values=tuple(builder.values), bindings=bindings)


def _input(builder: Builder, node: nodes.Operator, name: str, type_: Type) -> int:
    """A feature that comes from another unit."""
    assert isinstance(type_, Feature)
    attributes = {"name": name, "heads": type_.heads, "channels": type_.channels}
    return builder.emit("input", (), attributes, node.span, name)


class Instance:
    """An operator under construction: that of a unit, or one called inside of it by `caller`."""

    def __init__(
        self,
        node: nodes.Operator,
        around: Surroundings,
        features: Features,
        caller: Instance | None = None,
        apart: bool = False,
    ) -> None:
        self.node, self.around, self.features, self.caller = node, around, features, caller
        self.builder: Builder = caller.builder if caller and not apart else Builder()
        self.given: Mapping[str, Result] = {}
        self.places = {p.name: p.span for p in reversed(node.parameters)}
        later = {b.name: b.name_span for b in reversed(node.body)}
        numbers, scope = around.numbers, around.scope
        if caller is None:
            numbers = {**around.own, **numbers}
        self.expressions = Expressions(
            self.builder, numbers, lambda: scope(node), later, self._stage
        )
        self.expressions.causal = around.causal
        self.failed: list[Diagnostic] = []
        self.uses: set[str] = caller.uses if caller else set()
        self.calls: dict[str, nodes.Operator] = caller.calls if caller else {}

    @property
    def width(self) -> Fraction:
        return Fraction(self.around.numbers["width"])

    def resolve(self, given: Mapping[str, Numeric]) -> Body:
        """The body of a unit's operator."""
        self.given = given
        self.builder.reserve(["x", *self.places, *(b.name for b in self.node.body)])
        arguments = self._parameters()
        shape = {"name": "x", "heads": 1, "channels": int(self.width)}
        bindings = self._body(self.builder.emit("input", (), shape, self.node.span))
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
            frozenset(self.uses | self.expressions.read),
            tuple(self.calls.items()),
            tuple(self.builder.inner),
            not self.expressions.opened and not self.builder.inner,
        )

    def _body(self, x: int) -> dict[str, int]:
        """Resolve all bindings; the values of those that are no numbers."""
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
        return bindings

    # --- operators as stages ---------------------------------------------------------------------

    def _stage(
        self,
        name: str,
        operand: int,
        arguments: tuple[nodes.Argument, ...],
        name_span: Span,
        span: Span,
    ) -> Ref:
        """`operand |> name(arguments)` for an operator of that name, or for `experts`."""
        if name == "experts":
            with self.builder.called(name):
                return routed(self, operand, arguments, name_span, span)
        node = self.expressions.operators[name]
        self.check_depth(node, name_span)
        self.check_operand(operand, name, name_span)
        call = nodes.Call(name, arguments, name_span=name_span, span=span)
        return self.written_out(node, call, operand)

    def written_out(self, node: nodes.Operator, call: nodes.Call, operand: int) -> Ref:
        """What an operator makes of an operand, its values among those of this operator."""
        given = self._arguments(match_arguments(call.arguments, node, call.span), node)
        inner = Instance(node, self._around(node, operand), {}, self)
        try:
            with self.builder.called(node.name):
                return inner.call(given, operand)
        except StarError as failure:
            raise in_call(failure, call.span, node, always=True) from None

    def expert(
        self, node: nodes.Operator, call: nodes.Call, operand: int
    ) -> tuple[Body, dict[str, int]]:
        """An operator called on an operand as a body of its own, and the features given to it."""
        given = self._arguments(match_arguments(call.arguments, node, call.span), node)
        numbers, features, ids = {}, {}, {}
        for name, result in given.items():
            if not isinstance(result, Ref):
                numbers[name] = result
                continue
            ids[name] = result.id
            span = next(a.span for a in call.arguments)
            features[name] = Taken(self.builder.type(result.id), name, span)
            if not isinstance(features[name].type, Feature):
                raise error(
                    "wrong-type",
                    f"'{name}' of an expert must be a feature, not a "
                    f"{describe(features[name].type)}.",
                    call.span,
                    hint="a constant becomes one by a product with a feature.",
                )
        inner = Instance(node, self._around(node, operand), features, self, apart=True)
        try:
            body = inner.resolve(numbers)
        except StarError as failure:
            raise in_call(failure, call.span, node, always=True) from None
        self.uses |= body.uses
        return body, ids

    def _around(self, node: nodes.Operator, operand: int) -> Surroundings:
        """What an operator sees that is called on an operand: a width of its own."""
        if self.around.operators.get(node.name) is node:
            self.calls[node.name] = node
        type_ = self.builder.type(operand)
        assert isinstance(type_, Feature)
        numbers = {**self.around.numbers, "width": Fraction(type_.channels)}
        return replace(self.around, numbers=numbers)

    def call(self, given: Mapping[str, Result], operand: int) -> Ref:
        """The value that the operator makes of an operand, in the values of its caller."""
        self.given = given
        self._parameters()
        bindings = self._body(operand)
        self._check_output(bindings)
        if self.failed:
            raise StarError(self.failed)
        if isinstance(self.expressions.names["y"], Poison):
            raise Poisoned
        self._warn()
        self.uses |= self.expressions.read
        y = Ref(bindings["y"])
        assert self.caller is not None
        self.caller.expressions.opened[y.id] = Opened(self.node, self.expressions.names)
        return y

    def check_depth(self, node: nodes.Operator, span: Span) -> None:
        """Refuse an operator that calls itself, and operators in operators without end."""
        around: list[nodes.Operator] = []
        instance: Instance | None = self
        while instance is not None:
            around.append(instance.node)
            instance = instance.caller
        if node in around:
            path = [n.name for n in reversed(around[: around.index(node) + 1])]
            raise error(
                "recursive-operator",
                f"operator '{node.name}' calls itself: {' -> '.join([*path, node.name])}.",
                span,
                "again",
                "an operator as a stage is written out; 'repeat' and 'loop' apply units again.",
            )
        limits = self.around.limits
        if len(around) > limits.depth:
            raise error(
                "calls-too-deep",
                f"operators call operators more than {limits.depth} deep.",
                span,
                hint="raise the limit with --max-depth.",
            )
        if len(self.builder.values) > limits.values:
            raise error(
                "operator-too-large",
                f"operator '{around[-1].name}' has more than {limits.values:,} values "
                "when the operators that it calls are written out.",
                span,
                hint="raise the limit with --max-values.",
            )

    def check_operand(self, operand: int, name: str, span: Span) -> None:
        """Refuse what cannot be the x of an operator."""
        type_ = self.builder.type(operand)
        if isinstance(type_, Feature) and type_.heads == 1:
            return
        if isinstance(type_, Feature):
            raise error(
                "heads-not-merged",
                f"'{name}' works on all channels, but its input {type_} is split into heads.",
                span,
                f"{type_.heads} heads of {type_.channels} channels",
                "put 'merge' before it.",
            )
        raise error(
            "wrong-type",
            f"operator '{name}' needs a feature, not a {describe(type_)}.",
            span,
            f"given a {describe(type_)}",
        )

    def _arguments(
        self, given: Mapping[str, nodes.Argument], node: nodes.Operator
    ) -> dict[str, Result]:
        """Arguments of an operator that stands as a stage: numbers, and features of this one."""
        declared = {p.name: p for p in node.parameters}
        found: dict[str, Result] = {}
        for name, argument in given.items():
            span = argument.value.span
            if declared[name].kind != "feature":
                number = self.expressions.number(argument.value, f"'{name}' of '{node.name}'")
                check_kind(number, declared[name], node, span)
                found[name] = number
                continue
            found[name] = result = self.expressions.evaluate(argument.value)
            type_ = self.builder.type(result.id) if isinstance(result, Ref) else None
            if type_ and not isinstance(type_, Feature | Constant):
                problem = Problem(
                    "wrong-type",
                    f"'{name}' of '{node.name}' must be a feature, not a {describe(type_)}.",
                    f"this is a {describe(type_)}",
                )
                raise fail(problem, span)
        return found

    # --- parameters and bindings ------------------------------------------------------------------

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
                names[name] = given = self.given[name]
                if not isinstance(given, Ref):
                    arguments[name] = given
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
        return Ref(_input(self.builder, self.node, name, self.features[name].type))

    def _bind(self, binding: nodes.Binding, bindings: dict[str, int]) -> None:
        names, name = self.expressions.names, binding.name
        try:
            result = self.expressions.evaluate(binding.value)
            if isinstance(result, Ref):
                self.builder.name_parameters("" if self.node.name == "experts" else name)
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
                    f"but '{taken.label}' has a {describe(taken.type)}.",
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
        wanted = Feature(1, int(self.width))
        type_ = self.builder.type(bindings["y"]) if "y" in bindings else None
        if type_ == wanted or (self.caller and isinstance(type_, Feature)):
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
                f"y of operator '{node.name}' must be a feature"
                f"{'' if self.caller else f' {wanted}'}, not {found}.",
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
                self.around.warn(
                    Diagnostic(
                        "unread-binding",
                        f"{what} '{name}' of operator '{self.node.name}' is never read.",
                        span,
                        "unread",
                        "remove it, or use it in y.",
                        severity="warning",
                    )
                )
