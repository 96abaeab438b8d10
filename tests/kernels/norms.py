"""Runs the kernels of norms and prints how far each result is from float64.

    norms.py MODULE PLANS interpreted|cuda ROWS,... DTYPE,... NAME,...

As numerics.py, whose guards it uses. Operands lie among NaN, and so do results; programs run in an
order of chance. The operators that are NAMEd are checked as PyTorch sees them too. The output is a
JSON object: `findings`, empty when all is well, and `worst`, the largest error by dtype.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType

import torch
from command import opchecked, operator_of, run
from numerics import error, guarded, guarded_allocation, touched
from torch import Tensor

from starc.compiler.kernel_norm import NormKernel

EPS = 1e-3  # large enough to show in the results

TOLERANCE = {torch.float32: 3e-6, torch.float16: 2e-3, torch.bfloat16: 1.2e-2}


def reference(plan: NormKernel, x: Tensor, weights: list[Tensor]) -> Tensor:
    """The norm from its definition."""
    size = plan.channels
    if plan.kind == "layer":
        x = x - x.sum(-1, keepdim=True) / size
    total = (x * x).sum(-1, keepdim=True) / (1 if plan.kind == "l2" else size)
    y = x / (total + EPS) ** 0.5
    if weights:
        y = y * (weights[0] + (plan.weight == "offset"))
    return y + weights[1] if plan.bias else y


def inputs_of(plan: NormKernel, rows: int, dtype: torch.dtype, device: str) -> list[Tensor]:
    """Random operands in buffers of NaN; rows lie apart, as in a slice of a wider projection."""
    found = []
    width = plan.heads * plan.channels
    for _ in range(1 + plan.residual):
        wide, _buffer = guarded((1, rows, width + 24), dtype, device)
        x = wide[..., 8 : 8 + width]
        found.append(x.unflatten(2, (plan.heads, plan.channels)) if plan.heads > 1 else x)
    found += [guarded(plan.weight_shape, torch.float32, device)[0] for _ in plan.weights]
    for x in found:
        x.copy_(torch.randn(x.shape) * 1.5 + 0.25)
    return found


def check(
    module: ModuleType,
    plan: NormKernel,
    rows: int,
    dtype: torch.dtype,
    device: str,
    worst: dict[str, float],
) -> Iterator[str]:
    torch.manual_seed(rows)
    inputs = inputs_of(plan, rows, dtype, device)
    right = [x.double().cpu().requires_grad_() for x in inputs]
    first = 1 + plan.residual
    total_right = right[0] + right[1] if plan.residual else right[0]
    if plan.residual:  # the stream is kept in its dtype, and the norm is that of what is kept
        rounded = (inputs[0].float() + inputs[1].float()).to(dtype).double().cpu()
        total_right = total_right + (rounded - total_right).detach()
    y_right = reference(plan, total_right, right[first:])
    dy, d_total = (torch.randn(y_right.shape).to(dtype) for _ in range(2))
    outputs, slopes = [y_right], [dy.double()]
    if plan.residual:
        outputs, slopes = [total_right, y_right], [d_total.double(), dy.double()]
    expected = torch.autograd.grad(outputs, [right[0], *right[first:]], slopes)

    launch = getattr(module, f"launch_{plan.name}")
    backward = getattr(module, f"launch_{plan.name}_backward")
    dy, d_total = dy.to(device), d_total.to(device)
    with guarded_allocation() as buffers:
        results = launch(*inputs, EPS)
        if plan.residual:
            d = backward(dy, d_total, results[0], *inputs[first : first + 1], EPS)
            alone = backward(dy, None, results[0], *inputs[first : first + 1], EPS)
        else:
            d = backward(dy, *inputs[: 1 + bool(plan.weights)], EPS)
    results = results if plan.residual else (results,)
    gradients = d if isinstance(d, tuple) else (d,)
    names = [*(("total", "y") if plan.residual else ("y",)), "dx", *plan.weights]
    for name, result, value in zip(
        names, (*results, *gradients), (*outputs, *expected), strict=True
    ):
        weight = name in plan.weights
        distance = error(result, value.detach())
        key = f"{'d_weight ' if weight else ''}{dtype}"
        worst[key] = max(worst.get(key, 0.0), distance)
        if not distance <= TOLERANCE[dtype]:
            yield f"{plan.name} {rows} {dtype}: {name} is off by {distance:.1e}"
        mixed = plan.kind == "layer" or plan.weight in ("offset", "own")
        wide = weight or (name == "y" and mixed and plan.weights)
        if result.dtype != (torch.float32 if wide else dtype):
            yield f"{plan.name} {rows} {dtype}: {name} is {result.dtype}"
    if plan.residual:
        dx = alone[0] if isinstance(alone, tuple) else alone
        distance = error(dx, expected[0] - d_total.double().cpu())
        if not distance <= 2 * TOLERANCE[dtype]:
            yield f"{plan.name} {rows} {dtype}: dx of an unread stream is off by {distance:.1e}"
    if touched(buffers):
        yield f"{plan.name} {rows} {dtype}: wrote outside of its results"


def check_operator(module: ModuleType, plan: NormKernel, device: str) -> Iterator[str]:
    """Findings about the custom operator with the Triton code behind it, autograd included."""
    operator = operator_of(plan)
    inputs = [x.requires_grad_() for x in inputs_of(plan, 3, torch.float32, device)]
    yield from opchecked(plan, (*inputs, EPS))
    first = 1 + plan.residual
    right = [x.detach().double().cpu().requires_grad_() for x in inputs]
    y_right = reference(plan, sum(right[:first]), right[first:])  # type: ignore[arg-type]
    expected = torch.autograd.grad((y_right**3).sum(), right)
    result = operator(*inputs, EPS)  # the stream behind it is not read
    y = result[1] if plan.residual else result
    for got, value in zip(torch.autograd.grad((y**3).sum(), inputs), expected, strict=True):
        if not error(got, value) <= 4 * TOLERANCE[torch.float32]:
            yield f"{plan.name}: a gradient through the operator is off by {error(got, value):.1e}"


if __name__ == "__main__":
    run(check, check_operator, ("", "_backward"))
