"""The report: every loss is counted once, and recall hits are what their definition says."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from starc.runtime import evaluation, shards
from starc.runtime.corpus import Corpus
from starc.runtime.data import IGNORED
from starc.runtime.evaluation import examine, pair_counts, recall_hits, seen_before
from starc.runtime.shards import Part


class Bigrams(nn.Module):
    """Logits of the next token that depend on the last one alone."""

    def __init__(self, vocab: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.table = nn.Parameter(torch.randn(vocab, vocab, generator=generator))

    def forward(self, tokens: Tensor) -> Tensor:
        return self.table[tokens]


def part(tokens: NDArray[np.uint8]) -> Part:
    return Part((tokens,), np.empty(0, np.int64), len(tokens))


def corpus(size: int = 3000, held_out: int = 501) -> Corpus:
    draw = np.random.default_rng(3)
    tokens = draw.integers(0, 12, size=size, dtype=np.uint8)
    return Corpus.of("drawn", tokens, tokens[:held_out], tokens[1000 : 1000 + 2 * held_out])


def test_every_token_but_the_first_is_scored_once(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(evaluation, "_LOGITS", 256 * 16 * 3)
    data, model = corpus(), Bigrams(256)
    report = examine(model, data, "validation", length=16, limit=1000, learnt=data.train, rare=30)
    tokens = torch.from_numpy(data.validation.stretch(0, 501).astype(np.int64))
    logits = model(tokens[:-1]).detach()
    nats = float(F.cross_entropy(logits, tokens[1:], reduction="sum"))
    assert report.score.scored == 500
    assert report.score.nats == pytest.approx(nats, rel=1e-5)
    assert report.score.correct == int((logits.argmax(-1) == tokens[1:]).sum())
    assert report.bits(report.score) == pytest.approx(nats / 500 / math.log(2), rel=1e-5)
    assert report.recall is not None
    assert report.other is not None
    assert 0 < report.recall.scored < 500
    for scores in ([report.recall, report.other], [score for _, _, score in report.positions]):
        assert sum(score.scored for score in scores) == 500
        assert sum(score.correct for score in scores) == report.score.correct
        assert sum(score.nats for score in scores) == pytest.approx(nats, rel=1e-5)
    assert [(least, most) for least, most, _ in report.positions] == [
        (1, 1), (2, 3), (4, 7), (8, 15), (16, 16)
    ]  # fmt: skip


def test_the_test_part_and_a_limit():
    data = corpus()
    report = examine(Bigrams(256), data, "test", length=16, limit=5)
    assert (report.windows, report.score.scored) == (5, 80)
    assert report.recall is report.other is None
    assert report.to_dict()["recall"] is None


def test_a_mode_is_kept():
    for training in (True, False):
        model = Bigrams(256).train(training)
        examine(model, corpus(), "validation", length=16, limit=2)
        assert model.training is training


@given(
    rows=st.integers(1, 4).flatmap(
        lambda n: st.lists(
            st.lists(st.integers(0, 3), min_size=9, max_size=9), min_size=n, max_size=n
        )
    ),
    learnt=st.lists(st.integers(0, 3), min_size=2, max_size=60),
    rare=st.integers(0, 5),
    ignored=st.integers(0, 8),
)
@settings(max_examples=40, deadline=None)
def test_recall_hits_are_what_the_definition_says(
    rows: list[list[int]], learnt: list[int], rare: int, ignored: int
):
    windows = np.array(rows, dtype=np.int64)
    tokens, targets = windows[:, :-1], windows[:, 1:].copy()
    targets[0, ignored:] = IGNORED
    found = recall_hits(tokens, targets, part(np.array(learnt, np.uint8)), vocab=4, rare=rare)
    trained = list(pairwise(learnt))
    for row, window in enumerate(rows):
        for place in range(8):
            pair = (window[place], window[place + 1])
            earlier = list(pairwise(window[: place + 1]))
            wanted = pair in earlier and trained.count(pair) <= rare
            wanted = wanted and targets[row, place] != IGNORED
            assert found[row, place] == wanted


def test_seen_before():
    values = np.array([[5, 5, 2, 5, 2], [1, 2, 3, 4, 1]])
    assert seen_before(values).astype(int).tolist() == [[0, 1, 0, 1, 1], [0, 0, 0, 0, 1]]


def test_pairs_over_the_borders_of_chunks_count(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shards, "_CHUNK", 7)
    tokens = np.random.default_rng(0).integers(0, 5, size=100, dtype=np.uint8)
    keys = tokens[:-1].astype(np.int64) * 5 + tokens[1:]
    counts = pair_counts(part(tokens), np.arange(25), 5)
    np.testing.assert_array_equal(counts, np.bincount(keys, minlength=25))


def test_counts_of_a_large_part_are_estimated(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shards, "_CHUNK", 100)
    monkeypatch.setattr(evaluation, "COUNTED", 1000)
    tokens = np.tile(np.arange(4, dtype=np.uint8), 5000)
    counts = pair_counts(part(tokens), np.array([1, 4 + 2, 4 + 3]), 4)
    np.testing.assert_allclose(counts, [5000, 5000, 0], rtol=0.02)
