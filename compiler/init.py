"""The rule by which a model's projections get their initial values.

Owns: deviations of `dense`, `headwise` and the read-out. Refuses: initial values that a program
writes itself.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from starc.compiler.ir import Operator, Parameter
from starc.grammar.copying import changed


@dataclass(frozen=True)
class Init:
    """Initial values of `dense` and `headwise`: normal with deviation `std`, or with `gain` /
    sqrt(inputs) where it is None; `calm` divides that of projections onto the stream by
    sqrt(depth).

    The read-out has deviation 0.02 where `std` is given, as GPT-2 has, else one that falls with the
    width, 0.02 at 128: what it makes of changes of the stream then keeps its size in models of any
    width (arXiv 2203.03466, table 8).
    """

    std: float | None = None
    gain: float = 1.0
    calm: bool = True

    def readout(self, width: int) -> float:
        """The deviation of the matrix of a read-out."""
        return 0.02 * (128 / width if self.std is None else 1.0)


def initialised(operator: Operator, init: Init, depth: int) -> Operator:
    """The operator in a model of that rule and depth."""
    wide = spread(operator, init)
    return calmed(wide, depth) if init.calm else wide


def spread(operator: Operator, init: Init) -> Operator:
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
    inner = tuple(spread(expert, init) for expert in operator.inner)
    return replace(operator, parameters=parameters, inner=inner)


def calmed(operator: Operator, depth: int) -> Operator:
    """The operator in a model of that depth: the projections that y is the sum of start smaller by
    sqrt(depth), so that the variance of the stream does not grow with depth (GPT-2)."""
    weights, experts = onto_stream(operator)
    inner = list(operator.inner)
    for i in experts:
        inner[i] = calmed(operator.inner[i], depth)
    parameters = tuple(
        replace(p, init=(p.init[0], p.init[1] * depth**-0.5)) if p.name in weights else p
        for p in operator.parameters
    )
    return changed(operator, parameters=parameters, inner=tuple(inner))


def onto_stream(operator: Operator) -> tuple[frozenset[str], frozenset[int]]:
    """Weights of the projections that y is the sum of, and which of `inner` are parts of it."""
    stack, weights, experts = [dict(operator.outputs)["y"]], set(), set()
    while stack:
        value = operator.values[stack.pop()]
        if value.op in ("add", "subtract"):
            stack += value.inputs
        elif value.op == "dense":
            weights.add([name for name in value.parameters if name.endswith(".weight")][-1])
        elif value.op == "experts":
            experts.add(value.attribute("operator"))
    return frozenset(weights), frozenset(experts)
