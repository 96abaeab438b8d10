"""Decays in log space.

A transition written as exp(u) or sigmoid(u), or as products, shapes and roots of these, is
carried as its logarithm, so that chunked algorithms sum instead of multiplying and nothing
underflows. The mixer then becomes `log_semi_separable(C, log A, B)`. Any other transition keeps
its sign and is multiplied. Structured transitions become steps (passes/transitions.py).
"""

from __future__ import annotations

import math
from fractions import Fraction

from starc.compiler.ir import Model, Operator, Value
from starc.compiler.passes.rewriting import Rewriter, rewrite
from starc.compiler.passes.transitions import Logarithms, structured
from starc.compiler.types import Transition

_SHAPES = ("heads", "merge", "repeat", "slice", "concat")


def infer(model: Model) -> Model:
    if not any(_has_transitions(operator) for operator in model.operators):
        return model
    return rewrite(model, _rule)


def _has_transitions(operator: Operator) -> bool:
    mixes = any(value.op == "semi_separable" for value in operator.values)
    return mixes or any(map(_has_transitions, operator.inner))


def _rule(r: Rewriter, value: Value, inputs: tuple[int, ...]) -> int | None:
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


def _has_logarithm(r: Rewriter, id: int) -> bool:
    value = r.value(id)
    if value.op in ("exp", "sigmoid"):
        return True
    if value.op == "number":
        return bool(value.attribute("value") > 0)
    if value.op == "scale":
        return bool(value.attribute("s") > 0) and _has_logarithm(r, value.inputs[0])
    if value.op in ("multiply", "divide", "sqrt", "square", *_SHAPES):
        return all(_has_logarithm(r, i) for i in value.inputs)
    return False


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
