"""The engine of this machine: as every engine, and none of its processes outlives it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from starc.search.engine import Engine
from starc.search.local_engine import LocalEngine
from tests.search.engine_conformance import *  # noqa: F403
from tests.search.engine_conformance import EVALUATORS


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = LocalEngine(2)
    yield engine
    engine.close()


@pytest.fixture
def evaluators(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "evaluators_of_tests.py").write_text(EVALUATORS)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


DRIVER = """
import pathlib, sys
from starc.search.engine import Job
from starc.search.evaluators import Static
from starc.search.local_engine import LocalEngine
engine = LocalEngine(1)
engine.submit(Job("a", Static(), "x", 0, 0, pathlib.Path(sys.argv[1])))
(outcome,) = engine.wait(60)
engine.submit(Job("b", Static(1000.0), "x", 0, 0, pathlib.Path(sys.argv[1])))
print(outcome.worker, flush=True)
engine.wait(1000)
"""


def test_workers_end_with_a_driver_that_is_killed(tmp_path: Path):
    command = [sys.executable, "-c", DRIVER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as driver:
        assert driver.stdout is not None
        worker = int(driver.stdout.readline())
        os.kill(worker, 0)
        driver.send_signal(signal.SIGKILL)
        driver.wait()
        end = time.monotonic() + 10
        while alive(worker):
            assert time.monotonic() < end
            time.sleep(0.05)


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
        with open(f"/proc/{process}/stat") as stat:
            return stat.read().split()[2] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False
