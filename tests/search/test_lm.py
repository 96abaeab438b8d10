"""The evaluator `lm`: rungs that carry on, scores that follow from the program, what is refused."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from starc.grammar.errors import StarError
from starc.search.engine import Job, carry_out
from starc.search.evaluators import evaluator_digest, make_evaluator
from starc.search.lm import LanguageModel, make

PROGRAM = """
use std.convolution.gconv
model m {
    vocab = 256  width = 16  context = 32  residual = pre(rmsnorm)
    backbone { gconv(kernel = 3) }
}
"""


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(
        "\n\n".join(f"document {n} says that {n} times two is {2 * n}" for n in range(900))
    )
    return path


def evaluator(text: Path, **options: Any) -> LanguageModel:
    small = {"tokens": 32 * 4 * 24, "batch": 4, "length": 32, "validation": 256}
    return make(data=str(text), **{**small, **options})


def evaluate(found: LanguageModel, folder: Path, rung: int, seed: int = 3) -> dict[str, float]:
    return found.evaluate(PROGRAM, seed=seed, rung=rung, folder=folder)


def test_a_checkpoint_carries_over_to_the_same_end(text: Path, tmp_path: Path):
    found = evaluator(text, rungs=2, factor=3)
    assert (found.tokens(0), found.tokens(1)) == (32 * 4 * 8, 32 * 4 * 24)
    first = evaluate(found, tmp_path / "carried", 0)
    carried = evaluate(found, tmp_path / "carried", 1)
    direct = evaluate(found, tmp_path / "direct", 1)
    assert carried == direct
    assert carried["quality"] < first["quality"]
    again = evaluate(found, tmp_path / "direct", 1)  # there already
    assert again == direct


def test_what_decides_a_score(text: Path, tmp_path: Path):
    found = evaluator(text)
    score = evaluate(found, tmp_path / "a", 0)
    assert score == evaluate(found, tmp_path / "b", 0)
    assert score != evaluate(found, tmp_path / "c", 0, seed=4)
    assert set(score) == set(found.figures)
    digests = {
        evaluator_digest(evaluator(text, **options))
        for options in ({}, {"lr": 1e-3}, {"tokens": 32 * 4 * 25}, {"batch": 2}, {"rungs": 2})
    }
    assert len(digests) == 5
    before = evaluator_digest(found)
    text.write_text(text.read_text() + "\n\nanother document, which changes what there is to learn")
    other = make_evaluator("lm", {"data": str(text.rename(text.with_name("other.txt")))})
    assert evaluator_digest(other) != before


def test_a_folder_that_is_damaged_is_begun_again(text: Path, tmp_path: Path):
    found = evaluator(text)
    score = evaluate(found, tmp_path / "a", 0)
    (tmp_path / "a" / "run" / "config.json").write_text("{")
    assert evaluate(found, tmp_path / "a", 0) == score
    shutil.rmtree(tmp_path / "a" / "run" / "checkpoint")
    assert evaluate(found, tmp_path / "a", 0) == score


def test_divergence_has_its_status(text: Path, tmp_path: Path):
    found = replace(evaluator(text), learning_rate=1e6)
    outcome = carry_out(Job("a", found, PROGRAM, 0, 0, tmp_path / "a"), "here")
    assert outcome.status == "diverged"
    assert "at step" in outcome.reason


def test_a_probe_says_how_long_it_takes(text: Path, tmp_path: Path):
    found = evaluator(text, tokens=32 * 4 * 1000)
    figures = found.probe(PROGRAM, seed=0, folder=tmp_path / "a")
    assert figures["tokens_per_second"] > 0
    assert figures["seconds"] > 1000 * 4 * 32 / figures["tokens_per_second"]


def test_a_program_that_cannot_read_the_text_fails(text: Path, tmp_path: Path):
    small = PROGRAM.replace("vocab = 256", "vocab = 100")
    outcome = carry_out(Job("a", evaluator(text), small, 0, 0, tmp_path / "a"), "here")
    assert (outcome.status, "vocabulary of 100" in outcome.reason) == ("failed", True)


@pytest.mark.parametrize(
    "options",
    [
        {"tokens": 0},
        {"tokens": 100},
        {"rungs": 0},
        {"rungs": 4},
        {"lr": -1},
        {"precision": "fp8"},
        {"batch": 1.5},
        {"data": 5},
        {"data": "task:memorization"},
    ],
)
def test_wrong_options_are_refused(text: Path, options: dict[str, Any]):
    with pytest.raises(StarError) as caught:
        evaluator(text, **options) if "data" not in options else make(**options)
    assert caught.value.diagnostics[0].code == "bad-evaluator-option"
