"""Fixtures of the command line's tests: a small program and a way to run commands."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

import starc.cli

PROGRAM = """\
# A mixer of few parameters, fast to compile and to train.
operator blend() {
    C = x |> dense(width)
    B = x |> dense(width)
    K = explicit(width, 4)
    y = diagonal(C) @ toeplitz(K) @ B |> dense(width)
}

model small {
    vocab    = 256
    width    = 16
    context  = 32
    residual = pre(rmsnorm)

    backbone {
        repeat 2 {
            blend()
        }
    }
}
"""


@dataclass(frozen=True)
class Outcome:
    status: int
    out: str
    err: str


Command = Callable[..., Outcome]


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program in an empty folder, which is the current one."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "small.star"
    path.write_text(PROGRAM)
    return path


@pytest.fixture
def command(capfdbinary: pytest.CaptureFixture[bytes]) -> Command:
    """Run a command in this process."""

    def run(*arguments: object) -> Outcome:
        status = starc.cli.run([str(argument) for argument in arguments])
        sys.stdout.flush()
        out, err = capfdbinary.readouterr()
        return Outcome(status, out.decode(), err.decode())

    return run


@pytest.fixture
def process() -> Command:
    """Run a command in a process of its own, as a user does."""

    def run(*arguments: object, stdin: bytes = b"", **options: object) -> Outcome:
        done = subprocess.run(
            [sys.executable, "-m", "starc.cli", *map(str, arguments)],
            input=stdin,
            capture_output=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            timeout=120,
            **options,  # type: ignore[call-overload]
        )
        return Outcome(done.returncode, done.stdout.decode(), done.stderr.decode())

    return run


@pytest.fixture(scope="session")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small finished search; nobody writes to it."""
    from tests.starc.searched import make_search

    return make_search(tmp_path_factory.mktemp("searched") / "run")
