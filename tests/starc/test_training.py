"""`train` and `generate` from the outside: runs, resuming, signals and what is refused."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Command = Callable[..., Any]


@pytest.fixture
def text(small: Path) -> Path:
    path = small.parent / "rhyme.txt"
    path.write_text("the cat sat on the mat and the dog sat on the log. " * 80)
    return path


def begin(command: Command, text: Path, *more: object, steps: int = 8, out: str = "run") -> Any:
    common = ["--batch", 4, "--length", 16, "--precision", "fp32", "--device", "cpu"]
    return command(
        "train", "small.star", "--data", text, "--steps", steps, "--out", out, *common, *more
    )


def losses(run: Path) -> list[float]:
    entries = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [entry["loss"] for entry in entries if "loss" in entry]


def test_train_then_generate(command: Command, text: Path):
    outcome = begin(command, text, steps=60)
    assert outcome.status == 0
    assert "bits per byte" in outcome.out
    assert "step 60/60" in outcome.err
    run = Path("run")
    names = {path.name for path in run.iterdir()}
    assert names == {"program.star", "model.py", "config.json", "metrics.jsonl", "checkpoint"}
    assert (run / "program.star").read_text() == Path("small.star").read_text()
    sample = command("generate", run, "--prompt", "the ", "--tokens", 12, "--seed", 3)
    assert sample.status == 0
    assert sample.out.startswith("the ")
    assert (
        sample.out == command("generate", run, "--prompt", "the ", "--tokens", 12, "--seed", 3).out
    )
    answer = json.loads(command("generate", run, "--tokens", 5, "--json").out)
    assert answer["prompt"] == ""
    assert 1 <= len(answer["text"]) <= 5


def test_the_outcome_as_json(command: Command, text: Path):
    outcome = begin(command, text, "--json")
    report = json.loads(outcome.out)
    assert (report["status"], report["step"]) == ("finished", 8)
    assert 0 < report["validation_bits"] < 10
    assert 0 < report["unigram_bits"] < 8


def test_a_run_is_not_overwritten(command: Command, text: Path):
    begin(command, text, steps=2)
    before = losses(Path("run"))
    outcome = begin(command, text, steps=2)
    assert outcome.status == 1
    assert "error[run-exists]" in outcome.err
    assert losses(Path("run")) == before


def test_resuming_as_begun(command: Command, text: Path):
    begin(command, text, steps=4)
    resumed = command("train", "--resume", "--out", "run", "--steps", 4, "--seed", 0)
    assert resumed.status == 0
    for other in (["--steps", 9], ["--seed", 1], ["--data", "stdlib"], ["--precision", "bf16"]):
        outcome = command("train", "--resume", "--out", "run", *other)
        assert outcome.status == 1
        assert "error[run-differs]" in outcome.err
    Path("small.star").write_text(Path("small.star").read_text().replace("repeat 2", "repeat 3"))
    outcome = command("train", "small.star", "--resume", "--out", "run")
    assert "another program" in outcome.err


def test_what_a_new_run_needs(command: Command, text: Path):
    outcome = command("train", "--out", "run")
    assert outcome.status == 1
    assert "needs FILE and --data and --steps" in outcome.err
    assert not Path("run").exists()


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (["--data", "absent.txt"], "cannot-read"),
        (["--length", "100"], "length-beyond-context"),
        (["--set", "vocab=100"], "vocab-too-small"),
        (["--lr", "-1"], "bad-learning-rate"),
        (["--lr", "nan"], "bad-learning-rate"),
        (["--precision", "fp8"], "bad-precision"),
        (["--device", "nowhere"], "no-device"),
        (["--out", "small.star"], "cannot-write"),
        (["--out", "small.star/run"], "cannot-write"),
    ],
)
def test_what_cannot_work_is_said_before_a_run_is_made(
    command: Command, text: Path, options: list[str], code: str
):
    outcome = begin(command, text, *options)
    assert outcome.status == 1
    assert f"error[{code}]" in outcome.err
    assert not Path("run").exists()


@pytest.mark.parametrize(
    ("damage", "code"),
    [
        (lambda run: None, None),
        (lambda run: (run / "config.json").unlink(), "no-run"),
        (lambda run: (run / "config.json").write_text("{"), "run-damaged"),
        (lambda run: (run / "model.py").write_text("1 / 0"), "not-a-module"),
        (lambda run: (run / "model.py").unlink(), "cannot-read"),
        (lambda run: (run / "checkpoint").rename(run / "gone"), "no-checkpoint"),
        (
            lambda run: next(run.glob("checkpoint/*/weights.safetensors")).write_bytes(b"x"),
            "checkpoint-damaged",
        ),
    ],
)
def test_runs_that_cannot_be_sampled(
    command: Command, text: Path, damage: Callable[[Path], object], code: str | None
):
    begin(command, text, steps=2)
    damage(Path("run"))
    outcome = command("generate", "run", "--tokens", 2)
    assert outcome.status == (0 if code is None else 1)
    assert code is None or f"error[{code}]" in outcome.err


def test_what_is_no_run(command: Command, small: Path):
    for folder in ("absent", "small.star", "."):
        outcome = command("generate", folder)
        assert outcome.status == 1
        assert outcome.err.startswith("error[")
    assert command("generate", ".", "--temperature", "nan").status in (1, 2)


@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)]
)
def test_a_signal_saves_and_resuming_gives_the_same_run(
    command: Command, text: Path, number: signal.Signals
):
    arguments = ["small.star", "--data", str(text), "--steps", "120", "--out", "run"]
    arguments += ["--batch", "4", "--length", "16", "--precision", "fp32", "--device", "cpu"]
    training = subprocess.Popen(
        [sys.executable, "-m", "starc.cli", "train", *arguments],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    metrics = Path("run/metrics.jsonl")
    until = time.monotonic() + 60
    while not (metrics.exists() and metrics.read_bytes().count(b"\n") > 20):
        assert training.poll() is None
        assert time.monotonic() < until
        time.sleep(0.01)
    training.send_signal(number)
    _, err = training.communicate(timeout=60)
    assert training.returncode == 130
    assert b"starc train --resume --out run" in err
    assert b"Traceback" not in err
    assert 20 <= len(losses(Path("run"))) < 120
    assert command("train", "--resume", "--out", "run").status == 0
    begin(command, text, steps=120, out="whole")
    assert losses(Path("run")) == pytest.approx(losses(Path("whole")), rel=1e-6)


TASK = "task:in-context-recall,length=16,examples=64,held_out_examples=32"


def on_task(command: Command, *more: object, data: str = TASK, steps: int = 6) -> Any:
    common = ["--steps", steps, "--out", "run", "--precision", "fp32", "--batch", 8]
    return command("train", "small.star", "--data", data, *common, *more)


def test_training_on_a_task(command: Command, small: Path):
    outcome = on_task(command)
    assert outcome.status == 0
    assert "64 examples of 15 tokens, 32 held out, 12.5% right by chance" in outcome.err
    assert "of held-out tokens right" in outcome.out
    report = json.loads(command("train", "--resume", "--out", "run", "--json").out)
    assert (report["status"], report["score"]["examples"]) == ("finished", 32)
    assert 0 <= report["validation_accuracy"] <= 1
    assert "validation_bits" not in report
    for of_text in ("generate", "evaluate"):
        assert "error[no-text]" in command(of_text, "run").err


def test_stopping_early_is_success(command: Command, small: Path):
    outcome = on_task(command, "--stop-accuracy", "0.000001", "--accumulate", 2, steps=90)
    assert outcome.status == 0
    assert re.search(r"stopped early: at step \d+, the accuracy is 0\.", outcome.out)


def test_a_budget_can_grow(command: Command, small: Path):
    assert on_task(command, "--schedule", "wsd").status == 0
    outcome = command("train", "--resume", "--out", "run", "--steps", 9)
    assert (outcome.status, len(losses(Path("run")))) == (0, 9)
    outcome = command("train", "--resume", "--out", "run", "--steps", 2)
    assert "error[run-differs]" in outcome.err


@pytest.mark.parametrize(
    ("data", "code"),
    [
        ("task:in-context-recal", "unknown-task"),
        ("task:in-context-recall,length", "bad-task-setting"),
        ("task:in-context-recall,lenght=8", "unknown-task-setting"),
        ("task:in-context-recall,length=4096,examples=8", "length-beyond-context"),
        ("task:in-context-recall,vocab=1024", "vocab-too-small"),
    ],
)
def test_tasks_that_do_not_fit(command: Command, small: Path, data: str, code: str):
    outcome = on_task(command, data=data)
    assert outcome.status == 1
    assert f"error[{code}]" in outcome.err
    assert not Path("run").exists()
