"""What a language model has learnt: bits per byte, and which tokens they come from.

Owns: losses per token, which tokens could be recalled from their context, and sums by kind of token
and by place in the window.
Refuses: opening anything, and printing.

Recall follows Zoology (arXiv 2312.04927, section 3): a token is a *recall hit* when the pair of it
and the token before it stood earlier in the same window, and stands at most `rare` times in the
training text, so that it must be looked up in the context rather than known. All others are *other
tokens*, whether new or frequent. Zoology's limit is 1,250 in its training text.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F

from starc.runtime.corpus import Corpus
from starc.runtime.data import IGNORED, Score, Split, Tokens
from starc.runtime.learner import on_device
from starc.runtime.precision import autocast
from starc.runtime.shards import COUNTED, Part

RARE = 1250
"""A pair of tokens that stands more often than this in the training text needs no recall."""

_LOGITS = 1 << 25
"""How many logits are computed at a time."""


@dataclass(frozen=True)
class Report:
    """Scores over the windows of a held-out part; groups have no scores by example.

    `recall` and `other` divide `score`, or are None where the training text is not at hand.
    `positions` divides it by how many tokens of context a prediction has: `(least, most, score)`.
    """

    split: Split
    length: int
    windows: int
    bytes_per_token: float
    score: Score
    recall: Score | None
    other: Score | None
    positions: tuple[tuple[int, int, Score], ...]

    def bits(self, score: Score) -> float:
        """Bits per byte of a score's tokens, as if each stood for the part's mean of bytes."""
        return score.bits_per_byte(self.bytes_per_token)

    def to_dict(self) -> dict[str, Any]:
        """Fit for JSON."""
        return {
            "split": self.split,
            "length": self.length,
            "windows": self.windows,
            "bytes_per_token": self.bytes_per_token,
            **self._figures(self.score),
            "recall": self.recall and self._figures(self.recall),
            "other": self.other and self._figures(self.other),
            "positions": [
                {"from": least, "to": most, **self._figures(score)}
                for least, most, score in self.positions
            ],
        }

    def _figures(self, score: Score) -> dict[str, float | int | None]:
        if not score.scored:
            return {"tokens": 0, "bits_per_byte": None, "perplexity": None, "accuracy": None}
        return {
            "tokens": score.scored,
            "bits_per_byte": self.bits(score),
            "perplexity": perplexity(score),
            "accuracy": score.accuracy,
        }


def perplexity(score: Score) -> float:
    """The exponential of the mean cross-entropy per token."""
    return math.exp(min(score.loss, 700.0))


def examine(
    model: nn.Module,
    corpus: Corpus,
    split: Split,
    *,
    length: int,
    limit: int,
    learnt: Part | None = None,
    rare: int = RARE,
    precision: str = "fp32",
) -> Report:
    """Score a model on at most `limit` windows of `length` tokens, where the model is.

    `learnt` is the text that it was trained on, in the corpus's tokens: without it, recall and
    other tokens are not told apart. Raises StarError for a part shorter than a window.
    """
    tokens, targets = corpus.held_out(split, length=length, limit=limit)
    nats, correct = token_losses(model, tokens, targets, vocab=corpus.vocab, precision=precision)
    scored = targets != IGNORED
    recall = other = None
    if learnt is not None:
        hits = recall_hits(tokens, targets, learnt, vocab=corpus.vocab, rare=rare)
        recall = _sums(nats, correct, scored & hits)
        other = _sums(nats, correct, scored & ~hits)
    return Report(
        split=split,
        length=length,
        windows=len(tokens),
        bytes_per_token=corpus.part(split).bytes_per_token,
        score=_sums(nats, correct, scored),
        recall=recall,
        other=other,
        positions=tuple(
            (
                first + 1,
                last,
                _sums(nats[:, first:last], correct[:, first:last], scored[:, first:last]),
            )
            for first, last in _octaves(length)
        ),
    )


@torch.no_grad()
def token_losses(
    model: nn.Module, tokens: Tokens, targets: Tokens, *, vocab: int, precision: str = "fp32"
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """The cross-entropy in nats of each target, and whether it came first; all (n, T).

    Targets that are ignored have 0 nats. The model's mode is kept.
    """
    device = next(model.parameters()).device
    training = model.training
    model.eval()
    nats = np.zeros(tokens.shape, dtype=np.float32)
    correct = np.zeros(tokens.shape, dtype=np.bool_)
    batch = max(1, _LOGITS // (tokens.shape[1] * vocab))
    for first in range(0, len(tokens), batch):
        rows = slice(first, first + batch)
        with autocast(device, precision):
            logits = model(on_device(tokens[rows], device))
        wanted = on_device(targets[rows], device)
        losses = F.cross_entropy(
            logits.flatten(0, 1).float(), wanted.flatten(), ignore_index=IGNORED, reduction="none"
        )
        nats[rows] = losses.view_as(wanted).cpu().numpy()
        correct[rows] = (logits.argmax(-1) == wanted).cpu().numpy()
    model.train(training)
    return nats, correct


def recall_hits(
    tokens: Tokens, targets: Tokens, learnt: Part, *, vocab: int, rare: int = RARE
) -> NDArray[np.bool_]:
    """Which targets are recall hits, all (n, T); see the head of this file."""
    pairs = np.where(targets == IGNORED, -1, tokens * vocab + targets)
    again = seen_before(pairs) & (pairs >= 0)
    found = np.unique(pairs[again])
    frequent = found[pair_counts(learnt, found, vocab) > rare]
    return again & ~np.isin(pairs, frequent)


def seen_before(values: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Where a value (n, T) stands earlier in its row already."""
    order = np.argsort(values, axis=1, kind="stable")  # equal values stay in the order of places
    ordered = np.take_along_axis(values, order, axis=1)
    again = np.zeros(values.shape, dtype=np.bool_)
    again[:, 1:] = ordered[:, 1:] == ordered[:, :-1]
    found = np.empty_like(again)
    np.put_along_axis(found, order, again, axis=1)
    return found


def pair_counts(part: Part, pairs: NDArray[np.int64], vocab: int) -> NDArray[np.float64]:
    """How often each of the pairs `first * vocab + second` (n,), sorted, stands in a part.

    In a part of more than `COUNTED` tokens, estimated from pieces spread evenly over it.
    """
    counts = np.zeros(len(pairs))
    read = 0
    for chunk in part.chunks(COUNTED, overlap=1):
        keys = chunk[:-1].astype(np.int64) * vocab + chunk[1:]
        values, repeats = np.unique(keys, return_counts=True)
        _, ours, theirs = np.intersect1d(pairs, values, assume_unique=True, return_indices=True)
        counts[ours] += repeats[theirs]
        read += len(keys)
    return counts * ((len(part) - 1) / read if read else 1.0)


def _sums(
    nats: NDArray[np.float32], correct: NDArray[np.bool_], chosen: NDArray[np.bool_]
) -> Score:
    return Score(
        nats=float(nats[chosen].sum(dtype=np.float64)),
        correct=int(correct[chosen].sum()),
        scored=int(chosen.sum()),
    )


def _octaves(length: int) -> Iterator[tuple[int, int]]:
    """Places 0, 1 .. 2, 3 .. 6, ...: with 1, 2 to 3, 4 to 7, ... tokens of context."""
    first, size = 0, 1
    while first < length:
        yield first, min(first + size, length)
        first, size = first + size, 2 * size
