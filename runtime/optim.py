"""What an optimiser is given: the parameters of a model in groups with rates and decays.

Owns: which class a parameter is of, how fast it learns in a model of its width and depth, and
whether it decays.
Refuses: the schedule over steps, and initial values (compiler/init.py).

One learning rate is meant for models of any width and depth: it is that of matrices that read
BASE_WIDTH channels in a model of BASE_DEPTH units, and of everything else there. A matrix of n
inputs learns at BASE_WIDTH / n of it, so that a step changes what it gives by as much, whatever n
(maximal update parametrisation for Adam, arXiv 2203.03466, table 8; by fan-in as in arXiv
2310.17813). In a model of L units, of which each adds 1 / sqrt(L) to the stream, weights inside
units learn at sqrt(BASE_DEPTH / L) of that, those whose product is added to the stream at
BASE_DEPTH / L (arXiv 2310.02244). Decay is the same share per step for all that decays: a group's
is divided by its rate, because AdamW multiplies the two (arXiv 2405.13698).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

BASE_WIDTH = 128
"""The width at which the learning rate of a run is that of the matrices that read the stream."""

BASE_DEPTH = 4
"""The units at which depth changes no rate."""

Kind = Literal["table", "matrix", "readout", "vector"]

_ENDS = frozenset(("embedding", "embedding_norm", "position", "final_norm", "head"))
"""Parts of a generated model that stand before or behind all units."""

_MAPS = {
    "Linear": ("weight",),
    "GroupedLinear": ("weight",),
    "HeadwiseLinear": ("weight",),
    "Hedgehog": ("weight",),
    "DynamicHyperConnection": ("alpha_map", "beta_map"),
}
"""Parameters that sum over their last axis, by the class that generated files have them in."""


@dataclass(frozen=True)
class Rule:
    """How a parameter learns: `rate` times the run's learning rate; `decays` or not.

    Kinds: `table`, vectors of tokens and positions; `matrix`, which sums over `inputs` channels;
    `readout`, the matrix that makes logits; `vector`, which meets channels one by one: norms,
    biases, decays, step sizes, taps, filters and constants that a program declares.
    """

    kind: Kind
    inputs: int
    rate: float
    decays: bool


def parameter_groups(
    model: nn.Module,
    *,
    learning_rate: float,
    weight_decay: float,
    base_width: int = BASE_WIDTH,
) -> list[dict[str, Any]]:
    """Groups for AdamW, one per rate and decay; a tied parameter counts once.

    `learning_rate` is that of `base_width`; 0 gives everything the same rate.
    """
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    parameters = dict(model.named_parameters())
    for name, rule in parameter_rules(model, base_width=base_width).items():
        groups.setdefault((rule.rate, rule.decays), []).append(parameters[name])
    return [
        {
            "params": members,
            "lr": learning_rate * rate,
            "weight_decay": weight_decay / rate if decays else 0.0,
        }
        for (rate, decays), members in groups.items()
    ]


def parameter_rules(model: nn.Module, *, base_width: int = BASE_WIDTH) -> dict[str, Rule]:
    """The rule of every parameter by its first name, as in `named_parameters`.

    Decay is for the matrices of maps: not for tables, norms, biases, nor for constants that a
    program declares itself, such as the logarithm of a decay, for which zero is no natural value.
    """
    scale = BASE_DEPTH / units_passed(model) if base_width else 1.0
    found: dict[nn.Parameter, Rule] = {}
    for place in _places(model):
        for own, parameter in place.module.named_parameters(recurse=False):
            inputs = _inputs(place, own, parameter)
            if parameter in found:
                if place.part == "head" and inputs:  # a table that is the read-out's matrix, too
                    rate = base_width / inputs if base_width else 1.0
                    found[parameter] = Rule("readout", inputs, rate, False)
                continue
            kind = _kind(place, inputs)
            rate = base_width / inputs if base_width and inputs else 1.0
            if place.part in ("unit", "stream"):
                rate *= scale if place.part == "stream" else math.sqrt(scale)
            found[parameter] = Rule(kind, inputs, rate, _decays(place.module, own, parameter))
    return {name: found[parameter] for name, parameter in model.named_parameters()}


def units_passed(model: nn.Module) -> int:
    """How many units a token passes, at least 1: those of a loop count every time."""
    return max(1, _units(model))


def _units(module: nn.Module) -> int:
    if is_unit(module):
        return 1
    times = int(module.times) if type(module).__name__ == "Loop" else 1  # type: ignore[arg-type]
    return times * sum(_units(child) for child in module.children())


@dataclass(frozen=True)
class _Place:
    """A module of a model. `part`: `unit`, also what stands around one; `stream` for a projection
    onto it; `head` and `end`, before or behind all units; empty outside of the generated model."""

    module: nn.Module
    part: str = ""
    onto: tuple[str, ...] = ()
    """Paths of projections onto the stream, from here."""
    filter: bool = False
    """Whether the module is part of a network that makes a filter, of one size at any width."""

    def child(self, name: str, module: nn.Module) -> _Place:
        onto = (*self.onto, *getattr(self.module, "onto_stream", ()))
        if _is_model(self.module):
            part = ("head" if name == "head" else "end") if name in _ENDS else "unit"
        else:
            part = "stream" if name in onto else self.part
        inside = tuple(path.partition(".")[2] for path in onto if path.startswith(f"{name}."))
        made = type(module).__name__.startswith("ImplicitFilter")
        return _Place(module, part, inside, self.filter or made)


def _places(model: nn.Module) -> Iterator[_Place]:
    stack = [_Place(model)]
    while stack:
        place = stack.pop()
        yield place
        children = [place.child(name, child) for name, child in place.module.named_children()]
        stack += reversed(children)


def is_unit(module: nn.Module) -> bool:
    """Whether a module of a generated model is a unit, or what stands for one in experts."""
    return any(base.__name__ == "Unit" for base in type(module).__mro__)


def _is_model(module: nn.Module) -> bool:
    return hasattr(module, "hidden") and hasattr(module, "embedding")


def _inputs(place: _Place, name: str, parameter: nn.Parameter) -> int:
    """How many channels a parameter sums over; 0 where it meets them one by one."""
    kind = type(place.module).__name__
    if place.filter or isinstance(place.module, nn.Embedding):
        return 0
    if name in _MAPS.get(kind, ()):
        return parameter.shape[-1]
    if kind == "GroupedConvolution" and name == "weight":
        return parameter.shape[1] * parameter.shape[2]
    return 0


def _kind(place: _Place, inputs: int) -> Kind:
    if isinstance(place.module, nn.Embedding):
        return "table"
    if not inputs:
        return "vector"
    return "readout" if place.part == "head" else "matrix"


def _decays(module: nn.Module, name: str, parameter: nn.Parameter) -> bool:
    free = isinstance(module, nn.Embedding) or "Norm" in type(module).__name__
    return not free and name.startswith("weight") and parameter.ndim >= 2
