"""Pointwise functions of features and constants: a PyTorch expression says all of each.

Owns: one table entry for each. Refuses: stages with parameters, or that mix channels or tokens.
"""

from __future__ import annotations

from fractions import Fraction

from starc.compiler.catalog.entry import (
    Argument,
    Arguments,
    Entry,
    Inputs,
    Role,
    choice,
    real,
    same_type,
    value_of,
)
from starc.compiler.types import Problem, Type, broadcast


def _clamp(inputs: Inputs, arguments: Arguments) -> Type:
    if arguments["low"] > arguments["high"]:
        raise Problem(
            "bad-number",
            "'clamp' goes from its lower to its upper end.",
            f"from {float(arguments['low']):g} to {float(arguments['high']):g}",
        )
    return value_of(inputs[0], "clamp")


def _pointwise(op: str, torch: str, doc: str, *arguments: Argument) -> Entry:
    return Entry(
        op, Role.STAGE, doc, same_type(op), arguments=arguments, torch=torch, pointwise=True
    )


POINTWISE = (
    _pointwise("silu", "F.silu({0})", "x sigmoid(x)"),
    _pointwise(
        "gelu",
        "F.gelu({0}, approximate={approximate!r})",
        "x Phi(x)",
        choice("approximate", "none", "tanh"),
    ),
    _pointwise("quick_gelu", "", "x sigmoid(1.702 x)"),
    _pointwise("mish", "F.mish({0})", "x tanh(softplus(x))"),
    _pointwise("relu", "F.relu({0})", "max(x, 0)"),
    _pointwise("relu2", "F.relu({0}).square()", "max(x, 0) squared"),
    _pointwise(
        "leaky_relu",
        "F.leaky_relu({0}, {slope!r})",
        "max(x, 0) + slope min(x, 0)",
        real("slope", Fraction(1, 100)),
    ),
    _pointwise(
        "elu",
        "F.elu({0}, {alpha!r})",
        "x above zero, alpha (exp(x) - 1) below",
        real("alpha", Fraction(1)),
    ),
    _pointwise("sigmoid", "torch.sigmoid({0})", "1 / (1 + exp(-x))"),
    _pointwise("tanh", "torch.tanh({0})", "hyperbolic tangent"),
    _pointwise("hard_sigmoid", "(F.relu6({0} + 3) / 6)", "min(max(x / 6 + 1/2, 0), 1)"),
    _pointwise("hard_silu", "({0} * F.relu6({0} + 3) / 6)", "x hard_sigmoid(x)"),
    _pointwise("softsign", "F.softsign({0})", "x / (1 + |x|)"),
    _pointwise("softplus", "F.softplus({0})", "log(1 + exp(x))"),
    _pointwise("exp", "torch.exp({0})", "exponential"),
    _pointwise("log", "torch.log({0})", "natural logarithm"),
    _pointwise("logsigmoid", "F.logsigmoid({0})", "log(sigmoid(x))"),
    _pointwise("elu1", "(F.elu({0}) + 1)", "elu(x) + 1, a positive feature map"),
    _pointwise("square", "torch.square({0})", "x squared"),
    _pointwise("sqrt", "torch.sqrt({0})", "square root"),
    _pointwise("sin", "torch.sin({0})", "sine"),
    _pointwise("cos", "torch.cos({0})", "cosine"),
    _pointwise("erf", "torch.erf({0})", "error function"),
    _pointwise("floor", "torch.floor({0})", "rounded down"),
    _pointwise("abs", "torch.abs({0})", "absolute value"),
    Entry(
        "clamp",
        Role.STAGE,
        "cut off below `low` and above `high`",
        _clamp,
        arguments=(real("low"), real("high")),
        torch="torch.clamp({0}, {low!r}, {high!r})",
        pointwise=True,
    ),
    *(
        Entry(
            f"{name}imum",
            Role.FUNCTION,
            f"the {doc} of two features, number by number",
            lambda inputs, arguments: broadcast(inputs[0], inputs[1]),
            operands=("a", "b"),
            torch=f"torch.{name}imum({{0}}, {{1}})",
            pointwise=True,
            spelling=name,
        )
        for name, doc in (("max", "greater"), ("min", "smaller"))
    ),
    *(
        Entry(
            f"compare_{name}",
            Role.FUNCTION,
            f"1 where {doc}, else 0",
            lambda inputs, arguments: broadcast(inputs[0], inputs[1]),
            operands=("a", "b"),
            pointwise=True,
            spelling=name,
        )
        for name, doc in (("equal", "a = b"), ("less", "a < b"))
    ),
    Entry(
        "where",
        Role.FUNCTION,
        "a where the condition is not 0, else b",
        lambda inputs, arguments: broadcast(inputs[0], broadcast(inputs[1], inputs[2])),
        operands=("condition", "a", "b"),
        pointwise=True,
    ),
)
