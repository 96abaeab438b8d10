"""What Model does along depth: several streams, averages over blocks, read-outs of several depths.

Owns: the modules of these and the lines around the units. Refuses: what stands behind a unit
(backbone.py).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from starc.compiler.ir import Hyper, Model, Norm
from starc.compiler.lower.functions import Functions
from starc.compiler.lower.modules import norm_module
from starc.compiler.plan import Line


@dataclass
class DepthLines:
    """Statements of Model: in __init__, before the first unit and behind the last one."""

    init: list[Line] = field(default_factory=list)
    before: list[Line] = field(default_factory=list)
    after: list[Line] = field(default_factory=list)


def depth_lines(model: Model, functions: Functions) -> DepthLines:
    """The lines of Model that average over depth, read several depths or widen the stream."""
    lines = DepthLines()
    average, readout, n = model.average, model.readout, model.streams
    if n > 1:
        shape = f"(B, T, {n}, {model.width})"
        lines.before.append(Line(f"x = x.unsqueeze(2).expand(-1, -1, {n}, -1)", shape))
        lines.after.append(Line("x = x.sum(2)"))
    elif any(u.residual.hyper for u in model.places()):
        lines.before.append(Line("x = x.unsqueeze(2)", f"(B, T, 1, {model.width})"))
        lines.after.append(Line("x = x.squeeze(2)"))
    if average:
        functions.function("module/depth_average", "DepthAverage")
        sizes = f"{average.blocks}, dilation={average.dilation}, period={average.period}"
        lines.init.append(Line(f"self.average = DepthAverage({sizes})"))
        lines.before.append(Line("streams, average = [x], self.average"))
    if readout.kind != "last":
        lines.before.append(Line("depths = [x]"))
        lines.after.append(Line("x = self.readout(depths)"))
    if readout.kind == "weighted":
        functions.function("module/weighted_readout", "WeightedReadout")
        lines.init.append(Line(f"self.readout = WeightedReadout({readout.depths})"))
    elif readout.norm:
        functions.function("module/linear", "linear")
        functions.function("module/attention_readout", "AttentionReadout")
        norm = _norm(readout.norm, model.width, functions)
        made = f"AttentionReadout({model.width}, {readout.heads}, {norm})"
        lines.init.append(Line(f"self.readout = {made}"))
    return lines


def hyper_module(hyper: Hyper, width: int, functions: Functions) -> str:
    """The constructor of a unit's hyper-connection."""
    sizes = f"{hyper.streams}, {hyper.first}"
    if hyper.norm is None:
        functions.function("module/hyper_connection", "HyperConnection")
        return f"HyperConnection({sizes})"
    functions.function("module/dynamic_hyper_connection", "DynamicHyperConnection")
    return f"DynamicHyperConnection({sizes}, {width}, {_norm(hyper.norm, width, functions)})"


def gate_module(branches: int, width: int, functions: Functions) -> str:
    """The constructor of a gated parallel's gate."""
    functions.function("module/linear", "linear")
    return f"linear({width}, {branches}, std={width**-0.5:.6g}, bias=True)"


def _norm(norm: Norm, width: int, functions: Functions) -> str:
    return norm_module(norm.op, 1, width, norm.attributes, functions)
