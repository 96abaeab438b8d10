"""Stages that bend, expand or permute channels: feature maps, learned activations, averages.

Owns: one table entry for each. Refuses: plain pointwise functions (pointwise.py).
"""

from __future__ import annotations

from fractions import Fraction

from starc.compiler.catalog.entry import (
    Arguments,
    Entry,
    Inputs,
    Role,
    choice,
    divisors,
    feature_of,
    positive,
    same_type,
    shape_of,
    size,
    value_of,
    with_shape,
)
from starc.compiler.ir import Parameter
from starc.compiler.types import Problem, Type

_STAGE = Role.STAGE


def _sum(inputs: Inputs, arguments: Arguments) -> Type:
    value = value_of(inputs[0], "sum")
    return with_shape(value, value.heads, 1)


def _shuffle(inputs: Inputs, arguments: Arguments) -> Type:
    value, g = value_of(inputs[0], "shuffle"), arguments["g"]
    if value.channels % g:
        raise Problem(
            "width-not-divisible",
            f"'shuffle({g})' does not divide {value.channels} channels.",
            f"{value.channels} / {g} is not an integer",
            divisors(value.channels),
        )
    return value


def _ema_parameters(inputs: Inputs, arguments: Arguments) -> tuple[Parameter, ...]:
    value = feature_of(inputs[0], "ema")
    return (Parameter("", shape_of(value.heads, value.channels), ("linspace", 1.0, 5.0)),)


def _ema(inputs: Inputs, arguments: Arguments) -> Type:
    return feature_of(inputs[0], "ema")


def _polynomial_parameters(inputs: Inputs, arguments: Arguments) -> tuple[Parameter, ...]:
    k = arguments["k"]
    return (
        Parameter(".weight", (k,), ("constant", 1 / k)),
        Parameter(".bias", (1,), ("constant", 0)),
    )


def taylor_channels(channels: int, order: int) -> int:
    """Channels of the feature map: 1, each channel, and each product of two channels once."""
    return 1 + channels + (channels * (channels + 1) // 2 if order == 2 else 0)


def _taylor(inputs: Inputs, arguments: Arguments) -> Type:
    value, order = value_of(inputs[0], "taylor"), arguments["order"]
    if order > 2:
        raise Problem(
            "wrong-argument",
            f"'taylor' knows the orders 1 and 2, not {order}.",
            "products of three channels make too many features",
        )
    return with_shape(value, value.heads, taylor_channels(value.channels, order))


def _hedgehog(inputs: Inputs, arguments: Arguments) -> Type:
    feature = feature_of(inputs[0], "hedgehog")
    return with_shape(feature, feature.heads, 2 * feature.channels)


def _hedgehog_parameters(inputs: Inputs, arguments: Arguments) -> tuple[Parameter, ...]:
    feature = feature_of(inputs[0], "hedgehog")
    h, d = feature.heads, feature.channels
    return (
        Parameter(".weight", (h, d, d), ("identity",)),
        Parameter(".bias", (h, d), ("constant", 0)),
    )


def _hedgehog_flops(inputs: Inputs, arguments: Arguments, length: int) -> Fraction:
    feature = feature_of(inputs[0], "hedgehog")
    return Fraction(2 * length * feature.heads * feature.channels**2)


MAPS = (
    Entry(
        "sum",
        _STAGE,
        "the sum over the channels of every head",
        _sum,
        torch="{0}.sum(-1, keepdim=True)",
    ),
    Entry(
        "shuffle",
        _STAGE,
        "channels of g groups dealt out in turn (ShuffleNet, 1707.01083)",
        _shuffle,
        arguments=(size("g"),),
    ),
    Entry(
        "ema",
        _STAGE,
        "exponential moving average over tokens, with a learned decay per channel",
        _ema,
        parameters=_ema_parameters,
        local=False,
    ),
    Entry(
        "polyrelu",
        _STAGE,
        "a learned polynomial of max(x, 0) (2411.03884)",
        same_type("polyrelu"),
        arguments=(size("k", 3),),
        parameters=_polynomial_parameters,
    ),
    Entry(
        "polynorm",
        _STAGE,
        "a learned sum of powers of x, each divided by its root mean square (2411.03884)",
        same_type("polynorm"),
        arguments=(size("k", 3), positive("eps", Fraction(1, 10**6))),
        parameters=_polynomial_parameters,
    ),
    Entry(
        "taylor",
        _STAGE,
        "a . b of two maps is the Taylor series of exp(a . b / sqrt(d)) (2402.18668)",
        _taylor,
        arguments=(size("order", 2),),
    ),
    Entry(
        "hedgehog",
        _STAGE,
        "softmax of u and of -u, u a learned map of the channels of every head (2402.04347)",
        _hedgehog,
        arguments=(choice("activation", "softmax", "exp"),),
        parameters=_hedgehog_parameters,
        flops=_hedgehog_flops,
    ),
)
