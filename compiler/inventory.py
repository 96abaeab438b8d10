"""The inventory of a model: every tensor of the generated module by its full dotted name.

Owns: the rule that turns a place in the backbone and a parameter of an operator into a name, and
the order of parameters (that of execution). Refuses: initial values and how generated code holds
them.

    embedding.weight                  (vocab, width)
    embedding_norm.weight, .bias      when the embedding is normalised
    position.weight                   (context, width), with learned positions
    <unit path>_<suffix>.weight       norms of the unit's residual: blocks.0.mha_norm.weight;
                                      of a formula each stage: blocks.0.mha_gain
    <parallel path>_gate.weight, .bias  of a gated parallel: (branches, width), (branches,)
    <unit path>.<parameter>           the operator's own: blocks.0.mha.C.weight
    final_norm.weight, .bias          when there is a final norm
    average.weights.<i>               weights of the i-th average over depth
    readout.<parameter>               of a read-out that sees several depths
    head.weight, head.bias            (vocab, width), (vocab,); the weight only when it is not tied
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterator

from starc.compiler.catalog import ENTRIES
from starc.compiler.ir import (
    Hyper,
    Layer,
    Loop,
    Model,
    Norm,
    Operator,
    Parallel,
    Parameter,
    Repeat,
    Residual,
    Unit,
    units,
)
from starc.compiler.types import Feature
from starc.grammar.errors import InternalError

_EMBEDDING = ("normal", 0.02)


def norm_parameters(norm: Norm, width: int) -> tuple[Parameter, ...]:
    """The parameters of a norm of the stream; names are suffixes such as ".weight"."""
    return ENTRIES[norm.op].parameters([Feature(1, width)], dict(norm.attributes))


def residual_parameters(path: str, residual: Residual, width: int) -> Iterator[Parameter]:
    """The parameters of a unit's or parallel's residual, under their full names."""
    if residual.formula:
        for parameter in residual.formula.parameters:
            yield _renamed(parameter, f"{path}_{parameter.name}")
    if residual.hyper:
        for parameter in _hyper_parameters(residual.hyper, width):
            yield _renamed(parameter, f"{path}_hyper{parameter.name}")
    for suffix, norm in residual.norms:
        for parameter in norm_parameters(norm, width):
            yield _renamed(parameter, f"{path}_{suffix}{parameter.name}")


def _hyper_parameters(hyper: Hyper, width: int) -> Iterator[Parameter]:
    n = hyper.streams
    rows = tuple((float(i == hyper.first), *(float(i == j) for j in range(n))) for i in range(n))
    yield Parameter(".alpha", (n, n + 1), ("table", rows))
    yield Parameter(".beta", (n,), ("constant", 1))
    if hyper.norm:
        for parameter in norm_parameters(hyper.norm, width):
            yield _renamed(parameter, f".norm{parameter.name}")
        for name, rows_ in (("alpha", n + 1), ("beta", 1)):
            yield Parameter(f".{name}_map", (rows_, width), ("constant", 0))
            yield Parameter(f".{name}_scale", (1,), ("constant", 0.01))


def depth_parameters(model: Model) -> Iterator[Parameter]:
    """The parameters of averages over depth and of the read-out, under their full names."""
    for i, n in enumerate(model.average.sizes() if model.average else ()):
        yield Parameter(f"average.weights.{i}", (n,), ("last",))
    readout, width = model.readout, model.width
    if readout.kind == "weighted":
        yield Parameter("readout.weight", (readout.depths,), ("constant", 0))
        yield Parameter("readout.scale", (1,), ("constant", 1))
    if readout.norm:
        for parameter in norm_parameters(readout.norm, width):
            yield _renamed(parameter, f"readout.norm{parameter.name}")
        for name in "CBVy":
            shape = (width, width)
            yield Parameter(f"readout.{name}.weight", shape, ("normal", width**-0.5))


def gate_parameters(parallel: Parallel, width: int) -> Iterator[Parameter]:
    """The parameters of a gated parallel's gate, under their full names."""
    if parallel.mode == "gated":
        n, name = len(parallel.branches), f"{parallel.path}_gate"
        yield Parameter(f"{name}.weight", (n, width), ("normal", width**-0.5))
        yield Parameter(f"{name}.bias", (n,), ("constant", 0))


def model_parameters(model: Model) -> dict[str, Parameter]:
    """All parameters and buffers by full name, in order of execution; tied ones are left out.

    A parameter with `learned` False is a buffer. The `Parameter` under a name is that of the
    operator (its own `name` stays local to the operator).
    """
    found: dict[str, Parameter] = {}
    operators = {o.name: o for o in model.operators}
    found["embedding.weight"] = Parameter(
        "embedding.weight", (model.vocab, model.width), _EMBEDDING
    )
    if model.embedding.norm is not None:
        for parameter in norm_parameters(model.embedding.norm, model.width):
            found["embedding_norm" + parameter.name] = parameter
    if model.position == "learned":
        found["position.weight"] = Parameter(
            "position.weight", (model.context, model.width), _EMBEDDING
        )
    for name, parameter in _layers(model.layers, operators, model.width):
        if name in found:
            raise InternalError(f"two parameters are named {name!r}")
        found[name] = parameter
    found.update((p.name, p) for p in depth_parameters(model))
    if model.final_norm is not None:
        for parameter in norm_parameters(model.final_norm, model.width):
            found["final_norm" + parameter.name] = parameter
    if not model.embedding.tied:
        found["head.weight"] = Parameter(
            "head.weight", (model.vocab, model.width), ("normal", model.width**-0.5)
        )
    if model.head.bias:
        found["head.bias"] = Parameter("head.bias", (model.vocab,), ("constant", 0))
    return found


def _layers(
    layers: tuple[Layer, ...], operators: dict[str, Operator], width: int
) -> Iterator[tuple[str, Parameter]]:
    for layer in layers:
        match layer:
            case Repeat():
                for body in layer.bodies:
                    yield from _layers(body, operators, width)
            case Loop():
                yield from _layers(layer.body, operators, width)
            case Parallel():
                for parameter in residual_parameters(layer.path, layer.residual, width):
                    yield parameter.name, parameter
                for parameter in gate_parameters(layer, width):
                    yield parameter.name, parameter
                yield from _layers(layer.branches, operators, width)
            case Unit():
                for parameter in residual_parameters(layer.path, layer.residual, width):
                    yield parameter.name, parameter
                ties = tied_names(layer)
                operator = operators[layer.operator]
                yield from operator_parameters(operator, f"{layer.path}.", ties)


def operator_parameters(
    operator: Operator, prefix: str = "", without: Container[str] = ()
) -> Iterator[tuple[str, Parameter]]:
    """The parameters of an operator under full names, those of its experts one by one:
    <experts>.<number>.<parameter>."""
    for parameter in operator.parameters:
        if parameter.name in without:
            continue
        if parameter.init[0] != "experts":
            yield prefix + parameter.name, parameter
            continue
        expert = operator.inner[parameter.init[1]]
        for i in range(parameter.shape[0]):
            yield from operator_parameters(expert, f"{prefix}{parameter.name}.{i}.")


def tied_names(unit: Unit) -> dict[str, str]:
    """Parameters of a unit's operator that are those of another unit, with that unit's path.

    Reads what the text says (`shares`) as well as what the pass `share` made of it (`ties`).
    """
    found = {name: path for names, path in unit.shares for name in names}
    found.update((tie.parameter, tie.unit) for tie in unit.ties)
    return found


def tied(model: Model) -> dict[str, str]:
    """Full names that are another parameter, each with the full name of the one that is stored."""
    operators = {o.name: o for o in model.operators}
    direct = {}
    for unit in units(model.layers):
        sources = tied_names(unit)
        for name, _ in operator_parameters(operators[unit.operator]):
            path = sources.get(name) or sources.get(_bank(name))
            if path is not None:
                direct[f"{unit.path}.{name}"] = f"{path}.{name}"
    found = {}
    for name, source in direct.items():
        while source in direct:
            source = direct[source]
        found[name] = source
    if model.embedding.tied:
        found["head.weight"] = "embedding.weight"
    return found


def _bank(name: str) -> str:
    """The parameter that stands for all experts, of the name of one of theirs."""
    return re.split(r"\.\d+\.", name, maxsplit=1)[0]


def unfused_names(model: Model) -> dict[str, tuple[tuple[str, int], ...]]:
    """For parameters that stack others along axis 0: their full names and rows, in order."""
    found = {}
    for name, parameter in model_parameters(model).items():
        if parameter.parts:
            path = name.removesuffix(parameter.name)
            found[name] = tuple((path + part, rows) for part, rows in parameter.parts)
    return found


def _renamed(parameter: Parameter, name: str) -> Parameter:
    return Parameter(name, parameter.shape, parameter.init, parameter.learned, parameter.parts)
