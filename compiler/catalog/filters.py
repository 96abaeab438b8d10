"""Causal filters, the generators of Toeplitz mixers.

Owns: one table entry for each. Refuses: how they are applied (the pass `select` decides that).
"""

from __future__ import annotations

import math
from fractions import Fraction

from starc.compiler.catalog.entry import Arguments, Entry, Inputs, Role, choice, flag, size
from starc.compiler.ir import Parameter
from starc.compiler.types import Filter, Problem, Type

IMPLICIT_BANDS = 8
"""Sine and cosine pairs in the position features of an implicit filter."""


def _implicit_parameters(inputs: Inputs, arguments: Arguments) -> tuple[Parameter, ...]:
    channels, hidden = arguments["channels"], arguments["hidden"]
    features = 1 + 2 * IMPLICIT_BANDS
    return (
        Parameter(".inner.weight", (hidden, features), ("normal", features**-0.5)),
        Parameter(".inner.bias", (hidden,), ("normal", 1.0)),
        Parameter(".hidden.weight", (hidden, hidden), ("normal", hidden**-0.5)),
        Parameter(".hidden.bias", (hidden,), ("normal", 1.0)),
        Parameter(".outer.weight", (channels, hidden), ("normal", 0.1 * hidden**-0.5)),
    )


def modes(arguments: Arguments) -> int:
    """Exponentials of an ssm filter that are stored; complex ones stand for two."""
    order: int = arguments["order"]
    return order if arguments["init"] == "real" else order // 2


def _ssm(inputs: Inputs, arguments: Arguments) -> Type:
    if arguments["init"] != "real" and arguments["order"] % 2:
        raise Problem(
            "wrong-argument",
            f"an 'ssm' of complex exponentials has an even order, not {arguments['order']}.",
            "each exponential comes with its conjugate",
            "'init = real' takes any order.",
        )
    return Filter(arguments["channels"], None)


def _ssm_parameters(inputs: Inputs, arguments: Arguments) -> tuple[Parameter, ...]:
    channels, n = arguments["channels"], modes(arguments)
    step = Parameter(".step", (channels, 1), ("uniform", math.log(0.001), math.log(0.1)))
    if arguments["init"] == "real":
        decay = Parameter(".decay", (channels, n), ("log", ("linspace", 1.0, float(n))))
        return step, decay, Parameter(".C", (channels, n), ("normal", 1.0))
    decay = Parameter(".decay", (channels, n), ("constant", math.log(0.5)))
    frequencies = ("linspace", 0.0, math.pi * (n - 1))
    if arguments["init"] == "inv":  # a range of like size; the module computes the true ones
        frequencies = ("linspace", 0.0, n / math.pi * (2 * n - 1))
    frequency = Parameter(".frequency", (channels, n), frequencies)
    return step, decay, frequency, Parameter(".C", (channels, n, 2), ("normal", 0.5**0.5))


def _ssm_flops(inputs: Inputs, arguments: Arguments, length: int) -> Fraction:
    return Fraction(2 * length * arguments["channels"] * arguments["order"])


FILTERS = (
    Entry(
        "explicit",
        Role.SOURCE,
        "a learned causal filter of k taps per channel; tap i meets the token i steps back",
        lambda inputs, arguments: Filter(arguments["channels"], arguments["k"]),
        operands=(),
        arguments=(size("channels"), size("k")),
        parameters=lambda inputs, arguments: (
            Parameter(
                "",
                (arguments["channels"], arguments["k"]),
                ("uniform", -(arguments["k"] ** -0.5), arguments["k"] ** -0.5),
            ),
        ),
    ),
    Entry(
        "implicit",
        Role.SOURCE,
        "a filter as long as the sequence: a network over positions times a window (2302.10866)",
        lambda inputs, arguments: Filter(arguments["channels"], None),
        operands=(),
        arguments=(size("channels"), size("hidden", 64), flag("decay", True)),
        parameters=_implicit_parameters,
    ),
    Entry(
        "ssm",
        Role.SOURCE,
        "a sum of `order` exponentials, so that it can be run as a recurrence (S4D, 2206.11893)",
        _ssm,
        operands=(),
        arguments=(size("channels"), size("order", 64), choice("init", "lin", "inv", "real")),
        parameters=_ssm_parameters,
        flops=_ssm_flops,
    ),
)
