"""The verifier: what must hold of every IR, as a table of rules. It runs after each pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from starc.compiler.catalog import ENTRIES
from starc.compiler.ir import STREAM, Loop, Model, Operator, Parallel, Repeat, parallels, units
from starc.compiler.types import Feature, Problem
from starc.grammar.errors import InternalError

Findings = Iterator[str]


def _inputs_point_back(o: Operator) -> Findings:
    for id, value in enumerate(o.values):
        if any(not 0 <= i < id for i in value.inputs):
            yield f"%{id} reads {value.inputs}"


def _operations_are_known(o: Operator) -> Findings:
    for id, value in enumerate(o.values):
        if value.op not in ENTRIES:
            yield f"%{id} is '{value.op}', which the catalog does not have"


def _types_follow_from_the_catalog(o: Operator) -> Findings:
    for id, value in enumerate(o.values):
        entry = ENTRIES.get(value.op)
        if entry is None:
            continue
        try:
            expected = entry.rule([o.values[i].type for i in value.inputs], dict(value.attributes))
        except (Problem, AssertionError) as problem:
            yield f"%{id} = {value.op} breaks its type rule: {problem}"
            continue
        if expected != value.type:
            yield f"%{id} = {value.op} is {value.type}, the catalog says {expected}"


def _parameters_are_owned(o: Operator) -> Findings:
    named = [name for value in o.values for name in value.parameters]
    declared = [p.name for p in o.parameters]
    if set(named) != set(declared) or len(declared) != len(set(declared)):
        yield f"values own {sorted(set(named))}, the operator declares {sorted(declared)}"
    for p in o.parameters:
        if p.parts and sum(rows for _, rows in p.parts) != p.shape[0]:
            yield f"parts of {p.name} do not add up to {p.shape[0]} rows"


def _y_comes_first(o: Operator) -> Findings:
    if not o.outputs or o.outputs[0][0] != "y":
        yield "the first output is not y"
    for name, id in o.outputs:
        if not isinstance(o.values[id].type, Feature):
            yield f"output {name} is no feature"


OPERATOR_RULES: tuple[Callable[[Operator], Findings], ...] = (
    _inputs_point_back,
    _operations_are_known,
    _types_follow_from_the_catalog,
    _parameters_are_owned,
    _y_comes_first,
)


def _operators_exist(model: Model) -> Findings:
    known = {o.name for o in model.operators}
    for unit in units(model.layers):
        if unit.operator not in known:
            yield f"unit {unit.path} has no operator '{unit.operator}'"


def _wires_look_back(model: Model) -> Findings:
    seen: dict[str, str] = {}
    passed = {p.path for p in parallels(model.layers)}
    operators = {o.name: o for o in model.operators}
    for unit in units(model.layers):
        wanted = {name for name, _ in operators[unit.operator].inputs} - {"x"}
        if wanted != {name for name, _ in unit.inputs}:
            yield f"unit {unit.path} is given {unit.inputs}, its operator reads {sorted(wanted)}"
        for _, ref in unit.inputs:
            if ref.unit in passed and ref.name == STREAM:
                continue
            if ref.unit not in seen:
                yield f"unit {unit.path} reads {ref.unit}, which does not come before it"
            elif ref.name != STREAM and ref.name not in dict(operators[seen[ref.unit]].outputs):
                yield f"unit {unit.path} reads {ref.unit}.{ref.name}, which is no output"
        for tie in unit.ties:
            if tie.unit not in seen:
                yield f"unit {unit.path} is tied to {tie.unit}, which does not come before it"
            elif _shape(operators[unit.operator], tie.parameter) != _shape(
                operators[seen[tie.unit]], tie.parameter
            ):
                yield f"unit {unit.path} is tied to {tie.unit} by a misfit: {tie.parameter}"
        if unit.path in seen:
            yield f"two units have the path {unit.path}"
        seen[unit.path] = unit.operator


def _shape(operator: Operator, parameter: str) -> tuple[int, ...] | None:
    return next((p.shape for p in operator.parameters if p.name == parameter), None)


def _layers_are_named(model: Model) -> Findings:
    stack = [model.layers]
    while stack:
        layers = stack.pop()
        for layer in layers:
            if not layer.name.isidentifier():
                yield f"layer name '{layer.name}' is no identifier"
            if isinstance(layer, Repeat):
                stack.extend(layer.bodies)
            elif isinstance(layer, Loop):
                stack.append(layer.body)
            elif isinstance(layer, Parallel):
                stack.append(layer.branches)


MODEL_RULES: tuple[Callable[[Model], Findings], ...] = (
    _operators_exist,
    _wires_look_back,
    _layers_are_named,
)


def _faults(operator: Operator) -> list[str]:
    """What is wrong with an operator, or with the first of its experts that is wrong."""
    for rule in OPERATOR_RULES:  # later rules rely on earlier ones
        if found := [f"{operator.name}: {finding}" for finding in rule(operator)]:
            return found
    return [fault for expert in operator.inner for fault in _faults(expert)]


def verify(model: Model, after: str, before: Model | None = None) -> None:
    """Check every rule; raises InternalError that names the pass `after` and what broke.

    Operators that are the same objects in `before`, which was verified, are taken as sound.
    """
    known = {id(operator) for operator in before.operators} if before else set()
    broken: list[str] = []
    for operator in model.operators:
        if id(operator) in known:
            continue
        broken += _faults(operator)
    if not broken:
        broken = [finding for rule in MODEL_RULES for finding in rule(model)]
    if broken:
        raise InternalError(f"after '{after}': " + "; ".join(broken))
