"""Runs attention kernels and prints how far they are from float64, and what is wrong with them.

    attention_numerics.py MODULE PLANS interpreted|cuda LENGTHS DTYPES OPERATORS

LENGTHS are like `70,5+65`: 70 tokens, and 5 queries at the end of 65 keys. OPERATORs are checked as
PyTorch sees them too. Operands and results lie in buffers of NaN, as in numerics.py, and in the
interpreter programs run in an order of chance.
"""

from __future__ import annotations

import json
import pickle
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import torch
from attention_reference import reference
from command import opchecked, prepared, put_launches
from numerics import error, guarded, guarded_allocation, load, touched
from torch import Tensor

from starc.compiler.kernel_attention import FusedAttention
from starc.compiler.kernel_attention_step import AttentionStep
from starc.compiler.kernel_plan import KernelPlan

BATCH = 2


# Largest error allowed, relative to the largest element. Products of tensors that were rounded to
# 10 or 7 bits on the way: weights, their gradients and the result.
TOLERANCE = {torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}


def operands_of(
    plan: FusedAttention, rows: int, columns: int, dtype: torch.dtype, device: str
) -> dict[str, Tensor]:
    """Random operands in buffers of NaN: C is a slice of a wider projection, B lies heads first,
    as a rotation leaves it, and V as it comes."""
    c_width = plan.c_heads * plan.channels
    wide, _ = guarded((BATCH, rows, c_width + 24), dtype, device)
    c = wide[..., 8 : 8 + c_width].unflatten(2, (plan.c_heads, plan.channels))
    turned, _ = guarded((BATCH, plan.b_heads, columns, plan.channels), dtype, device)
    v, _ = guarded((BATCH, columns, plan.v_heads, plan.v_channels), dtype, device)
    found = {"C": c, "B": turned.transpose(1, 2), "V": v}
    for name in plan.terms:
        length = columns if name in ("bias", "total") else rows
        found[name], _ = guarded((BATCH, length, plan.heads, 1), torch.float32, device)
    for name, x in found.items():
        values = torch.randn(x.shape)
        if name == "slope":
            values = values.abs() / 8
        if name == "total":
            values = -values.abs().cumsum(1) / 4
        x.copy_(values)
    return found


def check(
    module: ModuleType,
    plan: FusedAttention,
    rows: int,
    columns: int,
    dtype: torch.dtype,
    device: str,
    worst: dict[str, float],
) -> Iterator[str]:
    torch.manual_seed(rows + columns)
    operands = operands_of(plan, rows, columns, dtype, device)
    right = {name: x.double().cpu().requires_grad_() for name, x in operands.items()}
    y_right = reference(plan, right)
    dy = torch.randn(y_right.shape).to(dtype)
    d_right = torch.autograd.grad(y_right, list(right.values()), dy.double())

    inputs = list(operands.values())
    if device == "cpu":  # the first head alone, and the others
        module.cached_slices = lambda x, heads, *_: [(0, 1), (1, heads - 1)][: min(heads, 2)]
    with guarded_allocation() as buffers:
        results = getattr(module, f"launch_{plan.name}")(*inputs)
        results = results if isinstance(results, tuple) else (results,)
        kept = results if plan.kept else ()
        gradients = getattr(module, f"launch_{plan.name}_backward")(dy.to(device), *inputs, *kept)
    where = f"{plan.name} {rows}+{columns} {dtype}"
    names = ["y", *(f"d_{name}" for name in operands)]
    for name, result, expected, like in zip(
        names,
        (results[0], *gradients),
        (y_right.detach(), *d_right),
        (operands["C"], *inputs),
        strict=True,
    ):
        distance = error(result, expected)
        if bool((expected == 0).all()):  # nothing is seen, or one token alone: no gradient
            distance = float(result.double().abs().max())
        worst[str(dtype)] = max(worst.get(str(dtype), 0.0), distance)
        if not distance <= TOLERANCE[dtype]:
            yield f"{where}: {name} is off by {distance:.1e}"
        if result.dtype != like.dtype:
            yield f"{where}: {name} is {result.dtype}"
    if rows == 1 and plan.steps:
        with guarded_allocation() as more:
            step = getattr(module, f"launch_{plan.name}_step")(*inputs)
        distance = error(step, y_right.detach())
        worst[f"step {dtype}"] = max(worst.get(f"step {dtype}", 0.0), distance)
        if not distance <= TOLERANCE[dtype] or step.dtype != dtype:
            yield f"{where}: the step is off by {distance:.1e}"
        buffers += more
    if touched(buffers):
        yield f"{where}: wrote outside of its results"


def check_latent(
    module: ModuleType, plan: AttentionStep, columns: int, dtype: torch.dtype, device: str
) -> Iterator[str]:
    """Findings about one query over keys in parts, one of which are the values."""
    torch.manual_seed(columns)
    shapes = [(BATCH, 1, plan.c_heads, sum(plan.parts))]
    shapes += [(BATCH, columns, 1, part) for part in plan.parts]
    inputs = [guarded(shape, dtype, device)[0] for shape in shapes]
    for x in inputs:
        x.copy_(torch.randn(x.shape))
    query, *keys = (x.double().cpu() for x in inputs)
    right = reference(plan, {"C": query, "B": torch.cat(keys, -1), "V": keys[plan.value_part]})
    with guarded_allocation() as buffers:
        y = getattr(module, f"launch_{plan.name}")(*inputs)
    if not error(y, right) <= TOLERANCE[dtype] or touched(buffers):
        yield f"{plan.name} {columns} {dtype}: off by {error(y, right):.1e}"
    body = getattr(module, f"body_{plan.name}")(*inputs)
    if not error(body, right) <= TOLERANCE[dtype]:
        yield f"{plan.name} {columns} {dtype}: the body is off by {error(body, right):.1e}"


def check_operator(module: ModuleType, plan: FusedAttention, device: str) -> Iterator[str]:
    """Findings about the operator with the Triton code behind it, autograd included."""
    operands = operands_of(plan, 5, 9, torch.float32, device)
    inputs = [x.requires_grad_() for x in operands.values()]
    yield from opchecked(plan, tuple(inputs))
    gradients = torch.autograd.grad(getattr(module, plan.name)(*inputs).sum(), inputs)
    right = {name: x.detach().double().cpu().requires_grad_() for name, x in operands.items()}
    d_right = torch.autograd.grad(reference(plan, right).sum(), list(right.values()))
    for name, result, expected in zip(operands, gradients, d_right, strict=True):
        if error(result, expected) > TOLERANCE[torch.float32]:
            yield f"{plan.name}: d_{name} through the operator is off"


def tune(module: ModuleType) -> None:
    """Let every tile that an H100 has room for run, and the last one seem the fastest."""

    def milliseconds(run: Callable[..., None], tile: tuple[int, ...]) -> float:
        run(*tile)
        tried.append(tile)
        return -len(tried)

    tried: list[tuple[int, ...]] = []
    module.shared_memory = lambda device: 227 * 1024
    module.milliseconds = milliseconds


def main() -> None:
    module_path, plans_path, mode, lengths, dtypes, operators = sys.argv[1:]
    device, module = prepared(mode), load(module_path)
    if mode == "interpreted" and getattr(module, "TUNE", False):  # none with steps alone
        tune(module)
    every: tuple[KernelPlan, ...] = pickle.loads(Path(plans_path).read_bytes())
    plans = [plan for plan in every if isinstance(plan, FusedAttention)]
    findings: list[str] = []
    worst: dict[str, float] = {}
    for latent in every:
        if isinstance(latent, AttentionStep) and not latent.whole:
            for dtype in (getattr(torch, name) for name in dtypes.split(",")):
                for length in lengths.split(","):
                    findings += check_latent(module, latent, int(length), dtype, device)
    for plan in plans:
        for dtype in (getattr(torch, name) for name in dtypes.split(",")):
            for length in lengths.split(","):
                rows, _, columns = length.partition("+")
                sizes = int(rows), int(columns or rows)
                findings += check(module, plan, *sizes, dtype, device, worst)
    for plan in plans:
        if plan.name not in operators.split(","):
            continue
        if mode == "interpreted":
            put_launches(module, plan, ("", "_backward"))
        findings += check_operator(module, plan, device)
    json.dump({"findings": findings, "worst": worst}, sys.stdout)


if __name__ == "__main__":
    main()
