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
    Value,
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


class Form(str):
    """The values of an operator as text, which stands in other text as it is."""

    __repr__ = str.__str__


@dataclass(frozen=True)
class Canonical:
    """An operator without names: values in the order of a walk from y, and the walk's order of
    names."""

    form: Form
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    parameters: tuple[str, ...]


def canonical(operator: Operator) -> Canonical:
    """Values renumbered by a walk from y, so that names and the order of bindings are gone."""
    (_, y), *exports = operator.outputs
    walk = _Walk(operator)
    walk.visit(y)
    exports.sort(key=lambda export: (walk.number.get(export[1], len(walk.number)), export[0]))
    for _, id in exports:
        walk.visit(id)
    ends = tuple([walk.number[id] for _, id in exports])
    comma = "," if len(walk.form) == 1 else ""
    return Canonical(
        Form(f"(({', '.join(walk.form)}{comma}), {walk.number[y]}, {ends})"),
        tuple(walk.inputs),
        ("y", *(name for name, _ in exports)),
        tuple(walk.parameters),
    )


class _Walk:
    """`number` of each value seen, in the order of `form`, and of inputs and parameters by name."""

    def __init__(self, operator: Operator) -> None:
        self.operator, self.known = operator, {p.name: p for p in operator.parameters}
        self.number: dict[int, int] = {}
        self.form: list[str] = []
        self.inputs: dict[str, int] = {}
        self.parameters: dict[str, int] = {}

    def visit(self, root: int) -> None:
        """Number a value behind those that it is computed from."""
        number, values, stack = self.number, self.operator.values, [root]
        while stack:
            id = stack.pop()
            if id in number or ~id in number:
                continue
            if id >= 0 and (inputs := values[id].inputs):
                stack.append(~id)  # once more when they have been seen
                stack += inputs[::-1]
                continue
            id = max(id, ~id)
            number[id] = len(number)
            self.form.append(self.value(values[id]))

    def value(self, value: Value) -> str:
        """What a value says."""
        owned = []
        for name in value.parameters:
            position = self.parameters.setdefault(name, len(self.parameters))
            owned.append(f"({position}, {self.known[name].spelling})")
        attributes = value.spelling
        if value.op == "experts":
            expert = canonical(self.operator.inner[value.attribute("operator")])
            rest = [a for a in value.attributes if a[0] not in ("operator", "operands")]
            names = value.attribute("operands").split(",")
            attributes = repr((rest, expert.form, [expert.inputs.index(n) for n in names]))
        elif value.op == "input":
            name = str(value.attribute("name"))
            position = self.inputs.setdefault(name, len(self.inputs))
            attributes = f"({name == 'x'}, {position}, {value.type!r})"
        inputs = tuple([self.number[i] for i in value.inputs])
        return f"({value.op!r}, {inputs}, {attributes}, [{', '.join(owned)}])"


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
