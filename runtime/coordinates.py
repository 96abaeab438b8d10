"""The coordinate check: does a step change activations by as much in models of any size?

Owns: measuring changes of activations over the first optimiser steps, and how they grow with width
or depth.
Refuses: making models of several sizes, and the rules that are checked (optim.py).

Greg Yang et al., arXiv 2203.03466, appendix D: where rules of initial values and learning rates
are right, the mean absolute change of every activation after a few steps is the same at any width:
the exponent against the width is zero. Under one rate for everything it is about 1/2 to 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from starc.runtime.optim import BASE_WIDTH, is_unit, parameter_groups

STREAM, LOGITS = "stream", "logits"
"""Names of places: what the final norm reads (or the read-out, without one), and the logits."""

GROWTH = 0.25
"""The most that an exponent may be, and the least for anything but logits."""

FALL = -0.5
"""The least for logits: what the first read-out makes of changes of the stream is a sum of random
signs, which falls with the square root of the width until what the read-out learns is larger."""

Changes = dict[str, list[float]]
"""By place, the mean absolute change of its activations after 1, 2, ... steps."""


@dataclass(frozen=True)
class Exponents:
    """How the changes after the last step grow with the size, by place; 0: not at all."""

    sizes: tuple[int, ...]
    values: dict[str, float]

    def outside(self) -> dict[str, float]:
        """The places whose exponents are too large or too small."""
        return {
            name: value
            for name, value in self.values.items()
            if not (FALL if name == LOGITS else -GROWTH) <= value <= GROWTH
        }


def exponents(
    models: Mapping[int, Callable[[], nn.Module]],
    *,
    steps: int = 4,
    learning_rate: float = 2e-3,
    base_width: int = BASE_WIDTH,
    seeds: int = 2,
) -> Exponents:
    """Exponents against the size of generated models, from the same data at every size.

    `models` makes a model of each size; all have one vocabulary. Places that only some have are
    left out. Changes are geometric means over `seeds` initial values.
    """
    measured = {
        size: [
            changes(make, steps=steps, learning_rate=learning_rate, base_width=base_width, seed=s)
            for s in range(seeds)
        ]
        for size, make in models.items()
    }
    common = set.intersection(*(set(one) for runs in measured.values() for one in runs))
    names = [name for name in next(iter(measured.values()))[0] if name in common]
    last = {
        name: [
            math.exp(np.mean([math.log(max(one[name][-1], 1e-30)) for one in runs]))
            for runs in measured.values()
        ]
        for name in names
    }
    sizes = tuple(measured)
    return Exponents(sizes, {name: exponent(sizes, values) for name, values in last.items()})


def exponent(sizes: Sequence[int], values: Sequence[float]) -> float:
    """The slope of log values against log sizes, by least squares."""
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def changes(
    make: Callable[[], nn.Module],
    *,
    steps: int = 4,
    learning_rate: float = 2e-3,
    base_width: int = BASE_WIDTH,
    seed: int = 0,
) -> Changes:
    """Changes of what every unit gives, of the stream and of the logits, in the first steps.

    AdamW at a constant rate on one text, which is also what activations are taken of.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = make()
        assert isinstance(model.head, nn.Linear)
        tokens, targets = text(model.head.out_features)
        groups = parameter_groups(
            model, learning_rate=learning_rate, weight_decay=0.0, base_width=base_width
        )
        optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.95))
        before = activations(model, tokens)
        found: Changes = {name: [] for name in before}
        for _ in range(steps):
            optimizer.zero_grad()
            model.train().loss(tokens, targets).backward()  # type: ignore[operator]
            optimizer.step()
            for name, now in activations(model, tokens).items():
                found[name].append(float((now - before[name]).abs().mean()))
    return found


@torch.no_grad()
def activations(model: nn.Module, tokens: Tensor) -> dict[str, Tensor]:
    """What every unit outside of experts gives, the stream and the logits, in evaluation mode.

    Of a unit that runs several times, what it gives the last time.
    """
    found: dict[str, Tensor] = {}
    hooks: list[RemovableHandle] = []

    def keep(name: str, value: Tensor | tuple[Tensor, ...]) -> None:
        found[name] = (value if isinstance(value, Tensor) else value[0]).detach().clone()

    inside: list[str] = []
    for name, module in model.named_modules():
        if is_unit(module) and not any(name.startswith(f"{unit}.") for unit in inside):
            inside.append(name)
            hooks.append(module.register_forward_hook(lambda m, x, y, name=name: keep(name, y)))
    end = getattr(model, "final_norm", model.head)
    assert isinstance(end, nn.Module)
    hooks.append(end.register_forward_pre_hook(lambda m, x: keep(STREAM, x[0])))
    try:
        logits = model.eval()(tokens)
    finally:
        for hook in hooks:
            hook.remove()
    found[LOGITS] = logits.detach().clone()
    return found


def text(vocab: int, *, batch: int = 1, length: int = 33) -> tuple[Tensor, Tensor]:
    """Tokens and targets (batch, length - 1) of a chain in which few tokens follow each.

    Few tokens, because the gradients of many cancel: what is left is noise of the batch, which
    grows with the width in another way.
    """
    random = np.random.default_rng(0)
    successors = random.integers(vocab, size=(vocab, 3))
    found = np.empty((batch, length), dtype=np.int64)
    found[:, 0] = random.integers(vocab, size=batch)
    for i in range(1, length):
        found[:, i] = successors[found[:, i - 1], random.integers(3, size=batch)]
    tokens = torch.from_numpy(found)
    return tokens[:, :-1], tokens[:, 1:]
