"""What the text shows of the size of decays and gates: logarithms, bounds, exponential gates.

The memory `semi_separable(C, A, exp(u) * B) |> normalize(floor)` (mLSTM, 2405.04517) has an exact
value however large u is, but exp(u) does not. Where nothing bounds u, the pass `infer` divides
the state by a running maximum; the profile counts what that keeps.

Owns: these questions, asked of values. Refuses: rewriting them (passes/infer.py).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from starc.compiler.ir import Value
from starc.compiler.types import Constant, Feature

SHAPES = ("heads", "merge", "repeat", "slice", "concat")

HARMLESS = 60.0
"""Up to this u, sums of exp(u) over many tokens stay far below the largest number of float32."""

_RANGES = {
    "tanh": (-1.0, 1.0),
    "erf": (-1.0, 1.0),
    "softsign": (-1.0, 1.0),
    "sin": (-1.0, 1.0),
    "cos": (-1.0, 1.0),
    "sigmoid": (0.0, 1.0),
    "hard_sigmoid": (0.0, 1.0),
    "logsigmoid": (-math.inf, 0.0),
}


def has_logarithm(values: Sequence[Value], id: int) -> bool:
    """Whether a transition is carried as its logarithm, since the text shows that it has one."""
    value = values[id]
    if value.op in ("exp", "sigmoid"):
        return True
    if value.op == "number":
        return bool(value.attribute("value") > 0)
    if value.op == "scale":
        return bool(value.attribute("s") > 0) and has_logarithm(values, value.inputs[0])
    if value.op in ("multiply", "divide", "sqrt", "square", *SHAPES):
        return all(has_logarithm(values, i) for i in value.inputs)
    return False


def exponential_gate(values: Sequence[Value], b: int) -> int | None:
    """The value `exp(u)`, a number per head without a bound, that is a factor of B."""
    value = values[b]
    match value.op:
        case "exp":
            type_, (u,) = value.type, value.inputs
            single = isinstance(type_, Feature) and type_.channels == 1
            return b if single and _range(values, u)[1] > HARMLESS else None
        case "multiply":
            found = (exponential_gate(values, i) for i in value.inputs)
            return next((id for id in found if id is not None), None)
        case "divide" | "scale":
            return exponential_gate(values, value.inputs[0])
    return None


def stabilised(values: Sequence[Value], a: int, b: int) -> tuple[int, int] | None:
    """(value exp(u) in B, heads) where a normalised memory with transition A needs its running
    maximum, one number for each head of A and u."""
    gate, decay = exponential_gate(values, b), values[a].type
    if gate is None or not isinstance(decay, Feature | Constant) or decay.channels > 1:
        return None
    type_ = values[gate].type
    assert isinstance(type_, Feature)
    if len({type_.heads, decay.heads} - {1}) > 1:
        return None
    return gate, max(type_.heads, decay.heads)


def _range(values: Sequence[Value], id: int) -> tuple[float, float]:
    """Between which numbers a value lies, as far as the text shows it."""
    value = values[id]
    if value.op in _RANGES:
        return _RANGES[value.op]
    if value.op == "number":
        number = float(value.attribute("value"))
        return number, number
    if value.op == "clamp":
        return float(value.attribute("low")), float(value.attribute("high"))
    parts = [_range(values, i) for i in value.inputs]
    match value.op:
        case "scale":
            ends = sorted(_times(float(value.attribute("s")), end) for end in parts[0])
            return ends[0], ends[1]
        case "negate":
            return -parts[0][1], -parts[0][0]
        case "add":
            return parts[0][0] + parts[1][0], parts[0][1] + parts[1][1]
        case "minimum":
            return min(p[0] for p in parts), min(p[1] for p in parts)
        case "maximum":
            return max(p[0] for p in parts), max(p[1] for p in parts)
        case "multiply":
            ends = [_times(x, y) for x in parts[0] for y in parts[1]]
            return min(ends), max(ends)
        case op if op in SHAPES:
            return min(p[0] for p in parts), max(p[1] for p in parts)
    return -math.inf, math.inf


def _times(a: float, b: float) -> float:
    return 0.0 if 0.0 in (a, b) else a * b
