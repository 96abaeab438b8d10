"""What every engine does, whatever carries its jobs out.

A module of tests for an engine imports everything from here and has a fixture `engine` that gives
one of two workers, and one `evaluators`: the folder of `EVALUATORS`, importable by workers.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from starc.search.engine import Engine, Job, Outcome
from starc.search.evaluators import EntryPoint, Evaluator, Static

EVALUATORS = """
import os, sys, time

def fine(text, seed):
    return {"quality": float(len(text)), "seed": seed}

def number(text, seed):
    return 2

def loud(text, seed):
    print("garbage " * 10_000)
    print("more " * 10_000, file=sys.stderr)
    os.write(1, b"raw" * 10_000)
    return 1.0

def nan(text, seed):
    return {"quality": float("nan"), "other": 1.0}

def nothing(text, seed):
    return None

def words(text, seed):
    return {"quality": "good"}

def wrong(text, seed):
    raise ValueError("of its own")

def leaves(text, seed):
    sys.exit(3)

def dies(text, seed):
    print("last words", file=sys.stderr, flush=True)
    os._exit(7)

def killed(text, seed):
    os.kill(os.getpid(), 11)

def hangs(text, seed):
    time.sleep(1000)

def hungry(text, seed):
    kept = [bytearray(1 << 20) for _ in range(1 << 20)]
    return len(kept)

def diverges(text, seed):
    from starc.grammar.errors import Diagnostic, StarError
    raise StarError(Diagnostic("diverged", "at step 3, the loss is nan."))
"""


def job(key: str, evaluator: str | Evaluator, folder: Path, **limits: object) -> Job:
    found = EntryPoint(f"evaluators_of_tests:{evaluator}")
    chosen = found if isinstance(evaluator, str) else evaluator
    return Job(key, chosen, "a program", 5, 0, folder / key, **limits)  # type: ignore[arg-type]


def gather(engine: Engine, count: int, seconds: float = 60) -> dict[str, Outcome]:
    """So many outcomes; fails when one comes twice or they take too long."""
    found: dict[str, Outcome] = {}
    end = time.monotonic() + seconds
    while len(found) < count:
        assert time.monotonic() < end, f"only {sorted(found)} came"
        for outcome in engine.wait(0.2):
            assert outcome.key not in found
            found[outcome.key] = outcome
    return found


@pytest.mark.usefixtures("evaluators")
def test_every_end_has_its_status(engine: Engine, tmp_path: Path):
    wanted = {
        "fine": ("done", ""),
        "number": ("done", ""),
        "loud": ("done", ""),
        "nan": ("nan", "quality is nan"),
        "nothing": ("failed", "TypeError: an evaluator gives figures or a number, not NoneType"),
        "words": ("failed", "TypeError: the figure 'quality' is no number but 'good'"),
        "wrong": ("failed", "ValueError: of its own"),
        "leaves": ("failed", "the evaluator left with SystemExit(3)"),
        "dies": ("crash", "the worker ended with status 7: last words"),
        "killed": ("crash", "the worker was killed by SIGSEGV"),
        "hangs": ("timeout", "it took longer than 0.5 s"),
        "hungry": ("oom", ""),
        "diverges": ("diverged", "at step 3, the loss is nan."),
        "missing": ("failed", "the evaluator 'evaluators_of_tests:missing' cannot be loaded: "),
    }
    for name in wanted:
        limits = {"hangs": {"seconds": 0.5}, "hungry": {"memory": 300 << 20}}.get(name, {})
        engine.submit(job(name, name, tmp_path, **limits))
    found = gather(engine, len(wanted))
    for name, (status, reason) in wanted.items():
        assert (found[name].status, name) == (status, name), found[name]
        assert found[name].reason.startswith(reason), found[name]
        assert found[name].worker
        if status != "done":
            assert not found[name].figures
    assert found["fine"].figures == {"quality": 9.0, "seed": 5.0}
    assert found["number"].figures == {"quality": 2.0}
    assert found["hangs"].seconds >= 0.5
    assert engine.wait(0.0) == []


def test_jobs_wait_for_their_turn_and_each_ends_once(engine: Engine, tmp_path: Path):
    for n in range(40):
        engine.submit(job(str(n), Static(), tmp_path))
    found = gather(engine, 40)
    assert {outcome.status for outcome in found.values()} == {"done"}
    assert len({str(outcome.figures) for outcome in found.values()}) == 1
    assert engine.capacity == 2
    assert len({outcome.worker for outcome in found.values()}) <= 2


def test_two_run_side_by_side(engine: Engine, tmp_path: Path):
    for n in range(2):  # workers that are there already
        engine.submit(job(f"start {n}", Static(0.2), tmp_path))
    gather(engine, 2)
    began = time.monotonic()
    for n in range(2):
        engine.submit(job(str(n), Static(1.0), tmp_path))
    found = gather(engine, 2)
    assert time.monotonic() - began < 1.8
    assert all(outcome.seconds >= 1.0 for outcome in found.values())


@pytest.mark.usefixtures("evaluators")
def test_a_cancelled_job_has_no_outcome(engine: Engine, tmp_path: Path):
    for name in ("first", "second", "third"):
        engine.submit(job(name, "hangs", tmp_path))
    engine.submit(job("after", "fine", tmp_path))
    assert engine.wait(0.1) == []
    for name in ("first", "third", "second", "unknown"):
        engine.cancel(name)
    assert list(gather(engine, 1)) == ["after"]
    assert engine.wait(0.0) == []


@pytest.mark.usefixtures("evaluators")
def test_closing_does_not_wait(engine: Engine, tmp_path: Path):
    for n in range(3):
        engine.submit(job(str(n), "hangs", tmp_path))
    engine.wait(0.1)
    began = time.monotonic()
    engine.close()
    assert time.monotonic() - began < 5
