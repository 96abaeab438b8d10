"""Attention from its definition, in float64: the matrix of weights is written down pair by pair."""

from __future__ import annotations

import torch
from torch import Tensor

from starc.compiler.kernel_attention import AttentionPlan


def repeated(x: Tensor, heads: int) -> Tensor:
    """(batch, tokens, fewer heads, channels) -> (batch, heads, tokens, channels)."""
    return x.repeat_interleave(heads // x.shape[2], dim=2).transpose(1, 2)


def visible(plan: AttentionPlan, rows: int, columns: int) -> Tensor:
    """Which pairs count, from the definitions of masks, pair by pair."""
    seen = torch.zeros(rows, columns, dtype=torch.bool)
    for row in range(rows):
        for j in range(columns):
            seen[row, j] = any(
                all(shows(op, sizes, row + columns - rows, j) for op, sizes in clause)
                for clause in plan.clauses
            )
    return seen


def shows(op: str, sizes: tuple[int, ...], i: int, j: int) -> bool:
    match op:
        case "causal":
            return j <= i
        case "band":
            return abs(i - j) < sizes[0]
        case "dilated":
            return abs(i - j) in range(0, sizes[0] * sizes[1], sizes[1])
        case "strided":
            return abs(i - j) % sizes[0] == 0
        case "block":
            return i // sizes[0] == j // sizes[0]
        case "summary":
            return j % sizes[0] >= sizes[0] - sizes[1]
        case "first":
            return j < sizes[0]
    raise AssertionError(op)


def reference(plan: AttentionPlan, operands: dict[str, Tensor]) -> Tensor:
    """The right answer in float64: weights are written out as they are defined."""
    x = {name: repeated(operand, plan.heads) for name, operand in operands.items()}
    rows, columns = x["C"].shape[2], x["B"].shape[2]
    s = torch.einsum("bhtn,bhsn->bhts", x["C"], x["B"])
    i = torch.arange(columns - rows, columns)[:, None]
    distance = (i - torch.arange(columns)).abs()
    for op, number in plan.stages:
        match op:
            case "scale":
                s = number * s
            case "softcap":
                s = number * torch.tanh(s / number)
            case "alibi":
                s = s - number * x["slope"] * distance
            case "bias":
                s = s + number * x["bias"].mT
            case "decay":
                s = s + number * (x["total"][:, :, columns - rows :] - x["total"].mT)
    seen = visible(plan, rows, columns)
    if plan.softmax:
        top = s.masked_fill(~seen, -torch.inf).amax(-1, keepdim=True)
        top = top.maximum(x["sink"] if plan.sink else torch.tensor(-1e30)).detach()
        w = torch.exp((s - top).masked_fill(~seen, -torch.inf))
        rest = torch.exp(x["sink"] - top) if plan.sink else 0
        w = w / (w.sum(-1, keepdim=True) + rest).clamp(min=1e-300)
    else:
        bent = {"sigmoid": torch.sigmoid, "relu": torch.relu, "linear": lambda s: s}
        w = bent[plan.weights](s) * seen
        if plan.floor is not None:
            w = w / w.sum(-1, keepdim=True).abs().clamp(min=plan.floor)
    return (w @ x["V"]).transpose(1, 2)
