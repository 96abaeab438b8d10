"""Softmax attention under masks, with terms and sinks, by scaled_dot_product_attention.

What is written out is the mask and the terms, never the scores: two or three matrices of tokens by
tokens per head less than by definition. Owns: which chains of stages fit. Refuses: all others
(dense.py), and causal attention without more (mixers.py).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING

from starc.compiler.ir import Value
from starc.compiler.lower import dense, scores, text
from starc.compiler.lower.text import Text
from starc.compiler.numbers import Numeric
from starc.compiler.types import Feature
from starc.compiler.visibility import MASKS, visible

if TYPE_CHECKING:
    from starc.compiler.lower.operator import OperatorLowering

TERMS = ("bias", "decay", "alibi", "relative")


@dataclass
class _Chain:
    """The stages between a softmax and its low_rank: terms and row factors by id."""

    root: Value
    scale: Numeric = Fraction(1)
    terms: list[tuple[int, Numeric]] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    sink: int | None = None


def _chain(o: OperatorLowering, id: int) -> _Chain | None:
    chain = _Chain(o.values[id])
    while (value := o.values[id]).op != "low_rank":
        if value.op in ("mixer_scale", "mixer_negate"):
            chain.scale *= value.attribute("s") if value.op == "mixer_scale" else -1
        elif value.op in TERMS and not chain.rows:
            chain.terms.append((id, chain.scale))
        elif value.op == "sink":
            chain.sink = id
        elif value.op == "row_scale" and o.type(value.inputs[0]).channels == 1:
            chain.rows.append(value.inputs[0])
        elif value.op not in MASKS and not (value.op == "select" and len(value.inputs) > 1):
            return None
        id = value.inputs[1 if value.op == "row_scale" else 0]
    chain.root = value
    return chain


def attention(o: OperatorLowering, value: Value) -> Text | None:
    """The fused form of softmax(...) @ V, or None where none is known."""
    softmax, v = value.inputs
    if o.values[softmax].op != "mixer_softmax" or o.uses[softmax] > 1:
        return None
    inner = o.values[softmax].inputs[0]
    chain, pairs = _chain(o, inner), visible(o.values, inner)
    if chain is None or chain.scale <= 0 or not (pairs.own_token or chain.sink is not None):
        return None
    type_ = value.type
    assert isinstance(type_, Feature)
    heads, (c, b) = type_.heads, chain.root.inputs
    n = max(o.width(c), o.width(b))
    query = dense.repeat(o.tokens(c, n), o.type(c).heads, heads, "2")
    for f in chain.rows:
        query = text.infix("*", dense.repeat(o.tokens(f), o.type(f).heads, heads, "2"), query)
    key = dense.repeat(o.history(b, n), o.type(b).heads, heads, "2")
    content = dense.repeat(o.history(v), o.type(v).heads, heads, "2")
    many = [
        dense.expand(operand, o.type(i).heads, heads)
        for operand, i in ((query, c), (key, b), (content, v))
    ]
    arguments = []
    mask = dense.seen(o, pairs, False, heads)
    if mask is not None:
        arguments.append(f"seen={mask.code}")
    if chain.terms:
        arguments.append(f"terms={_sum(o, chain, heads).code}")
    if chain.sink is not None:
        f = o.values[chain.sink].inputs[1]
        own = dense.repeat(scores.value_of(o, f, False), o.type(f).heads, heads, dense.HEADS)
        arguments.append(f"sink={own.code}")
    name = o.functions.function(
        "masked_attention",
        scale=float(chain.scale),
        seen=mask is not None,
        terms=bool(chain.terms),
        sink=chain.sink is not None,
    )
    return o.own_layout(text.call(name, *many, *arguments), type_)


def _sum(o: OperatorLowering, chain: _Chain, heads: int) -> Text:
    """All terms, (B or 1, heads or 1, T or 1, S)."""
    total: Text | None = None
    for id, factor in reversed(chain.terms):
        term = dense.repeat(
            scores.term(o, o.values[id], False),
            o.type(o.values[id].inputs[1]).heads,
            heads,
            dense.HEADS,
        )
        if factor != 1:
            term = text.infix("*", term, Text(text.number(factor)))
        total = term if total is None else text.infix("+", total, term)
    assert total is not None
    return total
