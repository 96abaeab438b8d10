"""Runs the kernels of cross-entropy and prints how far each result is from float64.

    losses.py MODULE PLANS interpreted|cuda TOKENS,... DTYPE,... NAME,...

As norms.py. The output is a JSON object: `findings` and `worst`, the largest error by dtype.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType

import torch
from command import opchecked, operator_of, run
from numerics import error, guarded, guarded_allocation, touched
from torch import Tensor

from starc.compiler.kernel_loss import CrossEntropy

TOLERANCE = {torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}
"""Logits and their gradients are rounded to the dtype, and sums over entries round them again."""

IGNORED = -100


def reference(
    plan: CrossEntropy, x: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor
) -> Tensor:
    """The loss from its definition."""
    z = x @ weight.T
    z = (z if bias is None else z + bias) * plan.scale
    if plan.softcap is not None:
        z = plan.softcap * torch.tanh(z / plan.softcap)
    counts = targets != IGNORED
    p = torch.exp(z) / torch.exp(z).sum(-1, keepdim=True)
    return -torch.log(p[counts].gather(1, targets[counts].unsqueeze(1))).mean()


def inputs_of(
    plan: CrossEntropy, tokens: int, dtype: torch.dtype, device: str, biased: bool
) -> list[Tensor]:
    """x (1, tokens, width), weight (vocab, width), bias (vocab,) in buffers of NaN, and targets
    of which some do not count."""
    shapes = [(1, tokens, plan.width), (plan.vocab, plan.width), (plan.vocab,)]
    found = [guarded(shape, dtype, device)[0] for shape in shapes[: 2 + biased]]
    for x in found:
        x.copy_(torch.randn(x.shape) * (1 if x.dim() == 3 else 0.5))
    targets = torch.randint(plan.vocab, (1, tokens))
    targets[0, 1::5] = IGNORED
    return [*found, targets.to(device)]


def check(
    module: ModuleType,
    plan: CrossEntropy,
    tokens: int,
    dtype: torch.dtype,
    device: str,
    worst: dict[str, float],
) -> Iterator[str]:
    torch.manual_seed(tokens)
    if device == "cpu":  # programs that take two rows or three
        module.cached_rows = lambda x: max(len(x) // 2, 1)
    biased = tokens % 2 == 1
    *operands, targets = inputs_of(plan, tokens, dtype, device, biased)
    right = [x.double().cpu().requires_grad_() for x in operands]
    bias = right[2] if biased else None
    expected = reference(plan, right[0][0], right[1], bias, targets[0].cpu())
    slopes = torch.autograd.grad(expected, right)
    arguments = [*operands, *([] if biased else [None]), targets, IGNORED]
    with guarded_allocation() as buffers:
        results = getattr(module, f"launch_{plan.name}")(*arguments, True)
        alone = getattr(module, f"launch_{plan.name}")(*arguments, False)[0]
    loss, *gradients, share = results
    pairs = [("loss", loss, expected.detach()), ("loss alone", alone, expected.detach())]
    names = ("dx", "d_weight", "d_bias")[: 2 + biased]
    pairs += [(n, g * share, d) for n, g, d in zip(names, gradients, slopes, strict=False)]
    for name, result, value in pairs:
        distance = error(result, value)
        worst[str(dtype)] = max(worst.get(str(dtype), 0.0), distance)
        if not distance <= TOLERANCE[dtype]:
            yield f"{plan.name} {tokens} {dtype}: {name} is off by {distance:.1e}"
    if loss.dtype != torch.float32 or gradients[0].dtype != dtype:
        yield f"{plan.name} {tokens} {dtype}: {loss.dtype}, {gradients[0].dtype}"
    if touched(buffers):
        yield f"{plan.name} {tokens} {dtype}: wrote outside of its results"


def check_operator(module: ModuleType, plan: CrossEntropy, device: str) -> Iterator[str]:
    """Findings about the custom operator with the Triton code behind it, autograd included."""
    operator = operator_of(plan)
    *operands, targets = inputs_of(plan, 7, torch.float32, device, True)
    inputs = [x.requires_grad_() for x in operands]
    yield from opchecked(plan, (*inputs, targets, IGNORED, True))
    right = [x.detach().double().cpu().requires_grad_() for x in inputs]
    expected = reference(plan, right[0][0], right[1], right[2], targets[0].cpu())
    slopes = torch.autograd.grad(3 * expected, right)
    loss = operator(*inputs, targets, IGNORED, True)[0]
    for got, value in zip(torch.autograd.grad(3 * loss, inputs), slopes, strict=True):
        if not error(got, value) <= TOLERANCE[torch.float32]:
            yield f"{plan.name}: a gradient through the operator is off by {error(got, value):.1e}"


if __name__ == "__main__":
    run(check, check_operator)
