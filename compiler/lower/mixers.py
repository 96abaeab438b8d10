"""Algorithms that `select` chose: a call of a specialised function of the generated file.

Owns: plans of mixers and the layouts of their arguments. Refuses: their text (templates/mixer).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from starc.compiler.ir import Value
from starc.compiler.lower import attention, kernels, latent, long_convolution, text, transitions
from starc.compiler.lower.text import Text
from starc.compiler.plan import MixerPlan
from starc.compiler.types import Feature
from starc.compiler.work import WHOLE

if TYPE_CHECKING:
    from starc.compiler.lower.operator import OperatorLowering

MANY_TAPS = 8
"""From here on a depthwise convolution is faster than shifted products (float32, two cores)."""


def _scores(o: OperatorLowering, value: Value) -> Text:
    """attention, banded_attention, linear_attention: C, B, V."""
    c, b, v = value.inputs
    channels = max(o.width(c), o.width(b))
    attributes: dict[str, Any] = dict(value.attributes)
    floor = attributes.get("floor")
    chunked = value.op == "linear_attention"
    plan = MixerPlan(
        template=value.op,
        name=value.op,
        heads=_heads(value),
        channels=channels,
        c_heads=o.type(c).heads,
        b_heads=o.type(b).heads,
        v_heads=o.type(v).heads,
        v_channels=o.width(v),
        scale=float(attributes["scale"]),
        floor=None if floor is None else float(floor),
        band=attributes.get("band", 0),
        kernel="" if chunked else attention.kernel_of_scores(o, value, channels),
    )
    if value.op == "linear_attention":
        operands = (o.tokens(c, channels), o.tokens(b, channels), o.tokens(v))
        state = o.past.state(
            max(plan.b_heads, plan.v_heads), channels, plan.v_channels + (floor is not None)
        )
        function = kernels.recurrence(o, plan)
        return o.own_layout(text.call(function, *operands, state), value.type)
    o.look_back(v, plan.band or WHOLE)
    operands = (o.tokens(c, channels), o.history(b, channels), o.history(v))
    whole = o.own_layout(text.call(o.functions.mixer(plan), *operands), value.type)
    if value.op == "attention" and o.past.long:
        return latent.or_step(o, value, whole, text.number(plan.scale))
    return whole


def _heads(value: Value) -> int:
    assert isinstance(value.type, Feature)
    return value.type.heads


def _convolution(o: OperatorLowering, value: Value) -> Text:
    kernel, v = value.inputs
    if o.filter(kernel).length is None:
        o.look_back(v, value.attribute("taps") or WHOLE)
        seen = o.past.history(v, o.span)
    else:
        seen = o.past.delayed(v)
    rows = long_convolution.taps(o, kernel, v, value.attribute("taps"))
    few = value.attribute("taps") is None or value.attribute("taps") < MANY_TAPS
    many = value.op == "short_convolution" and not few
    name = o.functions.function("depthwise_convolution" if many else value.op)
    return text.call(name, rows, seen, o.length)


def _stabilized(o: OperatorLowering, value: Value) -> Text:
    floor, heads = float(value.attribute("floor")), value.attribute("heads")
    options = {"floor": floor, "log_floor": math.log(floor), "heads": heads}
    o.functions.function("wide")
    name = o.functions.function("stabilized", **options)
    state = o.past.state(heads, 1)
    result = text.call(name, *(o.tokens(i) for i in value.inputs), state)
    return o.own_layout(result, value.type)


LOWERINGS: dict[str, Callable[[OperatorLowering, Value], Text]] = {
    "attention": _scores,
    "banded_attention": _scores,
    "linear_attention": _scores,
    "scalar_recurrence": transitions.apply,
    "diagonal_recurrence": transitions.apply,
    "signed_recurrence": transitions.apply,
    "scan": transitions.apply,
    "delta_recurrence": transitions.apply,
    "dplr_recurrence": transitions.apply,
    "short_convolution": _convolution,
    "long_convolution": _convolution,
    "modal_convolution": long_convolution.modal,
    "stabilized": _stabilized,
}
