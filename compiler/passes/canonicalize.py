"""One spelling for programs that mean the same.

    (T1 @ T2) @ V    ->  T1 @ (T2 @ V)              (T1 + T2) @ V  ->  T1 @ V + T2 @ V
    (f * T) @ V      ->  f * (T @ V)                diagonal(f) @ V  ->  f * V
    causal(T1 + T2)  ->  causal(T1) + causal(T2)    causal(T)  ->  T where T is causal by structure
    band(1)(low_rank(C, B))  ->  diagonal(C . B)
    merge(heads(f))  ->  f,  heads(1), repeat(1), scale(1), shift(0), -(-f)  ->  nothing

After it, the mixer of every `apply` is a chain of stages over one constructor, or a sum inside a
nonlinearity, so that `select` can read its structure.
"""

from __future__ import annotations

from fractions import Fraction

from starc.compiler.ir import Model, Operator, Value
from starc.compiler.passes.rewriting import Rewriter, on_operators, rebuilt
from starc.compiler.types import Constant, Feature, Filter, Mixer, Problem
from starc.compiler.visibility import MASKS, value_also

SCORE_STAGES = frozenset({"mixer_scale", "select", "bias", "decay", "alibi", "relative", *MASKS})
"""Stages that leave a score a score."""


def canonicalize(model: Model) -> Model:
    return on_operators(model, canonical_operator)


def canonical_operator(operator: Operator) -> Operator:
    """One operator in that spelling."""
    return rebuilt(operator, _rule, _concerns)


_CONCERNED = frozenset(MASKS) | set(
    "apply negate mixer_negate multiply mixer_multiply ema scale mixer_scale shift heads repeat "
    "merge slice concat".split()
)


def _concerns(operator: Operator) -> bool:
    return any(value.op in _CONCERNED for value in operator.values)


def _rule(r: Rewriter, value: Value, inputs: tuple[int, ...]) -> int | None:
    if value.op not in _CONCERNED:
        return None
    match value.op:
        case "apply":
            try:
                return _apply(r, value, *inputs)
            except Problem:  # a part alone does not fit what the whole fits: it stays as written
                return None
        case op if op in MASKS:
            return _mask(r, value, inputs[0])
        case "negate" | "mixer_negate":
            inner = r.value(inputs[0])
            return inner.inputs[0] if inner.op == value.op else None
        case "multiply":
            return _multiply(r, value, *inputs)
        case "mixer_multiply":
            return _decayed(r, value, *inputs)
        case "ema":
            return _average(r, value, inputs[0])
    return inputs[0] if _does_nothing(r, value, inputs) else _shape(r, value, inputs)


def _does_nothing(r: Rewriter, value: Value, inputs: tuple[int, ...]) -> bool:
    match value.op:
        case "scale" | "mixer_scale":
            return bool(value.attribute("s") == 1)
        case "shift":
            return bool(value.attribute("k") == 0)
        case "heads" | "repeat":
            return bool(value.attribute("n") == 1)
        case "merge" | "slice":
            return value.type == r.type(inputs[0])
        case "concat":
            return len(inputs) == 1
    return False


def _shape(r: Rewriter, value: Value, inputs: tuple[int, ...]) -> int | None:
    """Splitting what was just merged the same way, or merging what was just split."""
    if value.op not in ("merge", "heads"):
        return None
    inner = r.value(inputs[0])
    if inner.op in ("merge", "heads") and inner.op != value.op:
        source = inner.inputs[0]
        if r.type(source) == value.type:
            return source
    return None


def _multiply(r: Rewriter, value: Value, a: int, b: int) -> int | None:
    """A literal factor becomes a scale."""
    for factor, other in ((a, b), (b, a)):
        literal = r.value(factor)
        if literal.op == "number" and not isinstance(r.type(other), Constant):
            s = literal.attribute("value")
            return other if s == 1 else r.emit("scale", (other,), value, s=s)
    return None


def _apply(r: Rewriter, value: Value, mixer: int, v: int) -> int | None:
    """T @ V with the algebra of T moved outside."""
    m = r.value(mixer)
    assert isinstance(value.type, Feature)
    heads = value.type.heads

    def applied(t: int, to: int) -> int:
        again = _apply(r, value, t, to)
        return r.emit("apply", (t, to), value) if again is None else again

    match m.op:
        case "compose":
            return applied(m.inputs[0], applied(m.inputs[1], v))
        case "mixer_add" | "mixer_subtract":
            sides = [grouped(r, value, applied(t, v), heads) for t in m.inputs]
            return r.emit(m.op.removeprefix("mixer_"), tuple(sides), value)
        case "mixer_negate":
            return r.emit("negate", (applied(m.inputs[0], v),), value)
        case "mixer_scale" if not _is_score(r, mixer):
            return r.emit("scale", (applied(m.inputs[0], v),), value, s=m.attribute("s"))
        case "row_scale":
            return _product(r, value, m.inputs[0], applied(m.inputs[1], v), heads)
        case "diagonal":
            return _product(r, value, m.inputs[0], v, heads)
    return None


def _average(r: Rewriter, value: Value, x: int) -> int:
    """ema(x): y_t = a y_{t-1} + (1 - a) x_t with a = sigmoid(p), a recurrence per channel."""
    type_ = r.type(x)
    assert isinstance(type_, Feature)
    lanes = type_.heads * type_.channels
    own = [r.operator.parameter(name) for name in value.parameters]
    shape = {"heads": type_.heads, "channels": type_.channels, "init": own[0].init, "learned": True}
    p = r.builder.emit("param", (), shape, value.span, "", own)

    def split(id: int) -> int:
        flat = r.emit("merge", (id,), value) if type_.heads > 1 else id
        return r.emit("heads", (flat,), value, n=lanes) if lanes > 1 else flat

    one = r.emit("number", (), value, value=Fraction(1))
    rest = r.emit("sigmoid", (r.emit("negate", (p,), value),), value)
    decay = split(r.emit("sigmoid", (p,), value))
    mixer = r.emit("semi_separable", (one, decay, one), value, read="after")
    y = r.emit("apply", (mixer, split(r.emit("multiply", (rest, x), value))), value)
    y = r.emit("merge", (y,), value) if lanes > 1 else y
    return y if type_.heads == 1 else r.emit("heads", (y,), value, n=type_.heads)


def _decayed(r: Rewriter, value: Value, left: int, right: int) -> int | None:
    """low_rank(C, B) * semi_separable(c, a, b) with one channel in c, a and b: a decay for each
    pair of tokens makes a recurrence of the score, semi_separable(C * c, a, B * b)."""
    for score, decay in ((left, right), (right, left)):
        t = r.value(decay)
        s = r.value(score)
        while s.op == "causal":  # the decay is causal by structure
            s = r.value(s.inputs[0])
        if s.op != "low_rank" or t.op != "semi_separable" or t.attribute("read") != "after":
            continue
        types = [r.type(i) for i in (*s.inputs, *t.inputs)]
        counts = {x.heads for x in types if isinstance(x, Feature | Constant)} - {1}
        parts = [x for x in types[2:] if isinstance(x, Feature | Constant) and x.channels == 1]
        if len(parts) < 3 or len(counts) > 1:
            continue
        (big_c, big_b), (c, a, b) = s.inputs, t.inputs
        new_c, new_b = _times(r, value, big_c, c), _times(r, value, big_b, b)
        return r.emit("semi_separable", (new_c, a, new_b), value, **dict(t.attributes))
    return None


def _is_score(r: Rewriter, mixer: int) -> bool:
    """Whether the chain ends in low_rank, whose scale belongs to the score."""
    m = r.value(mixer)
    while m.op in SCORE_STAGES:
        m = r.value(m.inputs[0])
    return m.op == "low_rank"


def _times(r: Rewriter, value: Value, a: int, b: int) -> int:
    product = _multiply(r, value, a, b)
    return r.emit("multiply", (a, b), value) if product is None else product


def _product(r: Rewriter, value: Value, f: int, v: int, heads: int) -> int:
    return _times(r, value, grouped(r, value, f, heads), grouped(r, value, v, heads))


def grouped(r: Rewriter, value: Value, id: int, heads: int) -> int:
    """A feature with its heads repeated up to a count that they divide; one head broadcasts."""
    type_ = r.type(id)
    assert isinstance(type_, Feature | Constant)
    if type_.heads in (1, heads):
        return id
    return r.emit("repeat", (id,), value, n=heads // type_.heads)


def _shown_again(r: Rewriter, value: Value) -> bool:
    """Whether a mask with `also` follows, which finds what this one hides only if it stays."""
    for other in r.operator.values:
        if other.op in MASKS and value_also(other):
            while other.op in MASKS:
                if other is value:
                    return True
                other = r.operator.values[other.inputs[0]]
    return False


def _mask(r: Rewriter, value: Value, mixer: int) -> int | None:
    m, type_ = r.value(mixer), r.type(mixer)
    assert isinstance(type_, Mixer)
    if value.op == "causal" and type_.causal:
        return mixer
    if _shown_again(r, value):
        return None

    def masked(t: int) -> int:
        again = _mask(r, value, t)
        return r.emit(value.op, (t,), value, **dict(value.attributes)) if again is None else again

    one = value.op in ("band", "dilated") and value.attribute("w") == 1
    match m.op:
        case "low_rank" if one:
            heads = type_.heads
            c, b = (grouped(r, value, i, heads) for i in m.inputs)
            product = r.emit("multiply", (c, b), value)
            return r.emit("diagonal", (r.emit("sum", (product,), value),), value)
        case "causal" | "band" if one:
            return masked(m.inputs[0])
        case op if one and op in MASKS and not value_also(m):
            return r.emit(op, (masked(m.inputs[0]),), value, **dict(m.attributes))
        case "mixer_scale" if one or not _is_score(r, mixer):
            return r.emit(m.op, (masked(m.inputs[0]),), value, **dict(m.attributes))
        case "mixer_add" | "mixer_subtract":
            return r.emit(m.op, tuple(masked(t) for t in m.inputs), value)
        case "mixer_negate":
            return r.emit(m.op, (masked(m.inputs[0]),), value)
        case "row_scale":
            return r.emit(m.op, (m.inputs[0], masked(m.inputs[1])), value)
        case "compose" if r.value(m.inputs[0]).op == "diagonal":
            return r.emit(m.op, (m.inputs[0], masked(m.inputs[1])), value)
        case "compose" if r.value(m.inputs[1]).op == "diagonal":
            return r.emit(m.op, (masked(m.inputs[0]), m.inputs[1]), value)
        case "diagonal" if value.op != "summary":
            return mixer
        case "toeplitz" if value.op == "band":
            taps = r.type(m.inputs[0])
            assert isinstance(taps, Filter)
            if taps.length is not None and taps.length <= value.attribute("w"):
                return mixer
    return None
