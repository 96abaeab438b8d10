"""Common subexpressions: values that say the same are computed once."""

from __future__ import annotations

from dataclasses import replace

from starc.compiler.ir import Attributes, Model, Operator, Value, units
from starc.compiler.passes.rewriting import Rewriter, on_operators, rebuilt, rewrite
from starc.compiler.passes.share import with_units


def common_subexpressions(model: Model) -> Model:
    """Values with the same operation, inputs, attributes and parameters become one."""
    return on_operators(model, without_repetition)


def without_repetition(operator: Operator) -> Operator:
    """One operator that computes everything once."""
    return rebuilt(operator, _once, _repeats)


def _once(r: Rewriter, value: Value, inputs: tuple[int, ...]) -> int:
    key = value.op, inputs, value.attributes, value.parameters
    if key not in r.seen:
        r.seen[key] = r.copy(value, inputs)
    return r.seen[key]


def _repeats(operator: Operator) -> bool:
    """Whether any two values say the same; those with parameters of their own do not."""
    said: dict[tuple[str, tuple[int, ...]], list[Attributes]] = {}
    for value in operator.values:
        if not value.parameters:
            others = said.setdefault((value.op, value.inputs), [])
            if value.attributes in others:
                return True
            others.append(value.attributes)
    return False


def drop_unused(model: Model) -> Model:
    """Values that no output needs go, with their parameters and what was tied to those."""
    model = rewrite(model, lambda r, value, inputs: None)
    kept = {o.name: {p.name for p in o.parameters} for o in model.operators}
    replacements = {
        unit.path: replace(
            unit, ties=tuple(t for t in unit.ties if t.parameter in kept[unit.operator])
        )
        for unit in units(model.layers)
    }
    return replace(model, layers=tuple(with_units(layer, replacements) for layer in model.layers))
