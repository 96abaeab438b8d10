"""Stages that choose: routers, experts, memories.

Owns: their statements, as a table by operation, the class of an expert, and which experts have
kernels. Refuses: what the functions do (templates/function, templates/module).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from starc.compiler.init import onto_stream
from starc.compiler.ir import Operator, Value
from starc.compiler.kernel_activation import ACTIVATIONS
from starc.compiler.kernel_experts import MAX_EXPERTS, ExpertProducts
from starc.compiler.kernel_gather import Gather
from starc.compiler.lower import text
from starc.compiler.lower.modules import Lowering, module_name
from starc.compiler.lower.text import Text
from starc.compiler.plan import Line
from starc.compiler.profile import profile_operator
from starc.compiler.types import Feature

if TYPE_CHECKING:
    from starc.compiler.lower.operator import OperatorLowering

LOSSES = "list[Tensor] | None"
"""Where units put what a router adds to the loss; None outside of training."""


def _top(o: OperatorLowering, value: Value) -> Text:
    k = str(value.attribute("k"))
    if len(value.inputs) > 1:
        kept, by = (o.aligned(i, value.type) for i in value.inputs)
        if o.values[value.inputs[0]].op == "number":
            kept = o.tensor(value.inputs[0])
        return text.call(o.functions.function("top_by"), kept, by, k)
    return text.call(o.functions.function("top"), o.tensor(value.inputs[0]), k)


def _route(o: OperatorLowering, value: Value) -> Text:
    """Statements that choose; the text is the weight of every expert, where anyone reads that."""
    from starc.compiler.lower.operator import Ambient

    id = o.values.index(value)
    spread = any(o.values[i].op != "experts" for i in o.readers(id))
    operands = [o.texts[i] for i in value.inputs]
    if (spread or value.attribute("balance")) and not operands[0].code.isidentifier():
        operands[0] = o.assign(o.fresh("scores"), operands[0], value.type)
    scores = operands[0].code
    keys = "top gate normalize scale noisy correction groups keep".split()
    options = {key: value.attribute(key) for key in keys}
    options["scale"] = float(options["scale"])
    arguments = [operand.code for operand in operands]
    if options["noisy"]:
        arguments[1] += " if self.training else None"
    function = o.functions.function("route", **options)
    gates, chosen = o.local(o.fresh("gates")), o.local(o.fresh("chosen"))
    call = f"{gates}, {chosen} = {function}({', '.join(arguments)})"
    o.lines.append(Line(call, f"(B, T, {options['top']})"))
    if weight := float(value.attribute("balance")):
        balance = o.functions.function("balance", gate=options["gate"])
        o.ambient["losses"] = Ambient("", "losses", type=LOSSES)
        term = f"{weight!r} * {balance}({scores}, {chosen})"
        o.lines.append(Line(f"if losses is not None:\n    losses.append({term})"))
    o.routes[id] = gates, chosen
    if not spread:
        return Text("")
    return text.call(f"torch.zeros_like({scores}).scatter", "-1", chosen, gates)


def _experts(o: OperatorLowering, value: Value) -> Text:
    gates, *operands = value.inputs
    name = module_name(o, value)
    o.functions.function("module/experts", "Experts")
    position = value.attribute("operator")
    to_stream = position in onto_stream(o.operator)[1]
    expert = o.operator.inner[position]
    products = _products(o, value, expert)
    made, features = _class(o, expert, to_stream, products is not None)
    o.init.append(Line(f"self.{name} = Experts({made}() for _ in range({value.attribute('n')}))"))
    given = dict(zip(value.attribute("operands").split(","), operands, strict=True))
    arguments: list[Text | str] = [*o.routes[gates], *(o.texts[given[f]] for f in features)]
    if products:
        plan, *maps = products
        names = (f'"{name}"' for name in maps)
        return text.call(o.functions.kernel(plan), *arguments, f"self.{name}", *names)
    return text.call(f"self.{name}", *arguments)


def _products(
    o: OperatorLowering, value: Value, expert: Operator
) -> tuple[ExpertProducts, str, str] | None:
    """The kernel of experts that are a map, a nonlinearity, perhaps times another map, and a last
    map, with the names of the first (of both halves) and the last; None for others."""
    values = expert.values
    second = values[expert.outputs[0][1]]
    if len(expert.inputs) != 1 or not _is_map(second) or value.attribute("n") > MAX_EXPERTS:
        return None
    inner = values[second.inputs[0]]
    gated = inner.op == "gated_product"
    hidden = first_width = _channels(values, second.inputs[0])
    if gated:
        activation = inner.attribute("activation")
        parts = [values[i] for i in inner.inputs]
        if any(part.op != "slice" for part in parts):
            return None
        edges = [(part.attribute("a"), part.attribute("b")) for part in parts]
        sources = {part.inputs[0] for part in parts}
        if edges != [(0, hidden), (hidden, 2 * hidden)] or len(sources) != 1:
            return None
        (source,) = sources
        first_width *= 2
    else:
        activation = inner.op
        if activation == "gelu" and inner.attribute("approximate") == "tanh":
            activation = "gelu_tanh"
        source = inner.inputs[0] if inner.inputs else -1
    first = values[source]
    given = expert.inputs[0][1]
    if activation not in ACTIVATIONS or not _is_map(first) or first.inputs != (given,):
        return None
    if first.attribute("n") != first_width:
        return None
    plan = ExpertProducts(
        digest=o.functions.digest,
        experts=value.attribute("n"),
        top=value.attribute("top"),
        width=_channels(values, given),
        hidden=hidden,
        out=second.attribute("n"),
        activation=activation,
        gated=gated,
        bias=(first.attribute("bias"), second.attribute("bias")),
    )
    own, last = (expert.parameter(v.parameters[0]).name for v in (first, second))
    return plan, own.partition(".")[0], last.partition(".")[0]


def _is_map(value: Value) -> bool:
    return value.op == "dense" and not value.attribute("rank") and value.attribute("groups") == 1


def _channels(values: Sequence[Value], id: int) -> int:
    type_ = values[id].type
    return type_.channels if isinstance(type_, Feature) and type_.heads == 1 else 0


def _class(
    o: OperatorLowering, expert: Operator, to_stream: bool, served: bool
) -> tuple[str, tuple[str, ...]]:
    """The class of an expert, and the features that its forward takes; `served` says that kernels
    stand in its place on GPUs, so that it needs none of its own."""
    from starc.compiler.lower.operator import OperatorLowering

    profile = profile_operator(expert)
    layout = profile.layout({})
    parts = expert, "", o.functions, o.context, profile, layout
    lowered = OperatorLowering(*parts, served=served).lower()
    words = re.split(r"_+", expert.name)
    module = lowered.module if to_stream else replace(lowered.module, onto_stream=())
    wanted = "".join(w[:1].upper() + w[1:] for w in words if w) + "Expert"
    return o.functions.expert(module, wanted), lowered.features


def _retrieve(o: OperatorLowering, value: Value) -> Text:
    *scores, table = value.inputs
    size, top = o.type(table), value.attribute("top")
    plan = Gather(
        digest=o.functions.digest,
        rows=size.heads,
        reads=o.type(scores[0]).heads * top,
        channels=size.channels,
    )
    gate, kernel = value.attribute("gate"), o.functions.kernel(plan)
    function = o.functions.function("retrieve", gate=gate, kernel=kernel)
    rows = o.tensor(table)
    if size.heads == 1:
        rows = text.method(rows, "unsqueeze", "0")
    return text.call(function, *(o.tokens(i) for i in scores), rows, str(top))


LOWERINGS: dict[str, Lowering] = {
    "top": _top,
    "route": _route,
    "experts": _experts,
    "retrieve": _retrieve,
}
