"""The IR as text, deterministic, one line a value: what `--print-after` and pass tests show."""

from __future__ import annotations

from fractions import Fraction

from starc.compiler.ir import (
    Attribute,
    Layer,
    Loop,
    Model,
    Operator,
    Parallel,
    Repeat,
    Residual,
    Unit,
    Value,
)
from starc.compiler.numbers import show


def print_model(model: Model) -> str:
    """The whole model, operators first."""
    lines = [f"model {model.name} vocab={model.vocab} width={model.width} context={model.context}"]
    lines.append(
        f"  embedding tied={model.embedding.tied} scale={model.embedding.scale:g}"
        f"  position={model.position}"
        f"  head bias={model.head.bias} scale={model.head.scale:g} softcap={model.head.softcap}"
    )
    if model.final_norm:
        lines.append(
            f"  final_norm {model.final_norm.op}{_attributes(model.final_norm.attributes)}"
        )
    for operator in model.operators:
        lines += ["", *_operator(operator)]
    lines += ["", "backbone"]
    for layer in model.layers:
        lines += _layer(layer, "  ")
    return "\n".join(lines) + "\n"


def _operator(operator: Operator) -> list[str]:
    arguments = ", ".join(f"{k} = {_show(v)}" for k, v in operator.arguments)
    lines = [f"operator {operator.name}({arguments})"]
    for id, value in enumerate(operator.values):
        name = f"  # {value.name}" if value.name else ""
        lines.append(f"  {_value(id, value)}{name}")
    outputs = ", ".join(f"{name} = %{id}" for name, id in operator.outputs)
    lines.append(f"  return {outputs}")
    for p in operator.parameters:
        parts = f" = {' | '.join(n for n, _ in p.parts)}" if p.parts else ""
        fixed = "" if p.learned else " fixed"
        lines.append(f"  parameter {p.name} {list(p.shape)} {_init(p.init)}{fixed}{parts}")
    for i, expert in enumerate(operator.inner):
        lines += [f"  expert {i}:", *(f"    {line}" for line in _operator(expert))]
    return lines


def _value(id: int, value: Value) -> str:
    inputs = " ".join(f"%{i}" for i in value.inputs)
    owned = f"  [{', '.join(value.parameters)}]" if value.parameters else ""
    shown = " ".join(filter(None, [value.op, inputs]))
    return f"%{id} = {shown}{_attributes(value.attributes)} : {value.type}{owned}"


def _layer(layer: Layer, indent: str) -> list[str]:
    match layer:
        case Unit():
            inputs = "".join(f" {name}<-{ref.unit}.{ref.name}" for name, ref in layer.inputs)
            ties = "".join(f" {t.parameter}=={t.unit}" for t in layer.ties)
            shares = "".join(f" shares({', '.join(n)})=={path}" for n, path in layer.shares)
            return [
                f"{indent}{layer.path}: {layer.operator} {_residual(layer.residual)}"
                f"{inputs}{ties}{shares}"
            ]
        case Repeat():
            lines = []
            for i, body in enumerate(layer.bodies):
                lines.append(f"{indent}{layer.path}.{i}:")
                for inner in body:
                    lines += _layer(inner, indent + "  ")
            return lines
        case Loop():
            lines = [f"{indent}{layer.path}: loop {layer.times}"]
            for inner in layer.body:
                lines += _layer(inner, indent + "  ")
            return lines
        case Parallel():
            lines = [f"{indent}{layer.path}: parallel({layer.mode}) {_residual(layer.residual)}"]
            for branch in layer.branches:
                lines += _layer(branch, indent + "  ")
            return lines


def _residual(residual: Residual) -> str:
    if residual.formula:
        values = (" ".join(_value(id, v).split()) for id, v in enumerate(residual.formula.values))
        return f"formula({'; '.join(values)})"
    return f"{residual.scheme}({', '.join(norm.op for _, norm in residual.norms)})"


def _attributes(attributes: tuple[tuple[str, Attribute], ...]) -> str:
    shown = [f"{key}={_show(value)}" for key, value in attributes if value is not None]
    return f" {{{', '.join(shown)}}}" if shown else ""


def _show(value: Attribute) -> str:
    if isinstance(value, Fraction | float):
        return show(value).replace(" / ", "/")
    if isinstance(value, tuple):
        return _init(value)
    return str(value)


def _init(init: tuple[object, ...]) -> str:
    kind, *arguments = init
    if kind == "constant":
        return str(arguments[0])
    shown = (_init(a) if isinstance(a, tuple) else f"{a:.6g}" for a in arguments)
    return f"{kind}({', '.join(shown)})"
