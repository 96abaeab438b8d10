"""The oracle's choices: the largest channels, the experts of a token, the rows of a memory.

Owns: what every stage that chooses means, one token at a time where that is clearer. Refuses: what
an expert does (reference.py evaluates its operator).
"""

from __future__ import annotations

import torch
from torch import Tensor

from starc.runtime.reference_stages import Operation, Step


def _top(s: Step) -> Tensor:
    """x where it, or `by`, is among the k largest of its head, zero elsewhere."""
    rank = s.operands[-1].argsort(-1, descending=True).argsort(-1)
    y: Tensor = s.x * (rank < s.get("k"))
    return y


def _route(s: Step) -> Tensor:
    """Weights (B, T, 1, n): zero for experts that a token is not sent to.

    Noise belongs to training, and the oracle does not train.
    """
    operands = list(s.operands)
    scores = operands.pop(0)
    if s.get("noisy"):
        scores = scores + 0 * operands.pop(0)
    if s.get("gate") == "softmax":
        weight = scores.softmax(-1)
    elif s.get("gate") == "sigmoid":
        weight = scores.sigmoid()
    else:
        weight = scores
    wish = weight + operands.pop(0) if s.get("correction") else weight
    n = wish.shape[-1]
    if s.get("groups") > 1:
        each = n // s.get("groups")
        groups = wish.reshape(*wish.shape[:-1], s.get("groups"), each)
        best = groups.sort(-1, descending=True).values[..., :2].sum(-1)
        rank = best.argsort(-1, descending=True).argsort(-1)
        open_ = (rank < s.get("keep")).repeat_interleave(each, dim=-1)
        wish = wish.masked_fill(~open_, -torch.inf)
    rank = wish.argsort(-1, descending=True).argsort(-1)
    weight = weight * (rank < s.get("top"))
    if s.get("normalize"):
        weight = weight / weight.sum(-1, keepdim=True)
    gates: Tensor = weight * float(s.get("scale"))
    return gates


def _retrieve(s: Step) -> Tensor:
    """All n m entries are scored: entry (i, j) by rows_i + columns_j."""
    rows, columns, table = s.operands  # (B, T, h, n), (B, T, h, m), (n m, channels)
    scores = (rows.unsqueeze(-1) + columns.unsqueeze(-2)).flatten(-2)
    chosen = scores.argsort(-1, descending=True).argsort(-1) < s.get("top")
    if s.get("gate") == "softmax":
        weight = scores.masked_fill(~chosen, -torch.inf).softmax(-1)
    else:
        weight = scores.sigmoid() * chosen
    y: Tensor = weight @ table  # (B, T, h, channels)
    return y.sum(2, keepdim=True)


ROUTING: dict[str, Operation] = {"top": _top, "route": _route, "retrieve": _retrieve}
