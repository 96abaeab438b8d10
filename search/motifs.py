"""What a program is made of, apart from numbers and names: classes of units, motifs, sharing.

A unit's class is read off the structure of its T, so an operator that a mutation rewrote is
counted as what it became. A parallel is one place of the backbone, as STAR's differential classes
are (arXiv 2411.17800, Figure 5.5 counts the same things).

Owns: the names of classes, and counting in one program. Refuses: populations and statistics.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from starc.compiler import ir

SHARES, REUSES = "weights", "features"
"""What units share: weights of a featurizer (`shares`), or computed features (`reuses`)."""

_SCORES = {"mixer_sigmoid": "sigmoid attention", "mixer_relu": "ReLU attention"}
_FILTERS = {
    "explicit": "short convolution",
    "implicit": "long convolution",
    "ssm": "state-space convolution",
}
_TRANSITIONS = {"householder", "dplr", "transition_product"}
_SIGNS = {"sum": " + ", "difference": " - ", "mean": " & ", "gated": " | "}


@dataclass(frozen=True, slots=True)
class Motif:
    """What a program is made of.

    `places` has the class of each layer, repeats unrolled and parallels as one; `distances` has
    (what is shared, how many units before) for each unit that shares with another one.
    """

    places: tuple[str, ...]
    distances: tuple[tuple[str, int], ...]

    def grams(self, n: int) -> Counter[str]:
        """How often each run of `n` classes occurs."""
        runs = zip(*(self.places[i:] for i in range(n)), strict=False)
        return Counter(" > ".join(run) for run in runs)


def motif(model: ir.Model) -> Motif:
    """What a resolved model is made of, before or behind the pass `share`."""
    classes = {operator.name: class_of(operator) for operator in model.operators}
    return Motif(tuple(_places(model.layers, classes)), tuple(_distances(model)))


def class_of(operator: ir.Operator) -> str:
    """The class of an operator by the mixers in it, the strongest first."""
    ops = {value.op for value in operator.values}
    found: list[str] = []
    if "mixer_softmax" in ops:
        found.append("windowed attention" if "band" in ops else "attention")
    found += [name for op, name in _SCORES.items() if op in ops]
    if "low_rank" in ops and not found:
        found.append("linear attention")
    if "semi_separable" in ops:
        found.append("delta recurrence" if ops & _TRANSITIONS else "recurrence")
    if "toeplitz" in ops:
        found += [name for op, name in _FILTERS.items() if op in ops]
    if "static" in ops:
        found.append("static mixing")
    found += [name for op, name in (("experts", "experts"), ("retrieve", "memory")) if op in ops]
    if found:
        return ", ".join(found)
    if ops & {"conv", "shift", "ema"}:
        return "short convolution"
    return "gated memoryless" if "diagonal" in ops else "memoryless"


def _places(layers: Sequence[ir.Layer], classes: dict[str, str]) -> Iterator[str]:
    for layer in layers:
        match layer:
            case ir.Unit():
                yield classes[layer.operator]
            case ir.Repeat():
                for body in layer.bodies:
                    yield from _places(body, classes)
            case ir.Loop():
                yield from _places(layer.body, classes)
            case ir.Parallel():
                branches = list(_places(layer.branches, classes))
                if layer.mode == "difference" and len(set(branches)) == 1:
                    yield f"{branches[0]} (differential)"
                else:
                    yield f"({_SIGNS.get(layer.mode, ', ').join(branches)})"


def _distances(model: ir.Model) -> Iterator[tuple[str, int]]:
    order = {unit.path: place for place, unit in enumerate(ir.units(model.layers))}
    for unit in ir.units(model.layers):
        owners = {tie.unit for tie in unit.ties} | {owner for _, owner in unit.shares}
        sources = {ref.unit for _, ref in unit.inputs if ref.name != ir.STREAM}
        for kind, others in ((SHARES, owners), (REUSES, sources)):
            for other in sorted(others & order.keys()):
                yield kind, order[unit.path] - order[other]
