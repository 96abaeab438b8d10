"""Single tokens of gated convolutions: the Triton code, and the operator that changes a cache."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch

from starc.compiler.kernel_convolution_step import ConvolutionStep
from starc.compiler.kernel_plan import GatedConvolution


def step(
    channels: int, taps: int, past: int, digest: str = "00112233", **more: Any
) -> ConvolutionStep:
    of = GatedConvolution(digest=digest, channels=channels, taps=taps, **more)
    return ConvolutionStep(digest=digest, of=of, past=past)


# Gates of all kinds, packed and not; channels that hang over; more of a past than the filter reads.
PLANS = [
    step(60, 4, 3),
    step(96, 3, 2, packed=True, input_gate=False),
    step(64, 2, 3, output_gate=False, input_gate=False),
    step(130, 4, 3, packed=True),
    step(60, 4, 3, input_gate=False, output_gate=False, bias=True, activation="silu"),
    step(40, 2, 2, packed=True, activation="tanh"),
]


def test_interpreted_steps_agree_with_float64(run_script: Callable[..., Any]) -> None:
    arguments = ("convolution_steps.py", PLANS, "interpreted")
    assert run_script(*arguments, TRITON_INTERPRET="1") == []


@pytest.mark.gpu
def test_steps_agree_with_float64_on_a_gpu(run_script: Callable[..., Any]) -> None:
    assert run_script("convolution_steps.py", PLANS, "cuda") == []


@pytest.mark.kernels
def test_steps_compile_within_limits(run_script: Callable[..., Any]) -> None:
    alone = {"input_gate": False, "output_gate": False}
    plans = [step(768, 4, 3), step(60, 4, 3, **alone, bias=True, activation="silu")]
    reports = run_script("compiled.py", plans, "sm_90,gfx942", "bf16", TRITON_INTERPRET="0")
    assert len(reports) == 4
    for report in reports:
        assert (report["spills"], report["shared_bytes"], report["atomics"]) == (0, 0, 0)


def test_steps_go_on_where_a_sequence_ends(load: Callable[..., ModuleType]) -> None:
    plan = step(6, 3, 2, digest="d15b0a80")
    module = load([plan.of, plan])
    operator = getattr(getattr(torch.ops, plan.namespace), plan.name)
    torch.manual_seed(0)
    output_gate, input_gate, value = torch.randn(3, 2, 7, 6, dtype=torch.float64)
    filter = torch.randn(6, 3, dtype=torch.float64)
    whole = getattr(module, plan.of.name)(output_gate, input_gate, value, filter)
    past = torch.zeros(2, 2, 6, dtype=torch.float64)
    for t in range(7):
        now = [x[:, t : t + 1] for x in (output_gate, input_gate, value)]
        torch.testing.assert_close(operator(*now, filter, past), whole[:, t : t + 1])
    torch.testing.assert_close(past, (input_gate * value)[:, -2:])
    torch.library.opcheck(operator.default, (*now, filter, past))
