"""A learner's step does not depend on how a batch is cut, and its scores are counted right."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from starc.grammar.errors import StarError
from starc.runtime.data import IGNORED, Tokens
from starc.runtime.learner import SingleLearner, evaluate, score_logits
from starc.runtime.loader import load
from starc.runtime.run import Settings

TINY = (Path(__file__).parent / "fixtures" / "tiny.py").read_text()
SETTINGS = Settings("data", 10, batch=12, length=8, learning_rate=1e-2, warmup=1)
CPU = torch.device("cpu")


def learner(**changes: Any) -> SingleLearner:
    torch.manual_seed(0)
    settings = Settings(**{**vars(SETTINGS), **changes})
    return SingleLearner(load(TINY).Model().double(), settings, CPU)


def batch() -> tuple[Tokens, Tokens]:
    """Rows that score from all of their tokens to none."""
    rng = np.random.default_rng(3)
    tokens = rng.integers(0, 256, (12, 8))
    targets = rng.integers(0, 256, (12, 8))
    targets[rng.random((12, 8)) > np.linspace(1, 0.1, 12)[:, None]] = IGNORED
    targets[8:10] = IGNORED
    return tokens, targets


@pytest.mark.parametrize("parts", [2, 3, 6, 12])
def test_micro_batches_are_one_batch(parts: int):
    """Also when they score different numbers of tokens, or none (6 and 12 parts)."""
    whole, cut = learner(), learner()
    tokens, targets = batch()
    pieces = list(zip(np.array_split(tokens, parts), np.array_split(targets, parts), strict=True))
    for step in (1, 2, 3):
        expected = whole.take([(tokens, targets)], step)
        assert cut.take(pieces, step) == [pytest.approx(expected[0], rel=1e-12)]
    for (name, a), (_, b) in zip(
        whole.model.named_parameters(), cut.model.named_parameters(), strict=True
    ):
        assert torch.allclose(a.grad, b.grad, rtol=1e-9, atol=1e-15), name  # type: ignore[arg-type]
        assert torch.allclose(a, b, rtol=1e-7, atol=1e-9), name


def test_nothing_to_learn_from_is_said():
    tokens, targets = batch()
    with pytest.raises(StarError, match="no target"):
        learner().take([(tokens, np.full_like(targets, IGNORED))], 1)


def test_arrays_that_cannot_be_written_are_read():
    tokens, targets = batch()
    expected = learner().take([(tokens, targets)], 1)
    tokens.flags.writeable = targets.flags.writeable = False
    assert learner().take([(tokens, targets)], 1) == expected


class Faulty(nn.Module):
    """A model whose loss is what a test wants it to be."""

    def __init__(self, fault: str) -> None:
        super().__init__()
        self.fault, self.weight = fault, nn.Parameter(torch.ones(2, 2))

    def loss(self, tokens: Tensor, targets: Tensor) -> Tensor:
        if self.fault == "singular":
            return torch.linalg.inv(self.weight).sum()
        if self.fault == "gradient":
            return (self.weight - 1).sum().abs().sqrt()
        return self.weight.sum() * math.inf


@pytest.mark.parametrize("fault", ["singular", "gradient", "loss"])
def test_a_step_that_is_not_finite_is_not_taken(fault: str):
    faulty = SingleLearner(Faulty(fault), SETTINGS, CPU)
    ((loss, norm),) = faulty.take([batch()], 1)
    assert not (math.isfinite(loss) and math.isfinite(norm))
    assert torch.equal(faulty.model.weight, torch.ones(2, 2))


def test_scores_count_scored_positions_only():
    rng = np.random.default_rng(0)
    logits, targets = rng.normal(size=(3, 4, 5)), rng.integers(0, 5, (3, 4))
    targets[0, 1:] = targets[1, :2] = targets[2] = IGNORED  # the last row scores nothing
    logits[0, 0, targets[0, 0]] = 9  # right; of row 1 one of two
    logits[1, 2, targets[1, 2]] = 9
    logits[1, 3, targets[1, 3]] = -9
    score = score_logits(torch.tensor(logits), torch.tensor(targets))
    assert (score.correct, score.scored, score.examples) == (2, 3, 2)
    assert score.macro == 1.5
    logs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    places = targets != IGNORED
    expected = -logs[places][np.arange(3), targets[places]].sum()
    assert score.nats == pytest.approx(expected, rel=1e-5)
    assert (score.accuracy, score.macro_accuracy) == (pytest.approx(2 / 3), 0.75)


def test_evaluation_in_batches_is_evaluation_at_once():
    class Given:
        def held_out(self, split: str, *, length: int, limit: int) -> tuple[Tokens, Tokens]:
            return batch()

    model = learner().model
    data: Any = Given()
    scores = [
        evaluate(model, data, "test", length=8, limit=12, batch=size, precision="fp32")
        for size in (12, 5, 1)
    ]
    assert scores[0].scored == np.count_nonzero(batch()[1] != IGNORED)
    for score in scores:
        assert score.nats == pytest.approx(scores[0].nats, rel=1e-6)
        assert score.correct == scores[0].correct
        assert score.macro == pytest.approx(scores[0].macro)
    assert model.training
