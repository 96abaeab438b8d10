"""A training process killed at any moment, again and again, ends as one that ran through."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from starc.runtime import checkpoint
from starc.runtime import run as runs
from starc.runtime.run import Run, Settings
from starc.runtime.sources import open_data

TINY = (Path(__file__).parents[1] / "runtime" / "fixtures" / "tiny.py").read_text()
DATA = "task:in-context-recall,length=16,examples=96,held_out_examples=16"
KILLS, TERMS = 12, 3


def make(folder: Path) -> Run:
    settings = Settings(
        DATA, 160, batch=8, length=15, learning_rate=1e-2, warmup=4, validate_every=7, patience=90
    )
    return runs.create(
        folder,
        program="model tiny { }",
        module_text=TINY,
        data_digest=open_data(DATA).digest,
        settings=settings,
    )


def trained(run: Run, kills: int, terms: int) -> list[str]:
    """What became of the children, one line each; the last is the one that was let finish."""
    script = Path(__file__).parent / "killing.py"
    done = subprocess.run(
        [sys.executable, str(script), str(run.folder), DATA, str(kills), str(terms)],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    return done.stdout.splitlines()


def metrics(run: Run) -> list[dict[str, Any]]:
    """The record but for speeds, which belong to the clock."""
    entries: list[dict[str, Any]] = [
        json.loads(line) for line in run.metrics_path.read_text().splitlines()
    ]
    for entry in entries:
        entry.pop("tokens_per_second", None)
    return entries


def test_killed_at_random_moments_it_ends_as_if_never_killed(tmp_path: Path):
    whole, killed = make(tmp_path / "whole"), make(tmp_path / "killed")
    assert trained(whole, 0, 0) == ["finally 0"]
    *children, last = trained(killed, KILLS, TERMS)
    assert last == "finally 0"
    ends = [line.split(" ", 1)[1].rsplit(" ", 1)[0] for line in children]
    assert ends.count("signal") == KILLS
    assert ends.count("exit 30") == TERMS
    assert metrics(killed) == metrics(whole)
    assert sum("loss" in entry for entry in metrics(whole)) == 160
    paths = [checkpoint.latest(run.checkpoints) for run in (whole, killed)]
    first, second = (checkpoint.load_weights(path) for path in paths if path is not None)
    assert all(torch.equal(first[name], second[name]) for name in first)
