"""The oracle's feature maps, learned activations and averages, each as its definition says.

Owns: the stages of catalog/maps.py. Refuses: speed, and code shared with templates or lowering.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from starc.runtime.reference_stages import Operation, Step


def _shuffle(s: Step) -> Tensor:
    """Channel j g + i of the result is channel j of group i."""
    g, n = s.get("g"), s.x.shape[-1]
    return s.x[..., [i * (n // g) + j for j in range(n // g) for i in range(g)]]


def _ema(s: Step) -> Tensor:
    """y_t = a y_{t-1} + (1 - a) x_t, from y = 0 before the first token; a = sigmoid(p)."""
    a = s.weights[0].sigmoid()
    y, found = torch.zeros_like(s.x[:, 0]), []
    for t in range(s.length):
        y = a * y + (1 - a) * s.x[:, t]
        found.append(y)
    return torch.stack(found, dim=1)


def _polynomial(s: Step) -> Tensor:
    weight, bias = s.weights
    y = bias.expand(s.x.shape)
    for i in range(1, s.get("k") + 1):
        if s.op == "polyrelu":
            power = s.x.relu() ** i
        else:
            power = s.x**i
            power = power / (power.square().mean(-1, keepdim=True) + float(s.get("eps"))).sqrt()
        y = y + weight[i - 1] * power
    return y


def _taylor(s: Step) -> Tensor:
    """1, x_i / d^(1/4), and x_i x_j / sqrt(2 d) for all i, j, where (i, j) and (j, i) stand once:
    squares first, then the pairs that are one channel apart, and so on."""
    x, d = s.x, s.x.shape[-1]
    features = [torch.ones_like(x[..., 0]), *(x[..., i] / d**0.25 for i in range(d))]
    if s.get("order") == 2:
        for apart in range(d):
            for i in range(d - apart):
                twice = 1 if apart == 0 else math.sqrt(2)
                features.append(twice * x[..., i] * x[..., i + apart] / math.sqrt(2 * d))
    return torch.stack(features, dim=-1)


def _hedgehog(s: Step) -> Tensor:
    weight, bias = s.weights
    heads = range(s.x.shape[2])
    u = torch.stack([s.x[:, :, h] @ weight[h].T + bias[h] for h in heads], dim=2)
    if s.get("activation") == "exp":
        return torch.cat([u.exp(), (-u).exp()], dim=-1)
    return torch.cat([torch.softmax(u, dim=-1), torch.softmax(-u, dim=-1)], dim=-1)


MAPS: dict[str, Operation] = {
    "shuffle": _shuffle,
    "ema": _ema,
    "polyrelu": _polynomial,
    "polynorm": _polynomial,
    "taylor": _taylor,
    "hedgehog": _hedgehog,
}
