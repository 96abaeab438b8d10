"""The kernels of structured transitions: their Triton code against float64, and calls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest
import torch

from starc.compiler.kernel_structured import Structured

DIGEST = "00112233445566778899"


def structured(
    rule: str, decay: str, heads: int, channels: int, values: int, **more: Any
) -> Structured:
    """A plan with chunks of 16 tokens, which the interpreter is quicker with than with 64."""
    delta = rule == "delta"
    operands = (4 if delta else 5) + (decay != "none")
    more = {"function": f"{rule}_recurrence", "counts": (heads,) * operands, "chunk": 16, **more}
    return Structured(
        digest=DIGEST,
        delta=delta,
        decay=decay,
        heads=heads,
        channels=channels,
        values=values,
        **more,
    )


# Sizes that fill their tiles and sizes that do not; several blocks of a triangular system, several
# tiles of keys and of values, several steps of a token.
FEW = [
    structured("delta", "scalar", 2, 20, 16, chunk=32),
    structured("dplr", "diagonal", 1, 16, 24),
]
MANY = [
    structured("delta", "none", 2, 20, 24),
    structured("delta", "none", 1, 72, 80, chunk=64),
    structured("delta", "scalar", 2, 64, 72),
    structured("delta", "diagonal", 2, 24, 16),
    structured("delta", "diagonal", 1, 40, 72, chunk=32),
    structured("dplr", "none", 1, 20, 16, steps_of_token=2),
    structured("dplr", "scalar", 2, 72, 24, chunk=32),
    structured("dplr", "diagonal", 2, 20, 72),
    structured("dplr", "diagonal", 1, 24, 16, steps_of_token=2),
]

# Sizes of DeltaNet, Gated DeltaNet, Kimi Linear and RWKV-7.
MODELS = [
    structured("delta", "none", 8, 128, 128, chunk=64, function="deltanet"),
    structured("delta", "scalar", 6, 128, 256, chunk=64, function="gated"),
    structured("delta", "diagonal", 8, 128, 128, chunk=64, function="kda"),
    structured("dplr", "diagonal", 12, 64, 64, chunk=64, function="rwkv7"),
]


def named(plans: list[Structured]) -> list[Structured]:
    """The same with functions of different names, to stand in one file."""
    return [replace(plan, function=f"{plan.function}_{i}") for i, plan in enumerate(plans, 2)]


def test_interpreted_kernels_agree_with_float64(run_script: Callable[..., Any]) -> None:
    arguments = ("recurrences.py", named(FEW), "interpreted", "few", "")
    assert run_script(*arguments, TRITON_INTERPRET="1")["findings"] == []


@pytest.mark.kernels
@pytest.mark.parametrize("rule", ["delta", "dplr"])
@pytest.mark.parametrize("decay", ["none", "scalar", "diagonal"])
def test_every_interpreted_kernel_agrees_with_float64(
    run_script: Callable[..., Any], rule: str, decay: str
) -> None:
    delta = rule == "delta"
    plans = [plan for plan in (*FEW, *MANY) if (plan.delta, plan.decay) == (delta, decay)]
    arguments = ("recurrences.py", named(plans), "interpreted", "all", named(plans)[0].name)
    assert run_script(*arguments, TRITON_INTERPRET="1")["findings"] == []


@pytest.mark.kernels
@pytest.mark.parametrize("plan", MODELS, ids=lambda plan: plan.function)
def test_kernels_of_models_compile_within_limits(
    run_script: Callable[..., Any], plan: Structured
) -> None:
    plan = replace(plan, function=f"{'delta' if plan.delta else 'dplr'}_recurrence")
    reports = run_script("compiled.py", [plan], "sm_90", "bf16", TRITON_INTERPRET="0")
    for report in reports:
        where = report["kernel"]
        assert report["spills"] == 0, where
        assert report["fits"], where
        assert report["atomics"] == 0, where
        if report["products"]:
            assert report["matrix_instructions"], where
            assert report["wide_accesses"], where
            # Triangular systems go by blocks of 16 rows, one warp each.
            assert report["group_instructions"] or where.endswith("_solve"), where


@pytest.mark.gpu
def test_kernels_agree_with_float64_on_a_gpu(run_script: Callable[..., Any]) -> None:
    plans = named([*FEW, *MANY])
    names = ",".join(plan.name for plan in plans)
    assert run_script("recurrences.py", plans, "cuda", "all", names)["findings"] == []


CALLED = [
    structured("delta", "none", 4, 6, 5, counts=(2, 1, 4, 4)),
    structured("delta", "diagonal", 2, 6, 5, counts=(2, 1, 2, 1, 2)),
    structured("dplr", "none", 2, 6, 5, counts=(1, 2, 1, 2, 2)),
    structured("dplr", "scalar", 2, 6, 5, counts=(1, 2, 2, 2, 2, 1), steps_of_token=2),
]


def operands_of(plan: Structured, tokens: int) -> list[torch.Tensor]:
    torch.manual_seed(0)
    found = []
    for (name, (_, channels)), heads in zip(plan.sizes.items(), plan.counts, strict=True):
        steps = (plan.steps_of_token,) if plan.steps_of_token > 1 and name in plan.of_steps else ()
        x = torch.randn(2, tokens, *steps, heads, channels, dtype=torch.float64) / channels**0.5
        found.append(-x.abs() if name == "A" else x)
    return found


@pytest.mark.parametrize("plan", CALLED, ids=lambda plan: f"{plan.function}-{plan.decay}")
@pytest.mark.parametrize("tokens", [1, 7])
def test_a_call_of_kernels_is_a_call_of_the_function(
    load: Callable[..., ModuleType], plan: Structured, tokens: int
) -> None:
    """Heads that several share are repeated, states change in place, and gradients come back."""
    plan = replace(plan, digest=f"d15b0a7{5 + CALLED.index(plan)}")
    module = load([plan])
    operands = [x.requires_grad_() for x in operands_of(plan, tokens)]
    first = torch.randn(2, plan.heads, plan.channels, plan.values, dtype=torch.float64)
    found = []
    for name in (plan.function, f"kernel_{plan.function}"):
        state = first.clone()
        with torch.no_grad():
            y = getattr(module, name)(*operands, state)
        whole = getattr(module, name)(*operands, None)
        found.append([y, state, whole, *torch.autograd.grad(whole.sin().sum(), operands)])
    for x, wanted in zip(*found, strict=True):
        torch.testing.assert_close(x, wanted)


def test_operators_pass_the_checks_of_pytorch(load: Callable[..., ModuleType]) -> None:
    plan = structured("delta", "scalar", 2, 4, 3)
    plan = replace(plan, digest="d15b0a79")
    load([plan])
    operators = getattr(torch.ops, plan.namespace)
    first = torch.randn(2, 2, 4, 3)
    for tokens, state in ((1, None), (5, None), (5, first)):
        given = [x.float().requires_grad_() for x in operands_of(plan, tokens)]
        torch.library.opcheck(operators.delta_recurrence.default, (*given, state))
    step = [x.float() for x in operands_of(plan, 1)]
    torch.library.opcheck(operators.delta_recurrence_step.default, (*step, first.clone()))
