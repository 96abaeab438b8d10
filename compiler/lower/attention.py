"""Attention with a kernel of its own on GPUs: from the stages of a mixer to the kernel's plan.

On a CPU, and wherever kernels are off, the same value is computed as before: fused by PyTorch
(fused.py, mixers.py) or written out (dense.py). Softmax over plain causal or full scores of keys
and values of one width has no kernel here, because PyTorch brings better ones (docs/kernels.md).

Owns: which mixers get the kernel, its operands, and the branch of the generated code. Refuses: the
kernel (templates/kernel).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING

from starc.compiler.ir import Value
from starc.compiler.kernel_attention import TERMS, WIDEST, FusedAttention, padded
from starc.compiler.lower import dense, text
from starc.compiler.lower.masks import is_written
from starc.compiler.lower.text import Text
from starc.compiler.numbers import Numeric, python_number
from starc.compiler.plan import Line
from starc.compiler.types import Feature
from starc.compiler.visibility import CAUSAL, MASKS, Clause, value_also, visible

if TYPE_CHECKING:
    from starc.compiler.lower.operator import OperatorLowering

WEIGHTS = {"mixer_softmax": "softmax", "mixer_sigmoid": "sigmoid", "mixer_relu": "relu"}


@dataclass
class _Chain:
    """The stages between `apply` and its low_rank, the innermost first."""

    root: Value
    stages: list[tuple[str, Numeric]] = field(default_factory=list)
    terms: dict[str, int] = field(default_factory=dict)
    rows: list[int] = field(default_factory=list)
    weights: str = "linear"
    floor: Numeric | None = None
    after: Numeric = Fraction(1)


def apply(o: OperatorLowering, value: Value) -> Text:
    """T @ V: a kernel on GPUs where there is one, and what PyTorch does with it elsewhere."""
    known = _planned(o, value)
    if known is None:
        return dense.apply(o, value)
    v = value.inputs[1]
    o.look_back(v, o.past.profile.spans[o.values.index(value)])
    plan, operands, factor = known
    own = _call(o, plan, operands, value)
    if factor != 1:
        own = text.infix("*", own, Text(text.number(factor)))
    lines, masks, matrices = len(o.lines), dict(o.masks), dict(o.matrices)
    o.masks.update(o.beside_kernels[0])
    o.matrices.update(o.beside_kernels[1])
    elsewhere = dense.apply(o, value)
    inside = o.lines[lines:]
    del o.lines[lines:]
    o.beside_kernels = (dict(o.masks), dict(o.matrices))
    o.masks, o.matrices = masks, matrices
    local = o.new_local(value.name or o.destiny(o.values.index(value)) or "mixed")
    body = "".join(f"    {indented(line)}\n" for line in inside)
    o.lines.append(
        Line(
            f"if serves({o.reference}):\n    {local} = {own.code}\n"
            f"else:\n{body}    {local} = {elsewhere.code}"
        )
    )
    return Text(local)


def kernel_of_scores(o: OperatorLowering, value: Value, channels: int) -> str:
    """The kernel of `attention` or `banded_attention`, or "" where PyTorch's own is better."""
    c, b, v = value.inputs
    band = dict(value.attributes).get("band", 0)
    clause: Clause = frozenset({CAUSAL, *([("band", (band,))] if band else ())})
    same = channels == o.width(v)
    if not _fits(channels, o.width(v)) or (same and not band):
        return ""
    type_ = value.type
    assert isinstance(type_, Feature)
    return o.functions.kernel(
        FusedAttention(
            digest=o.functions.digest,
            heads=type_.heads,
            c_heads=o.type(c).heads,
            b_heads=o.type(b).heads,
            v_heads=o.type(v).heads,
            channels=channels,
            v_channels=o.width(v),
            stages=_stages([("scale", value.attribute("scale"))]),
            clauses=(clause,),
        )
    )


def indented(line: Line) -> str:
    """A statement with its comment, inside a block."""
    shown = f"{line.text}  # {line.comment}" if line.comment else line.text
    return shown.replace("\n", "\n    ")


def _fits(channels: int, v_channels: int) -> bool:
    return max(padded(channels), padded(v_channels)) <= WIDEST


def _stages(found: list[tuple[str, Numeric]]) -> tuple[tuple[str, float], ...]:
    """Stages with scales that follow one another multiplied."""
    joined: list[tuple[str, Numeric]] = []
    for op, number in found:
        if op == "scale" and joined and joined[-1][0] == "scale":
            joined[-1] = op, joined[-1][1] * number
        else:
            joined.append((op, number))
    return tuple((op, float(python_number(n))) for op, n in joined if (op, n) != ("scale", 1))


def _planned(
    o: OperatorLowering, value: Value
) -> tuple[FusedAttention, dict[str, int], Numeric] | None:
    """The plan, the values behind its operands (C, B, V, terms, row factors) and the factor of its
    result; None where no kernel fits."""
    mixer, v = value.inputs
    chain, pairs = _chain(o, mixer), visible(o.values, mixer)
    if chain is None or not all(map(is_written, pairs.clauses)):
        return None
    c, b = chain.root.inputs
    channels, type_ = max(o.width(c), o.width(b)), value.type
    assert isinstance(type_, Feature)
    if o.width(v) != type_.channels or not _fits(channels, type_.channels):
        return None
    clauses = tuple(sorted(pairs.clauses, key=lambda clause: sorted(map(repr, clause))))
    stages = _stages(chain.stages)
    plain = all(op == "scale" for op, _ in stages) and not chain.terms
    if plain and chain.weights == "softmax" and channels == type_.channels:
        if clauses in ((frozenset(),), (frozenset({CAUSAL}),)):
            return None
    heads, c_heads = type_.heads, o.type(c).heads
    for f in chain.rows:
        several = {c_heads, o.type(f).heads} - {1}
        c_heads = heads if len(several) > 1 else max(several, default=1)
    plan = FusedAttention(
        digest=o.functions.digest,
        heads=heads,
        c_heads=c_heads,
        b_heads=o.type(b).heads,
        v_heads=o.type(v).heads,
        channels=channels,
        v_channels=type_.channels,
        stages=stages,
        clauses=clauses,
        weights=chain.weights,
        floor=None if chain.floor is None else float(chain.floor),
        sink="sink" in chain.terms,
    )
    rows = {f"row_{k}": f for k, f in enumerate(chain.rows)}
    return plan, {"C": c, "B": b, "V": v, **chain.terms, **rows}, chain.after


def _chain(o: OperatorLowering, id: int) -> _Chain | None:
    """The stages of a mixer, or None where their order or kind fits no kernel."""
    found: list[Value] = []
    while (value := o.values[id]).op != "low_rank":
        kind = value.op
        known = kind in (*WEIGHTS, *MASKS, *TERMS) or kind in _OTHER_STAGES
        if o.uses[id] > 1 or not known:
            return None  # read again: the matrix that is written out serves all readers
        found.append(value)
        id = value.inputs[1 if kind == "row_scale" else 0]
    chain = _Chain(value)
    return chain if all(_add(o, chain, stage) for stage in reversed(found)) else None


_OTHER_STAGES = ("mixer_scale", "mixer_negate", "softcap", "sink", "normalize", "row_scale")


def _add(o: OperatorLowering, chain: _Chain, value: Value) -> bool:
    """Add a stage to those inside of it; False where no kernel has it in this place."""
    op = value.op
    scores = chain.weights == "linear" and chain.floor is None
    finished = chain.floor is not None or chain.weights == "softmax"
    straight = all(stage == "scale" for stage, _ in chain.stages)
    if op in ("mixer_scale", "mixer_negate"):
        factor = value.attribute("s") if op == "mixer_scale" else Fraction(-1)
        if scores:
            chain.stages.append(("scale", factor))
        else:
            chain.after *= factor
    elif op in MASKS:  # one that adds pairs shows their scores, which a soft-cap has changed
        return not finished and not (value_also(value) and not (scores and straight))
    elif op == "normalize":
        if finished or chain.after != 1:
            return False
        chain.floor = value.attribute("floor")
    elif not scores:
        return False
    elif op in WEIGHTS:
        chain.weights = WEIGHTS[op]
        return "sink" not in chain.terms or op == "mixer_softmax"
    elif op == "softcap":
        chain.stages.append(("softcap", value.attribute("c")))
    elif op == "row_scale":
        chain.rows.append(value.inputs[0])
        return straight and o.type(value.inputs[0]).channels == 1
    else:
        name = TERMS.get(op, op)
        if name in chain.terms:
            return False
        chain.terms[name] = value.inputs[1]
        if op in TERMS:
            chain.stages.append((op, Fraction(1)))
    return True


def _call(
    o: OperatorLowering, plan: FusedAttention, operands: dict[str, int], value: Value
) -> Text:
    """The call of a kernel, all of whose operands are at hand in both branches."""
    heads, type_ = plan.heads, value.type
    query = o.tokens(operands["C"], plan.channels)
    for f in (id for name, id in operands.items() if name.startswith("row_")):
        factor = o.tokens(f)
        if len({o.type(f).heads, o.type(operands["C"]).heads} - {1}) > 1:
            query = dense.repeat(query, o.type(operands["C"]).heads, heads, "2")
            factor = dense.repeat(factor, o.type(f).heads, heads, "2")
        query = text.infix("*", factor, query)
    arguments = [query, o.history(operands["B"], plan.channels), o.history(operands["V"])]
    for name in plan.terms:
        id = operands[name]
        if name == "total":
            wide = o.functions.function("wide")
            arguments.append(text.method(text.call(wide, o.history(id)), "cumsum", "1"))
        else:
            arguments.append(o.history(id) if name == "bias" else o.tokens(id))
    assert isinstance(type_, Feature)
    return o.own_layout(text.call(o.functions.kernel(plan), *arguments), type_)
