"""Resolving the body of an operator: names, numbers and types, one binding after the other.

Owns: what an expression means, and every diagnostic about one. Refuses: the backbone (resolve.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

from starc.compiler import catalog, numbers
from starc.compiler.algebra import check_causal, check_product
from starc.compiler.arguments import (
    MAX_SIZE,
    bind,
    check_tensor_number,
    signature,
    size_of,
    split_operands,
)
from starc.compiler.builder import Builder
from starc.compiler.catalog.entry import Entry, Role
from starc.compiler.catalog.scores import default_slopes
from starc.compiler.faults import error, fail, hole_error
from starc.compiler.numbers import Numeric
from starc.compiler.results import Opened, Poison, Poisoned, Ref, Result, member
from starc.compiler.types import Filter, Mixer, Problem, Transition, Type, describe
from starc.grammar import nodes
from starc.grammar.errors import Diagnostic, StarError, suggest
from starc.grammar.library import where_declared
from starc.grammar.source import Span

RESERVED = {
    "x": "the unit's input",
    "y": "the unit's output",
    "e": "the embedded tokens",
    "index": "the position of the token",
}
"""Names that mean the same in every operator."""


READS_ROWS = frozenset({"mixer_softmax", "normalize", "standardize", "select"})
"""Stages by which every entry of a row depends on all visible ones."""

MAX_MIXER_PARTS = 100
"""Constructors, stages and operators that one mixer may be made of."""


Stage = Callable[[str, int, tuple[nodes.Argument, ...], Span, Span], Ref]
"""(name of an operator, operand, arguments, place of the name, place of the call) -> value."""


class Expressions:
    """Evaluates expressions of one operator into a Builder.

    `numbers_` are the compile-time numbers in scope (width, layer, parameters ...); `names` maps
    bindings to their results. `read` records the names that were used. `stage` resolves one of the
    `operators` (asked for only then) that stands as a stage; `opened` holds, by the value that it
    gave, the names inside of it.
    """

    def __init__(
        self,
        builder: Builder,
        numbers_: Mapping[str, Numeric],
        operators: Callable[[], Mapping[str, nodes.Operator]],
        later: Mapping[str, Span],
        stage: Stage | None = None,
    ) -> None:
        self.builder = builder
        self.names: dict[str, Result | Poison] = dict(numbers_)
        self.read: set[str] = set()
        self.opened: dict[int, Opened] = {}
        self._find_operators = operators
        self._call_operator = stage
        self._later = later
        self._parts: dict[int, int] = {}
        self.causal = True

    @property
    def operators(self) -> Mapping[str, nodes.Operator]:
        return self._find_operators()

    # --- values ---------------------------------------------------------------------------------

    def evaluate(self, expr: nodes.Expr) -> Result:
        """The number or value of an expression; raises StarError at the smallest place at fault."""
        match expr:
            case nodes.Number():
                return self._number(lambda: numbers.literal(expr.text), expr.span)
            case nodes.Name():
                return self._name(expr)
            case nodes.Negate():
                return self._negate(expr)
            case nodes.Binary():
                return self._binary(expr)
            case nodes.Pipe():
                return self._pipe(expr)
            case nodes.Call():
                return self._call(expr)
            case nodes.Hole():
                raise hole_error(expr)
            case nodes.Text():
                raise error(
                    "wrong-type",
                    "a string is documentation and has no value.",
                    expr.span,
                    hint="strings may stand first in an operator or model, and nowhere else.",
                )
            case nodes.Member():
                whole = (
                    self._name(nodes.Name(expr.unit, span=expr.span))
                    if expr.unit in self.names
                    else None
                )
                return member(expr, whole, self.opened)

    def number(self, expr: nodes.Expr, what: str) -> Numeric:
        """An expression that must be a compile-time number."""
        result = self.evaluate(expr)
        if isinstance(result, Ref):
            type_ = self.builder.type(result.id)
            raise error(
                "wrong-type",
                f"{what} must be a number, not a {describe(type_)}.",
                expr.span,
                f"this is a {describe(type_)}",
            )
        return result

    def value(self, expr: nodes.Expr) -> int:
        """An expression as a value id; a number becomes a literal constant."""
        return self._lift(self.evaluate(expr), expr.span)

    def _lift(self, result: Result, span: Span) -> int:
        if isinstance(result, Ref):
            return result.id
        check_tensor_number(result, span)
        return self.builder.emit("number", (), {"value": result}, span)

    def _emit(
        self, op: str, inputs: tuple[int, ...], attributes: dict[str, Any], span: Span
    ) -> Ref:
        try:
            id = self.builder.emit(op, inputs, attributes, span)
        except Problem as problem:
            raise fail(problem, span) from None
        type_ = self.builder.type(id)
        if isinstance(type_, Mixer):
            self._count_parts(id, inputs, span)
        elif not isinstance(type_, Filter | Transition) and type_.heads * type_.channels > MAX_SIZE:
            # What two sizes make together is an extent, too.
            total = Fraction(type_.heads * type_.channels)
            size_of(total, f"the size of a {describe(type_)}", span)
        return Ref(id)

    def _count_parts(self, id: int, inputs: tuple[int, ...], span: Span) -> None:
        """Refuse a mixer whose algebra, multiplied out, would be without end."""
        self._parts[id] = parts = 1 + sum(self._parts.get(i, 0) for i in inputs)
        if parts > MAX_MIXER_PARTS:
            raise error(
                "mixer-too-large",
                f"this mixer is made of more than {MAX_MIXER_PARTS} parts.",
                span,
                hint="apply parts of it to features first: T1 @ (T2 @ V).",
            )

    def _number(self, compute: Callable[[], Numeric], span: Span) -> Numeric:
        try:
            return compute()
        except Problem as problem:
            raise fail(problem, span) from None

    def _name(self, expr: nodes.Name) -> Result:
        name = expr.name
        if name in self.names:
            self.read.add(name)
            result = self.names[name]
            if isinstance(result, Poison):
                raise Poisoned
            return result
        if name in self._later:
            raise StarError(
                Diagnostic(
                    "unknown-name",
                    f"'{name}' is read before it is bound.",
                    expr.span,
                    related=((self._later[name], "bound here"),),
                    hint="names are read from top to bottom.",
                )
            )
        if name in ("e", "index"):
            return self._of_the_token(name, expr.span)
        if catalog.is_stage(name) or catalog.find_function(name):
            raise error(
                "wrong-type",
                f"'{name}' is an operation, not a value.",
                expr.span,
                hint=f"write x |> {name}, or {name}(...) with its arguments.",
            )
        raise error(
            "unknown-name",
            f"nothing is named '{name}' here.",
            expr.span,
            "unknown",
            suggest(name, self.names) or _in_scope(self.names),
        )

    def _of_the_token(self, name: str, span: Span) -> Ref:
        """The embedded tokens or their positions: the same for every unit."""
        if name == "index":
            return self._emit("position", (), {}, span)
        values = self.builder.values
        stream = next((v for v in values if v.op == "input" and v.attribute("name") == "x"), None)
        if stream is None:
            raise error("wrong-type", "'e' is a feature and belongs to operators.", span)
        return self._emit("embedded", (), {"channels": stream.attribute("channels")}, span)

    # --- arithmetic -----------------------------------------------------------------------------

    def _negate(self, expr: nodes.Negate) -> Result:
        result = self.evaluate(expr.value)
        if not isinstance(result, Ref):
            return -result
        type_ = self.builder.type(result.id)
        if isinstance(type_, Transition):
            minus = self._lift(Fraction(-1), expr.span)
            return self._emit("transition_product", (minus, result.id), {}, expr.span)
        mixer = isinstance(type_, Mixer)
        return self._emit("mixer_negate" if mixer else "negate", (result.id,), {}, expr.span)

    def _binary(self, expr: nodes.Binary) -> Result:
        left, right = self.evaluate(expr.left), self.evaluate(expr.right)
        operator = expr.operator
        if not isinstance(left, Ref) and not isinstance(right, Ref):
            if operator == "@":
                raise error("wrong-type", "'@' applies a mixer; both sides are numbers.", expr.span)
            return self._number(lambda: numbers.arithmetic(operator, left, right), expr.span)
        left_mixer, right_mixer = self._is_mixer(left), self._is_mixer(right)
        types = self._type(left), self._type(right)
        if Transition in map(type, types) and not left_mixer and not right_mixer:
            inverse = check_product(expr, *types, None if isinstance(right, Ref) else right)
            factor = right if inverse is None else inverse
            ids = self._lift(left, expr.left.span), self._lift(factor, expr.right.span)
            return self._emit("transition_product", ids, {}, expr.span)
        if operator == "@":
            return self._apply(expr, left, right)
        if not left_mixer and not right_mixer:
            op = {"+": "add", "-": "subtract", "*": "multiply", "/": "divide"}[operator]
            ids = self._lift(left, expr.left.span), self._lift(right, expr.right.span)
            return self._emit(op, ids, {}, expr.span)
        return self._mixer_arithmetic(expr, left, right)

    def _words(self, result: Result) -> str:
        return (
            f"a {describe(self.builder.type(result.id))}" if isinstance(result, Ref) else "a number"
        )

    def _type(self, result: Result) -> Type | None:
        return self.builder.type(result.id) if isinstance(result, Ref) else None

    def _is_mixer(self, result: Result) -> bool:
        return isinstance(self._type(result), Mixer)

    def _apply(self, expr: nodes.Binary, left: Result, right: Result) -> Result:
        left_id, right_id = self._lift(left, expr.left.span), self._lift(right, expr.right.span)
        type_ = self.builder.type(left_id)
        if not isinstance(type_, Mixer):
            raise error(
                "wrong-type",
                f"the left side of '@' must be a mixer, not a {describe(type_)}.",
                expr.left.span,
                f"this is a {describe(type_)}",
                "mixers are made by diagonal, low_rank, semi_separable and toeplitz.",
            )
        if self._is_mixer(right):
            # A row of T1 @ T2 reads every token that a row of T1 does: a later mask cannot undo it.
            self._check_causal(left_id, "'@'", expr.left.span)
            return self._emit("compose", (left_id, right_id), {}, expr.span)
        self._check_causal(left_id, "'@'", expr.left.span)
        return self._emit("apply", (left_id, right_id), {}, expr.span)

    def _check_causal(self, id: int, what: str, span: Span) -> None:
        if self.causal:
            check_causal(self.builder.values, id, what, span)

    def _mixer_arithmetic(self, expr: nodes.Binary, left: Result, right: Result) -> Result:
        operator = expr.operator
        both = self._is_mixer(left) and self._is_mixer(right)
        if operator in "+-*" and both:
            assert isinstance(left, Ref)
            assert isinstance(right, Ref)
            op = {"+": "mixer_add", "-": "mixer_subtract", "*": "mixer_multiply"}[operator]
            return self._emit(op, (left.id, right.id), {}, expr.span)
        if operator == "*" and self._is_mixer(right) and not both:
            assert isinstance(right, Ref)
            if not isinstance(left, Ref):
                check_tensor_number(left, expr.left.span)
                return self._emit("mixer_scale", (right.id,), {"s": left}, expr.span)
            return self._emit("row_scale", (left.id, right.id), {}, expr.span)
        if operator in "*/" and isinstance(left, Ref) and not isinstance(right, Ref):
            factor = right if operator == "*" else None
            if factor is None:
                factor = self._number(
                    lambda: numbers.arithmetic("/", Fraction(1), right), expr.right.span
                )
            check_tensor_number(factor, expr.right.span)
            return self._emit("mixer_scale", (left.id,), {"s": factor}, expr.span)
        raise error(
            "wrong-type",
            f"'{operator}' does not combine {self._words(left)} and {self._words(right)}.",
            expr.span,
            hint="mixers know T1 + T2, T1 - T2, T1 * T2, T1 @ T2, T @ V, and f * T: rows scaled.",
        )

    # --- calls ----------------------------------------------------------------------------------

    def _pipe(self, expr: nodes.Pipe) -> Result:
        operand = self._lift(self.evaluate(expr.value), expr.value.span)
        stage = expr.stage
        if isinstance(stage, nodes.Hole):
            raise hole_error(stage)
        if isinstance(stage, nodes.Name):
            return self._stage(stage.name, stage.span, operand, (), stage.span)
        return self._stage(stage.function, stage.name_span, operand, stage.arguments, stage.span)

    def _stage(
        self,
        name: str,
        name_span: Span,
        operand: int,
        arguments: tuple[nodes.Argument, ...],
        span: Span,
    ) -> Result:
        entry = catalog.find_stage(name, self.builder.type(operand))
        if name == "experts":
            if self._call_operator is None:
                raise error("wrong-type", "'experts' stands in operators and backbones.", name_span)
            return self._call_operator(name, operand, arguments, name_span, span)
        if entry is None:
            if self._call_operator and name not in self.names and name in self.operators:
                return self._call_operator(name, operand, arguments, name_span, span)
            raise self._no_such_stage(name, name_span)
        given: dict[str, nodes.Argument] = {}
        if len(entry.operands) > 1:
            given, arguments = split_operands(entry, entry.operands[1:], arguments, span)
        attributes = self.bind(entry, arguments, span)
        if entry.op in READS_ROWS and self._is_mixer(Ref(operand)):
            self._check_causal(operand, f"'{name}'", name_span)
        others = [self.value(a.value) for a in given.values()]
        if entry.optional and not others and self._is_mixer(Ref(operand)):
            others = self._default(entry, operand, span)
        return self._emit(entry.op, (operand, *others), attributes, span)

    def _default(self, entry: Entry, mixer: int, span: Span) -> list[int]:
        """What stands for the optional operand of a stage on mixers."""
        type_ = self.builder.type(mixer)
        assert isinstance(type_, Mixer)
        init: tuple[Any, ...] = ("constant", 0)
        if entry.op == "alibi":
            slopes = default_slopes(type_.heads)
            init = ("table", slopes if len(slopes) == 1 else tuple((s,) for s in slopes))
        elif entry.op != "sink":
            return []
        shape = {"heads": type_.heads, "channels": 1, "init": init}
        shape["learned"] = entry.op == "sink"
        return [self._emit("param", (), shape, span).id]

    def _no_such_stage(self, name: str, span: Span) -> StarError:
        if name in self.names:
            return error(
                "wrong-type",
                f"'{name}' is a value, not a stage.",
                span,
                hint="a stage stands after |>: x |> dense(n).",
            )
        if catalog.find_function(name):
            return error(
                "wrong-type",
                f"'{name}' is a function, not a stage.",
                span,
                hint=f"write {name}(...) without |>.",
            )
        known = catalog.names([Role.STAGE, Role.MIXER_STAGE])
        return error(
            "unknown-name",
            f"there is no stage '{name}'.",
            span,
            "unknown",
            where_declared(name) or suggest(name, [*known, *self.operators]),
        )

    def _call(self, expr: nodes.Call) -> Result:
        name = expr.function
        positional = [a for a in expr.arguments if a.name is None]
        if name in numbers.FUNCTIONS and len(positional) == len(expr.arguments):
            results = [self.evaluate(a.value) for a in positional]
            plain = [r for r in results if not isinstance(r, Ref)]
            if len(plain) == len(results):
                return self._number(lambda: numbers.call(name, plain), expr.span)
            if name == "where" and not isinstance(results[0], Ref) and len(results) == 3:
                return results[1] if results[0] else results[2]
            if catalog.is_stage(name):
                operand = self._lift(results[0], positional[0].value.span)
                return self._stage(name, expr.name_span, operand, expr.arguments[1:], expr.span)
            if pair := catalog.find_function(name):
                return self._function(pair, expr)
            raise error("wrong-type", f"'{name}' is a function of numbers.", expr.span)
        entry = catalog.find_function(name)
        if entry is not None:
            return self._function(entry, expr)
        if catalog.is_stage(name):
            if not positional or expr.arguments[0].name is not None:
                raise error(
                    "wrong-argument",
                    f"'{name}' is a stage and needs a feature to act on.",
                    expr.span,
                    hint=f"write x |> {name}(...).",
                )
            operand = self._operand(positional[0].value, expr)
            return self._stage(name, expr.name_span, operand, expr.arguments[1:], expr.span)
        if name in self.operators and self._call_operator:
            if not positional or expr.arguments[0].name is not None:
                raise error(
                    "wrong-argument",
                    f"'{name}' is an operator and needs a feature to act on.",
                    expr.span,
                    hint=f"write x |> {name}(...).",
                )
            operand = self.value(positional[0].value)
            return self._stage(name, expr.name_span, operand, expr.arguments[1:], expr.span)
        known = [*catalog.NAMES, *numbers.FUNCTIONS, *self.operators]
        raise error(
            "unknown-name",
            f"there is no function '{name}'.",
            expr.name_span,
            "unknown",
            suggest(name, known),
        )

    def _operand(self, first: nodes.Expr, call: nodes.Call) -> int:
        """The first argument of a stage written as a function: dense(V, n)."""
        result = self.evaluate(first)
        if not isinstance(result, Ref) and not catalog.is_pointwise(call.function):
            raise error(
                "wrong-argument",
                f"'{call.function}' is a stage and needs a feature to act on.",
                call.span,
                hint=f"write x |> {call.function}(...).",
            )
        return self._lift(result, first.span)

    def _function(self, entry: Entry, expr: nodes.Call) -> Result:
        """A constructor: operands first (by position or by name), then compile-time arguments."""
        if entry.variadic:
            if not expr.arguments or any(a.name for a in expr.arguments):
                raise error(
                    "wrong-argument",
                    f"'{entry.name}' takes one or more features.",
                    expr.span,
                    hint=signature(entry),
                )
            ids = tuple(self.value(a.value) for a in expr.arguments)
            return self._emit(entry.op, ids, {}, expr.span)
        given, rest = split_operands(entry, entry.operands, expr.arguments, expr.span)
        operands = {name: self.value(given[name].value) for name in given}
        attributes = self.bind(entry, rest, expr.span)
        if known := {"lookup": "vocab", "static": "context"}.get(entry.op):
            attributes[known] = int(self.number(nodes.Name(known, span=expr.span), known))
        ids = tuple(operands[o] for o in entry.operands)
        return self._emit(entry.op, ids, attributes, expr.span)

    def bind(
        self, entry: Entry, arguments: tuple[nodes.Argument, ...], span: Span
    ) -> dict[str, Any]:
        """The compile-time arguments of a call, checked and completed."""
        return bind(entry, arguments, span, self.number)


def _in_scope(names: Mapping[str, object]) -> str:
    return f"in scope: {', '.join(sorted(names))}." if names else "nothing is in scope here yet."
