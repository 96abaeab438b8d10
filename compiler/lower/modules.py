"""Operations that own parameters or move along axes: projections, norms, shapes, filters.

Owns: their statements in __init__ and forward, as a table by operation.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from starc.compiler.ir import Attributes, Value
from starc.compiler.lower import kernels, text
from starc.compiler.lower.functions import Functions
from starc.compiler.lower.rotary import Rotation
from starc.compiler.lower.text import Text
from starc.compiler.plan import Line
from starc.compiler.types import Constant, Feature

if TYPE_CHECKING:
    from starc.compiler.lower.operator import OperatorLowering

Lowering = Callable[["OperatorLowering", Value], Text]


def module_name(o: OperatorLowering, value: Value) -> str:
    """The attribute that holds an operation's parameters: their names up to the dot."""
    return o.parameter(value).name.partition(".")[0]


def _std(o: OperatorLowering, value: Value, position: int = 0) -> str:
    init = o.parameter(value, position).init
    return f"{init[1]:.6g}"


def _number(o: OperatorLowering, value: Value) -> Text:
    shown = text.number(value.attribute("value"))
    return Text(shown, text.UNARY if shown.startswith("-") else text.ATOM)


def _param(o: OperatorLowering, value: Value) -> Text:
    parameter = o.parameter(value)
    made = text.initial(parameter.init, parameter.shape)
    if parameter.learned:
        o.init.append(Line(f"self.{parameter.name} = nn.Parameter({made})"))
    else:
        o.init.append(Line(f'self.register_buffer("{parameter.name}", {made})'))
    return Text(f"self.{parameter.name}")


def _gain(o: OperatorLowering, value: Value) -> Text:
    return text.infix("*", o.texts[value.inputs[0]], _param(o, value))


def _dense(o: OperatorLowering, value: Value) -> Text:
    name, inputs, n = module_name(o, value), o.width(value.inputs[0]), value.attribute("n")
    rank, groups, bias = (value.attribute(k) for k in ("rank", "groups", "bias"))
    last = ", bias=True" if bias else ""
    if rank:
        o.functions.function("module/low_rank_linear", "LowRankLinear")
        made = (
            f"LowRankLinear({inputs}, {rank}, {n}, ({_std(o, value)}, {_std(o, value, 1)}){last})"
        )
    elif groups > 1:
        o.functions.function("module/grouped_linear", "GroupedLinear")
        made = f"GroupedLinear({groups}, {inputs}, {n}, {_std(o, value)}{last})"
    else:
        o.functions.function("module/linear", "linear")
        made = f"linear({inputs}, {n}, std={_std(o, value)}{last})"
    o.init.append(Line(f"self.{name} = {made}"))
    return text.call(f"self.{name}", o.texts[value.inputs[0]])


def _transposed(o: OperatorLowering, value: Value) -> Text:
    weight = f"self.{module_name(o, o.values[value.inputs[1]])}.weight.t()"
    return text.call("F.linear", o.texts[value.inputs[0]], weight)


def _headwise(o: OperatorLowering, value: Value) -> Text:
    name, type_ = module_name(o, value), o.type(value.inputs[0])
    last = ", bias=True" if value.attribute("bias") else ""
    o.functions.function("module/headwise_linear", "HeadwiseLinear")
    sizes = f"{type_.heads}, {type_.channels}, {value.attribute('n')}, {_std(o, value)}"
    o.init.append(Line(f"self.{name} = HeadwiseLinear({sizes}{last})"))
    applied = text.call(f"self.{name}", o.tokens(value.inputs[0]))
    return o.own_layout(applied, value.type)


def _conv(o: OperatorLowering, value: Value) -> Text:
    name, type_ = module_name(o, value), o.type(value.inputs[0])
    channels = type_.heads * type_.channels
    options = []
    if value.attribute("dilation") > 1:
        options.append(f"dilation={value.attribute('dilation')}")
    if value.attribute("groups") not in (0, channels):
        options.append(f"groups={value.attribute('groups')}")
        o.functions.function("module/grouped_convolution", "GroupedConvolution")
        made = "GroupedConvolution"
    else:
        o.functions.function("module/causal_convolution", "CausalConvolution")
        made = "CausalConvolution"
    if value.attribute("bias"):
        options.append("bias=True")
    sizes = ", ".join([str(channels), str(value.attribute("k")), *options])
    o.init.append(Line(f"self.{name} = {made}({sizes})"))
    id = o.values.index(value)
    reader = kernels.activation_of(o, id)
    if convolved := kernels.convolution(o, value, name, reader):
        if reader is None:
            return convolved
        o.activated[reader] = convolved
        return Text("")
    own = o.past.delayed(value.inputs[0])
    if type_.heads == 1:
        return text.call(f"self.{name}", own, o.length)
    flat = text.call(f"self.{name}", text.method(own, "flatten", "-2"), o.length)
    return text.method(flat, "unflatten", "-1", f"({type_.heads}, {type_.channels})")


def _heads(o: OperatorLowering, value: Value) -> Text:
    type_ = value.type
    assert isinstance(type_, Feature | Constant)
    return text.method(
        o.tensor(value.inputs[0]), "unflatten", "-1", f"({type_.heads}, {type_.channels})"
    )


def _merge(o: OperatorLowering, value: Value) -> Text:
    return text.method(o.texts[value.inputs[0]], "flatten", "-2")


def _repeat(o: OperatorLowering, value: Value) -> Text:
    type_, n, own = o.type(value.inputs[0]), value.attribute("n"), o.tensor(value.inputs[0])
    if type_.heads > 1:
        return text.method(own, "repeat_interleave", str(n), "dim=-2")
    lead = "-1, -1, " if isinstance(type_, Feature) else ""
    return text.method(text.method(own, "unsqueeze", "-2"), "expand", f"{lead}{n}, -1")


def _slice(o: OperatorLowering, value: Value) -> Text:
    a, b = value.attribute("a"), value.attribute("b")
    return Text(f"{o.texts[value.inputs[0]].atom}[..., {a or ''}:{b}]")


def _concat(o: OperatorLowering, value: Value) -> Text:
    type_ = value.type
    assert isinstance(type_, Feature | Constant)
    parts = []
    for i in value.inputs:
        own = o.type(i)
        if isinstance(type_, Feature) and isinstance(own, Constant):
            heads = "" if type_.heads == 1 else f"{type_.heads}, "
            shape = f"*{o.reference}.shape[:2], {heads}{own.channels}"
            parts.append(text.method(o.tensor(i), "expand", shape))
        else:
            parts.append(o.tensor(i))
    return text.call("torch.cat", f"({', '.join(p.code for p in parts)})", "dim=-1")


def norm_module(
    op: str, heads: int, channels: int, attributes: Attributes, functions: Functions
) -> str:
    """The constructor of a norm with parameters, or of any norm of the stream."""
    options = dict(attributes)
    eps = text.number(options["eps"])
    weight, bias = options.get("weight", "none"), options.get("bias", False)
    function = functions.function
    if op == "l2norm":
        function("module/l2norm", "L2Norm")
        return f"L2Norm(eps={eps})"
    if op == "rmsnorm" and weight == "learned" and not bias:
        function("module/rms_norm", "RMSNorm")
        return f"RMSNorm({channels}, eps={eps})"
    if op == "layernorm" and weight == "learned":
        return f"nn.LayerNorm({channels}, eps={eps}{'' if bias else ', bias=False'})"
    function("module/norm", "Norm")
    groups = options.get("groups", 0)
    own = weight == "own" or op == "groupnorm"
    shape = f"({heads}, {channels})" if own and heads > 1 else f"({channels},)"
    kind = "rms" if op == "rmsnorm" else "layer"
    chosen = "learned" if weight == "own" else weight
    last = f", groups={groups}" if groups else ""
    return f'Norm("{kind}", {shape}, weight="{chosen}", bias={bias}, eps={eps}{last})'


def _norm(o: OperatorLowering, value: Value) -> Text:
    own, type_ = o.texts[value.inputs[0]], o.type(value.inputs[0])
    kernel = kernels.head_norm(value, type_, o.functions)
    if value.op == "l2norm" and kernel:
        return text.call(kernel, own, text.number(value.attribute("eps")))
    if value.op == "l2norm":
        name = o.functions.function("l2norm")
        return text.call(name, own, f"eps={text.number(value.attribute('eps'))}")
    if not value.parameters and value.op != "groupnorm":
        function = "F.rms_norm" if value.op == "rmsnorm" else "F.layer_norm"
        eps = text.number(value.attribute("eps"))
        return text.call(function, own, f"({type_.channels},)", f"eps={eps}")
    if value.parameters:
        name = module_name(o, value)
    else:
        name = o.fresh(value.name or "groupnorm")
    made = norm_module(value.op, type_.heads, type_.channels, value.attributes, o.functions)
    o.init.append(Line(f"self.{name} = {made}"))
    if kernel:
        return text.call(kernel, own, f"self.{name}")
    return text.call(f"self.{name}", own)


def _attention(scaling: tuple[Any, ...]) -> float:
    """What a scaling rule multiplies cosine and sine by."""
    if scaling[0] == "yarn":
        return float(scaling[5] or 0.1 * math.log(max(scaling[1], 1)) + 1)
    return float(scaling[1]) if scaling[0] == "factors" else 1.0


def _rope(o: OperatorLowering, value: Value) -> Text:
    from starc.compiler.lower.operator import Ambient

    type_ = o.type(value.inputs[0])
    dims = value.attribute("dims") or type_.channels
    theta = float(value.attribute("theta"))
    rule, *numbers = value.attribute("scaling")
    scaling = (rule, *(n if isinstance(n, bool) else float(n) for n in numbers))
    tables = o.functions.function(
        "rotary_tables", theta=theta, dims=dims, scaling=scaling, attention=_attention(scaling)
    )
    name = tables.replace("rotary_tables", "rope")
    whole = o.in_past is not None
    if whole:
        name = name.replace("rope", "whole_rope")
    o.ambient[name] = Ambient(tables, name, whole)
    rest = 0 if dims == type_.channels else dims
    rotate = o.functions.function("rotate", dims=rest, pairs=value.attribute("pairs"))
    last = f"(table[-{o.reference}.shape[1] :] for table in {name})" if whole else name
    operand = o.tokens(value.inputs[0])
    turned = text.call(rotate, operand, f"*{last}")
    result = o.own_layout(turned, value.type)
    sizes = type_.heads, type_.channels, dims, value.attribute("pairs")
    rest = result.code.removeprefix(turned.code)
    o.rotations[result.code] = Rotation(operand.code, name, rotate, *sizes, rest)
    return result


def _of_the_token(o: OperatorLowering, value: Value) -> Text:
    """e, index or a lookup: what the model computes from the tokens, or the tokens themselves."""
    from starc.compiler.lower.operator import Ambient

    match value.op:
        case "embedded":
            o.ambient["e"] = Ambient("", "e", type="Tensor")
            return Text("e")
        case "position":
            name = o.functions.function("positions")
            o.ambient["index"] = Ambient(name, "index", type="Tensor")
            return Text(f"index.to({o.reference}.dtype).expand({o.reference}.shape[0], -1, -1)")
    o.ambient["tokens"] = Ambient("", "tokens", type="Tensor")
    name, sizes = module_name(o, value), f"{value.attribute('vocab')}, {value.attribute('d')}"
    o.functions.function("module/embedding", "embedding")
    o.init.append(Line(f"self.{name} = embedding({sizes})"))
    return text.call(f"self.{name}", "tokens")


def _shift(o: OperatorLowering, value: Value) -> Text:
    seen, k = o.past.delayed(value.inputs[0]), str(value.attribute("k"))
    return text.call(o.functions.function("shift"), seen, k, o.length)


def _implicit(o: OperatorLowering, value: Value) -> Text:
    name = module_name(o, value)
    o.functions.function("implicit_filter", "ImplicitFilter")
    decay = "" if value.attribute("decay") else ", decay=False"
    sizes = f"{value.attribute('channels')}, {value.attribute('hidden')}"
    o.init.append(Line(f"self.{name} = ImplicitFilter({sizes}, context={o.context}{decay})"))
    return Text(f"self.{name}")


def _ssm(o: OperatorLowering, value: Value) -> Text:
    name, init = module_name(o, value), value.attribute("init")
    o.functions.function("ssm_filter", "SSMFilter")
    sizes = f'{value.attribute("channels")}, {value.attribute("order")}, "{init}"'
    o.init.append(Line(f"self.{name} = SSMFilter({sizes})"))
    return Text(f"self.{name}")


LOWERINGS: dict[str, Lowering] = {
    "number": _number,
    "param": _param,
    "explicit": _param,
    "implicit": _implicit,
    "ssm": _ssm,
    "gain": _gain,
    "dense": _dense,
    "transposed": _transposed,
    "headwise": _headwise,
    "conv": _conv,
    "heads": _heads,
    "merge": _merge,
    "repeat": _repeat,
    "slice": _slice,
    "concat": _concat,
    "rmsnorm": _norm,
    "layernorm": _norm,
    "groupnorm": _norm,
    "l2norm": _norm,
    "rope": _rope,
    **dict.fromkeys(("embedded", "position", "lookup"), _of_the_token),
    "shift": _shift,
}
