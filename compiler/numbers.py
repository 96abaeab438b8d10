"""Compile-time arithmetic: exact rationals until a function such as sqrt makes a real of them.

Owns: the number functions and the limits that keep a hostile program from filling memory.
Refuses: names and places (the resolver has them); a broken rule is a Problem.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache

from starc.compiler.types import Problem

Numeric = Fraction | float

MAX_BITS = 4096
"""Numerators and denominators beyond this size are refused: no size or scale needs them."""

_EXPONENT_LIMIT = 400
_EXACT_FLOAT = 2**53
_LONGEST = 24
"""Characters of a number in a message; beyond that it is rounded."""


@lru_cache(maxsize=4096)
def literal(text: str) -> Numeric:
    """The exact value of a number as spelt."""
    digits = text.replace("_", "")
    mantissa, _, exponent = digits.lower().partition("e")
    if len(mantissa) > MAX_BITS // 4 or (exponent and abs(int(exponent[:8])) > _EXPONENT_LIMIT):
        raise _too_large()
    return Fraction(digits)


def arithmetic(operator: str, left: Numeric, right: Numeric) -> Numeric:
    """left operator right, exact when both are; operator is one of + - * /."""
    try:
        if operator == "+":
            result = left + right
        elif operator == "-":
            result = left - right
        elif operator == "*":
            result = left * right
        elif right == 0:
            raise Problem("bad-number", "division by zero.", "this is zero")
        else:
            result = left / right
    except OverflowError:
        raise _too_large() from None
    return _checked(result)


def call(name: str, arguments: list[Numeric]) -> Numeric:
    """A number function applied to numbers."""
    low, high, function = FUNCTIONS[name]
    if not low <= len(arguments) <= high:
        words = {1: "one number", 2: "two numbers", 3: "three numbers"}[low]
        wanted = words if low == high else f"{words} or more"
        raise Problem("wrong-argument", f"'{name}' takes {wanted}, not {len(arguments)}.")
    try:
        return _checked(function(*arguments))
    except OverflowError:
        raise _too_large() from None
    except (ValueError, ZeroDivisionError):
        shown = ", ".join(show(a) for a in arguments)
        raise Problem("bad-number", f"'{name}({shown})' is not a number.") from None


def show(value: Numeric) -> str:
    """A number as a program would spell it."""
    if isinstance(value, float):
        return repr(value)
    if value.denominator == 1:
        exact = str(value.numerator)
    else:
        exact = f"{value.numerator} / {value.denominator}"
    return exact if len(exact) <= _LONGEST else _approximately(value)


def _approximately(value: Fraction) -> str:
    try:
        return f"{float(value):.6g}"
    except OverflowError:
        return "a number beyond 1e308"


def python_number(value: Numeric) -> int | float:
    """A number for generated code: an int where whole and not huge, else the nearest float."""
    if isinstance(value, Fraction) and value.denominator == 1 and abs(value) < _EXACT_FLOAT:
        return value.numerator
    try:
        return float(value)
    except OverflowError:
        raise _too_large() from None


def _too_large() -> Problem:
    return Problem("number-too-large", "this number is too large for starc.", "here")


def _checked(value: Numeric) -> Numeric:
    if isinstance(value, float):
        if not math.isfinite(value):
            raise _too_large()
    elif value.numerator.bit_length() + value.denominator.bit_length() > MAX_BITS:
        raise _too_large()
    return value


def _sqrt(value: Numeric) -> Numeric:
    """Exact for squares of rationals, so that sqrt(64) may still be a size."""
    if isinstance(value, Fraction) and value >= 0:
        roots = math.isqrt(value.numerator), math.isqrt(value.denominator)
        exact = Fraction(*roots)
        if exact * exact == value:
            return exact
    return math.sqrt(value)


def _power(base: Numeric, exponent: Numeric) -> Numeric:
    """Exact for small whole exponents of rationals."""
    if isinstance(exponent, Fraction) and exponent.denominator == 1 and abs(exponent) <= 64:
        return base ** int(exponent)
    return math.pow(base, exponent)


def _multiple(value: Numeric, of: Numeric) -> Numeric:
    """`value` rounded up to a multiple of `of`."""
    if of <= 0:
        raise ValueError
    return Fraction(math.ceil(value / of)) * of


FUNCTIONS: dict[str, tuple[int, int, Callable[..., Numeric]]] = {
    "sqrt": (1, 1, _sqrt),
    "exp": (1, 1, lambda a: math.exp(a)),
    "log": (1, 1, lambda a: math.log(a)),
    "cos": (1, 1, lambda a: math.cos(a)),
    "sin": (1, 1, lambda a: math.sin(a)),
    "tanh": (1, 1, lambda a: math.tanh(a)),
    "abs": (1, 1, abs),
    "floor": (1, 1, lambda a: Fraction(math.floor(a))),
    "ceil": (1, 1, lambda a: Fraction(math.ceil(a))),
    "min": (1, 64, lambda *a: min(a)),
    "max": (1, 64, lambda *a: max(a)),
    "power": (2, 2, _power),
    "multiple": (2, 2, _multiple),
    "mod": (2, 2, lambda a, b: a % b),
    "equal": (2, 2, lambda a, b: Fraction(a == b)),
    "less": (2, 2, lambda a, b: Fraction(a < b)),
    "where": (3, 3, lambda c, a, b: a if c else b),
}
"""Name -> (fewest, most arguments, function)."""
