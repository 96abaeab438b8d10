"""Position: rotary encoding with the rules that stretch it over longer texts, token and position.

Owns: one table entry for each, and one for each scaling rule. Refuses: the arithmetic of the rules
(templates/function/rotary_tables).
"""

from __future__ import annotations

from fractions import Fraction

from starc.compiler.catalog.entry import (
    Argument,
    Arguments,
    Entry,
    Inputs,
    Kind,
    Role,
    choice,
    count,
    feature_of,
    flag,
    positive,
    real,
    size,
)
from starc.compiler.ir import Parameter
from starc.compiler.types import Feature, Problem, Type


def _rule(name: str, doc: str, *arguments: Argument, variadic: bool = False) -> Entry:
    """A scaling rule: a name with arguments that stands in the argument `scaling` only."""
    return Entry(
        name,
        Role.INTERNAL,
        doc,
        lambda inputs, arguments: inputs[0],
        arguments=arguments,
        variadic=variadic,
    )


_FACTOR, _ORIGINAL = positive("factor"), positive("original")

SCALINGS = {
    entry.op: entry
    for entry in (
        _rule("linear", "positions divided by the factor (2306.15595)", _FACTOR),
        _rule("ntk", "theta times factor^(dims / (dims - 2))", _FACTOR),
        _rule(
            "yarn",
            "slow pairs divided, fast ones kept, between `slow` and `fast` turns (2309.00071)",
            _FACTOR,
            _ORIGINAL,
            positive("fast", Fraction(32)),
            positive("slow", Fraction(1)),
            real("attention", Fraction(0)),
            flag("truncate", True),
        ),
        _rule(
            "llama3",
            "slow pairs divided, fast ones kept, between `low` and `high` turns",
            _FACTOR,
            _ORIGINAL,
            positive("low", Fraction(1)),
            positive("high", Fraction(4)),
        ),
        _rule(
            "factors",
            "the frequency of every pair divided by a number of its own (2402.13753)",
            positive("attention", Fraction(1)),
            variadic=True,
        ),
    )
}
"""Rules that change the frequencies of rotary encoding, by name."""


def _rope(inputs: Inputs, arguments: Arguments) -> Type:
    feature, dims = feature_of(inputs[0], "rope"), arguments["dims"]
    if dims > feature.channels:
        raise Problem(
            "shape-mismatch",
            f"'rope' turns {dims} channels, but each head has {feature.channels}.",
            f"given {feature}",
        )
    dims = dims or feature.channels
    if dims % 2:
        raise Problem(
            "width-not-divisible",
            f"'rope' turns channels in pairs, so it needs an even number, not {dims}.",
            f"given {feature}",
            "'rope(theta, dims = n)' turns the first n channels of every head.",
        )
    _check_scaling(arguments, dims)
    return feature


def _check_scaling(arguments: Arguments, dims: int) -> None:
    rule, *numbers = arguments["scaling"]
    if rule == "factors" and len(numbers) != 1 + dims // 2:
        raise Problem(
            "wrong-argument",
            f"'factors' gives {len(numbers) - 1} numbers, but 'rope' turns {dims // 2} pairs.",
            f"{len(numbers) - 1} numbers",
            "each pair of channels needs a factor of its own.",
        )
    if rule == "ntk" and dims == 2:
        raise Problem("wrong-argument", "'ntk' needs more than one pair of channels.")
    if rule in ("ntk", "yarn") and arguments["theta"] <= 1:
        raise Problem("bad-number", f"'{rule}' needs a theta above 1.")
    if rule == "llama3" and numbers[2] >= numbers[3]:
        raise Problem("bad-number", "'low' of 'llama3' must be less than 'high'.")
    if rule == "yarn" and numbers[3] > numbers[2]:
        raise Problem("bad-number", "'slow' of 'yarn' must not exceed 'fast'.")


POSITION = (
    Entry(
        "rope",
        Role.STAGE,
        "rotary position encoding (RoFormer, 2104.09864)",
        _rope,
        arguments=(
            positive("theta", Fraction(10_000)),
            count("dims", 0),
            choice("pairs", "half", "interleaved"),
            Argument("scaling", Kind.RULE, ("none",)),
        ),
    ),
    Entry(
        "embedded",
        Role.INTERNAL,
        "e: the embedded tokens, as the first unit sees them",
        lambda inputs, arguments: Feature(1, arguments["channels"]),
        operands=(),
        arguments=(size("channels"),),
    ),
    Entry(
        "position",
        Role.INTERNAL,
        "index: the position of the token, from 0",
        lambda inputs, arguments: Feature(1, 1),
        operands=(),
    ),
    Entry(
        "lookup",
        Role.SOURCE,
        "a learned vector of the current token",
        lambda inputs, arguments: Feature(1, arguments["d"]),
        operands=(),
        arguments=(size("d"),),
        parameters=lambda inputs, arguments: (
            Parameter(".weight", (arguments["vocab"], arguments["d"]), ("normal", 0.02)),
        ),
    ),
)
