"""Whole models through their Triton bodies, interpreted: logits, gradients and single steps."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SIZES = {"width": 64, "repeat": 1, "vocab": 29, "context": 96}

FEW = ("mistral",)
"""Attention in a window with grouped heads, and gated products."""

MANY = (
    "based",
    "differential",
    "forgetting",
    "gla",
    "griffin",
    "h3",
    "hybrid_heads",
    "hyena",
    "latent",
    "laughing_hyena",
    "linear_attention",
    "mamba",
    "mamba2",
    "mixtral",
    "product_key_memory",
    "retnet",
    "rwkv6",
    "s4d",
    "sigmoid_attention",
    "sparse_transformer",
    "streaming",
    "widenet",
    "xlstm",
)


def findings(examples: tuple[str, ...], **sizes: int) -> list[str]:
    """Of `models.py`, in a process of its own."""
    script, root = Path(__file__).parent / "models.py", Path(__file__).parents[2]
    paths = os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, str(script), json.dumps({**SIZES, **sizes}), *examples],
        env={**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    results: dict[str, dict[str, Any]] = json.loads(done.stdout)
    assert set(results) == set(examples)
    return [finding for result in results.values() for finding in result["findings"]]


@pytest.mark.parametrize("example", FEW)
def test_a_model_runs_through_its_kernels(example: str) -> None:
    assert findings((example,)) == []


@pytest.mark.kernels
@pytest.mark.parametrize("example", MANY)
def test_more_models_run_through_their_kernels(example: str) -> None:
    assert findings((example,)) == []
