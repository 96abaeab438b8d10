"""The identity of a program: a digest of what it means.

Labels, comments, spelling, unread bindings, names and the order of independent bindings do not count;
two programs with one digest have the same generated classes up to names. Owns: the canonical form.
"""

from __future__ import annotations

import hashlib

from starc.compiler.ir import Layer, Model, Operator, Parallel, Repeat, Unit, units


def digest(model: Model) -> str:
    """Hex digest of a model's canonical form. Take it after the pass `drop_unused`."""
    order = {unit.path: position for position, unit in enumerate(units(model.layers))}
    operators = {o.name: _operator(o) for o in model.operators}
    settings = (
        model.vocab,
        model.width,
        model.context,
        model.embedding,
        model.position,
        model.head,
        model.final_norm,
    )
    layers = tuple(_layer(layer, operators, model, order) for layer in model.layers)
    return hashlib.sha256(repr((settings, layers)).encode()).hexdigest()


def _operator(operator: Operator) -> tuple[object, ...]:
    """Values renumbered by a walk from the outputs, so that the order of bindings is gone."""
    number: dict[int, int] = {}
    found: list[object] = []
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
            owned = tuple(
                (parameters.setdefault(name, len(parameters)), _parameter(operator, name))
                for name in value.parameters
            )
            attributes = value.attributes if value.op != "input" else _input(operator, id)
            found.append((value.op, tuple(number[i] for i in value.inputs), attributes, owned))

    for _, id in operator.outputs:
        visit(id)
    return tuple(found), tuple(number[id] for _, id in operator.outputs)


def _input(operator: Operator, id: int) -> tuple[object, ...]:
    """An input by its position: `x` is 0, whatever the others are called."""
    position = [i for _, i in operator.inputs].index(id)
    return position, operator.values[id].type


def _parameter(operator: Operator, name: str) -> tuple[object, ...]:
    parameter = operator.parameter(name)
    return parameter.shape, parameter.init, parameter.learned


def _layer(
    layer: Layer, operators: dict[str, tuple[object, ...]], model: Model, order: dict[str, int]
) -> tuple[object, ...]:
    match layer:
        case Unit():
            operator = model.operator(layer.operator)
            sources = dict(layer.inputs)
            inputs = []
            for name, _ in operator.inputs:
                if name != "x":
                    ref = sources[name]
                    source = model.operator(_unit(model, ref.unit).operator)
                    inputs.append((order[ref.unit], [n for n, _ in source.outputs].index(ref.name)))
            ties = tuple(sorted((t.parameter, order[t.unit]) for t in layer.ties))
            return (
                "unit",
                operators[layer.operator],
                layer.residual,
                tuple(inputs),
                _ties(operator, ties),
            )
        case Repeat():
            return (
                "repeat",
                tuple(
                    tuple(_layer(inner, operators, model, order) for inner in body)
                    for body in layer.bodies
                ),
            )
        case Parallel():
            branches = tuple(_layer(b, operators, model, order) for b in layer.branches)
            return "parallel", layer.mode, branches, layer.residual


def _unit(model: Model, path: str) -> Unit:
    return next(unit for unit in units(model.layers) if unit.path == path)


def _ties(operator: Operator, ties: tuple[tuple[str, int], ...]) -> tuple[tuple[int, int], ...]:
    """Tied parameters by their position among the operator's, not by name."""
    names = [p.name for p in operator.parameters]
    return tuple(sorted((names.index(name), unit) for name, unit in ties))
