"""Decays in log space.

A transition written as exp(u) or sigmoid(u), or as products, shapes and roots of these, is
carried as its logarithm, so that chunked algorithms sum instead of multiplying and nothing
underflows. The mixer then becomes `log_semi_separable(C, log A, B)`. Any other transition keeps
its sign and is multiplied. Structured transitions become steps (passes/transitions.py). Exponential
gates of normalised memories are kept from overflow.
"""

from __future__ import annotations

import math
from fractions import Fraction

from starc.compiler.gates import has_logarithm, stabilised
from starc.compiler.ir import Model, Operator, Value
from starc.compiler.passes.rewriting import Rewriter, on_operators, rebuilt
from starc.compiler.passes.transitions import Logarithms, structured
from starc.compiler.types import Feature, Transition


def infer(model: Model) -> Model:
    return on_operators(model, inferred)


def inferred(operator: Operator) -> Operator:
    """One operator with its decays in log space."""
    return rebuilt(operator, _rule, _has_transitions)


def _has_transitions(operator: Operator) -> bool:
    return any(value.op == "semi_separable" for value in operator.values)


def _rule(r: Rewriter, value: Value, inputs: tuple[int, ...]) -> int | None:
    if value.op == "apply":
        return _stabilised(r, value, *inputs)
    if value.op != "semi_separable":
        return None
    c, a, b = inputs
    if isinstance(r.type(a), Transition):
        return structured(r, value, inputs, Logarithms(_has_logarithm, _named_logarithm))
    if not _has_logarithm(r, a):
        return None
    return r.emit(
        "log_semi_separable", (c, _named_logarithm(r, a), b), value, read=value.attribute("read")
    )


def _stabilised(r: Rewriter, value: Value, mixer: int, v: int) -> int | None:
    """A normalised memory with an exponential gate, its state divided by a running maximum m:

        T @ V  ->  (T' @ [V, 1]) / max(|the last column|, exp(-m))

    where T' has the decays exp(A_i + m_(i-1) - m_i) and the gates exp(u_i - m_i).
    """
    normalize = r.value(mixer)
    if normalize.op != "normalize":
        return None
    root, s = r.value(normalize.inputs[0]), Fraction(1)
    while root.op in ("mixer_scale", "causal"):
        s *= root.attribute("s") if root.op == "mixer_scale" else 1
        root = r.value(root.inputs[0])
    if root.op != "log_semi_separable" or root.attribute("read") != "after":
        return None
    c, a, b = root.inputs
    if (found := stabilised(r.builder.values, a, b)) is None:
        return None
    gate, heads = found
    u = r.value(gate).inputs[0]
    three = r.emit("stabilized", (a, u), value, floor=normalize.attribute("floor"), heads=heads)
    a, u, least = (r.emit("slice", (three,), value, a=i, b=i + 1) for i in range(3))
    b = _replaced(r, b, gate, r.emit("exp", (u,), value))
    if s != 1:
        c = r.emit("scale", (c,), value, s=s)
    t = r.emit("log_semi_separable", (c, a, b), value, read="after")
    both = r.emit("apply", (t, r.emit("with_ones", (v,), value)), value)
    type_ = r.type(both)
    assert isinstance(type_, Feature)
    rows = r.emit("slice", (both,), value, a=0, b=type_.channels - 1)
    sums = r.emit("slice", (both,), value, a=type_.channels - 1, b=type_.channels)
    floor = r.emit("exp", (least,), value)
    if 1 < heads < type_.heads:
        floor = r.emit("repeat", (floor,), value, n=type_.heads // heads)
    divisor = r.emit("maximum", (r.emit("abs", (sums,), value), floor), value)
    return r.emit("divide", (rows, divisor), value)


def _replaced(r: Rewriter, id: int, old: int, new: int) -> int:
    """A product with another factor."""
    if id == old:
        return new
    value = r.value(id)
    if value.op not in ("multiply", "divide", "scale"):
        return id
    inputs = (_replaced(r, value.inputs[0], old, new), *value.inputs[1:])
    if value.op == "multiply" and inputs == value.inputs:
        inputs = (inputs[0], _replaced(r, value.inputs[1], old, new))
    if inputs == value.inputs:
        return id
    return r.builder.emit(value.op, inputs, value.attributes, value.span)


def _has_logarithm(r: Rewriter, id: int) -> bool:
    return has_logarithm(r.builder.values, id)


def _named_logarithm(r: Rewriter, id: int) -> int:
    """log of a value, called log_alpha where the value is alpha."""
    found = _logarithm(r, id)
    name = f"log_{r.value(id).name}"
    if r.value(id).name and all(value.name != name for value in r.operator.values):
        r.builder.label(found, name)
    return found


def _logarithm(r: Rewriter, id: int) -> int:
    """log of a value, without taking a logarithm."""
    value = r.value(id)
    if value.op == "exp":
        return value.inputs[0]
    if value.op == "sigmoid":
        return r.emit("logsigmoid", value.inputs, value)
    if value.op == "number":
        return r.emit("number", (), value, value=math.log(value.attribute("value")))
    inner = tuple(_logarithm(r, i) for i in value.inputs)
    match value.op:
        case "multiply":
            return r.emit("add", inner, value)
        case "divide":
            return r.emit("subtract", inner, value)
        case "sqrt":
            return r.emit("scale", inner, value, s=Fraction(1, 2))
        case "square":
            return r.emit("scale", inner, value, s=Fraction(2))
        case "scale":
            shift = r.emit("number", (), value, value=math.log(value.attribute("s")))
            return r.emit("add", (*inner, shift), value)
    return r.builder.emit(value.op, inner, value.attributes, value.span)
