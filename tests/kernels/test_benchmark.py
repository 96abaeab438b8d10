"""benchmarks/gpu.py, which needs a GPU, without one: every call that it would time is made."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu.py"


def rows(*arguments: str) -> dict[str, str]:
    """What it prints of each kernel and each other implementation."""
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *arguments],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not done.stdout or "--dry" in arguments, "figures without a GPU"
    lines = [line for line in done.stdout.splitlines() if line[44:45] == " "]
    return {line[:44].strip(): line[45:] for line in lines}


def test_every_call_can_be_made() -> None:
    found = rows("--dry", "mamba")
    assert found["scan"] == "forward, backward: fine"
    assert found["scan_step"] == "step: fine"
    assert not [text for text in found.values() if not text.endswith(": fine")]


@pytest.mark.kernels
def test_every_call_of_every_kind_can_be_made() -> None:
    found = rows("--dry")
    assert not [(name, text) for name, text in found.items() if not text.endswith(": fine")]
    kinds = ("fused_softmax", "latent_attention", "rotary", "add_rms_norm", "cross_entropy")
    kinds += ("delta_recurrence", "dplr_recurrence", "scalar_recurrence", "diagonal_recurrence")
    kinds += ("packed_gated_convolution", "packed_gated_product", "scan", "linear_attention")
    kinds += ("long_convolution", "torch.fft", "gather", "relu_experts")
    assert [kind for kind in kinds if not any(name.startswith(kind) for name in found)] == []
    assert "torch SDPA with the mask" in found


def test_without_a_gpu_it_says_so() -> None:
    assert rows() == {}
