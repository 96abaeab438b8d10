"""Runs the kernels of routed experts and prints how far each result is from float64.

    experts.py MODULE PLANS interpreted|cuda TOKENS,... DTYPE,... NAME,...

As numerics.py, whose guards it uses. Operands lie among NaN, and so do results; programs run in an
order of chance. Of three routings one sends all tokens to the same experts, so that others have
none. The operators that are NAMEd are checked as PyTorch sees them too. The output is a JSON
object: `findings`, empty when all is well, and `worst`, the largest error by dtype.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType

import torch
from command import opchecked, operator_of, run
from numerics import ACTIVATIONS, error, guarded, guarded_allocation, touched
from torch import Tensor

from starc.compiler.kernel_experts import ExpertProducts

TOLERANCE = {torch.float32: 5e-6, torch.float16: 2e-3, torch.bfloat16: 1.2e-2}
"""Hidden values are rounded once more, and so are the parts of a token."""

ROUTINGS = ("random", "one", "last")


def reference(
    plan: ExpertProducts, x: Tensor, gates: Tensor, chosen: Tensor, weights: list[Tensor]
) -> Tensor:
    """The definition: every expert sees every token, weighed by what its gates sum to."""
    e, y = plan.experts, torch.zeros(*x.shape[:-1], plan.out, dtype=x.dtype)
    for i in range(e):
        inner, biases = x @ weights[i].T, weights[2 * e :]
        if plan.bias[0]:
            inner, biases = inner + biases[i], biases[e:]
        value: Tensor | float = 1.0
        if plan.gated:
            inner, value = inner[..., : plan.hidden], inner[..., plan.hidden :]
        result = ACTIVATIONS[plan.activation](inner) * value @ weights[e + i].T
        if plan.bias[1]:
            result = result + biases[i]
        y = y + (gates * (chosen == i)).sum(-1, keepdim=True) * result
    return y


def inputs_of(
    plan: ExpertProducts, tokens: int, routing: str, dtype: torch.dtype, device: str
) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
    """Random operands in buffers of NaN; rows of x lie apart, as in a slice of something wider."""
    wide, _buffer = guarded((1, tokens, plan.width + 16), dtype, device)
    x = wide[..., : plan.width].copy_(torch.randn(1, tokens, plan.width))
    gates, _buffer = guarded((1, tokens, plan.top), dtype, device)
    gates.copy_(torch.rand(gates.shape) + 0.5)
    scores = torch.rand(1, tokens, plan.experts)
    if routing == "one":
        scores += torch.arange(plan.experts)
    chosen = scores.topk(plan.top, -1).indices
    if routing == "last":  # an expert may be chosen twice: weights are those of a program
        chosen = torch.full_like(chosen, plan.experts - 1)
    shapes = [(plan.first_width, plan.width), (plan.out, plan.hidden)]
    shapes += [s for s, has in zip([shapes[0][:1], shapes[1][:1]], plan.bias, strict=True) if has]
    weights = []
    for shape in shapes:
        for _ in range(plan.experts):
            weight, _buffer = guarded(shape, dtype, device)
            weights.append(weight.copy_(torch.randn(shape) / shape[-1] ** 0.5))
    return x, gates, chosen.to(device), weights


def check(
    module: ModuleType,
    plan: ExpertProducts,
    tokens: int,
    dtype: torch.dtype,
    device: str,
    worst: dict[str, float],
) -> Iterator[str]:
    for routing in ROUTINGS if dtype == torch.float32 else ROUTINGS[:1]:
        torch.manual_seed(tokens)
        x, gates, chosen, weights = inputs_of(plan, tokens, routing, dtype, device)
        right = [w.double().cpu().requires_grad_() for w in (x, gates, *weights)]
        y_right = reference(plan, right[0], right[1], chosen.cpu(), right[2:])
        dy = torch.randn(y_right.shape).to(dtype)
        expected = torch.autograd.grad(y_right, right, dy.double())
        sizes = range(0, len(weights), plan.experts)
        stacks = [torch.stack(expected[2 + i : 2 + i + plan.experts]) for i in sizes]
        with guarded_allocation() as buffers:
            alone = getattr(module, f"launch_{plan.name}")(x, gates, chosen, weights, False)[0]
            y, before, hidden, order, bounds = getattr(module, f"launch_{plan.name}")(
                x, gates, chosen, weights, True
            )
            d = getattr(module, f"launch_{plan.name}_backward")(
                dy.to(device), x, gates, order, bounds, before, hidden, weights
            )
        names = ["y", "y alone", "dx", "d_gates", *(f"d_weight_{i}" for i in range(len(stacks)))]
        values = (y_right, y_right, *expected[:2], *stacks)
        place = f"{plan.name} T={tokens} {routing} {dtype}"
        for name, result, value in zip(names, (y, alone, *d), values, strict=True):
            distance = error(result, value.detach())
            worst[str(dtype)] = max(worst.get(str(dtype), 0.0), distance)
            if not distance <= TOLERANCE[dtype]:
                yield f"{place}: {name} is off by {distance:.1e}"
            if result.dtype != dtype:
                yield f"{place}: {name} is {result.dtype}"
        if touched(buffers):
            yield f"{place}: wrote outside of its results"


def check_operator(module: ModuleType, plan: ExpertProducts, device: str) -> Iterator[str]:
    """Findings about the custom operator with the Triton code behind it: float32 weights that are
    copied for products in bfloat16, as under autocast, and gradients by autograd."""
    operator = operator_of(plan)
    torch.manual_seed(0)
    x, gates, chosen, weights = inputs_of(plan, 5, "random", torch.float32, device)
    leaves = [w.detach().clone().requires_grad_() for w in (x, gates, *weights)]
    arguments = leaves[0], leaves[1], chosen, leaves[2:]
    yield from opchecked(plan, (*arguments, True))
    right = [w.detach().double().cpu().requires_grad_() for w in leaves]
    y_right = reference(plan, right[0], right[1], chosen.cpu(), right[2:])
    expected = torch.autograd.grad((y_right**3).sum(), right)
    y = operator(*arguments, True)[0]
    for got, value in zip(torch.autograd.grad((y**3).sum(), leaves), expected, strict=True):
        if not error(got, value) <= 4 * TOLERANCE[torch.float32]:
            yield f"{plan.name}: a gradient through the operator is off by {error(got, value):.1e}"
    y = operator(leaves[0].bfloat16(), leaves[1], chosen, leaves[2:], True)[0]
    if y.dtype != torch.float32 or not error(y.detach(), y_right.detach()) <= 2.5e-2:
        yield f"{plan.name}: products in bfloat16 give {y.dtype}, off by {error(y, y_right):.1e}"
    if any(d.dtype != torch.float32 for d in torch.autograd.grad(y.sum(), leaves[2:])):
        yield f"{plan.name}: gradients of weights have not their dtype"


if __name__ == "__main__":
    run(check, check_operator, ("", "_backward"))
