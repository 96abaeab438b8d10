"""Every kernel compiles for GPUs that are not here, within their limits, with wide accesses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from starc.compiler.kernel_activation import ACTIVATIONS
from starc.compiler.kernel_plan import MAX_TAPS, GatedConvolution, GatedProduct, KernelPlan

DIGEST = "00112233445566778899"
TARGETS = "sm_90,gfx942"

# Sizes of real models; channels that are no multiple of a tile, or of anything.
PLANS: list[KernelPlan] = [
    *(GatedProduct(digest=DIGEST, activation=name, channels=768) for name in ACTIVATIONS),
    GatedProduct(digest=DIGEST, activation="silu", channels=60),
    GatedProduct(digest=DIGEST, activation="silu", channels=61),
    GatedConvolution(digest=DIGEST, channels=768, taps=3, input_gate=False),
    GatedConvolution(digest=DIGEST, channels=768, taps=3, output_gate=False),
    GatedConvolution(digest=DIGEST, channels=768, taps=MAX_TAPS),
    GatedConvolution(digest=DIGEST, channels=60, taps=4),
    GatedConvolution(
        digest=DIGEST,
        channels=768,
        taps=4,
        output_gate=False,
        input_gate=False,
        bias=True,
        activation="silu",
    ),
    GatedConvolution(digest=DIGEST, channels=768, taps=3, activation="silu"),
    GatedConvolution(digest=DIGEST, channels=768, taps=4, packed=True),
    GatedProduct(digest=DIGEST, activation="silu", channels=688, packed=True),
]


def defect(report: dict[str, Any]) -> str | None:
    """What is wrong with a compiled kernel, if anything."""
    if report["spills"]:
        return f"{report['spills']} spills"
    if not report["fits"]:
        return f"{report['shared_bytes']} bytes of shared memory"
    if report["atomics"]:
        return "atomics, whose order is chance"
    if "_61_" in report["kernel"]:  # rows of an odd length: this is what narrow looks like
        return "wide accesses" if report["wide_accesses"] else None
    if report["target"] != "sm_90" or "_60_" in report["kernel"]:
        return None
    # The shares of a filter's gradient are sums over rows: one channel a lane is left to write.
    shares = MAX_TAPS if "convolution" in report["kernel"] else 0
    if report["narrow_accesses"] > shares or report["wide_accesses"] < 3:
        return f"{report['narrow_accesses']} narrow accesses, {report['wide_accesses']} wide ones"
    return None


@pytest.mark.parametrize("element", ["bf16", "fp32"])
def test_kernels_compile_within_limits(run_script: Callable[..., Any], element: str) -> None:
    # Types change nothing but the conversions, so that few kernels stand for all in float32.
    plans = PLANS if element == "bf16" else PLANS[-4:]
    reports = run_script("compiled.py", plans, TARGETS, element, TRITON_INTERPRET="0")
    assert len(reports) == 4 * len(plans)
    assert [(r["target"], r["kernel"], d) for r in reports if (d := defect(r))] == []
