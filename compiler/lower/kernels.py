"""Operations with a Triton kernel behind them: plans, and calls of functions that dispatch.

Owns: which operands come packed, as a stacked projection yields them. Refuses: kernels (templates).
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from starc.compiler.ir import Norm, Value
from starc.compiler.kernel_activation import ACTIVATIONS
from starc.compiler.kernel_convolution_step import ConvolutionStep
from starc.compiler.kernel_norm import LEAST_WIDTH, MAX_CHANNELS, NormKernel
from starc.compiler.kernel_plan import (
    MAX_ACTIVATED_TAPS,
    MAX_TAPS,
    GatedConvolution,
    GatedProduct,
)
from starc.compiler.kernel_recurrence import Recurrence
from starc.compiler.kernel_scan import Scan
from starc.compiler.kernel_structured import WIDEST, Structured
from starc.compiler.lower import text
from starc.compiler.lower.text import Text
from starc.compiler.plan import Line, MixerPlan
from starc.compiler.types import Constant, Feature

if TYPE_CHECKING:
    from starc.compiler.lower.functions import Functions
    from starc.compiler.lower.operator import OperatorLowering


def packed_source(o: OperatorLowering, operands: tuple[int, ...]) -> int | None:
    """The stacked projection whose parts, in order and read by nothing else, are the operands."""
    sources = set()
    edge = 0
    for id in operands:
        value = o.values[id]
        if value.op != "slice" or o.uses[id] != 1 or value.attribute("a") != edge:
            return None
        edge = value.attribute("b")
        sources.add(value.inputs[0])
    if len(sources) != 1 or len(operands) < 2:
        return None
    (source,) = sources
    if o.width(source) != edge or o.uses[source] != len(operands):
        return None
    return source


def packed_reader(o: OperatorLowering, id: int) -> bool:
    """Whether all parts of a stacked projection go, packed, to one kernel."""
    if o.served:
        return False
    parts = o.readers(id)
    into = {reader for part in parts for reader in o.readers(part)}
    if len(into) != 1:
        return False
    (reader,) = into
    value = o.values[reader]
    if value.op not in ("gated_product", "gated_convolution"):
        return False
    return packed_source(o, _operands(value)) == id


def _operands(value: Value) -> tuple[int, ...]:
    """Operands that may be packed: all but the filter of a convolution."""
    return value.inputs[1:] if value.op == "gated_convolution" else value.inputs


def add_norm(norm: Norm, width: int, functions: Functions) -> str:
    """The function that adds to the stream and norms the sum, empty where none does."""
    options = dict(norm.attributes)
    weight = str(options.get("weight", "none"))
    if norm.op not in ("rmsnorm", "layernorm") or options.get("groups"):
        return ""
    if not LEAST_WIDTH <= width <= MAX_CHANNELS:
        return ""
    if options.get("bias") and weight == "none":
        return ""
    plan = NormKernel(
        digest=functions.digest,
        kind=norm.op.removesuffix("norm"),
        channels=width,
        weight="learned" if weight == "own" else weight,  # the stream has one head
        bias=bool(options.get("bias")),
    )
    return functions.kernel(plan)


def head_norm(value: Value, type_: Feature | Constant, functions: Functions) -> str:
    """The function that norms every head of a feature, empty where none does."""
    options = dict(value.attributes)
    width = type_.heads * type_.channels
    if type_.heads == 1 or not LEAST_WIDTH <= width or type_.channels > MAX_CHANNELS:
        return ""
    if not isinstance(type_, Feature) or options.get("groups") or value.op == "groupnorm":
        return ""
    if value.op != "l2norm" and not value.parameters:
        return ""
    plan = NormKernel(
        digest=functions.digest,
        kind=value.op.removesuffix("norm"),
        channels=type_.channels,
        weight="none" if value.op == "l2norm" else str(options["weight"]),
        bias=bool(options.get("bias")),
        heads=type_.heads,
        residual=False,
    )
    return functions.kernel(plan)


def gated_product(o: OperatorLowering, value: Value) -> Text:
    """activation(gate) * value."""
    if o.served:
        gate, factor = (o.texts[i] for i in value.inputs)
        pattern = ACTIVATIONS[value.attribute("activation")].torch
        precedence = text.SUM if "+" in pattern else text.ATOM
        return text.infix("*", Text(re.sub(r"\bgate\b", gate.atom, pattern), precedence), factor)
    source = packed_source(o, value.inputs)
    plan = GatedProduct(
        digest=o.functions.digest,
        channels=o.width(value.inputs[1]),
        packed=source is not None,
        activation=value.attribute("activation"),
    )
    operands = value.inputs if source is None else (source,)
    return text.call(o.functions.kernel(plan), *(o.texts[i] for i in operands))


def gated_convolution(o: OperatorLowering, value: Value) -> Text:
    """C * filter(B * V), either gate optional."""
    kernel, *operands = value.inputs
    source = packed_source(o, tuple(operands))
    filter_ = o.filter(kernel)
    assert filter_.length is not None
    limit = value.attribute("taps")
    plan = GatedConvolution(
        digest=o.functions.digest,
        channels=filter_.lanes,
        packed=source is not None,
        taps=min(filter_.length, limit),
        output_gate=value.attribute("output_gate"),
        input_gate=value.attribute("input_gate"),
    )
    taps = o.texts[kernel]
    if limit < filter_.length:
        taps = Text(f"{taps.atom}[:, :{limit}]")
    packed = operands if source is None else [source]
    whole = text.call(o.functions.kernel(plan), *(o.texts[i] for i in packed), taps)
    return _or_steps(o, value, whole, taps, source, plan)


def _or_steps(
    o: OperatorLowering,
    value: Value,
    whole: Text,
    taps: Text,
    source: int | None,
    plan: GatedConvolution,
) -> Text:
    """The kernel for whole sequences; behind a cache of gated values that of single tokens, or
    plain PyTorch."""
    _, *operands = value.inputs
    steps = value.attribute("taps") - 1
    if not steps:
        return whole
    names = [o.texts[i].atom for i in operands]
    split = ""
    if source is not None:
        names = [o.new_local(o.values[i].name or o.destiny(i) or "part") for i in operands]
        sizes = ", ".join(str(o.width(i)) for i in operands)
        split = f"    {', '.join(names)} = {o.texts[source].atom}.split(({sizes}), dim=-1)\n"
    gate = names.pop(0) if value.attribute("output_gate") else ""
    wanted = value.name or o.destiny(o.values.index(value)) or "V"
    entry = o.past.keep(wanted, "Delay", steps, o.width(operands[-1]))
    inner = f'cache["{entry}"].extend({" * ".join(names)})'
    function = o.functions.function("short_convolution")
    result = f"{function}({taps.atom}.t(), {inner}, {o.length})"
    local = o.new_local(value.name or "convolved")
    step = ConvolutionStep(digest=o.functions.digest, of=plan, past=steps)
    o.functions.kernel(step)
    given = [o.texts[i] for i in (operands if source is None else [source])]
    one = text.call(
        f"torch.ops.{step.namespace}.{step.name}", *given, taps, f'cache["{entry}"].buffer'
    )
    o.lines.append(
        Line(
            f"if cache is None:\n    {local} = {whole.code}\n"
            f"elif takes_steps({given[-1].code}):\n    {local} = {one.code}\nelse:\n{split}"
            f"    {local} = {f'{gate} * ' if gate else ''}{result}"
        )
    )
    return Text(local)


def activation_of(o: OperatorLowering, id: int) -> int | None:
    """The nonlinearity behind a convolution of its own, where one kernel may do both."""
    value, readers = o.values[id], o.readers(id)
    if value.name or len(readers) != 1 or o.uses[id] != 1 or not _in_kernel(o, value):
        return None
    (reader,) = readers
    kept = {i for i, node in enumerate(o.past.profile.nodes) if node in o.past.windows}
    if id in kept | o.past.long or reader in o.past.long:
        return None
    if _activation(o.values[reader]) == "identity" or value.attribute("k") > MAX_ACTIVATED_TAPS:
        return None
    return reader


def _activation(value: Value) -> str:
    name = value.op
    if name == "gelu" and value.attribute("approximate") == "tanh":
        name = "gelu_tanh"
    return name if name in ACTIVATIONS else "identity"


def _in_kernel(o: OperatorLowering, value: Value) -> bool:
    """Whether a stage `conv` has a kernel: one filter a channel, of adjacent tokens."""
    type_ = o.type(value.inputs[0])
    if value.attribute("dilation") > 1 or not isinstance(type_, Feature):
        return False
    groups = value.attribute("groups")
    return value.attribute("k") <= MAX_TAPS and groups in (0, type_.heads * type_.channels)


def convolution(o: OperatorLowering, value: Value, module: str, reader: int | None) -> Text | None:
    """A stage `conv` with what is behind it, by a kernel on GPUs; None where there is none.

    A delay line that nothing else reads goes to a kernel for single tokens too.
    """
    if not _in_kernel(o, value) or o.values.index(value) in o.past.long:
        return None
    operand = value.inputs[0]
    type_, taps = o.type(operand), value.attribute("k")
    channels = type_.heads * type_.channels
    activation = "identity" if reader is None else _activation(o.values[reader])
    plan = GatedConvolution(
        digest=o.functions.digest,
        channels=channels,
        taps=taps,
        output_gate=False,
        input_gate=False,
        bias=value.attribute("bias"),
        activation=activation,
    )
    kernel, step, line = o.functions.kernel(plan), "", "None"
    if taps > 1 and type_.heads == 1 and o.past.delays_alone(operand):
        own = ConvolutionStep(digest=o.functions.digest, of=plan, past=taps - 1)
        o.functions.kernel(own)
        step, wanted = own.name, o.values[operand].name or o.destiny(operand)
        entry = o.past.keep(wanted or o.values[operand].op, "Delay", taps - 1, channels)
        line, given = f'cache and cache["{entry}"]', o.texts[operand]
    else:
        given = o.past.delayed(operand)
        if type_.heads > 1:
            given = text.method(given, "flatten", "-2")
    function = o.functions.function(
        "convolved",
        kernel=kernel,
        step=step,
        bias=plan.bias,
        operators=f"torch.ops.{plan.namespace}",
        formula=plan.formula,
        activated=plan.function.torch if plan.activated else "gate",
    )
    result = text.call(function, given, f"self.{module}", line, o.length)
    if type_.heads == 1:
        return result
    return text.method(result, "unflatten", "-1", f"({type_.heads}, {type_.channels})")


DECAYS = {
    "linear_attention": "none",
    "scalar_recurrence": "scalar",
    "diagonal_recurrence": "diagonal",
}
"""The decay of recurrences that have kernels."""


def recurrence(o: OperatorLowering, plan: MixerPlan) -> str:
    """The name of the function of a recurrence, with kernels where there are some for it."""
    if plan.template in STRUCTURED and plan.floor is None and plan.channels <= WIDEST:
        if plan.logarithmic or not plan.a_channels:
            return _structured(o, plan)
    if plan.template not in DECAYS:
        return o.functions.mixer(plan)
    function = o.functions.mixer(replace(plan, kernels=True))
    kernel = Recurrence(
        digest=o.functions.digest,
        function=function,
        decay=DECAYS[plan.template],
        heads=plan.heads,
        groups=max(plan.c_heads, plan.b_heads),
        channels=plan.channels,
        values=plan.v_channels,
        decay_heads=plan.a_heads,
        c_heads=plan.c_heads,
        b_heads=plan.b_heads,
        v_heads=plan.v_heads,
        state_heads=max(plan.a_heads, plan.b_heads, plan.v_heads),
        floor=plan.floor,
    )
    o.functions.kernel(kernel)
    return function


STRUCTURED = ("delta_recurrence", "dplr_recurrence")
"""Recurrences with structured transitions."""


def _structured(o: OperatorLowering, plan: MixerPlan) -> str:
    function = o.functions.mixer(replace(plan, kernels=True))
    delta = plan.template == "delta_recurrence"
    decay = (plan.a_heads,) if plan.a_channels else ()
    keys: tuple[int, ...] = (plan.b_heads, plan.beta_heads)
    if not delta:
        keys = (plan.left_heads, plan.right_heads, plan.b_heads)
    kernel = Structured(
        digest=o.functions.digest,
        function=function,
        delta=delta,
        decay={0: "none", 1: "scalar"}.get(plan.a_channels, "diagonal"),
        heads=plan.heads,
        channels=plan.channels,
        values=plan.v_channels,
        counts=(plan.c_heads, *decay, *keys, plan.v_heads),
        steps_of_token=plan.steps,
    )
    o.functions.kernel(kernel)
    return function


def scan(o: OperatorLowering, plan: MixerPlan, parts: list[int]) -> str:
    """The name of the function of a scan over logarithms of decays, with its kernels."""
    heads = plan.heads
    if max(plan.a_heads, plan.b_heads, plan.v_heads) != heads:
        return o.functions.mixer(plan)
    function = o.functions.mixer(replace(plan, kernels=True))
    reads, writes = (
        "one" if _is_one(o, id) else "shared" if count == 1 else "own"
        for id, count in ((parts[0], plan.c_heads), (parts[2], plan.b_heads))
    )
    counts = (("C", plan.c_heads), ("A", plan.a_heads), ("B", plan.b_heads), ("V", plan.v_heads))
    repeats = tuple(x for x in counts if x[1] != heads and (x[1] > 1 or x[0] in "AV"))
    kernel = Scan(
        digest=o.functions.digest,
        function=function,
        heads=heads,
        channels=plan.channels,
        reads=reads,
        writes=writes,
        factored=plan.factored,
        decay_channels=plan.a_channels,
        repeats=repeats,
    )
    o.functions.kernel(kernel)
    return function


def _is_one(o: OperatorLowering, id: int) -> bool:
    value = o.values[id]
    return value.op == "number" and bool(value.attribute("value") == 1)
