"""Compile-time arguments: matching those of a call to what the catalog asks for.

Owns: names, positions, defaults, kinds and ranges of arguments. Refuses: evaluating expressions
(the caller hands a function that gives the number of one).
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from typing import Any

from starc.compiler import numbers
from starc.compiler.catalog.entry import Argument, Entry, Kind, Role, positive
from starc.compiler.catalog.position import SCALINGS
from starc.compiler.faults import error, hole_error
from starc.compiler.numbers import Numeric
from starc.grammar import nodes
from starc.grammar.errors import suggest
from starc.grammar.source import Span

MAX_SIZE = 2**31 - 1
"""Sizes are tensor extents; larger ones are refused before they reach torch."""

Evaluate = Callable[[nodes.Expr, str], Numeric]
"""(expression, what it is for) -> its number; raises StarError where it is none."""

_DRAWN = {"normal": 1, "uniform": 2, "linspace": 2}
_INITS = {**_DRAWN, "log": 1, "exp": 1, "inverse_softplus": 1}
_LARGEST_FLOAT = int(3.4e38)  # fractions are slow to compare with a float
_LARGEST_EXPONENT = 88.0
"""exp of more than this is infinite in float32."""


def bind(
    entry: Entry, arguments: tuple[nodes.Argument, ...], span: Span, number: Evaluate
) -> dict[str, Any]:
    """Arguments of a call matched to the entry's, checked and completed with defaults."""
    if not arguments and entry.complete is not None:
        return dict(entry.complete)
    found: dict[str, Any] = {}
    known = entry.known
    for position, argument in enumerate(arguments):
        if argument.name is None:
            if position >= len(entry.arguments):
                raise error(
                    "wrong-argument",
                    f"'{entry.name}' takes {count_words(len(known))}, not {len(arguments)}.",
                    argument.span,
                    "one too many",
                    signature(entry),
                )
            wanted = entry.arguments[position]
        elif argument.name in known:
            wanted = known[argument.name]
        else:
            raise error(
                "wrong-argument",
                f"'{entry.name}' has no argument '{argument.name}'.",
                argument.span,
                "unknown",
                suggest(argument.name, known) or signature(entry),
            )
        if wanted.name in found:
            raise error(
                "wrong-argument",
                f"'{entry.name}' is given '{wanted.name}' twice.",
                argument.span,
                hint=signature(entry),
            )
        found[wanted.name] = _argument(entry, wanted, argument.value, number)
    for wanted in entry.arguments:
        if wanted.name not in found:
            if wanted.default is ...:
                raise error(
                    "wrong-argument",
                    f"'{entry.name}' needs '{wanted.name}'.",
                    span,
                    f"'{wanted.name}' missing",
                    signature(entry),
                )
            found[wanted.name] = wanted.default
    return {a.name: found[a.name] for a in entry.arguments}


def split_operands(
    entry: Entry, names: Sequence[str], arguments: tuple[nodes.Argument, ...], span: Span
) -> tuple[dict[str, nodes.Argument], tuple[nodes.Argument, ...]]:
    """Arguments that are operands, by name, and the rest, which are known at compile time.

    Operands come first or are named; one that may be left out beside other arguments is named.
    """
    found: dict[str, nodes.Argument] = {}
    rest: list[nodes.Argument] = []
    by_name_only = entry.optional and bool(entry.arguments)
    for argument in arguments:
        free = [name for name in names if name not in found]
        if argument.name in names:
            name = str(argument.name)
        elif argument.name is None and free and not rest and not by_name_only:
            name = free[0]
        else:
            rest.append(argument)
            continue
        if name in found:
            raise error(
                "wrong-argument",
                f"'{entry.name}' is given '{name}' twice.",
                argument.span,
                hint=signature(entry),
            )
        found[name] = argument
    missing = [name for name in names if name not in found]
    if missing and not entry.optional:
        raise error(
            "wrong-argument",
            f"'{entry.name}' needs {' and '.join(missing)}.",
            span,
            f"{', '.join(missing)} missing",
            signature(entry),
        )
    return found, tuple(rest)


def _argument(entry: Entry, wanted: Argument, expr: nodes.Expr, number: Evaluate) -> Any:
    if isinstance(expr, nodes.Hole):
        raise hole_error(expr)
    what = f"'{wanted.name}' of '{entry.name}'"
    if wanted.kind is Kind.INIT:
        return _init(expr, number)
    if wanted.kind is Kind.RULE:
        return _scaling(what, expr, number)
    if wanted.kind is Kind.FLAG or wanted.kind is Kind.CHOICE:
        return _word(what, wanted, expr)
    value = number(expr, what)
    if wanted.kind is Kind.REAL or wanted.kind is Kind.POSITIVE:
        check_tensor_number(value, expr.span)
    if wanted.kind is Kind.REAL:
        return value
    if wanted.kind is Kind.POSITIVE:
        if value <= 0:
            shown = numbers.show(value)
            raise error(
                "bad-number",
                f"{what} must be greater than zero, not {shown}.",
                expr.span,
                f"this is {shown}",
            )
        return value
    return size_of(value, what, expr.span, smallest=1 if wanted.kind is Kind.SIZE else 0)


def _word(what: str, wanted: Argument, expr: nodes.Expr) -> bool | str:
    choices = ("true", "false") if wanted.kind is Kind.FLAG else wanted.choices
    if not isinstance(expr, nodes.Name) or expr.name not in choices:
        near = suggest(expr.name, choices) if isinstance(expr, nodes.Name) else ""
        raise error("wrong-argument", f"{what} must be {one_of(choices)}.", expr.span, hint=near)
    return expr.name == "true" if wanted.kind is Kind.FLAG else expr.name


def _scaling(what: str, expr: nodes.Expr, number: Evaluate) -> tuple[Any, ...]:
    """A scaling rule with its numbers in order, such as ("linear", 4)."""
    if isinstance(expr, nodes.Name) and expr.name == "none":
        return ("none",)
    name = getattr(expr, "function", getattr(expr, "name", ""))
    if name not in SCALINGS:
        hint = suggest(name, SCALINGS) or signature(SCALINGS["linear"])
        message = f"{what} must be none or one of {one_of(SCALINGS)}."
        raise error("wrong-argument", message, expr.span, hint=hint)
    rule = SCALINGS[name]
    arguments = expr.arguments if isinstance(expr, nodes.Call) else ()
    if not rule.variadic:
        return (name, *bind(rule, arguments, expr.span, number).values())
    listed = [a for a in arguments if a.name is None]
    named = bind(rule, tuple(a for a in arguments if a.name), expr.span, number)
    each = positive("factor")
    factors = (_argument(rule, each, a.value, number) for a in listed)
    return (name, *named.values(), *factors)


def _init(expr: nodes.Expr, number: Evaluate) -> tuple[Any, ...]:
    """A number, normal(std), uniform(a, b), linspace(a, b), or a function of one of these."""
    return _Initial(number).tree(expr)[0]


class _Initial:
    """Trees of initial values, each with the range that it can draw from.

    So log(uniform(-1, 1)) is refused here and not found as a NaN in training.
    """

    def __init__(self, number: Evaluate) -> None:
        self._evaluate = number

    def tree(self, expr: nodes.Expr) -> tuple[tuple[Any, ...], float, float]:
        """(tree, lowest, highest value)"""
        if isinstance(expr, nodes.Negate):
            inner, low, high = self.tree(expr.value)
            return ("negate", inner), -high, -low
        if isinstance(expr, nodes.Call) and expr.function in _INITS:
            takes = _INITS[expr.function]
            if len(expr.arguments) != takes or any(a.name for a in expr.arguments):
                raise error(
                    "wrong-argument",
                    f"'{expr.function}' of initial values takes {count_words(takes)}.",
                    expr.span,
                )
            if expr.function in _DRAWN:
                return self._drawn(expr)
            return self._function(expr)
        value = self._number(expr)
        return ("constant", value), value, value

    def _drawn(self, expr: nodes.Call) -> tuple[tuple[Any, ...], float, float]:
        values = [float(self._number(a.value)) for a in expr.arguments]
        if expr.function == "normal":
            if values[0] < 0:
                raise error(
                    "bad-number",
                    "a standard deviation is not negative.",
                    expr.arguments[0].span,
                    f"this is {values[0]:g}",
                )
            return ("normal", *values), -math.inf, math.inf
        low, high = values
        if low > high and expr.function == "uniform":
            raise error(
                "bad-number",
                f"'uniform' goes from {low:g} down to {high:g}.",
                expr.span,
                hint=f"write uniform({high:g}, {low:g}).",
            )
        return (expr.function, low, high), min(low, high), max(low, high)

    def _function(self, expr: nodes.Call) -> tuple[tuple[Any, ...], float, float]:
        inner, low, high = self.tree(expr.arguments[0].value)
        name = expr.function
        if name != "exp" and low <= 0:
            raise error(
                "bad-number",
                f"'{name}' of an initial value that may be zero or less.",
                expr.span,
                f"it may be {low:g}",
                f"'{name}' needs positive values, such as uniform(0.1, 1) or exp(normal(1)).",
            )
        if name != "log" and math.inf > high > _LARGEST_EXPONENT:
            raise error(
                "number-too-large", f"'{name}' of {high:g} is too large for a tensor.", expr.span
            )
        function = {"exp": _exp, "log": _log, "inverse_softplus": _inverse_softplus}[name]
        return (name, inner), function(low), function(high)

    def _number(self, expr: nodes.Expr) -> int | float:
        number = self._evaluate(expr, "an initial value")
        check_tensor_number(number, expr.span)
        return numbers.python_number(number)


def _exp(a: float) -> float:
    return math.inf if a == math.inf else max(math.exp(a), sys.float_info.min)


def _log(a: float) -> float:
    return math.log(a)


def _inverse_softplus(a: float) -> float:
    return a if a == math.inf else math.log(math.expm1(a))


def check_tensor_number(number: Numeric, span: Span) -> None:
    """Refuse a number that no tensor of float32 can hold."""
    if not -_LARGEST_FLOAT <= number <= _LARGEST_FLOAT:
        message = f"{numbers.show(number)} is too large for a tensor."
        raise error("number-too-large", message, span, hint="the largest is about 3.4e38.")


def size_of(number: Numeric, what: str, span: Span, smallest: int = 1) -> int:
    """A number as a tensor extent."""
    if isinstance(number, Fraction) and number.denominator == 1:
        if smallest <= number.numerator <= MAX_SIZE:
            return number.numerator
    elif smallest <= number <= MAX_SIZE and number == int(number):
        return int(number)
    shown = numbers.show(number)
    if number != int(number):
        raise error(
            "bad-size",
            f"{what} must be a whole number, not {shown}.",
            span,
            f"this is {shown}",
            "multiple(a, of) rounds up to a multiple.",
        )
    raise error(
        "bad-size",
        f"{what} must lie between {smallest:,} and {MAX_SIZE:,}, not {shown}.",
        span,
        f"this is {shown}",
    )


def signature(entry: Entry) -> str:
    """How an operation is written, for hints."""
    operands = entry.operands if entry.role is Role.FUNCTION else entry.operands[1:]
    arguments = [
        a.name if a.default is ... else f"{a.name} = {_shown(a.default)}" for a in entry.arguments
    ]
    if entry.variadic:
        parts = ["..."]
    elif entry.optional and arguments:
        first = ["op(...)"] if entry.op == "experts" else []
        parts = [*first, *arguments, *(f"{o} = none" for o in operands)]
    else:
        parts = [*operands, *arguments]
    return f"{entry.name}({', '.join(parts)})" if parts else entry.name


def count_words(n: int) -> str:
    return {0: "no arguments", 1: "one argument"}.get(n, f"{n} arguments")


def one_of(words: Iterable[str]) -> str:
    *rest, last = words
    return f"{', '.join(rest)} or {last}" if rest else last


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return str(value[-1])
    if isinstance(value, Fraction) and value.denominator > 1:
        return f"{float(value):g}"
    return str(value)
