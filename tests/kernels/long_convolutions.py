"""Runs the kernels of long convolutions and prints how far each result is from float64.

    long_convolutions.py MODULE PLANS interpreted|cuda TOKENS,... DTYPE,... NAME,...

As numerics.py, whose guards it uses. Operands lie among NaN, and so do results; programs run in an
order of chance. Every plan is checked with a filter as long as the sequence and with one a third as
long. The operators that are NAMEd are checked as PyTorch sees them too. The output is a JSON
object: `findings`, empty when all is well, and `worst`, the largest error by dtype.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType

import torch
from command import opchecked, operator_of, run
from numerics import BATCH, error, guarded, guarded_allocation, touched
from torch import Tensor

from starc.compiler.kernel_long_convolution import LongConvolution

TOLERANCE = {torch.float32: 3e-6, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}
"""Relative to the largest element. Operands of the products are rounded to the dtype: the gated
value, the filter, and what the filter gives before its gate."""

NAMES = ("d_filter", "d_output_gate", "d_input_gate", "d_value")


def reference(
    filter: Tensor, output_gate: Tensor | None, input_gate: Tensor | None, value: Tensor
) -> Tensor:
    """The right answer, from the definition: T is written down as a matrix."""
    u = value if input_gate is None else input_gate * value
    taps, length = filter.shape[0], u.shape[1]
    lag = torch.arange(length)[:, None] - torch.arange(length)[None, :]
    seen = ((lag >= 0) & (lag < taps)).unsqueeze(-1)
    matrix = torch.where(seen, filter[lag.clamp(0, taps - 1)], 0.0)  # (T, S, lanes)
    matrix = matrix.repeat_interleave(u.shape[2] // filter.shape[1], dim=2)
    y = torch.einsum("tsc,bsc->btc", matrix, u)
    return y if output_gate is None else output_gate * y


def inputs_of(
    plan: LongConvolution, length: int, taps: int, dtype: torch.dtype, device: str
) -> list[Tensor | None]:
    """Random inputs in buffers of NaN; rows lie apart, as in a slice of a wider projection."""
    filter, _buffer = guarded((taps, plan.lanes), torch.float32, device)
    found: list[Tensor | None] = [filter.copy_(torch.randn(filter.shape) / taps**0.5)]
    for there in (plan.output_gate, plan.input_gate, True):
        wide, _buffer = guarded((BATCH, length, plan.channels + 24), dtype, device)
        x = wide[..., 8 : 8 + plan.channels]
        found.append(x.copy_(torch.randn(x.shape)) if there else None)
    return found


def right_of(inputs: list[Tensor | None]) -> list[Tensor | None]:
    return [None if x is None else x.detach().double().cpu().requires_grad_() for x in inputs]


def check(
    module: ModuleType,
    plan: LongConvolution,
    length: int,
    dtype: torch.dtype,
    device: str,
    worst: dict[str, float],
) -> Iterator[str]:
    for taps in sorted({length, (length + 2) // 3}):
        torch.manual_seed(length)
        inputs = inputs_of(plan, length, taps, dtype, device)
        right = right_of(inputs)
        y_right = reference(*right)  # type: ignore[arg-type]
        dy = torch.randn(y_right.shape).to(dtype)
        given = [x for x in right if x is not None]
        expected = torch.autograd.grad(y_right, given, dy.double())
        with guarded_allocation() as buffers:
            y, mixed = getattr(module, f"launch_{plan.name}")(*inputs)
            backward = getattr(module, f"launch_{plan.name}_backward")
            gradients = backward(dy.to(device), *inputs, mixed)
        results = [y, *(d for d, x in zip(gradients, inputs, strict=True) if x is not None)]
        names = ["y", *(name for name, x in zip(NAMES, inputs, strict=True) if x is not None)]
        for name, result, value in zip(names, results, (y_right, *expected), strict=True):
            distance = error(result, value.detach())
            worst[str(dtype)] = max(worst.get(str(dtype), 0.0), distance)
            where = f"{plan.name} T={length} of {taps} taps {dtype}: {name}"
            if not distance <= TOLERANCE[dtype]:
                yield f"{where} is off by {distance:.1e}"
            if result.dtype != (torch.float32 if name == "d_filter" else dtype):
                yield f"{where} is {result.dtype}"
        if touched(buffers):
            yield f"{plan.name} T={length} {dtype}: wrote outside of its results"


def check_operator(module: ModuleType, plan: LongConvolution, device: str) -> Iterator[str]:
    """Findings about the custom operator with the Triton code behind it, autograd included."""
    operator = operator_of(plan)
    inputs = inputs_of(plan, 5, 5, torch.float32, device)
    for x in inputs:
        if x is not None:
            x.requires_grad_()
    yield from opchecked(plan, tuple(inputs))
    right = right_of(inputs)
    y, _ = operator(*inputs)
    given = [x for x in inputs if x is not None]
    found = torch.autograd.grad((y**3).sum(), given)
    y_right = reference(*right)  # type: ignore[arg-type]
    expected = torch.autograd.grad((y_right**3).sum(), [x for x in right if x is not None])
    for got, value in zip(found, expected, strict=True):
        if not error(got, value) <= 4 * TOLERANCE[torch.float32]:
            yield f"{plan.name}: a gradient through the operator is off by {error(got, value):.1e}"


if __name__ == "__main__":
    run(check, check_operator, ("", "_backward"))
