"""`tokenizer`, `tokenize` and `evaluate` from the outside, and runs on tokens that are no bytes."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Command = Callable[..., Any]

LINES = ["the cat sat on the mat", "and the dog sat on the log", "a bird flew over the house"]


@pytest.fixture
def texts(small: Path) -> Path:
    folder = small.parent / "texts"
    folder.mkdir()
    for number in range(60):
        lines = (LINES[(number + turn) % 3] for turn in range(20))
        (folder / f"{number}.txt").write_text("\n".join(lines))
    return folder


@pytest.fixture
def tokenizer(command: Command, texts: Path) -> str:
    outcome = command("tokenizer", "train", "--data", texts, "--vocab", 290, "-o", "tok.json")
    assert outcome.status == 0
    assert "tok.json: 290 tokens" in outcome.out
    return "tok.json"


def begin(command: Command, data: object, *more: object, steps: int = 12) -> Any:
    common = ["--batch", 4, "--length", 16, "--precision", "fp32", "--device", "cpu"]
    return command(
        "train", "small.star", "--data", data, "--steps", steps, "--out", "run", *common, *more
    )


def losses(run: Path) -> list[float]:
    entries = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [entry["loss"] for entry in entries if "loss" in entry]


def test_a_run_on_a_folder_of_tokens(command: Command, texts: Path, tokenizer: str):
    outcome = command("tokenize", texts, "--tokenizer", tokenizer, "--out", "tokens")
    assert outcome.status == 0
    assert "290 tokens in the vocabulary" in outcome.out
    outcome = begin(command, "tokens")
    assert outcome.status == 1
    assert "error[vocab-too-small]" in outcome.err
    assert "--set vocab=290" in outcome.err
    outcome = begin(command, "tokens", "--set", "vocab=290")
    assert outcome.status == 0
    assert "by token frequencies alone" in outcome.out
    on_folder = losses(Path("run"))
    assert Path("run/tokenizer.json").exists()

    Path(tokenizer).unlink()  # the run keeps a copy
    sample = command("generate", "run", "--prompt", "the ✓", "--tokens", 5, "--seed", 1)
    assert sample.status == 0
    assert sample.out.startswith("the ✓")
    resumed = command("train", "--resume", "--out", "run", "--tokenizer", "run/tokenizer.json")
    assert resumed.status == 0

    Path("run").rename("before")
    outcome = begin(
        command, texts, "--tokenizer", "before/tokenizer.json", "--set", "vocab=290", "--json"
    )
    assert losses(Path("run")) == on_folder  # the same tokens in memory give the same run
    report = json.loads(outcome.out)
    assert 0 < report["validation_bits"] < math.log2(290)

    (texts / "61.txt").write_text("more")
    outcome = command("train", "--resume", "--out", "run")
    assert "error[data-changed]" in outcome.err


def test_another_tokenizer_is_refused(command: Command, texts: Path, tokenizer: str):
    begin(command, texts, steps=2)
    outcome = command("train", "--resume", "--out", "run", "--tokenizer", tokenizer)
    assert outcome.status == 1
    assert "another tokenizer than 'tok.json'" in outcome.err
    command("tokenize", texts, "--out", "tokens")
    outcome = begin(command, "tokens", "--tokenizer", tokenizer)
    assert "error[run-exists]" in outcome.err
    outcome = command(
        "train", "small.star", "--data", "tokens", "--tokenizer", tokenizer, "--steps", 2,
        "--out", "other",
    )  # fmt: skip
    assert "error[tokenizer-mismatch]" in outcome.err
    assert not Path("other").exists()


def test_evaluate(command: Command, texts: Path):
    assert begin(command, texts, steps=60).status == 0
    outcome = command("evaluate", "run", "--rare", 1_000_000)
    assert outcome.status == 0
    assert "recall hits" in outcome.out
    assert "4 to 7" in outcome.out
    report = json.loads(command("evaluate", "run", "--rare", 1_000_000, "--json").out)
    assert report["tokens"] == report["recall"]["tokens"] + report["other"]["tokens"]
    assert report["tokens"] == sum(place["tokens"] for place in report["positions"])
    assert report["perplexity"] == pytest.approx(2 ** report["bits_per_byte"])
    assert report["bytes_per_token"] == 1
    size = sum(len(path.read_bytes()) + 1 for path in held_out(texts, "validation"))
    assert report["tokens"] == size - 1
    test = json.loads(command("evaluate", "run", "--split", "test", "--length", 8, "--json").out)
    assert test["length"] == 8
    assert test["tokens"] == sum(len(p.read_bytes()) + 1 for p in held_out(texts, "test")) - 1
    limited = json.loads(command("evaluate", "run", "--tokens", 40, "--json").out)
    assert limited["windows"] == 2


def held_out(texts: Path, part: str) -> list[Path]:
    from starc.runtime.documents import part_of

    return [path for path in texts.iterdir() if part_of(path.name) == part]


def test_evaluate_on_another_text(command: Command, texts: Path):
    begin(command, texts, steps=2)
    Path("other.txt").write_text("zebras run. " * 99)
    report = json.loads(command("evaluate", "run", "--data", "other.txt", "--json").out)
    assert report["data"] == "other.txt"
    assert report["recall"]["tokens"] > 0
    (texts / "61.txt").write_text("more")
    outcome = command("evaluate", "run", "--data", "other.txt", "--json")
    assert json.loads(outcome.out)["recall"] is None
    assert "unknown" in command("evaluate", "run", "--data", "other.txt").out
    outcome = command("evaluate", "run")
    assert outcome.status == 1
    assert "error[data-changed]" in outcome.err


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["tokenizer", "train", "--data", "absent", "-o", "t.json"], "cannot-read"),
        (["tokenizer", "train", "--data", "texts", "--vocab", 9, "-o", "t.json"], "bad-vocab"),
        (["tokenizer", "train", "--data", "texts", "-o", "absent/t.json"], "cannot-write"),
        (["tokenize", "texts", "--tokenizer", "small.star", "--out", "o"], "bad-tokenizer"),
        (["tokenize", "texts", "--out", "texts"], "would-overwrite"),
        (["tokenize", "texts", "--out", "small.star/o"], "cannot-write"),
        (["tokenize", "empty", "--out", "o"], "corpus-empty"),
        (["evaluate", "absent"], "no-run"),
        (["evaluate", "run", "--split", "train"], "bad-split"),
        (["evaluate", "run", "--length", 9999], "length-beyond-context"),
        (["evaluate", "run", "--precision", "fp8"], "bad-precision"),
        (["evaluate", "run", "--data", "empty"], "corpus-empty"),
        (["evaluate", "run", "--data", "short"], "corpus-too-short"),
    ],
)
def test_what_is_refused(command: Command, texts: Path, arguments: list[object], code: str):
    Path("empty").touch()
    Path("short").write_text("short")
    if arguments[:2] == ["evaluate", "run"]:
        begin(command, texts, steps=1)
    outcome = command(*arguments)
    assert outcome.status == 1
    assert f"error[{code}]" in outcome.err
    assert not list(Path().glob("o*"))
