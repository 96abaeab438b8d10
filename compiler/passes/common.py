"""Common subexpressions: values that say the same are computed once."""

from __future__ import annotations

from starc.compiler.ir import Model, Operator, Value
from starc.compiler.passes.rewriting import Rewriter, rewrite


def common_subexpressions(model: Model) -> Model:
    """Values with the same operation, inputs, attributes and parameters become one."""
    seen: dict[Operator, dict[object, int]] = {}

    def rule(r: Rewriter, value: Value, inputs: tuple[int, ...]) -> int:
        known = seen.setdefault(r.operator, {})
        key = value.op, inputs, value.attributes, value.parameters
        if key not in known:
            known[key] = r.copy(value, inputs)
        return known[key]

    return rewrite(model, rule)


def drop_unused(model: Model) -> Model:
    """Values that no output needs, and their parameters, go."""
    return rewrite(model, lambda r, value, inputs: None)
