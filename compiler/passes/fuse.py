"""Projections of one input become one matrix product.

Dense stages over the same value with the same kind of bias are stacked along their outputs; the
parts are slices of the product. Tied weights are stacked only when the same parts are stacked,
in the same order, in the unit that owns them.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

from starc.compiler.builder import Builder, prune
from starc.compiler.ir import Model, Operator, Parameter, Tie, Value, units
from starc.compiler.naming import Names
from starc.compiler.passes.share import with_units

Group = tuple[int, ...]


def fuse_projections(model: Model) -> Model:
    """The model with stacked projections, and ties that follow them."""
    groups = {o.name: _candidates(o) for o in model.operators}
    _agree(model, groups)
    fused: dict[str, Operator] = {}
    renamed: dict[str, dict[str, str]] = {}
    for operator in model.operators:
        fused[operator.name], renamed[operator.name] = _fuse(operator, groups[operator.name])
    replacements = {}
    for unit in units(model.layers):
        names = renamed[unit.operator]
        ties = dict.fromkeys(Tie(names.get(t.parameter, t.parameter), t.unit) for t in unit.ties)
        replacements[unit.path] = replace(unit, ties=tuple(ties))
    layers = tuple(with_units(layer, replacements) for layer in model.layers)
    return replace(model, operators=tuple(fused.values()), layers=layers)


def _candidates(operator: Operator) -> list[Group]:
    """Dense stages that may be stacked: the same input, bias and initial spread; plain matrices."""
    found: dict[object, list[int]] = defaultdict(list)
    alone = {value.inputs[1] for value in operator.values if value.op == "transposed"}
    for id, value in enumerate(operator.values):
        if id in alone:
            continue
        if value.op == "dense" and not value.attribute("rank") and value.attribute("groups") == 1:
            init = operator.parameter(value.parameters[0]).init
            found[value.inputs, value.attribute("bias"), init].append(id)
    return [tuple(ids) for ids in found.values() if len(ids) > 1]


def _agree(model: Model, groups: dict[str, list[Group]]) -> None:
    """Split groups whose weights are tied to weights that are stacked in another way."""
    operators = {o.name: o for o in model.operators}
    by_path = {unit.path: unit for unit in units(model.layers)}

    def stack(operator: str, parameter: str) -> tuple[str, ...]:
        """The stack that a parameter is part of."""
        o = operators[operator]
        for group in groups[operator]:
            names = tuple(o.values[id].parameters[0] for id in group)
            if parameter in names or any(parameter in o.values[id].parameters for id in group):
                return names
        return (parameter,)

    def split(operator: str, parameter: str) -> bool:
        before = len(groups[operator])
        o = operators[operator]
        groups[operator] = [
            g for g in groups[operator] if not any(parameter in o.values[id].parameters for id in g)
        ]
        return len(groups[operator]) < before

    changed = True
    while changed:
        changed = False
        for unit in by_path.values():
            owners = {t.parameter: t.unit for t in unit.ties}
            for tie in unit.ties:
                ours = stack(unit.operator, tie.parameter)
                theirs = stack(by_path[tie.unit].operator, tie.parameter)
                whole = all(owners.get(name) == tie.unit for name in ours)
                if len(ours) > 1 and (ours != theirs or not whole):
                    changed |= split(unit.operator, tie.parameter)
                if len(theirs) > 1 and (ours != theirs or not whole):
                    changed |= split(by_path[tie.unit].operator, tie.parameter)


def _fuse(operator: Operator, groups: list[Group]) -> tuple[Operator, dict[str, str]]:
    # Experts are tied as a whole or not at all.
    inner = tuple(_fuse(expert, _candidates(expert))[0] for expert in operator.inner)
    first = {group[0]: group for group in groups}
    member = {id: group for group in groups for id in group}
    names = Names(frozenset(p.name.partition(".")[0] for p in operator.parameters))
    builder = Builder()
    new: list[int] = []
    products: dict[Group, int] = {}
    renamed: dict[str, str] = {}
    for id, value in enumerate(operator.values):
        inputs = tuple(new[i] for i in value.inputs)
        if id in first:
            group = first[id]
            parts = [operator.values[i] for i in group]
            stacked = _stacked(operator, parts, names, renamed)
            n = sum(part.attribute("n") for part in parts)
            attributes = {**dict(value.attributes), "n": n}
            products[group] = builder.emit(
                "dense", inputs, attributes, value.span, "", tuple(stacked)
            )
        if id in member:
            group = member[id]
            start = sum(operator.values[i].attribute("n") for i in group[: group.index(id)])
            bounds = {"a": start, "b": start + value.attribute("n")}
            new.append(builder.emit("slice", (products[group],), bounds, value.span, value.name))
        else:
            parameters = tuple(operator.parameter(name) for name in value.parameters)
            new.append(
                builder.emit(value.op, inputs, value.attributes, value.span, value.name, parameters)
            )
    outputs = tuple((name, new[i]) for name, i in operator.outputs)
    values, outputs, parameters = prune(builder.values, outputs, builder.parameters)
    fused = replace(operator, values=values, outputs=outputs, parameters=parameters, inner=inner)
    return fused, renamed


def _stacked(
    operator: Operator, parts: list[Value], names: Names, renamed: dict[str, str]
) -> list[Parameter]:
    base = names.take(_joined([part.parameters[0].partition(".")[0] for part in parts]))
    found = []
    for position in range(len(parts[0].parameters)):
        pieces = [operator.parameter(part.parameters[position]) for part in parts]
        name = f"{base}.{pieces[0].name.rpartition('.')[2]}"
        rows = sum(p.shape[0] for p in pieces)
        renamed.update({p.name: name for p in pieces})
        found.append(
            replace(
                pieces[0],
                name=name,
                shape=(rows, *pieces[0].shape[1:]),
                parts=tuple((p.name, p.shape[0]) for p in pieces),
            )
        )
    return found


def _joined(names: list[str]) -> str:
    """`C_B_V`, and `a_C_B_V` for a_C, a_B and a_V: what all begin with stands once."""
    words = [name.split("_") for name in names]
    shared = 0
    while all(len(w) > shared + 1 and w[shared] == words[0][shared] for w in words):
        shared += 1
    return "_".join([*words[0][:shared], *("_".join(w[shared:]) for w in words)])
