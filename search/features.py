"""Programs as numbers that a predictor can learn from.

Owns: the features. Refuses: learning (predictor.py).
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Mapping
from itertools import pairwise

from starc.compiler import ir
from starc.search.verifying import Checked

SIZES = ("parameters", "active_parameters", "cache_bytes", "flops_train", "flops_decode", "units")
"""Figures that become a feature each, as logarithms."""

_ENDS = 8
"""So many places from either end of the backbone, whose units are features of their own."""


def features(checked: Checked, figures: Mapping[str, float]) -> dict[str, float]:
    """The features of a program by name; those that it lacks are 0.

    Counts of units by class and by call, of pairs that follow each other, of operations inside of
    units, of ties and parallels; where in the depth each class stands, what stands at both ends;
    logarithms of numbers in calls and of sizes.
    """
    found: defaultdict[str, float] = defaultdict(float)
    operators = {operator.name: operator for operator in checked.ir.operators}
    units = list(ir.units(checked.ir.layers))
    kinds = [_kind(operators[unit.operator]) for unit in units]
    calls = [_call(operators[unit.operator], kind) for unit, kind in zip(units, kinds, strict=True)]
    for place, (unit, kind, call) in enumerate(zip(units, kinds, calls, strict=True)):
        operator = operators[unit.operator]
        found[f"unit {kind}"] += 1
        found[f"call {call}"] += 1
        found[f"depth of {kind}"] += (place + 0.5) / len(units)
        if place < _ENDS:
            found[f"{call} at {place}"] += 1
        if len(units) - place <= _ENDS:
            found[f"{call} at -{len(units) - place}"] += 1
        for name, value in operator.arguments:
            if isinstance(value, int | float) and value > 0:
                found[f"log {kind}.{name}"] += math.log(float(value))
        for op in {value.op for value in operator.values}:
            found[f"op {op}"] += 1
        found["ties"] += len(unit.ties)
        found["tied units"] += bool(unit.ties)
        found["features taken"] += len(unit.inputs)
        found[f"residual {unit.residual.scheme}"] += 1
    for a, b in pairwise(kinds):
        found[f"{a}, {b}"] += 1
    for parallel in ir.parallels(checked.ir.layers):
        found[f"parallel {parallel.mode}"] += 1
    sized = {f"log {name}": math.log1p(figures[name]) for name in SIZES if name in figures}
    return {**found, **sized}


def _kind(operator: ir.Operator) -> str:
    """The name in the text, without the number of a copy."""
    return re.sub(r"_\d+$", "", operator.source_name)


def _call(operator: ir.Operator, kind: str) -> str:
    return f"{kind}({', '.join(f'{name} = {value}' for name, value in operator.arguments)})"
