"""The Triton code of every kernel against float64, without a GPU and with one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from starc.compiler.kernel_activation import ACTIVATIONS
from starc.compiler.kernel_plan import GatedConvolution, GatedProduct

DIGEST = "00112233445566778899"

# 64 fills its tile, 60 needs a mask, 96 takes two tiles of which one hangs over.
PRODUCTS = [
    *(GatedProduct(digest=DIGEST, activation=name, channels=60) for name in ACTIVATIONS),
    GatedProduct(digest=DIGEST, activation="silu", channels=64),
    GatedProduct(digest=DIGEST, activation="silu", channels=600, packed=True),
    GatedProduct(digest=DIGEST, activation="identity", channels=5, packed=True),
]
CONVOLUTIONS = [
    GatedConvolution(digest=DIGEST, channels=60, taps=4),
    GatedConvolution(digest=DIGEST, channels=60, taps=3, packed=True),
    GatedConvolution(digest=DIGEST, channels=96, taps=3, input_gate=False, packed=True),
    GatedConvolution(digest=DIGEST, channels=64, taps=1, output_gate=False),
    GatedConvolution(digest=DIGEST, channels=64, taps=9, output_gate=False, input_gate=False),
    GatedConvolution(
        digest=DIGEST,
        channels=60,
        taps=4,
        output_gate=False,
        input_gate=False,
        bias=True,
        activation="silu",
    ),
    GatedConvolution(digest=DIGEST, channels=96, taps=2, packed=True, activation="gelu"),
    GatedConvolution(digest=DIGEST, channels=24, taps=5, input_gate=False, bias=True),
]
PLANS = [*PRODUCTS, *CONVOLUTIONS]

# One of each kind, which is slow: PyTorch's own checks of an operator run it dozens of times.
OPERATORS = ",".join(PLANS[i].name for i in (1, 14, 17, 18, 21))


def test_interpreted_kernels_agree_with_float64(run_script: Callable[..., Any]) -> None:
    arguments = ("numerics.py", PLANS, "interpreted", OPERATORS)
    assert run_script(*arguments, TRITON_INTERPRET="1") == []


@pytest.mark.gpu
def test_kernels_agree_with_float64_on_a_gpu(run_script: Callable[..., Any]) -> None:
    assert run_script("numerics.py", PLANS, "cuda", ",".join(plan.name for plan in PLANS)) == []
