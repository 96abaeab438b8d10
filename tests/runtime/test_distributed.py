"""Two real processes on the CPU go the way of one, and either goes on where the other stopped."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from starc.grammar.errors import StarError
from starc.runtime import checkpoint
from starc.runtime import run as runs
from starc.runtime.corpus import open_corpus
from starc.runtime.distributed import accelerator
from starc.runtime.run import Run, Settings
from starc.runtime.train import train

FIXTURES = Path(__file__).parent / "fixtures"
TINY = (FIXTURES / "tiny.py").read_text()

needs_accelerate = pytest.mark.skipif(
    importlib.util.find_spec("accelerate") is None, reason="accelerate is not installed"
)


def make(folder: Path, text: Path, **changes: int) -> Run:
    """A run of 6 steps whose batches of 5 two processes share as 3 and 2."""
    settings = Settings(
        **{
            "data": str(text),
            "steps": 6,
            "batch": 5,
            "length": 16,
            "learning_rate": 1e-2,
            "warmup": 2,
            "validate_every": 3,
            "validation_tokens": 112,
            **changes,
        }
    )
    digest = open_corpus(str(text)).digest
    return runs.create(folder, program="", module_text=TINY, data_digest=digest, settings=settings)


SHARDED = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}
"""What `accelerate launch` sets for weights that are sharded."""


def in_two_processes(run: Run, text: Path, last: int, sharded: bool = False) -> None:
    """Train a run up to step `last`."""
    command = [sys.executable, "-W", "ignore", "-m", "torch.distributed.run", "--standalone"]
    script = [str(FIXTURES / "distributed.py"), str(run.folder), str(text), str(last)]
    done = subprocess.run(
        [*command, "--nproc_per_node", "2", *script],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1", **(SHARDED if sharded else {})},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.split()[1::2] == [str(last)] * 2  # both stopped after the same step


def metrics(run: Run, name: str) -> list[float]:
    entries = map(json.loads, run.metrics_path.read_text().splitlines())
    return [entry[name] for entry in entries if name in entry]


def weights(run: Run) -> dict[str, torch.Tensor]:
    path = checkpoint.latest(run.checkpoints)
    assert path is not None
    return checkpoint.load_weights(path)


@pytest.mark.slow
@needs_accelerate
@pytest.mark.parametrize("sharded", [False, True])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_two_processes_go_the_way_of_one(tmp_path: Path, accumulate: int, sharded: bool):
    """Losses, scores and weights up to rounding; one process takes the last two steps of both."""
    text = tmp_path / "text"
    text.write_text("the cat sat on the mat and the dog sat on the log. " * 60)
    alone = make(tmp_path / "alone", text, accumulate=accumulate)
    shared = make(tmp_path / "shared", text, accumulate=accumulate)
    in_two_processes(shared, text, 4, sharded)
    assert metrics(shared, "status") == []
    corpus = open_corpus(str(text))
    assert train(shared, corpus).step == train(alone, corpus).step == 6
    for name in ("loss", "gradient_norm", "validation_loss", "validation_accuracy"):
        expected = metrics(alone, name)
        np.testing.assert_allclose(metrics(shared, name), expected, rtol=2e-4, err_msg=name)
    assert len(metrics(shared, "loss")) == 6
    expected_weights = weights(alone)
    for name, value in weights(shared).items():
        torch.testing.assert_close(value, expected_weights[name], rtol=1e-3, atol=1e-5, msg=name)


@pytest.mark.slow
@needs_accelerate
@pytest.mark.parametrize("sharded", [False, True])
def test_two_processes_take_up_the_run_of_one(tmp_path: Path, sharded: bool):
    text = tmp_path / "text"
    text.write_text("the cat sat on the mat and the dog sat on the log. " * 60)
    alone, begun = make(tmp_path / "alone", text), make(tmp_path / "begun", text)
    corpus, seen = open_corpus(str(text)), list[int]()
    train(alone, corpus)
    train(begun, corpus, observe=lambda p: seen.append(p.step), should_stop=lambda: len(seen) == 2)
    in_two_processes(begun, text, 6, sharded)
    np.testing.assert_allclose(metrics(begun, "loss"), metrics(alone, "loss"), rtol=2e-4)


@needs_accelerate
def test_a_process_that_nothing_launched_says_how(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with pytest.raises(StarError) as refused:
        accelerator(cpu=True)
    assert [d.code for d in refused.value.diagnostics] == ["not-launched"]


def test_without_accelerate_the_extra_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(StarError) as refused:
        accelerator(cpu=True)
    (diagnostic,) = refused.value.diagnostics
    assert diagnostic.code == "missing-extra"
    assert "starc[distributed]" in diagnostic.hint
