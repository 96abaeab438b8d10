"""Stages on matrices that are written out: masks, terms added to scores, and what makes weights.

Owns: their statements. Refuses: what matrices are made of (dense.py).
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from starc.compiler.ir import Value
from starc.compiler.lower import dense, text
from starc.compiler.lower.text import Text
from starc.compiler.types import Constant, Mixer
from starc.compiler.visibility import MASKS, Visible, value_also, visible

if TYPE_CHECKING:
    from starc.compiler.lower.dense import Matrix
    from starc.compiler.lower.operator import OperatorLowering


def stage(o: OperatorLowering, value: Value, pairs: Visible, every: bool) -> Matrix:
    """The matrix after a stage with one mixer as its operand."""
    m = dense.matrix(o, value.inputs[0], every)
    op = value.op
    if op in MASKS or op == "select":
        if value_also(value) and m.bent:
            m = dense.clean(o, m)
        if op == "select":
            assert isinstance(value.type, Mixer)
            m = m.to(value.type.heads, 1)
        return replace(m, visible=pairs, clean=False)
    match op:
        case "mixer_scale":
            factor = Text(text.number(value.attribute("s")))
            return replace(m, text=text.infix("*", m.text, factor))
        case "mixer_negate":
            return replace(m, text=text.negate(m.text))
        case "softcap":
            c = text.number(value.attribute("c"))
            bent = text.call("torch.tanh", text.infix("/", m.text, Text(c)))
            return replace(m, text=text.infix("*", Text(c), bent), bent=True)
        case "bias" | "decay" | "alibi" | "relative":
            return _term(o, value, m)
        case "sink":
            return _sink(o, value, m)
    return _nonlinear(o, value, m)


def _nonlinear(o: OperatorLowering, value: Value, m: Matrix) -> Matrix:
    tidy = False
    match value.op:
        case "mixer_softmax":
            result, tidy = _softmax(o, m)
        case "mixer_sigmoid":
            result = text.call("torch.sigmoid", m.text)
        case "mixer_relu":
            result, tidy = text.call("F.relu", m.text), m.clean
        case "standardize":
            name = o.functions.function("standardize", eps=text.number(value.attribute("eps")))
            mask = dense.seen(o, m.visible, m.every, m.heads)
            shown = mask or Text(f"torch.ones_like({m.text.code}, dtype=torch.bool)")
            result, tidy = text.call(name, m.text, shown), True
        case _:
            m = dense.clean(o, m)
            rows = dense.assign(o, value, m.text, m.heads, m.every)
            floor = text.number(value.attribute("floor"))
            total = f"{rows.code}.sum(-1, keepdim=True).abs().clamp(min={floor})"
            result, tidy = text.infix("/", rows, Text(total)), True
    named = dense.assign(o, value, result, m.heads, m.every)
    return replace(m, text=named, clean=tidy, bent=True, sink=None)


def _softmax(o: OperatorLowering, m: Matrix) -> tuple[Text, bool]:
    """Weights of the visible entries, and whether the others are zero."""
    mask = dense.seen(o, m.visible, m.every, m.heads)
    filled, tidy = m.text, True
    if mask is not None:
        filled = text.method(filled, "masked_fill", f"~{mask.atom}", "-math.inf")
        if not m.visible.own_token and m.sink is None:  # a row may be empty: no softmax of that
            rows = text.method(mask, "any", "-1", "keepdim=True")
            filled, tidy = text.method(filled, "masked_fill", f"~{rows.atom}", "0"), False
    if m.sink is None:
        return text.method(filled, "softmax", "-1"), tidy
    name = o.functions.function("softmax_with_sink")
    return text.call(name, filled, m.sink), tidy


def value_of(o: OperatorLowering, id: int, every: bool | None) -> Text:
    """A value as (B or 1, heads, rows or 1, channels); `every` None reads it by key."""
    type_ = o.type(id)
    if isinstance(type_, Constant):
        own = o.tensor(id)
        return text.method(own, "view", f"1, {type_.heads}, 1, {type_.channels}")
    own = o.history(id) if every is None else dense.row_values(o, id, every)
    return text.method(own, "transpose", "1, 2")


def term(o: OperatorLowering, value: Value, every: bool) -> Text:
    """What a stage adds to scores: (B or 1, heads of f, rows or 1, S)."""
    f = value.inputs[1]
    rows = o.columns if every else o.rows
    match value.op:
        case "bias":
            return text.method(value_of(o, f, None), "transpose", "2, 3")
        case "decay":
            name = o.functions.function("decay_scores")
            return text.call(name, o.history(f), rows)
        case "alibi":
            name = o.functions.function("distances")
            apart = text.call(name, rows, o.columns, f"{o.reference}.device")
            return text.infix("*", text.negate(value_of(o, f, every)), apart)
    n, farthest = o.width(f), value.attribute("farthest")
    name = o.functions.function(
        "relative_scores", channels=n, farthest=farthest, edges=_edges(n, farthest)
    )
    return text.call(name, value_of(o, f, every), rows, o.columns)


def _term(o: OperatorLowering, value: Value, m: Matrix) -> Matrix:
    f = value.inputs[1]
    heads = max(m.heads, o.type(f).heads)
    own = term(o, value, m.every)
    own = dense.repeat(own, o.type(f).heads, heads, dense.HEADS)
    sum_ = text.infix("+", dense.repeat(m.text, m.heads, heads, dense.HEADS), own)
    return replace(m, text=sum_, heads=heads, clean=m.visible.everything)


def _edges(n: int, farthest: int) -> tuple[int, ...]:
    """The smallest distance of each channel but the first."""
    if not farthest:
        return ()
    exact = n // 2

    def channel(d: int) -> int:
        if d < exact:
            return d
        ratio = math.log(d / exact) / math.log(farthest / exact)
        return min(n - 1, exact + int(ratio * (n - exact)))

    edges, d = [], 0
    for c in range(1, n):
        while channel(d) < c:
            d += 1
        edges.append(d)
    return tuple(edges)


def _sink(o: OperatorLowering, value: Value, m: Matrix) -> Matrix:
    f = value.inputs[1]
    heads = max(m.heads, o.type(f).heads)
    own = dense.repeat(value_of(o, f, m.every), o.type(f).heads, heads, dense.HEADS)
    repeated = dense.repeat(m.text, m.heads, heads, dense.HEADS)
    return replace(m, text=repeated, heads=heads, sink=own)


def chosen(o: OperatorLowering, id: int, every: bool, heads: int) -> Text:
    """What a `select` keeps, (B, heads, rows, S)."""
    value = o.values[id]
    by = dense.clean(o, dense.matrix(o, value.inputs[-1], every))
    mask = dense.seen(o, visible(o.values, value.inputs[-1]), every, by.heads)
    top, block, groups = (value.attribute(k) for k in ("top", "block", "groups"))
    name = o.functions.function("select", top=top, block=block, groups=groups)
    shown = mask or Text(f"torch.ones((1,), dtype=torch.bool, device={o.reference}.device)")
    scores = dense.repeat(by.text, by.heads, max(by.heads, groups), dense.HEADS)
    if by.heads == 1 < groups:
        scores = text.method(scores, "expand", f"-1, {groups}, -1, -1")
    return dense.repeat(text.call(name, scores, shown), groups or by.heads, heads, dense.HEADS)
