"""What the catalog says about one operation: spelling, arguments, type rule, parameters and cost.

Owns: the shape of an entry and helpers that many entries share. Refuses: any particular operation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from fractions import Fraction
from functools import cached_property
from math import isqrt
from typing import Any

from starc.compiler.ir import Parameter
from starc.compiler.types import Constant, Feature, Filter, Mixer, Problem, Type, describe

Arguments = Mapping[str, Any]
Inputs = Sequence[Type]
Rule = Callable[[Inputs, Arguments], Type]
Parameters = Callable[[Inputs, Arguments], tuple[Parameter, ...]]
Flops = Callable[[Inputs, Arguments, int], Fraction]
Idle = Callable[[Inputs, Arguments], int]


class Role(Enum):
    """Where an operation may stand in a program."""

    STAGE = "stage"  # value |> op(...), and op(value, ...)
    MIXER_STAGE = "mixer stage"  # mixer |> op(...)
    FUNCTION = "function"  # op(value, ...) only
    SOURCE = "source"  # op(...) without an operand
    INTERNAL = "internal"  # written by operators such as + and @, or by passes


class Kind(Enum):
    """What an argument must be."""

    SIZE = "positive integer"
    COUNT = "non-negative integer"
    REAL = "number"
    POSITIVE = "positive number"
    FLAG = "true or false"
    CHOICE = "name"
    INIT = "initial value"
    RULE = "rule"


@dataclass(frozen=True)
class Argument:
    """One compile-time argument. An absent default (`...`) makes it required."""

    name: str
    kind: Kind
    default: Any = ...
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Entry:
    """One operation.

    `rule` gives the type of the result from the operands' types, or raises Problem. `flops` counts
    the floating-point operations of matrix products and convolutions over a sequence of a length
    (pointwise work is not counted). `local` says that token t of the result reads only token t of
    the operands.
    `idle` counts the numbers that a token does not use, of the operation's own parameter or else
    of the constant that is its last operand.
    With `optional` the last operand may be left out.
    `torch` is a PyTorch expression for operations that need no more: operands are {0}, {1}, ...,
    attributes stand under their names.
    """

    op: str
    role: Role
    doc: str
    rule: Rule
    operands: tuple[str, ...] = ("value",)
    arguments: tuple[Argument, ...] = ()
    parameters: Parameters = lambda inputs, arguments: ()
    flops: Flops = lambda inputs, arguments, length: Fraction(0)
    idle: Idle = lambda inputs, arguments: 0
    local: bool = True
    pointwise: bool = False
    variadic: bool = False
    optional: bool = False
    torch: str = ""
    spelling: str = ""

    @cached_property
    def known(self) -> Mapping[str, Argument]:
        """Arguments by name."""
        return {argument.name: argument for argument in self.arguments}

    @cached_property
    def complete(self) -> Mapping[str, Any] | None:
        """The arguments of a call that gives none; None where it must give some."""
        if any(argument.default is ... for argument in self.arguments):
            return None
        return {argument.name: argument.default for argument in self.arguments}

    @property
    def name(self) -> str:
        """How programs write it."""
        return self.spelling or self.op


def size(name: str, default: Any = ...) -> Argument:
    return Argument(name, Kind.SIZE, default)


def count(name: str, default: Any = ...) -> Argument:
    return Argument(name, Kind.COUNT, default)


def real(name: str, default: Any = ...) -> Argument:
    return Argument(name, Kind.REAL, default)


def positive(name: str, default: Any = ...) -> Argument:
    return Argument(name, Kind.POSITIVE, default)


def flag(name: str, default: bool) -> Argument:
    return Argument(name, Kind.FLAG, default)


def choice(name: str, *choices: str) -> Argument:
    """A choice between names; the first is the default."""
    return Argument(name, Kind.CHOICE, choices[0], choices)


def value_of(type_: Type, what: str) -> Feature | Constant:
    """The operand as a feature or constant, or the Problem that it is none."""
    if not isinstance(type_, Feature | Constant):
        raise Problem(
            "wrong-type",
            f"'{what}' needs a feature, not a {describe(type_)}.",
            f"given a {describe(type_)}",
            _feature_hint(type_),
        )
    return type_


def feature_of(type_: Type, what: str) -> Feature:
    """The operand as a feature: stages that move along or depend on tokens refuse constants."""
    if not isinstance(type_, Feature):
        raise Problem(
            "wrong-type",
            f"'{what}' needs a feature, not a {describe(type_)}.",
            f"given a {describe(type_)}",
            _feature_hint(type_) or "a feature has a token axis: it comes from x.",
        )
    return type_


def _feature_hint(type_: Type) -> str:
    if isinstance(type_, Mixer):
        return "apply the mixer to a feature first: T @ V."
    return "filters are for toeplitz(K)." if isinstance(type_, Filter) else ""


def with_shape(type_: Feature | Constant, heads: int, channels: int) -> Feature | Constant:
    """A type of the same kind with another shape."""
    return type(type_)(heads, channels)


def divisors(n: int, limit: int = 6) -> str:
    """A few divisors of n in words, for hints."""
    small = [d for d in range(2, isqrt(n) + 1) if n % d == 0]
    found = sorted({*small, *(n // d for d in small)})[:limit]
    return f"{n} is divisible by {', '.join(map(str, found))}." if found else f"{n} is prime."


def same_type(what: str) -> Rule:
    """The rule of a stage that keeps the type of a feature or constant."""

    def rule(inputs: Inputs, arguments: Arguments) -> Type:
        return value_of(inputs[0], what)

    return rule


def shape_of(heads: int, channels: int) -> tuple[int, ...]:
    """The tensor shape of a learned constant P[h, d]: (h, d), or (d,) with one head."""
    return (channels,) if heads == 1 else (heads, channels)
