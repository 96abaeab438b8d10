"""Stages that choose: routers, experts, memories.

Owns: their statements, as a table by operation, and the class of an expert. Refuses: what the
functions do (templates/function, templates/module).
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from starc.compiler.init import onto_stream
from starc.compiler.ir import Operator, Value
from starc.compiler.lower import text
from starc.compiler.lower.modules import Lowering, module_name
from starc.compiler.lower.text import Text
from starc.compiler.plan import Line
from starc.compiler.profile import profile_operator

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
    made, features = _class(o, o.operator.inner[position], to_stream)
    o.init.append(Line(f"self.{name} = Experts({made}() for _ in range({value.attribute('n')}))"))
    given = dict(zip(value.attribute("operands").split(","), operands, strict=True))
    return text.call(f"self.{name}", *o.routes[gates], *(o.texts[given[f]] for f in features))


def _class(o: OperatorLowering, expert: Operator, to_stream: bool) -> tuple[str, tuple[str, ...]]:
    """The class of an expert, and the features that its forward takes."""
    from starc.compiler.lower.operator import OperatorLowering

    profile = profile_operator(expert)
    layout = profile.layout({})
    lowered = OperatorLowering(expert, "", o.functions, o.context, profile, layout).lower()
    words = re.split(r"_+", expert.name)
    module = lowered.module if to_stream else replace(lowered.module, onto_stream=())
    wanted = "".join(w[:1].upper() + w[1:] for w in words if w) + "Expert"
    return o.functions.expert(module, wanted), lowered.features


def _retrieve(o: OperatorLowering, value: Value) -> Text:
    *scores, table = value.inputs
    function = o.functions.function("retrieve", gate=value.attribute("gate"))
    rows = o.tensor(table)
    if o.type(table).heads == 1:
        rows = text.method(rows, "unsqueeze", "0")
    top = str(value.attribute("top"))
    return text.call(function, *(o.tokens(i) for i in scores), rows, top)


LOWERINGS: dict[str, Lowering] = {
    "top": _top,
    "route": _route,
    "experts": _experts,
    "retrieve": _retrieve,
}
