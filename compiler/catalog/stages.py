"""Stages on features: channels, short token mixing, shape, norms, constants.

Owns: one table entry for each. Parameter names are suffixes of the binding's name (".weight").
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
    divisors,
    feature_of,
    flag,
    positive,
    real,
    same_type,
    shape_of,
    size,
    value_of,
    with_shape,
)
from starc.compiler.ir import Parameter
from starc.compiler.types import Constant, Feature, Problem, Type

# --- channel mixing ----------------------------------------------------------------------------


def _flat(inputs: Inputs, what: str) -> Feature:
    feature = feature_of(inputs[0], what)
    if feature.heads != 1:
        raise Problem(
            "heads-not-merged",
            f"'{what}' mixes all channels, but its input {feature} is split into heads.",
            f"{feature.heads} heads of {feature.channels} channels",
            "put 'merge' before it, or use 'headwise(n)' to give each head its own matrix.",
        )
    return feature


def _dense(inputs: Inputs, arguments: Arguments) -> Type:
    feature = _flat(inputs, "dense")
    groups, n = arguments["groups"], arguments["n"]
    for total, what in ((feature.channels, "input"), (n, "output")):
        if total % groups:
            raise Problem(
                "width-not-divisible",
                f"'groups = {groups}' does not divide the {total} {what} channels of 'dense'.",
                f"{total} / {groups} is not an integer",
                divisors(total),
            )
    if arguments["rank"] and groups > 1:
        raise Problem(
            "wrong-argument",
            "'dense' takes a rank or groups, not both.",
            hint="write two dense stages: x |> dense(rank) |> dense(n, groups = g).",
        )
    return Feature(1, n)


def _normal(fan_in: int) -> tuple[str, Fraction | float]:
    return ("normal", float(fan_in) ** -0.5)


def _dense_parameters(inputs: Inputs, arguments: Arguments) -> tuple[Parameter, ...]:
    feature = _flat(inputs, "dense")
    n, rank, groups = arguments["n"], arguments["rank"], arguments["groups"]
    if rank:
        weights = [
            Parameter(".down.weight", (rank, feature.channels), _normal(feature.channels)),
            Parameter(".up.weight", (n, rank), _normal(rank)),
        ]
        bias_name = ".up.bias"
    elif groups > 1:
        fan_in = feature.channels // groups
        weights = [Parameter(".weight", (groups, n // groups, fan_in), _normal(fan_in))]
        bias_name = ".bias"
    else:
        weights = [Parameter(".weight", (n, feature.channels), _normal(feature.channels))]
        bias_name = ".bias"
    if arguments["bias"]:
        weights.append(Parameter(bias_name, (n,), ("constant", 0)))
    return tuple(weights)


def _dense_flops(inputs: Inputs, arguments: Arguments, length: int) -> Fraction:
    feature = _flat(inputs, "dense")
    n, rank, groups = arguments["n"], arguments["rank"], arguments["groups"]
    if rank:
        return Fraction(2 * length * rank * (feature.channels + n))
    return Fraction(2 * length * feature.channels * n, groups)


def _headwise(inputs: Inputs, arguments: Arguments) -> Type:
    return Feature(feature_of(inputs[0], "headwise").heads, arguments["n"])


def _headwise_parameters(inputs: Inputs, arguments: Arguments) -> tuple[Parameter, ...]:
    feature = feature_of(inputs[0], "headwise")
    shape = (feature.heads, arguments["n"], feature.channels)
    weight = Parameter(".weight", shape, _normal(feature.channels))
    if not arguments["bias"]:
        return (weight,)
    return weight, Parameter(".bias", (feature.heads, arguments["n"]), ("constant", 0))


def _headwise_flops(inputs: Inputs, arguments: Arguments, length: int) -> Fraction:
    feature = feature_of(inputs[0], "headwise")
    return Fraction(2 * length * feature.heads * feature.channels * arguments["n"])


def _gain_parameters(inputs: Inputs, arguments: Arguments) -> tuple[Parameter, ...]:
    value = value_of(inputs[0], "gain")
    init = ("constant", arguments["init"])
    return (Parameter("", shape_of(value.heads, value.channels), init),)


# --- token mixing inside the featurizer --------------------------------------------------------


def _conv(inputs: Inputs, arguments: Arguments) -> Type:
    feature = feature_of(inputs[0], "conv")
    channels = feature.heads * feature.channels
    groups = arguments["groups"]
    if groups and channels % groups:
        raise Problem(
            "width-not-divisible",
            f"'groups = {groups}' does not divide the {channels} channels of 'conv'.",
            f"{channels} / {groups} is not an integer",
            divisors(channels),
        )
    return feature


def _conv_parameters(inputs: Inputs, arguments: Arguments) -> tuple[Parameter, ...]:
    feature = feature_of(inputs[0], "conv")
    channels, k = feature.heads * feature.channels, arguments["k"]
    groups = arguments["groups"] or channels
    each = channels // groups
    shape = (channels, k) if each == 1 else (channels, each, k)
    weight = Parameter(".weight", shape, ("uniform", -((each * k) ** -0.5), (each * k) ** -0.5))
    if not arguments["bias"]:
        return (weight,)
    return weight, Parameter(".bias", (channels,), ("constant", 0))


def _conv_flops(inputs: Inputs, arguments: Arguments, length: int) -> Fraction:
    feature = feature_of(inputs[0], "conv")
    channels = feature.heads * feature.channels
    each = channels // (arguments["groups"] or channels)
    return Fraction(2 * length * channels * each * arguments["k"])


def _shift(inputs: Inputs, arguments: Arguments) -> Type:
    return feature_of(inputs[0], "shift")


# --- shape -------------------------------------------------------------------------------------


def _heads(inputs: Inputs, arguments: Arguments) -> Type:
    value, n = value_of(inputs[0], "heads"), arguments["n"]
    if value.heads != 1:
        raise Problem(
            "heads-not-merged",
            f"'heads({n})' splits channels that are already split into {value.heads} heads.",
            f"given {value}",
            "put 'merge' before it.",
        )
    if value.channels % n:
        raise Problem(
            "width-not-divisible",
            f"'heads({n})' does not divide {value.channels} channels.",
            f"{value.channels} / {n} is not an integer",
            divisors(value.channels),
        )
    return with_shape(value, n, value.channels // n)


def _merge(inputs: Inputs, arguments: Arguments) -> Type:
    value = value_of(inputs[0], "merge")
    return with_shape(value, 1, value.heads * value.channels)


def _repeat(inputs: Inputs, arguments: Arguments) -> Type:
    value = value_of(inputs[0], "repeat")
    return with_shape(value, value.heads * arguments["n"], value.channels)


def _slice(inputs: Inputs, arguments: Arguments) -> Type:
    value, a, b = value_of(inputs[0], "slice"), arguments["a"], arguments["b"]
    if not a < b <= value.channels:
        raise Problem(
            "shape-mismatch",
            f"'slice({a}, {b})' is not a range inside {value.channels} channels.",
            f"channels are 0 to {value.channels}",
            "slice(a, b) keeps channels a, ..., b - 1 of every head.",
        )
    return with_shape(value, value.heads, b - a)


def _concat(inputs: Inputs, arguments: Arguments) -> Type:
    values = [value_of(i, "concat") for i in inputs]
    heads = {v.heads for v in values}
    if len(heads) > 1:
        raise Problem(
            "shape-mismatch",
            f"'concat' joins channels head by head, but the operands have "
            f"{' and '.join(map(str, sorted(heads)))} heads.",
            hint="'repeat(n)' copies a head n times; 'heads(n)' splits channels into heads.",
        )
    channels = sum(v.channels for v in values)
    kind = Feature if any(isinstance(v, Feature) for v in values) else Constant
    return kind(values[0].heads, channels)


# --- norms -------------------------------------------------------------------------------------


def _groupnorm(inputs: Inputs, arguments: Arguments) -> Type:
    value, groups = feature_of(inputs[0], "groupnorm"), arguments["groups"]
    if groups and value.heads > 1:
        raise Problem(
            "wrong-argument",
            "'groupnorm' of a feature with heads normalises each head; it takes no 'groups'.",
            f"given {value}",
        )
    if groups and value.channels % groups:
        raise Problem(
            "width-not-divisible",
            f"'groups = {groups}' does not divide the {value.channels} channels of 'groupnorm'.",
            f"{value.channels} / {groups} is not an integer",
            divisors(value.channels),
        )
    return value


def _norm_parameters(inputs: Inputs, arguments: Arguments) -> tuple[Parameter, ...]:
    value = value_of(inputs[0], "norm")
    own = arguments["weight"] == "own" or "groups" in arguments
    shape = shape_of(value.heads, value.channels) if own else (value.channels,)
    found = []
    if arguments["weight"] != "none":
        start = 0 if arguments["weight"] == "offset" else 1
        found.append(Parameter(".weight", shape, ("constant", start)))
    if arguments["bias"]:
        found.append(Parameter(".bias", shape, ("constant", 0)))
    return tuple(found)


_WEIGHT = choice("weight", "learned", "own", "offset", "none")
_STAGE = Role.STAGE


STAGES = (
    Entry(
        "dense",
        _STAGE,
        "matrix product over all channels",
        _dense,
        arguments=(size("n"), flag("bias", False), count("rank", 0), size("groups", 1)),
        parameters=_dense_parameters,
        flops=_dense_flops,
    ),
    Entry(
        "headwise",
        _STAGE,
        "a matrix of its own for every head",
        _headwise,
        arguments=(size("n"), flag("bias", False)),
        parameters=_headwise_parameters,
        flops=_headwise_flops,
    ),
    Entry(
        "scale",
        _STAGE,
        "times a number",
        same_type("scale"),
        arguments=(real("s"),),
        torch="({0} * {s!r})",
    ),
    Entry(
        "gain",
        _STAGE,
        "times a learned number per channel",
        same_type("gain"),
        arguments=(real("init", Fraction(1)),),
        parameters=_gain_parameters,
    ),
    Entry(
        "conv",
        _STAGE,
        "short causal convolution, depthwise unless grouped",
        _conv,
        arguments=(size("k"), size("dilation", 1), count("groups", 0), flag("bias", False)),
        parameters=_conv_parameters,
        flops=_conv_flops,
        local=False,
    ),
    Entry(
        "shift",
        _STAGE,
        "the feature k tokens earlier, zero before the first",
        _shift,
        arguments=(count("k", 1),),
        local=False,
    ),
    Entry("heads", _STAGE, "split channels into heads", _heads, arguments=(size("n"),)),
    Entry("merge", _STAGE, "join heads into channels", _merge),
    Entry("repeat", _STAGE, "every head n times", _repeat, arguments=(size("n"),)),
    Entry(
        "slice", _STAGE, "channels a to b of every head", _slice, arguments=(count("a"), size("b"))
    ),
    Entry(
        "concat",
        Role.FUNCTION,
        "join channels head by head",
        _concat,
        operands=("values",),
        variadic=True,
    ),
    Entry(
        "softmax", _STAGE, "softmax over channels", same_type("softmax"), torch="{0}.softmax(-1)"
    ),
    Entry(
        "rmsnorm",
        _STAGE,
        "divide by the root mean square over channels",
        same_type("rmsnorm"),
        arguments=(_WEIGHT, flag("bias", False), positive("eps", Fraction(1, 10**6))),
        parameters=_norm_parameters,
    ),
    Entry(
        "layernorm",
        _STAGE,
        "zero mean and unit variance over channels",
        same_type("layernorm"),
        arguments=(_WEIGHT, flag("bias", True), positive("eps", Fraction(1, 10**5))),
        parameters=_norm_parameters,
    ),
    Entry(
        "groupnorm",
        _STAGE,
        "layernorm of every head, or group of channels, with weights of its own",
        _groupnorm,
        arguments=(
            choice("weight", "learned", "none"),
            flag("bias", True),
            positive("eps", Fraction(1, 10**5)),
            count("groups", 0),
        ),
        parameters=_norm_parameters,
    ),
    Entry(
        "l2norm",
        _STAGE,
        "divide by the Euclidean norm over channels",
        same_type("l2norm"),
        arguments=(positive("eps", Fraction(1, 10**6)),),
        torch="({0} * torch.rsqrt({0}.square().sum(-1, keepdim=True) + {eps!r}))",
    ),
    Entry(
        "number",
        Role.INTERNAL,
        "a literal",
        lambda inputs, arguments: Constant(1, 1),
        operands=(),
        arguments=(real("value"),),
    ),
    Entry(
        "input",
        Role.INTERNAL,
        "a feature that comes from outside",
        lambda inputs, arguments: Feature(arguments["heads"], arguments["channels"]),
        operands=(),
        arguments=(Argument("name", Kind.CHOICE), size("heads"), size("channels")),
    ),
    Entry(
        "param",
        Role.SOURCE,
        "a learned constant (a fixed one with learned = false)",
        lambda inputs, arguments: Constant(arguments["heads"], arguments["channels"]),
        operands=(),
        arguments=(
            size("heads"),
            size("channels"),
            Argument("init", Kind.INIT, ("constant", 0)),
            flag("learned", True),
        ),
        parameters=lambda inputs, arguments: (
            Parameter(
                "",
                shape_of(arguments["heads"], arguments["channels"]),
                arguments["init"],
                arguments["learned"],
            ),
        ),
    ),
)
