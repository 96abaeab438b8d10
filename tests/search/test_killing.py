"""A search that is killed at any moment loses nothing, repeats nothing, and finds the same."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from starc.search.algorithms import ALGORITHMS
from starc.search.store import Store
from tests.search.searches import evaluated, record

ROOT = Path(__file__).parents[2]


def kill(
    folder: Path, mode: str, workers: int, kills: int, seconds: float, algorithm: str = "nsga2"
) -> int:
    """How many children were killed before one came to the end."""
    command = [sys.executable, "-m", "tests.search.killing", str(folder), mode]
    command += [str(workers), str(kills), str(seconds), algorithm]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True
    )
    assert done.returncode == 0, done.stderr.decode()
    return int(done.stdout)


def compare(folder: Path) -> None:
    assert record(folder / "cut") == record(folder / "whole")
    assert set(Counter(evaluated(folder / "cut")).values()) == {1}
    assert evaluated(folder / "cut") == evaluated(folder / "whole")
    with Store.read(folder / "cut") as store:
        assert {row.status for row in store.evaluations()} == {"done"}
        assert [row.number for row in store.states()] == sorted(r.number for r in store.states())


@pytest.mark.parametrize("mode", ["generations", "steady"])
def test_killed_at_random_moments(tmp_path: Path, mode: str):
    assert kill(tmp_path, mode, 0, 8, 0.01) >= 4
    compare(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["generations", "steady"])
@pytest.mark.parametrize("algorithm", sorted(ALGORITHMS))
def test_every_algorithm_killed_at_random_moments(tmp_path: Path, algorithm: str, mode: str):
    assert kill(tmp_path, mode, 0, 20, 0.01, algorithm) >= 4
    compare(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["generations", "steady"])
def test_killed_with_a_worker(tmp_path: Path, mode: str):
    assert kill(tmp_path, mode, 1, 20, 0.2) >= 10
    compare(tmp_path)


@pytest.mark.slow
def test_killed_with_two_workers(tmp_path: Path):
    assert kill(tmp_path, "steady", 2, 20, 0.3) >= 10
    assert record(tmp_path / "cut") == record(tmp_path / "whole")
    assert set(Counter(evaluated(tmp_path / "cut")).values()) == {1}
