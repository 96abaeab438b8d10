"""Stages that keep a feature's type, as programs spell them.

Owns: norms, pointwise functions and learned activations. Refuses: what they act on (operators.py).
"""

from __future__ import annotations

from tests.strategies.text import Draws


def norm(draws: Draws, heads: int, channels: int) -> str:
    """A normalisation that is well conditioned on so many channels."""
    if channels < 3:
        return "scale(0.7)"
    options = draws.pick(
        "", "weight = offset", "weight = own , bias = true", "weight = none , bias = false"
    )
    if heads == 1 and channels % 4 == 0 and channels > 4 and draws.chance(3):
        return "groupnorm(groups = 2)"
    name = draws.pick("rmsnorm", "layernorm", "groupnorm", "l2norm(0.001)")
    if name == "l2norm(0.001)" or not options:
        return str(name)
    if name == "groupnorm" and not options.startswith("weight = none"):
        return "groupnorm(eps = 1e-3)"
    return f"{name}({options})"


def smooth(draws: Draws) -> str:
    return str(
        draws.pick(
            "silu", "gelu", "sigmoid", "tanh", "softplus", "gelu(approximate = tanh)", "elu1",
            "sin", "cos", "logsigmoid", "square", "gelu(tanh)", "quick_gelu", "mish", "elu(1/2)",
            "softsign", "erf",
        )
    )  # fmt: skip


def initial(draws: Draws) -> str:
    """Further arguments of a constant."""
    return str(
        draws.pick(
            "", " , init = 1/2", " , init = normal(0.3)", " , init = log(linspace(1, 4))",
            " , init = uniform(-1, 1) , learned = false", " , 0.7 , learned = false",
        )
    )  # fmt: skip


def bent(draws: Draws, channels: int) -> str:
    """Functions with kinks, averages over tokens, and activations that learn."""
    groups = draws.pick(*(n for n in (1, 2, channels) if channels % n == 0))
    learned = "polynorm(k = 2 , eps = 0.01)" if channels > 2 else "polyrelu"
    return str(
        draws.pick(
            "leaky_relu(0.3)", "elu(0.7)", "hard_sigmoid", "hard_silu", "clamp(-0.71, 1.3)",
            "ema", "polyrelu(2)", learned, f"shuffle({groups})", f"top({channels})",
        )
    )  # fmt: skip
