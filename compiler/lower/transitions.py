"""Semi-separable mixers: calls of the function that runs their recurrence.

Owns: their plans and the layouts of their arguments. Refuses: their text (templates/mixer).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from starc.compiler.ir import Value
from starc.compiler.lower import kernels, text
from starc.compiler.lower.text import Text
from starc.compiler.plan import MixerPlan
from starc.compiler.types import Constant, Feature, Mixer

if TYPE_CHECKING:
    from starc.compiler.lower.operator import OperatorLowering

Prepared = tuple[MixerPlan, list[Text]]
"""The plan of a recurrence, and its operands but for V."""


CHUNK = 32
"""Tokens of a chunk where scores are computed per channel or several times: half of the usual,
which is as fast at 512 tokens and holds half as much (float32, one core)."""


@dataclass(frozen=True)
class _Reader:
    """A mixer to be lowered to an algorithm; texts of C (rows) and of what has a past."""

    o: OperatorLowering
    value: Value
    algorithm: str
    rows: Callable[[int, int | None], Text]
    past: Callable[[int, int | None], Text]


def apply(o: OperatorLowering, value: Value) -> Text:
    """T @ V by a recurrence: the operands of T, then V."""
    *parts, v = value.inputs
    plan, operands = _prepare(_Reader(o, value, value.op, o.tokens, o.tokens), parts, v)
    content = o.tokens(v)
    if plan.template == "scan" and plan.logarithmic:
        plan, operands, content = _factored(o, plan, parts, operands, content)
        function = kernels.scan(o, plan, parts)
    else:
        function = kernels.recurrence(o, plan)
    operands.append(content)
    writers = max(plan.a_heads, plan.b_heads, plan.v_heads)
    heads = plan.heads if value.op in ("delta_recurrence", "dplr_recurrence") else writers
    state = o.past.state(heads, plan.channels, plan.v_channels + (plan.floor is not None))
    if value.attribute("read") == "before":
        name = o.functions.function("read_before")
        result = text.call(name, function, *operands, f"state={state}")
    else:
        result = text.call(function, *operands, state)
    assert isinstance(value.type, Feature)
    return o.own_layout(result, value.type)


def matrix(o: OperatorLowering, value: Value, every: bool) -> Text:
    """T written out as (B, heads, T, S): what the recurrence makes of unit vectors.

    `every`: rows of all tokens, not of the new ones alone.
    """
    rows = o.history if every else o.tokens
    reader = _Reader(o, value, _algorithm(o, value), rows, o.history)
    plan, operands = _prepare(reader, list(value.inputs), None)
    before = value.attribute("read") == "before"
    name = o.functions.function("transition_matrix", before=before)
    return text.call(name, o.functions.mixer(plan), *operands)


def _algorithm(o: OperatorLowering, value: Value) -> str:
    """The recurrence that writes a mixer out."""
    match value.op:
        case "semi_separable":
            return "signed_recurrence"
        case "log_semi_separable":
            scalar = o.width(value.inputs[1]) == 1
            return "scalar_recurrence" if scalar else "diagonal_recurrence"
    return value.op.replace("_semi_separable", "_recurrence")


def _prepare(r: _Reader, parts: list[int], v: int | None) -> Prepared:
    match r.algorithm:
        case "delta_recurrence":
            return _delta(r, parts, v)
        case "dplr_recurrence":
            return _dplr(r, parts, v)
    return _plain(r, parts, v)


def _plain(r: _Reader, parts: list[int], v: int | None) -> Prepared:
    """C, A, B: a scalar or diagonal transition."""
    o, (c, a, b) = r.o, parts
    channels = max(o.width(i) for i in parts)
    logarithmic = r.algorithm != "signed_recurrence"
    if r.algorithm == "scan":
        logarithmic = r.value.attribute("logarithmic")
    own: dict[str, Any] = {"a_heads": o.type(a).heads, "a_channels": o.width(a)}
    own["chunk"] = 16 if r.algorithm == "scan" else 64
    plan = _plan(r, c, b, v, channels, logarithmic, **own)
    return plan, [r.rows(c, channels), r.past(a, None), r.past(b, channels)]


def _factored(
    o: OperatorLowering, plan: MixerPlan, parts: list[int], operands: list[Text], content: Text
) -> tuple[MixerPlan, list[Text], Text]:
    """A scan whose A and B are products with one number per token and head, as they are where the
    time step is a function of the input: no tensor of tokens by heads by channels is made.

    A becomes that number and a slope; that of B goes to V.
    """
    _, a, b = parts
    C, *decay, B = operands
    found = _steps(o, a, plan.heads)
    if found is not None and isinstance(slope := o.type(found[1]), Constant):
        if slope.heads == plan.heads and slope.channels == plan.channels > 1:
            plan = replace(plan, factored=True, a_channels=1)
            decay = [o.tokens(found[0]), o.tensor(found[1])]
    found = _steps(o, b, plan.heads)
    if found is not None and o.type(found[1]).heads == 1:
        if not content.code.isidentifier():
            content = o.assign(o.fresh("V"), content, None)
        B, plan = o.tokens(found[1], plan.channels), replace(plan, b_heads=1)
        scaled = text.infix("*", o.tokens(found[0]), content)
        content = text.method(scaled, "to", f"{content.code}.dtype")
    return plan, [C, *decay, B], content


def _steps(o: OperatorLowering, id: int, heads: int) -> tuple[int, int] | None:
    """The factors of a product that is nowhere else: one number per token and head, and a rest."""
    value = o.values[id]
    if value.op != "multiply" or o.uses[id] != 1 or o.texts[id].code.isidentifier():
        return None
    for one, other in (value.inputs, value.inputs[::-1]):
        type_ = o.type(one)
        if isinstance(type_, Feature) and (type_.heads, type_.channels) == (heads, 1):
            return one, other
    return None


def _delta(r: _Reader, parts: list[int], v: int | None) -> Prepared:
    """C, w, B, beta."""
    o, value, (c, w, b, beta) = r.o, r.value, parts
    channels = max(o.width(i) for i in parts)
    own: dict[str, Any] = _decays(o, [w], value)
    own["beta_heads"] = o.type(beta).heads
    own["chunk"] = CHUNK if own["a_channels"] > 1 else 64
    plan = _plan(r, c, b, v, channels, value.attribute("logarithmic"), **own)
    operands = [r.rows(c, channels), r.past(b, channels), r.past(beta, None)]
    if plan.a_channels:
        operands.insert(1, r.past(w, None))
    return plan, operands


def _dplr(r: _Reader, parts: list[int], v: int | None) -> Prepared:
    """C, then w, a, b of every step, then B."""
    o, value, (c, *inner, b) = r.o, r.value, parts
    steps = [inner[i : i + 3] for i in range(0, len(inner), 3)]
    channels = max(o.width(i) for i in parts)
    heads = _heads(value)
    own: dict[str, Any] = _decays(o, [w for w, _, _ in steps], value)
    for name, i in (("left_heads", 1), ("right_heads", 2)):
        own[name] = o.type(steps[0][i]).heads if len(steps) == 1 else heads
    own["steps"], own["chunk"] = len(steps), CHUNK
    plan = _plan(r, c, b, v, channels, value.attribute("logarithmic"), **own)
    operands = [r.rows(c, channels)]
    for i, width in enumerate((plan.a_channels, channels, channels)):
        if width:
            operands.append(_stacked(r, [step[i] for step in steps], heads, width))
    return plan, [*operands, r.past(b, channels)]


def _stacked(r: _Reader, ids: list[int], heads: int, channels: int) -> Text:
    """The parts of all steps of a token, (B, T, steps, heads, channels); as it is for one step."""
    if len(ids) == 1:
        return r.past(ids[0], channels)
    parts = []
    for id in ids:
        own, has = r.past(id, channels), r.o.type(id).heads
        if has != heads:
            own = text.method(own, "repeat_interleave", str(heads // has), "dim=2")
        parts.append(own.code)
    return text.call("torch.stack", f"({', '.join(parts)})", "dim=2")


def _decays(o: OperatorLowering, ids: list[int], value: Value) -> dict[str, Any]:
    """Heads and channels of the diagonal part; none where it is 1 for every token."""
    neutral = 0 if value.attribute("logarithmic") else 1
    literals = [o.values[w] for w in ids if o.values[w].op == "number"]
    if len(literals) == len(ids) and all(w.attribute("value") == neutral for w in literals):
        return {"a_heads": 0, "a_channels": 0}
    heads = o.type(ids[0]).heads if len(ids) == 1 else _heads(value)
    return {"a_heads": heads, "a_channels": max(o.width(w) for w in ids)}


def _plan(
    r: _Reader,
    c: int,
    b: int,
    v: int | None,
    channels: int,
    logarithmic: bool,
    **more: Any,
) -> MixerPlan:
    o, value = r.o, r.value
    attributes: dict[str, Any] = dict(value.attributes)
    floor = attributes.get("floor")
    return MixerPlan(
        template=r.algorithm,
        name=r.algorithm,
        heads=_heads(value),
        channels=channels,
        c_heads=o.type(c).heads,
        b_heads=o.type(b).heads,
        v_heads=1 if v is None else o.type(v).heads,
        v_channels=0 if v is None else o.width(v),
        floor=None if floor is None else float(floor),
        logarithmic=logarithmic,
        **more,
    )


def _heads(value: Value) -> int:
    assert isinstance(value.type, Feature | Mixer)
    return value.type.heads
