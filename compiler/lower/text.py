"""PyTorch text of single operations: precedence, broadcasting, numbers, initial values.

Owns: how an expression is spelt. Refuses: which values become statements (operator.py).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from starc.compiler.numbers import python_number
from starc.grammar.errors import InternalError

ATOM, UNARY, PRODUCT, SUM = 4, 3, 2, 1


@dataclass(frozen=True)
class Text:
    """A Python expression and how tightly its outermost operator binds."""

    code: str
    precedence: int = ATOM

    def within(self, precedence: int) -> str:
        """The code, in parentheses where an operator of that precedence surrounds it."""
        return self.code if self.precedence >= precedence else f"({self.code})"

    @property
    def atom(self) -> str:
        return self.within(ATOM)


def number(value: Any) -> str:
    """A compile-time number in Python."""
    if isinstance(value, Fraction | float | int) and not isinstance(value, bool):
        return repr(python_number(value))
    return repr(value)


def infix(operator: str, left: Text, right: Text) -> Text:
    """left operator right, with the parentheses that Python needs and no others."""
    level = PRODUCT if operator in "*/@" else SUM
    tighter = level + 1 if operator in "-/@" or right.precedence < level else level
    return Text(f"{left.within(level)} {operator} {right.within(tighter)}", level)


def negate(value: Text) -> Text:
    return Text(f"-{value.within(UNARY)}", UNARY)


def call(function: str, *arguments: Text | str) -> Text:
    shown = (a.code if isinstance(a, Text) else a for a in arguments)
    return Text(f"{function}({', '.join(shown)})")


def method(receiver: Text, name: str, *arguments: str) -> Text:
    return Text(f"{receiver.atom}.{name}({', '.join(arguments)})")


_FIELD = re.compile(r"\{(\w+)(?:!r)?\}")


def template(pattern: str, operands: list[Text], values: dict[str, Any]) -> Text:
    """A catalog entry's `torch` pattern filled in. A pattern in parentheses is an infix
    expression."""
    bare = pattern.startswith("(") and pattern.endswith(")")
    inner = pattern[1:-1] if bare else pattern

    def fill(match: re.Match[str]) -> str:
        key = match[1]
        if not key.isdigit():
            value = values[key]
            return f'"{value}"' if isinstance(value, str) else number(value)
        operand = operands[int(key)]
        before = inner[match.start() - 1 : match.start()]
        after = inner[match.end() : match.end() + 1]
        argument = before in ("(", " ") and after in (")", ",") and "(" in inner[: match.start()]
        return operand.code if argument else operand.atom

    code = _FIELD.sub(fill, inner).replace(', approximate="none"', "")  # PyTorch's default
    return Text(code, SUM if bare else ATOM)


def shape(sizes: tuple[int, ...]) -> str:
    return ", ".join(map(str, sizes))


def initial(init: tuple[Any, ...], sizes: tuple[int, ...]) -> str:
    """An expression that makes a tensor of a shape from an initial-value tree."""
    kind, *arguments = init
    match kind:
        case "constant":
            (value,) = arguments
            if value in (0, 1):
                return f"torch.{'ones' if value else 'zeros'}({shape(sizes)})"
            return f"torch.full(({shape(sizes)},), {float(value)!r})"
        case "normal":
            return f"torch.randn({shape(sizes)}) * {arguments[0]:.6g}"
        case "uniform":
            low, high = arguments
            return f"torch.empty({shape(sizes)}).uniform_({low:.6g}, {high:.6g})"
        case "table":
            return f"torch.tensor({arguments[0]!r}).view({shape(sizes)})"
        case "linspace":
            return _linspace(arguments, sizes)
        case "log" | "exp":
            return f"({initial(arguments[0], sizes)}).{kind}()"
        case "inverse_softplus":
            return f"({initial(arguments[0], sizes)}).expm1().log()"
        case "negate":
            return f"-({initial(arguments[0], sizes)})"
    raise InternalError(f"no initial value {kind!r}")


def _linspace(arguments: list[float], sizes: tuple[int, ...]) -> str:
    """Evenly spaced over channels, or over heads where there is one channel."""
    low, high = (f"{a:.6g}" for a in arguments)
    if len(sizes) == 2 and sizes[1] == 1:
        return f"torch.linspace({low}, {high}, {sizes[0]}).unsqueeze(1)"
    spaced = f"torch.linspace({low}, {high}, {sizes[-1]})"
    return spaced if len(sizes) == 1 else f"{spaced}.repeat({sizes[0]}, 1)"
