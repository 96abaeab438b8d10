"""Runs the kernels of memories and prints how far each result is from float64.

    gathers.py MODULE PLANS interpreted|cuda TOKENS,... DTYPE,... NAME,...

As numerics.py, whose guards it uses. Operands lie among NaN, and so do results; programs run in an
order of chance. Some rows are chosen by every token, some by none. The operators that are NAMEd are
checked as PyTorch sees them too. The output is a JSON object: `findings`, empty when all is well,
and `worst`, the largest error by dtype.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType

import torch
from command import opchecked, operator_of, run
from numerics import TOLERANCE, error, guarded, guarded_allocation, touched
from torch import Tensor

from starc.compiler.kernel_gather import Gather


def inputs_of(plan: Gather, tokens: int, dtype: torch.dtype, device: str) -> list[Tensor]:
    """Chosen rows, weights and the table, in buffers of NaN."""
    rows = torch.randint(plan.rows // 2 + 1, (tokens, plan.reads), device=device)
    rows[:, 0] = plan.rows - 1
    found = [guarded(s, dtype, device)[0] for s in (rows.shape, (plan.rows, plan.channels))]
    return [rows, *(x.copy_(torch.randn(x.shape)) for x in found)]


def reference(rows: Tensor, weights: Tensor, table: Tensor) -> Tensor:
    return torch.einsum("tj,tjc->tc", weights, table[rows])


def check(
    module: ModuleType,
    plan: Gather,
    tokens: int,
    dtype: torch.dtype,
    device: str,
    worst: dict[str, float],
) -> Iterator[str]:
    torch.manual_seed(tokens)
    rows, weights, table = inputs_of(plan, tokens, dtype, device)
    right = [x.double().cpu().requires_grad_() for x in (weights, table)]
    y_right = reference(rows.cpu(), *right)
    dy = torch.randn(y_right.shape).to(dtype)
    expected = torch.autograd.grad(y_right, right, dy.double())
    wide, _buffer = guarded((tokens, plan.channels + 16), dtype, device)
    apart = wide[:, 8 : 8 + plan.channels].copy_(dy)
    with guarded_allocation() as buffers:
        y = getattr(module, f"launch_{plan.name}")(rows, weights, table)
        d = getattr(module, f"launch_{plan.name}_backward")(apart, rows, weights, table)
    place = f"{plan.name} {tokens} {dtype}"
    for name, result, value in zip(
        ("y", "d_weights", "d_table"), (y, *d), (y_right, *expected), strict=True
    ):
        distance = error(result, value.detach())
        worst[str(dtype)] = max(worst.get(str(dtype), 0.0), distance)
        if not distance <= TOLERANCE[dtype] or result.dtype != dtype:
            yield f"{place}: {name} is {result.dtype}, off by {distance:.1e}"
    if touched(buffers):
        yield f"{place}: wrote outside of its results"


def check_operator(module: ModuleType, plan: Gather, device: str) -> Iterator[str]:
    """Findings about the custom operator with the Triton code behind it, autograd included."""
    torch.manual_seed(0)
    rows, *leaves = inputs_of(plan, 3, torch.float32, device)
    leaves = [x.detach().clone().requires_grad_() for x in leaves]
    yield from opchecked(plan, (rows, *leaves))
    right = [x.detach().double().cpu().requires_grad_() for x in leaves]
    expected = torch.autograd.grad((reference(rows.cpu(), *right) ** 3).sum(), right)
    results = torch.autograd.grad((operator_of(plan)(rows, *leaves) ** 3).sum(), leaves)
    for got, value in zip(results, expected, strict=True):
        if not error(got, value) <= 4 * TOLERANCE[torch.float32]:
            yield f"{plan.name}: a gradient through the operator is off by {error(got, value):.1e}"


if __name__ == "__main__":
    run(check, check_operator, ("", "_backward"))
