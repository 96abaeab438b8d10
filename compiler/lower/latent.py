"""Attention over a latent, one token at a time.

Where keys and values are linear in something smaller that is kept (multi-head latent attention,
arXiv 2405.04434), a step need not compute those of every past token: with B_j = M c_j and V_j =
N c_j the scores are (M' C_i) . c_j, and the result is N times the weighted sum of the c_j. So the
query and the result are multiplied by the maps instead.

Owns: when a step may be taken so, and its text. Refuses: the function (templates/function).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from starc.compiler.ir import Value
from starc.compiler.kernel_attention import padded
from starc.compiler.kernel_attention_step import AttentionStep
from starc.compiler.lower import text
from starc.compiler.lower.attention import indented
from starc.compiler.lower.text import Text
from starc.compiler.plan import Line
from starc.compiler.types import Constant
from starc.compiler.visibility import CAUSAL

if TYPE_CHECKING:
    from starc.compiler.lower.operator import OperatorLowering


WIDEST_LATENT = 512
"""Channels of a latent that one tile holds."""


@dataclass(frozen=True)
class _Part:
    """Channels of keys or values: `map` (heads, channels, latent) times the value `source`, or,
    without a map, that value itself, one for all heads."""

    source: int
    map: str


def or_step(o: OperatorLowering, value: Value, whole: Text, scale: str) -> Text:
    """`whole`, the text of causal softmax attention, or a step over the latent where one fits."""
    c, b, v = value.inputs
    heads = o.type(c).heads
    keys = [_part(o, i, heads) for i in _operands(o, b)]
    values = _part(o, v, heads)
    between = _between(o, (b, v))
    fits = values is not None and values.map and all(keys) and between
    if not fits or not _read_here_only(o, between, o.values.index(value)):
        return whole
    assert values is not None
    inside = [line for id in sorted(between) for line in o.past.long_lines.get(id, ())]
    o.lines = [line for line in o.lines if not any(line is other for other in inside)]
    sizes = tuple(o.width(i) for i in _operands(o, b))
    mapped = tuple(bool(part and part.map) for part in keys)
    sources = [part.source for part in keys if part]
    kernel, own_value = _kernel(o, sources, values.source, heads, scale)
    function = o.functions.function(
        "latent_step", sizes=sizes, mapped=mapped, scale=scale, kernel=kernel, own_value=own_value
    )
    arguments = [o.tokens(c).code]
    for part in (*keys, values):
        assert part is not None
        if part.map:
            arguments.append(part.map)
        arguments.append(_flat(o, part.source))
    step = o.own_layout(text.call(function, *arguments), value.type)
    local = o.new_local(value.name or "mixed")
    body = "".join(f"    {indented(line)}\n" for line in inside)
    o.lines.append(
        Line(
            f"if cache is None or {o.length} > 1:\n{body}    {local} = {whole.code}\n"
            f"else:  # the maps of past tokens turn the query and the result\n"
            f"    {local} = {step.code}"
        )
    )
    return Text(local)


def _kernel(
    o: OperatorLowering, keys: list[int], value: int, heads: int, scale: str
) -> tuple[str, bool]:
    """The kernel of a step, or "" where a head is too wide, and whether values are no keys."""
    parts = tuple(o.width(i) * o.type(i).heads for i in keys)
    width = o.width(value) * o.type(value).heads
    part = keys.index(value) if value in keys else -1
    if max(*map(padded, parts), padded(width)) > WIDEST_LATENT:
        return "", part < 0
    plan = AttentionStep(
        digest=o.functions.digest,
        heads=heads,
        c_heads=heads,
        b_heads=1,
        v_heads=1,
        v_channels=width,
        stages=(("scale", float(scale)),),
        clauses=(frozenset({CAUSAL}),),
        parts=parts,
        value_part=part,
    )
    return o.functions.kernel(plan), part < 0


def _operands(o: OperatorLowering, id: int) -> tuple[int, ...]:
    value = o.values[id]
    return value.inputs if value.op == "concat" and id in o.past.long else (id,)


def _part(o: OperatorLowering, id: int, heads: int) -> _Part | None:
    """What one part of the keys or the values is made of, if it is linear in something kept."""
    stages: list[Value] = []
    value = o.values[id]
    while value.op in ("heads", "slice") and id in o.past.long:
        stages.append(value)
        id = value.inputs[0]
        value = o.values[id]
    if value.op == "repeat" and not stages and id in o.past.long:
        source = value.inputs[0]
        alone = o.type(source).heads == 1 and value.attribute("n") == heads
        return _Part(source, "") if alone and o.past.is_kept(source) else None
    plain = value.op == "dense" and id in o.past.long and len(value.parameters) == 1
    if not plain or value.attribute("groups") != 1 or not o.past.is_kept(value.inputs[0]):
        return None
    if sum(stage.op == "heads" for stage in stages) != 1:
        return None
    map_, split = f"self.{value.parameters[0]}", False
    for stage in reversed(stages):
        if stage.op == "slice":
            axis = ":, " if split else ""
            map_ += f"[{axis}{stage.attribute('a') or ''}:{stage.attribute('b')}]"
        else:
            split = True
            type_ = stage.type
            assert not isinstance(type_, Constant)
            n = stage.attribute("n")
            map_ += f".unflatten(0, ({n}, -1))"
            if n != heads:
                return None
    return _Part(value.inputs[0], map_)


def _flat(o: OperatorLowering, source: int) -> str:
    """A kept value of all tokens, (B, S, channels)."""
    shown = o.past.history(source)
    return (text.method(shown, "flatten", "2") if o.type(source).heads > 1 else shown).code


def _between(o: OperatorLowering, ends: tuple[int, ...]) -> set[int]:
    """Values that are computed for all tokens on the way to these."""
    found: set[int] = set()
    stack = list(ends)
    while stack:
        id = stack.pop()
        if id in o.past.long and id not in found:
            found.add(id)
            stack.extend(o.values[id].inputs)
    return found


def _read_here_only(o: OperatorLowering, between: set[int], reader: int) -> bool:
    outputs = {id for _, id in o.operator.outputs}
    return not outputs & between and all(
        i in between or i == reader for id in between for i in o.readers(id)
    )
