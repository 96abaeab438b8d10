"""The algorithm of every mixer, from its structure alone.

    softmax(causal(s C B')) V            -> attention, or banded_attention
    causal(s C B') V [normalised]        -> linear_attention
    semi-separable V [normalised]        -> scalar_, diagonal_ or signed_recurrence
    the same with one channel a head     -> scan
    the same with structured transitions -> delta_ or dplr_recurrence
    toeplitz V                           -> short_, long_ or modal_convolution
    act(f) * v                           -> gated_product

What has no structure to use (soft-caps, sums inside a nonlinearity, sigmoid scores ...) stays
`apply` and is computed as it is defined: the matrix is written out and multiplied.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from starc.compiler.ir import Model, Value
from starc.compiler.kernel_plan import MAX_TAPS
from starc.compiler.numbers import Numeric
from starc.compiler.passes.rewriting import Rewriter, rewrite
from starc.compiler.types import Constant, Feature, Filter
from starc.compiler.visibility import value_also

SHORT_TAPS = 32
"""Filters up to this many taps are summed tap by tap; longer ones go through the FFT, whose cost
does not grow with the taps (10 log2(2L) operations a channel and token against 2 k)."""

SCAN_STATE = 32
"""Heads of one channel with a scalar decay are scanned up to this state size, above it chunked."""

ACTIVATIONS = ("silu", "gelu", "relu", "relu2", "sigmoid", "tanh", "softplus", "square")
"""Pointwise functions that the gated product takes in."""


def select(model: Model) -> Model:
    """The model with algorithms in place of `apply`."""
    return _gates(rewrite(model, _rule))


@dataclass(frozen=True)
class _Chain:
    """The stages between a constructor and `apply`."""

    root: Value
    scale: Numeric
    causal: bool
    band: int
    softmax: bool
    floor: Numeric | None


def _chain(r: Rewriter, mixer: int) -> _Chain | None:
    """The structure of a mixer, or None when the order or kind of its stages fits no fast
    algorithm."""
    stages: list[Value] = []
    value = r.value(mixer)
    while value.op in ("mixer_scale", "causal", "band", "mixer_softmax", "normalize"):
        stages.append(value)
        value = r.value(value.inputs[0])
    scale: Numeric = Fraction(1)
    causal, band, softmax, floor = False, 0, False, None
    for stage in reversed(stages):
        if softmax or floor is not None:
            if stage.op != "causal":
                return None
        elif stage.op == "mixer_scale":
            scale = scale * stage.attribute("s")
        elif stage.op == "band":
            if value_also(stage):
                return None
            band = min(band or stage.attribute("w"), stage.attribute("w"))
        elif stage.op == "mixer_softmax":
            softmax = True
        elif stage.op == "normalize":
            floor = stage.attribute("floor")
        causal = causal or stage.op == "causal"
    return _Chain(value, scale, causal, band, softmax, floor)


def _rule(r: Rewriter, value: Value, inputs: tuple[int, ...]) -> int | None:
    if value.op != "apply":
        return None
    mixer, v = inputs
    chain = _chain(r, mixer)
    if chain is None:
        return None
    match chain.root.op:
        case "low_rank":
            return _low_rank(r, value, chain, v)
        case "semi_separable" | "log_semi_separable":
            return _semi_separable(r, value, chain, v)
        case "dplr_semi_separable" | "delta_semi_separable":
            return _structured(r, value, chain, v)
        case "toeplitz":
            return _toeplitz(r, value, chain, v)
    return None


def _low_rank(r: Rewriter, value: Value, chain: _Chain, v: int) -> int | None:
    if not chain.causal:
        return None
    operands = (*chain.root.inputs, v)
    if chain.softmax:
        scale = chain.scale
        if scale <= 0:  # the fused kernel multiplies its mask, minus infinity, by the scale
            operands = (r.emit("scale", (operands[0],), value, s=scale), *operands[1:])
            scale = Fraction(1)
        if chain.band:
            return r.emit("banded_attention", operands, value, scale=scale, band=chain.band)
        return r.emit("attention", operands, value, scale=scale)
    if chain.band:
        return None
    return r.emit("linear_attention", operands, value, scale=chain.scale, floor=chain.floor)


def _semi_separable(r: Rewriter, value: Value, chain: _Chain, v: int) -> int | None:
    if not _recurs(chain):
        return None
    c, a, b = chain.root.inputs
    logarithmic = chain.root.op == "log_semi_separable"
    decay, state = _value(r, a), max(_value(r, c).channels, _value(r, b).channels)
    heads = max(_value(r, i).heads for i in (c, a, b, v))
    scannable = _value(r, v).channels == 1 and chain.floor is None and heads > 1
    floor, scale = _unscaled(chain)
    extra: dict[str, Any]
    if scannable and (decay.channels > 1 or state <= SCAN_STATE):
        op, extra = "scan", {"logarithmic": logarithmic}
    elif not logarithmic:
        op, extra = "signed_recurrence", {"floor": floor}
    else:
        op = "scalar_recurrence" if decay.channels == 1 else "diagonal_recurrence"
        extra = {"floor": floor}
    result = r.emit(op, (c, a, b, v), value, **extra, read=chain.root.attribute("read"))
    return result if scale == 1 else r.emit("scale", (result,), value, s=scale)


def _recurs(chain: _Chain) -> bool:
    """Whether a state can stand for the past. Normalised reads ahead of the update are left out:
    the first token reads nothing."""
    if chain.softmax or chain.band:
        return False
    return chain.floor is None or (chain.scale != 0 and chain.root.attribute("read") == "after")


def _unscaled(chain: _Chain) -> tuple[Numeric | None, Numeric]:
    """(floor, scale) with the scale outside: s t / max(|s t|, f) is sign(s) t / max(|t|, f/|s|)."""
    if chain.floor is None:
        return None, chain.scale
    sign = 1 if chain.scale > 0 else -1
    return chain.floor / (sign * chain.scale), Fraction(sign)


def _structured(r: Rewriter, value: Value, chain: _Chain, v: int) -> int | None:
    if not _recurs(chain):
        return None
    floor, scale = _unscaled(chain)
    op = chain.root.op.replace("_semi_separable", "_recurrence")
    attributes = {**dict(chain.root.attributes), "floor": floor}
    result = r.emit(op, (*chain.root.inputs, v), value, **attributes)
    return result if scale == 1 else r.emit("scale", (result,), value, s=scale)


def _value(r: Rewriter, id: int) -> Feature | Constant:
    type_ = r.type(id)
    assert isinstance(type_, Feature | Constant)
    return type_


def _toeplitz(r: Rewriter, value: Value, chain: _Chain, v: int) -> int | None:
    if chain.softmax or chain.floor is not None:
        return None
    kernel = chain.root.inputs[0]
    type_ = r.type(kernel)
    assert isinstance(type_, Filter)
    taps = min(n for n in (type_.length, chain.band) if n) if type_.length or chain.band else None
    if r.value(kernel).op == "ssm" and taps is None:
        result = r.emit("modal_convolution", (kernel, v), value)
        return result if chain.scale == 1 else r.emit("scale", (result,), value, s=chain.scale)
    op = "short_convolution" if taps is not None and taps <= SHORT_TAPS else "long_convolution"
    result = r.emit(op, (kernel, v), value, taps=taps)
    return result if chain.scale == 1 else r.emit("scale", (result,), value, s=chain.scale)


def _gates(model: Model) -> Model:
    """Gates join what they multiply: act(f) * v, and the two gates of a short convolution."""
    readers: dict[int, Counter[int]] = {}

    def read_once(r: Rewriter, operand: int) -> bool:
        key = id(r.operator)
        if key not in readers:
            readers[key] = Counter(i for value in r.operator.values for i in value.inputs)
            readers[key].update(i for _, i in r.operator.outputs)
        return readers[key][operand] == 1

    def rule(r: Rewriter, value: Value, inputs: tuple[int, ...]) -> int | None:
        if value.op == "short_convolution" and _per_channel(r, *inputs):
            kernel, v = inputs
            inner = r.value(v)
            gated = (
                inner.op == "multiply" and read_once(r, value.inputs[1]) and _same_types(r, inner)
            )
            operands = (kernel, *(inner.inputs if gated else (v,)))
            return r.emit(
                "gated_convolution",
                operands,
                value,
                output_gate=False,
                input_gate=gated,
                taps=value.attribute("taps"),
            )
        if value.op != "multiply" or not _same_types(r, value, inputs):
            return None
        for side in (0, 1):
            gate, other = inputs[side], inputs[1 - side]
            if r.value(gate).op in ACTIVATIONS and read_once(r, value.inputs[side]):
                return _gated_product(r, value, gate, other)
        for side in (0, 1):
            gate, other = inputs[side], inputs[1 - side]
            conv = r.value(other)
            if conv.op == "gated_convolution" and read_once(r, value.inputs[1 - side]):
                if not conv.attribute("output_gate"):
                    operands = (conv.inputs[0], gate, *conv.inputs[1:])
                    extra = {**dict(conv.attributes), "output_gate": True}
                    return r.emit("gated_convolution", operands, value, **extra)
        return None

    return rewrite(model, rule)


def _gated_product(r: Rewriter, value: Value, gate: int, other: int) -> int:
    g = r.value(gate)
    activation = g.op
    if g.op == "gelu" and g.attribute("approximate") == "tanh":
        activation = "gelu_tanh"
    return r.emit("gated_product", (g.inputs[0], other), value, activation=activation)


def _same_types(r: Rewriter, value: Value, inputs: tuple[int, ...] | None = None) -> bool:
    """Whether a product is of two features of one shape: nothing is broadcast."""
    a, b = (r.type(i) for i in (inputs or value.inputs))
    return isinstance(a, Feature) and a == b


def _per_channel(r: Rewriter, kernel: int, v: int) -> bool:
    """Whether a filter has a lane for every channel of a feature without heads."""
    filter_, type_ = r.type(kernel), r.type(v)
    assert isinstance(filter_, Filter)
    return (
        isinstance(type_, Feature)
        and type_.heads == 1
        and filter_.lanes == type_.channels
        and filter_.length is not None
        and min(filter_.length, MAX_TAPS) == filter_.length
    )
