"""Runs every kernel of a generated file and prints how far it is from float64.

    numerics.py MODULE PLANS interpreted|cuda OPERATOR,...

`interpreted` runs the Triton code in Triton's interpreter, on CPU tensors; the process must have
TRITON_INTERPRET=1. `cuda` runs it on a GPU. The OPERATORs are checked as PyTorch sees them too.
The output is a list of findings, empty when all is well.

Each operand is a view into a larger buffer of NaN, and so is each result: a kernel that reads
outside of its operands returns NaN, one that writes outside of its results leaves a mark, and one
that forgets an element of its results leaves it NaN.
"""

from __future__ import annotations

import importlib.util
import json
import pickle
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from starc.compiler.kernel_plan import GatedConvolution, GatedProduct, KernelPlan

GUARD = 8192  # elements: more than any tile could reach by mistake
BATCH = 2

# One tile and less, several tiles, and none of them full: tiles are 16 to 128 tokens long.
LENGTHS = {torch.float32: (1, 2, 63, 130), torch.float16: (19,), torch.bfloat16: (19,)}

# Largest error allowed, relative to the largest element of the right answer. Kernels compute in
# float32 and round once: half a unit in the last place of 10 and 7 bits, and some room.
TOLERANCE = {torch.float32: 3e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}

# Written from the definitions, to share no formula with the code under test.
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "identity": lambda x: x,
    "silu": lambda x: x / (1 + torch.exp(-x)),
    "gelu": lambda x: x * torch.special.ndtr(x),
    "gelu_tanh": lambda x: x * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (x + 0.044715 * x**3))) / 2,
    "relu": lambda x: x * (x > 0),
    "relu2": lambda x: x * x * (x > 0),
    "sigmoid": lambda x: 1 / (1 + torch.exp(-x)),
    "tanh": lambda x: (torch.exp(2 * x) - 1) / (torch.exp(2 * x) + 1),
    "square": lambda x: x * x,
    "softplus": lambda x: torch.log1p(torch.exp(x)),
    "logsigmoid": lambda x: -torch.log1p(torch.exp(-x)),
    "exp": lambda x: torch.exp(x),
    "elu1": lambda x: torch.where(x > 0, x + 1, torch.exp(x)),
}


def reference(plan: KernelPlan, operands: list[Tensor], parameters: list[Tensor]) -> Tensor:
    """The right answer, from the definition: T is written down as a matrix where there is one."""
    if isinstance(plan, GatedProduct):
        gate, value = operands
        return ACTIVATIONS[plan.activation](gate) * value
    assert isinstance(plan, GatedConvolution)
    filter, *bias = parameters
    named = dict(zip(plan.operands, operands, strict=True))
    u = named["value"] * named.get("input_gate", torch.ones(()))
    length = u.shape[1]
    lag = torch.arange(length)[:, None] - torch.arange(length)[None, :]
    taps = torch.where((lag >= 0) & (lag < plan.taps), filter[:, lag.clamp(0, plan.taps - 1)], 0.0)
    mixed = torch.einsum("cts,bsc->btc", taps, u) + (bias[0] if bias else 0.0)
    return named.get("output_gate", torch.ones(())) * ACTIVATIONS[plan.activation](mixed)


def guarded(shape: tuple[int, ...], dtype: torch.dtype, device: str) -> tuple[Tensor, Tensor]:
    """(contiguous tensor of NaN, the buffer of NaN that it is in the middle of)."""
    size = int(torch.Size(shape).numel())
    buffer = torch.full((size + 2 * GUARD,), torch.nan, dtype=dtype, device=device)
    return buffer[GUARD : GUARD + size].view(shape), buffer


@contextmanager
def guarded_allocation() -> Iterator[list[Tensor]]:
    """Within it `Tensor.new_empty` gives guarded tensors; yields the list of their buffers."""
    buffers: list[Tensor] = []
    original = torch.Tensor.new_empty

    def new_empty(self: Tensor, shape: Any, *, dtype: Any = None, **more: Any) -> Tensor:
        if more:  # the interpreter's own
            return original(self, shape, dtype=dtype, **more)
        tensor, buffer = guarded(tuple(shape), dtype or self.dtype, str(self.device))
        buffers.append(buffer)
        return tensor

    with mock.patch.object(torch.Tensor, "new_empty", new_empty):
        yield buffers


def touched(buffers: list[Tensor]) -> bool:
    return any(not bool(x[:GUARD].isnan().all() and x[-GUARD:].isnan().all()) for x in buffers)


def error(result: Tensor, right: Tensor) -> float:
    if result.shape != right.shape or not bool(result.isfinite().all()):
        return float("inf")
    return float((result.double().cpu() - right).abs().max() / right.abs().max().clamp_min(1e-30))


def inputs_of(
    plan: GatedProduct | GatedConvolution, length: int, dtype: torch.dtype, device: str
) -> list[Tensor]:
    """Random inputs in buffers of NaN; rows lie apart, as in a slice of a wider projection."""
    inputs = []
    for _ in plan.inputs:
        wide, _buffer = guarded((BATCH, length, plan.width + 24), dtype, device)
        tensor = wide[..., 8 : 8 + plan.width]
        tensor.copy_(torch.randn(tensor.shape) * 1.5)
        inputs.append(tensor)
    if isinstance(plan, GatedConvolution):
        shapes = {"filter": (plan.channels, plan.taps), "bias": (plan.channels,)}
        for name in plan.parameters:
            parameter, _buffer = guarded(shapes[name], torch.float32, device)
            inputs.append(parameter.copy_(torch.randn(parameter.shape)))
    return inputs


def split(plan: GatedProduct | GatedConvolution, tensors: list[Tensor]) -> list[Tensor]:
    """Inputs, or their gradients, as one tensor for each operand and then the filter, if any."""
    if not plan.packed:
        return tensors
    return [*tensors[0].split(plan.channels, dim=-1), *tensors[1:]]


def check(
    module: ModuleType,
    plan: GatedProduct | GatedConvolution,
    length: int,
    dtype: torch.dtype,
    device: str,
) -> Iterator[str]:
    """Findings about the launches of one kernel, forward and backward, at one length and dtype."""
    torch.manual_seed(length)
    inputs = inputs_of(plan, length, dtype, device)
    right = [x.double().cpu().requires_grad_() for x in split(plan, inputs)]
    count = len(plan.operands)
    y_right = reference(plan, right[:count], right[count:])
    dy = torch.randn(y_right.shape).to(dtype)
    gradients_right = torch.autograd.grad(y_right, right, dy.double())

    with guarded_allocation() as buffers:
        y = getattr(module, f"launch_{plan.name}")(*inputs)
        gradients = getattr(module, f"launch_{plan.name}_backward")(dy.to(device), *inputs)
    gradients = [gradients] if isinstance(gradients, Tensor) else list(gradients)

    names = ["y", *(f"d_{name}" for name in plan.operands), "d_filter", "d_bias"]
    results = [y, *split(plan, gradients)]
    for name, result, expected in zip(names, results, (y_right, *gradients_right), strict=False):
        distance = error(result, expected.detach())
        # The filter and its gradient are float32 whatever the operands are.
        wide = name in ("d_filter", "d_bias")
        allowed = TOLERANCE[torch.float32 if wide else dtype]
        if distance > allowed * (4 if wide else 1):
            yield f"{plan.name} T={length} {dtype}: {name} is off by {distance:.1e}"
        if result.dtype != (torch.float32 if wide else dtype):
            yield f"{plan.name} T={length} {dtype}: {name} is {result.dtype}"
    if len(results) != len(right) + 1:
        yield f"{plan.name}: {len(results)} results"
    if touched(buffers):
        yield f"{plan.name} T={length} {dtype}: wrote outside of its results"


def check_mixed(
    module: ModuleType, plan: GatedProduct | GatedConvolution, device: str
) -> Iterator[str]:
    """Findings about operands of several dtypes: float32 results, gradients like their operands."""
    if plan.packed or len(plan.operands) == 1:
        return
    torch.manual_seed(0)
    inputs = inputs_of(plan, 5, torch.float32, device)
    inputs[0] = inputs[0].bfloat16()
    right = [x.double().cpu() for x in inputs]
    y = getattr(module, f"launch_{plan.name}")(*inputs)
    gradients = getattr(module, f"launch_{plan.name}_backward")(y, *inputs)
    if y.dtype != torch.float32 or [x.dtype for x in gradients] != [x.dtype for x in inputs]:
        yield f"{plan.name}: mixed operands give {y.dtype}, {[x.dtype for x in gradients]}"
    count = len(plan.operands)
    distance = error(y, reference(plan, right[:count], right[count:]))
    if distance > TOLERANCE[torch.float32]:
        yield f"{plan.name}: mixed operands are off by {distance:.1e}"


def check_operator(
    module: ModuleType, plan: GatedProduct | GatedConvolution, device: str
) -> Iterator[str]:
    """Findings about the custom operator with the Triton code behind it, autograd included."""
    operator = getattr(getattr(torch.ops, plan.namespace), plan.name).default
    inputs = inputs_of(plan, 3, torch.float32, device)
    turned = [(x.mT.contiguous().mT if x.ndim > 1 else x).requires_grad_() for x in inputs]
    try:
        torch.library.opcheck(operator, tuple(turned))
    except Exception as failure:  # opcheck raises whatever the failing check raised
        yield f"{plan.name}: opcheck: {failure}"
    with torch.enable_grad():
        operator(*turned).sum().backward()  # the gradient of a sum has no stride at all
    right = [x.detach().double().cpu().requires_grad_() for x in split(plan, turned)]
    count = len(plan.operands)
    reference(plan, right[:count], right[count:]).sum().backward()
    gradient, expected = turned[0].grad, right[0].grad
    assert gradient is not None
    assert expected is not None
    distance = error(gradient[..., : plan.channels], expected)
    if distance > TOLERANCE[torch.float32]:
        yield f"{plan.name}: gradient through the operator is off by {distance:.1e}"


def load(path: str) -> ModuleType:
    """The generated file at a path as a module."""
    spec = importlib.util.spec_from_file_location("generated", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main() -> None:
    module_path, plans_path, mode, operators = sys.argv[1:]
    if mode == "interpreted":
        from starc.runtime.interpreter import correct_interpreter

        correct_interpreter()
    device = "cuda" if mode == "cuda" else "cpu"
    module = load(module_path)
    plans: tuple[GatedProduct | GatedConvolution, ...]
    plans = pickle.loads(Path(plans_path).read_bytes())

    findings: list[str] = []
    for plan in plans:
        # A product knows no neighbours, so that one length shows what there is to see.
        product = isinstance(plan, GatedProduct)
        for dtype, lengths in LENGTHS.items():
            for length in (19,) if product else lengths:
                findings += check(module, plan, length, dtype, device)
        findings += check_mixed(module, plan, device)
    for plan in plans:
        if plan.name not in operators.split(","):
            continue
        if mode == "interpreted":  # put the Triton code where the PyTorch body was
            for name in (plan.name, f"{plan.name}_backward"):
                launch = getattr(module, f"launch_{name}")
                torch.library.register_kernel(f"{plan.namespace}::{name}", "cpu", launch)
        findings += check_operator(module, plan, device)
    json.dump(findings, sys.stdout)


if __name__ == "__main__":
    main()
