"""What scripts that run kernels have in common: their command line, and how they put Triton code in
the place of PyTorch's.

    SCRIPT MODULE PLANS interpreted|cuda SIZE,... DTYPE,... NAME,...

PLANS is a pickle. Every plan is checked at every size in every dtype; operators that are NAMEd are
checked as PyTorch sees them too. The output is a JSON object: `findings`, empty when all is well,
and `worst`, the largest error by dtype.
"""

from __future__ import annotations

import json
import pickle
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from numerics import load

from starc.compiler.kernel_plan import KernelPlan

Check = Callable[..., Iterator[str]]


def prepared(mode: str, seed: int = 1) -> str:
    """The device; the interpreter is corrected before, and runs programs in an order of chance."""
    if mode == "cuda":
        return "cuda"
    from starc.runtime.interpreter import correct_interpreter, permute_programs

    correct_interpreter()
    permute_programs(seed)
    return "cpu"


def put_launches(module: ModuleType, plan: KernelPlan, ends: Sequence[str]) -> None:
    """Let the operators of a plan, whose names have these ends, run their Triton code on a CPU."""
    for end in ends:
        launch = getattr(module, f"launch_{plan.name}{end}")
        torch.library.register_kernel(f"{plan.namespace}::{plan.name}{end}", "cpu", launch)


def operator_of(plan: KernelPlan) -> Any:
    return getattr(getattr(torch.ops, plan.namespace), plan.name).default


def opchecked(plan: KernelPlan, arguments: tuple[Any, ...]) -> Iterator[str]:
    """What PyTorch's own check says of an operator."""
    try:
        torch.library.opcheck(operator_of(plan), arguments)
    except Exception as failure:  # whatever the failing check raised
        yield f"{plan.name}: opcheck: {failure}"


def run(check: Check, check_operator: Check, ends: Sequence[str] = ("",)) -> None:
    """Carry out the command line.

    `check(module, plan, size, dtype, device, worst)` and `check_operator(module, plan, device)`
    give findings; `ends` are those of the operators' names.
    """
    module_path, plans_path, mode, sizes, dtypes, operators = sys.argv[1:]
    device, module = prepared(mode), load(module_path)
    plans: tuple[KernelPlan, ...] = pickle.loads(Path(plans_path).read_bytes())
    findings: list[str] = []
    worst: dict[str, float] = {}
    for plan in plans:
        for dtype in (getattr(torch, name) for name in dtypes.split(",")):
            for size in sizes.split(","):
                findings += check(module, plan, int(size), dtype, device, worst)
    for plan in plans:
        if plan.name in operators.split(","):
            if mode == "interpreted":
                put_launches(module, plan, ends)
            findings += check_operator(module, plan, device)
    json.dump({"findings": findings, "worst": worst}, sys.stdout)
