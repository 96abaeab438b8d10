"""The rule by which a model's projections get their initial values.

Owns: deviations of `dense` and `headwise`. Refuses: initial values that a program writes itself.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from starc.compiler.ir import Operator, Parameter


@dataclass(frozen=True)
class Init:
    """Initial values of `dense` and `headwise`: normal with deviation `std`, or with `gain` /
    sqrt(inputs) where it is None; `calm` divides that of projections onto the stream by
    sqrt(depth)."""

    std: float | None = None
    gain: float = 1.0
    calm: bool = True


def initialised(operator: Operator, init: Init, depth: int) -> Operator:
    """The operator in a model of that rule and depth."""
    spread = _spread(operator, init)
    return calmed(spread, depth) if init.calm else spread


def _spread(operator: Operator, init: Init) -> Operator:
    """The operator with the initial deviations that the model asks for."""
    if init.std is None and init.gain == 1:
        return operator
    names = {
        name
        for value in operator.values
        for name in value.parameters
        if value.op in ("dense", "headwise") and name.endswith(".weight")
    }

    def deviation(p: Parameter) -> tuple[str, float]:
        return "normal", p.init[1] * init.gain if init.std is None else init.std

    parameters = tuple(
        replace(p, init=deviation(p)) if p.name in names else p for p in operator.parameters
    )
    inner = tuple(_spread(expert, init) for expert in operator.inner)
    return replace(operator, parameters=parameters, inner=inner)


def calmed(operator: Operator, depth: int) -> Operator:
    """The operator in a model of that depth: the projections that y is the sum of start smaller by
    sqrt(depth), so that the variance of the stream does not grow with depth (GPT-2)."""
    stack, weights = [dict(operator.outputs)["y"]], set()
    inner = list(operator.inner)
    while stack:
        value = operator.values[stack.pop()]
        if value.op in ("add", "subtract"):
            stack += value.inputs
        elif value.op == "dense":
            weights.add([name for name in value.parameters if name.endswith(".weight")][-1])
        elif value.op == "experts":
            i = value.attribute("operator")
            inner[i] = calmed(operator.inner[i], depth)
    parameters = tuple(
        replace(p, init=(p.init[0], p.init[1] * depth**-0.5)) if p.name in weights else p
        for p in operator.parameters
    )
    return replace(operator, parameters=parameters, inner=tuple(inner))
