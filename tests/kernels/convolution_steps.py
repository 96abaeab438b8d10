"""Runs the kernels of single tokens of convolutions and prints how far they are from float64.

    convolution_steps.py MODULE PLANS interpreted|cuda

As numerics.py, whose guards it uses. The output is a list of findings, empty when all is well.
"""

from __future__ import annotations

import json
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numerics
import torch
from command import prepared

from starc.compiler.kernel_convolution_step import ConvolutionStep


def check(
    module: ModuleType, plan: ConvolutionStep, dtype: torch.dtype, device: str
) -> Iterator[str]:
    """Findings about one launch: y, and the values of the cache, which move up by one."""
    torch.manual_seed(0)
    inputs = numerics.inputs_of(plan.of, 1, dtype, device)
    shape = (numerics.BATCH, plan.past, plan.channels)
    past, buffer = numerics.guarded(shape, dtype, device)
    past.copy_(torch.randn(shape))
    given = [x.double().cpu() for x in numerics.split(plan.of, inputs)]
    operands, (filter, *bias) = given[: len(plan.operands)], given[len(plan.operands) :]
    named = dict(zip(plan.operands, operands, strict=True))
    u = named["value"] * named.get("input_gate", torch.ones(()))
    seen = torch.cat((past.double().cpu(), u), dim=1)
    y = sum(filter[:, i] * seen[:, -1 - i] for i in range(plan.of.taps))
    y = numerics.ACTIVATIONS[plan.of.activation](y + (bias[0] if bias else 0.0))
    y = y[:, None] * named.get("output_gate", torch.ones(()))
    with numerics.guarded_allocation() as buffers:
        result = getattr(module, f"launch_{plan.name}")(*inputs, past)
    for name, found, right in (("y", result, y), ("past", past, seen[:, 1:])):
        if not (distance := numerics.error(found, right)) <= numerics.TOLERANCE[dtype]:
            yield f"{plan.name} {dtype}: {name} is off by {distance:.1e}"
    if numerics.touched([*buffers, buffer]):
        yield f"{plan.name} {dtype}: wrote outside of its results"


def main() -> None:
    module_path, plans_path, mode = sys.argv[1:]
    device, module = prepared(mode), numerics.load(module_path)
    plans: tuple[ConvolutionStep, ...] = pickle.loads(Path(plans_path).read_bytes())
    findings = []
    for plan in plans:
        for dtype in (torch.float32, torch.float16, torch.bfloat16):
            findings += check(module, plan, dtype, device)
    json.dump(findings, sys.stdout)


if __name__ == "__main__":
    main()
