"""Runs the kernels of rotary encodings and prints how far each result is from float64.

    rotations.py MODULE PLANS interpreted|cuda TOKENS,... DTYPE,... NAME,...

As norms.py. The output is a JSON object: `findings` and `worst`, the largest error by dtype.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType

import torch
from command import opchecked, operator_of, run
from numerics import error, guarded, guarded_allocation, touched
from torch import Tensor

from starc.compiler.kernel_rotary import Rotary

BATCH = 2

TOLERANCE = {torch.float32: 1e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}


def reference(plan: Rotary, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Every pair as a complex number, times the one of its angle."""
    turned, rest = x[..., : plan.dims], x[..., plan.dims :]
    shape = (2, -1) if plan.pairs == "half" else (-1, 2)
    axis = -2 if plan.pairs == "half" else -1
    a, b = turned.unflatten(-1, shape).unbind(axis)
    z = torch.complex(a, b) * torch.complex(cos, sin)
    return torch.cat((torch.stack((z.real, z.imag), dim=axis).flatten(-2), rest), dim=-1)


def inputs_of(plan: Rotary, tokens: int, dtype: torch.dtype, device: str) -> list[Tensor]:
    """Heads in buffers of NaN, queries as a slice of a wider projection and keys heads first; then
    the tables."""
    width = plan.heads * plan.channels
    wide, _ = guarded((BATCH, tokens, width + 24), dtype, device)
    found = [wide[..., 8 : 8 + width].unflatten(2, (plan.heads, plan.channels))]
    if plan.others:
        shape = (BATCH, plan.others, tokens, plan.channels)
        found.append(guarded(shape, dtype, device)[0].transpose(1, 2))
    for x in found:
        x.copy_(torch.randn(x.shape))
    angle = torch.rand(tokens, 1, plan.half) * 6
    for table in (angle.cos() * 1.25, angle.sin() * 1.25):
        found.append(guarded(table.shape, torch.float32, device)[0].copy_(table))
    return found


def check(
    module: ModuleType,
    plan: Rotary,
    tokens: int,
    dtype: torch.dtype,
    device: str,
    worst: dict[str, float],
) -> Iterator[str]:
    torch.manual_seed(tokens)
    *inputs, cos, sin = inputs_of(plan, tokens, dtype, device)
    right = [x.double().cpu().requires_grad_() for x in inputs]
    tables = cos.double().cpu(), sin.double().cpu()
    expected = [reference(plan, x, *tables) for x in right]
    slopes = [torch.randn(y.shape).to(dtype) for y in expected]
    gradients = torch.autograd.grad(expected, right, [dy.double() for dy in slopes])
    launch = getattr(module, f"launch_{plan.name}")
    with guarded_allocation() as buffers:
        forward = launch(*inputs, cos, sin, False)
        backward = launch(*(dy.to(device) for dy in slopes), cos, sin, True)
    forward = forward if isinstance(forward, tuple) else (forward,)
    backward = backward if isinstance(backward, tuple) else (backward,)
    for result, value in zip((*forward, *backward), (*expected, *gradients), strict=True):
        distance = error(result, value.detach())
        worst[str(dtype)] = max(worst.get(str(dtype), 0.0), distance)
        if not distance <= TOLERANCE[dtype] or result.dtype != dtype:
            yield f"{plan.name} {tokens} {dtype}: off by {distance:.1e}, {result.dtype}"
    if touched(buffers):
        yield f"{plan.name} {tokens} {dtype}: wrote outside of its results"


def check_operator(module: ModuleType, plan: Rotary, device: str) -> Iterator[str]:
    """Findings about the custom operator with the Triton code behind it, autograd included."""
    operator = operator_of(plan)
    *inputs, cos, sin = inputs_of(plan, 3, torch.float32, device)
    inputs = [x.requires_grad_() for x in inputs]
    yield from opchecked(plan, (*inputs, cos, sin, False))
    right = [x.detach().double().cpu().requires_grad_() for x in inputs]
    turned = [reference(plan, x, cos.double().cpu(), sin.double().cpu()) for x in right]
    expected = torch.autograd.grad(sum((y**3).sum() for y in turned), right)
    result = operator(*inputs, cos, sin, False)
    result = result if isinstance(result, tuple | list) else (result,)
    found = torch.autograd.grad(sum((y**3).sum() for y in result), inputs)
    for got, value in zip(found, expected, strict=True):
        if not error(got, value) <= 1e-5:
            yield f"{plan.name}: a gradient through the operator is off by {error(got, value):.1e}"


if __name__ == "__main__":
    run(check, check_operator)
