"""What an optimiser is given: the parameters of a model in groups with rates and decays.

Owns: which parameters decay, and how fast each learns.
Refuses: the schedule over steps.
"""

from __future__ import annotations

from typing import Any

from torch import nn


def parameter_groups(
    model: nn.Module, *, learning_rate: float, weight_decay: float
) -> list[dict[str, Any]]:
    """Groups for AdamW: the matrices of maps decay, and the rest is left alone.

    The rest: embeddings, norms, biases, and constants that a program declares itself, such as the
    logarithm of a decay, for which zero is no natural value. A tied parameter counts once.
    """
    decayed: list[nn.Parameter] = []
    free: list[nn.Parameter] = []
    seen: set[int] = set()
    for module in model.modules():
        matrices = not isinstance(module, nn.Embedding) and "Norm" not in type(module).__name__
        for name, parameter in module.named_parameters(recurse=False):
            if id(parameter) in seen:
                continue
            seen.add(id(parameter))
            decays = matrices and name.startswith("weight") and parameter.ndim >= 2
            (decayed if decays else free).append(parameter)
    return [
        {"params": decayed, "lr": learning_rate, "weight_decay": weight_decay},
        {"params": free, "lr": learning_rate, "weight_decay": 0.0},
    ]
