"""The class Model: what stands before and after the units, and values computed once for all.

Owns: embedding, positions, read-out, the order of Model.forward. Refuses: units (backbone.py).
"""

from __future__ import annotations

import re

from starc.compiler.ir import Model, Repeat
from starc.compiler.kernel_loss import LEAST_VOCAB, CrossEntropy
from starc.compiler.lower.backbone import Backbone, Scope, fold_iterations
from starc.compiler.lower.depth import depth_lines
from starc.compiler.lower.functions import Functions
from starc.compiler.lower.modules import norm_module
from starc.compiler.lower.operator import Ambient
from starc.compiler.plan import Line, ModelPlan, ModuleClass


def lower_model(model: Model, functions: Functions) -> tuple[tuple[ModuleClass, ...], ModelPlan]:
    """The classes of a model's file, operators first, and the plan of Model itself."""
    backbone = Backbone(model, functions)
    scope = Scope("")
    backbone.layers(model.layers, scope)
    counts = {r.name: len(r.bodies) for r in model.layers if isinstance(r, Repeat)}
    before, after, logits, init_after = _ends(model, functions, backbone)
    ambient = {a.name: a for o in backbone.operators.values() for a in o.ambient}
    tables = [
        Line(f"{a.name} = {a.function}({_positions(a)})" if a.function else "e = x")
        for name, a in ambient.items()
        if name in scope.needs and name not in ("tokens", "start", "losses")
    ]
    along = depth_lines(model, functions)
    advance = Line("start = 0 if cache is None else cache.advance(tokens.shape[1])")
    later = (*before[1], *tables, *along.before, *scope.lines, *along.after)
    if not any(re.search(r"\bstart\b", line.text) for line in later):
        advance = Line("if cache is not None:\n    cache.advance(tokens.shape[1])")
    functions.function("Cache")
    functions.function("draw")
    ties = fold_iterations(backbone.ties(), counts)
    plan = ModelPlan(
        doc=tuple((model.doc or "").splitlines()),
        init=(*before[0], *scope.init, *along.init, *init_after, *ties, *_dtype(model)),
        forward=(advance, *later, *after),
        logits=logits,
        width=model.width,
        vocab=model.vocab,
        loss=_loss(model, functions),
        losses="losses" in scope.needs,
        cache=tuple(scope.cache),
        causal=model.causal,
        longest=_longest(model),
    )
    return (*functions.experts, *backbone.classes), plan


def _loss(model: Model, functions: Functions) -> str:
    """An expression of the loss, where a kernel makes it; else empty."""
    if model.vocab < LEAST_VOCAB:
        return ""
    plan = CrossEntropy(
        digest=functions.digest,
        width=model.width,
        vocab=model.vocab,
        scale=float(model.head.scale),
        softcap=model.head.softcap and float(model.head.softcap),
    )
    return f"{functions.kernel(plan)}(x, self.head, targets, ignore_index)"


def _dtype(model: Model) -> list[Line]:
    return [] if model.dtype == "float32" else [Line(f"self.to(torch.{model.dtype})")]


def _longest(model: Model) -> int | None:
    """The tokens that weights of their own for every position allow; None where there are none."""
    static = any(value.op == "static" for o in model.operators for value in o.values)
    return model.context if static or model.position == "learned" else None


def _positions(ambient: Ambient) -> str:
    """Arguments of a function of positions: how many, where, and the first."""
    if ambient.type == "Tensor":  # positions, which are whole numbers
        return "tokens.shape[1], x.device, start"
    if ambient.whole:
        return "start + tokens.shape[1], x.device, 0, x.dtype"
    return "tokens.shape[1], x.device, start, x.dtype"


def _ends(
    model: Model, functions: Functions, backbone: Backbone
) -> tuple[tuple[list[Line], list[Line]], list[Line], str, list[Line]]:
    """What stands before and after the units: embedding, position, final norm, read-out."""
    vocab, width = model.vocab, model.width
    init = [Line(f"self.embedding = embedding({vocab}, {width})")]
    functions.function("module/embedding", "embedding")
    forward = [Line("x = self.embedding(tokens)", f"(B, T, {width})")]
    if model.embedding.scale != 1:
        forward[0] = Line(
            f"x = self.embedding(tokens) * {model.embedding.scale!r}", f"(B, T, {width})"
        )
    if model.embedding.norm:
        made = norm_module(
            model.embedding.norm.op, 1, width, model.embedding.norm.attributes, functions
        )
        init.append(Line(f"self.embedding_norm = {made}"))
        forward.append(Line("x = self.embedding_norm(x)"))
    if model.position == "learned":
        init.append(Line(f"self.position = embedding({model.context}, {width})"))
        forward.append(Line("x = x + self.position.weight[start : start + tokens.shape[1]]"))
    elif model.position == "sinusoidal":
        name = functions.function("sinusoidal", width=width)
        forward.append(Line(f"x = x + {name}(tokens.shape[1], x.device, start).to(x.dtype)"))
    after: list[Line] = []
    last: list[Line] = []
    if model.final_norm:
        made = norm_module(model.final_norm.op, 1, width, model.final_norm.attributes, functions)
        last.append(Line(f"self.final_norm = {made}"))
        after.append(Line("x = self.final_norm(x)"))
    functions.function("module/linear", "linear")
    bias = ", bias=True" if model.head.bias else ""
    last.append(Line(f"self.head = linear({width}, {vocab}, std={model.head.std:.6g}{bias})"))
    if model.embedding.tied:
        last.append(Line("self.head.weight = self.embedding.weight"))
    logits = "self.head(x)"
    if model.head.scale != 1:
        logits = f"{logits} * {model.head.scale!r}"
    if model.head.softcap:
        cap = repr(model.head.softcap)
        logits = (
            f"{cap} * torch.tanh({logits} / {cap})"
            if model.head.scale == 1
            else f"{cap} * torch.tanh(({logits}) / {cap})"
        )
    return (init, forward), after, logits, last
