"""The identity of a program: a digest of what it means.

Labels, comments, spelling, unread bindings, names and the order of independent bindings do not
count; two programs with one digest have the same generated classes up to names. Owns: the
canonical form.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from starc.compiler.ir import (
    STREAM,
    Layer,
    Loop,
    Model,
    Operator,
    Parallel,
    Readout,
    Repeat,
    Residual,
    Unit,
    parallels,
    units,
)


def digest(model: Model) -> str:
    """Hex digest of a model's canonical form. Take it after the pass `drop_unused`."""
    by_path = {unit.path: unit for unit in units(model.layers)}
    order = {path: position for position, path in enumerate(by_path)}
    order |= {p.path: len(order) + i for i, p in enumerate(parallels(model.layers))}
    operators = {o.name: canonical(o) for o in model.operators}
    settings: tuple[object, ...] = (
        model.vocab,
        model.width,
        model.context,
        model.embedding,
        model.position,
        model.head,
        model.final_norm,
    )
    if model.dtype != "float32":
        settings += (model.dtype,)
    along = (model.average, model.readout)
    settings += () if along == (None, Readout()) else along
    settings += () if model.causal else ("sees later tokens",)
    layers = tuple(_layer(layer, operators, by_path, order) for layer in model.layers)
    return hashlib.sha256(repr((settings, layers)).encode()).hexdigest()


@dataclass(frozen=True)
class Canonical:
    """An operator without names: values in the order of a walk from y, and the walk's order of
    names."""

    form: tuple[object, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    parameters: tuple[str, ...]


def canonical(operator: Operator) -> Canonical:
    """Values renumbered by a walk from y, so that names and the order of bindings are gone."""
    known = {p.name: p for p in operator.parameters}
    number: dict[int, int] = {}
    form: list[object] = []
    inputs: dict[str, int] = {}
    parameters: dict[str, int] = {}

    def visit(root: int) -> None:
        stack = [(root, False)]
        while stack:
            id, ready = stack.pop()
            if id in number:
                continue
            value = operator.values[id]
            if not ready:
                stack.append((id, True))
                stack.extend((i, False) for i in reversed(value.inputs))
                continue
            number[id] = len(number)
            owned = []
            for name in value.parameters:
                p = known[name]
                position = parameters.setdefault(name, len(parameters))
                init: object = "experts" if p.init[0] == "experts" else p.init
                owned.append((position, p.shape, init, p.learned))
            attributes: object = value.attributes
            if value.op == "experts":
                expert = canonical(operator.inner[value.attribute("operator")])
                rest = [a for a in value.attributes if a[0] not in ("operator", "operands")]
                names = value.attribute("operands").split(",")
                attributes = rest, expert.form, [expert.inputs.index(n) for n in names]
            if value.op == "input":
                name = str(value.attribute("name"))
                attributes = name == "x", inputs.setdefault(name, len(inputs)), value.type
            form.append((value.op, tuple(number[i] for i in value.inputs), attributes, owned))

    (_, y), *exports = operator.outputs
    visit(y)
    exports.sort(key=lambda export: (number.get(export[1], len(number)), export[0]))
    for _, id in exports:
        visit(id)
    ends = tuple(number[id] for _, id in exports)
    return Canonical(
        (tuple(form), number[y], ends),
        tuple(inputs),
        ("y", *(name for name, _ in exports)),
        tuple(parameters),
    )


def _layer(
    layer: Layer,
    operators: dict[str, Canonical],
    by_path: dict[str, Unit],
    order: dict[str, int],
) -> tuple[object, ...]:
    match layer:
        case Unit():
            own = operators[layer.operator]
            sources = dict(layer.inputs)
            inputs = []
            for name in own.inputs:
                if name != "x":
                    ref = sources[name]
                    which = -1
                    if ref.name != STREAM:
                        exported = operators[by_path[ref.unit].operator].outputs
                        which = exported.index(ref.name)
                    inputs.append((order[ref.unit], which))
            ties = sorted((own.parameters.index(t.parameter), order[t.unit]) for t in layer.ties)
            return (
                "unit",
                own.form,
                _residual(layer.residual),
                tuple(inputs),
                tuple(ties),
                *layer.marks,
            )
        case Repeat():
            bodies = tuple(
                tuple(_layer(inner, operators, by_path, order) for inner in body)
                for body in layer.bodies
            )
            return "repeat", bodies
        case Loop():
            inside = tuple(_layer(inner, operators, by_path, order) for inner in layer.body)
            return "loop", layer.times, inside, *layer.marks
        case Parallel():
            branches = tuple(_layer(b, operators, by_path, order) for b in layer.branches)
            return "parallel", layer.mode, branches, _residual(layer.residual), *layer.marks


def _residual(residual: Residual) -> object:
    if residual.hyper:
        return residual, residual.hyper
    return canonical(residual.formula).form if residual.formula else residual
