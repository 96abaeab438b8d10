"""Multi-query associative recall, as Zoology defines it (arXiv 2312.04927).

Owns: that task.
Refuses: recall in which every pair may be a question (recall.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from starc.runtime.data import IGNORED
from starc.runtime.tasks.drawing import distinct
from starc.runtime.tasks.task import Ids, Part, Task

GAP_EXPONENT = 0.01
"""The place of a question has probability proportional to (1 + its rank) ** (GAP_EXPONENT - 1)."""


@dataclass(frozen=True, kw_only=True)
class MultiQueryRecall(Task):
    """`pairs` pairs of a key and its value, then each key once more, at any place, as a question.

    Keys are distinct ids of the lower half of `vocab`, values distinct ids of the upper half. After
    the pairs, questions stand at even places, near ones likelier: gaps follow a power law. The
    target at a question is the key's value, and there are no other targets. All other places hold
    random ids that are no key of the sequence.
    """

    vocab: int = 8_192
    length: int = 64
    pairs: int = 4
    examples: int = 100_000

    NAME: ClassVar[str] = "mqar"
    VARIATIONS: ClassVar[Mapping[str, tuple[float, ...]]] = {}
    HARDER: ClassVar[tuple[dict[str, Any], ...]] = (
        {"length": 128, "pairs": 8},
        {"length": 256, "pairs": 16},
        {"length": 512, "pairs": 64},
    )

    @property
    def tokens(self) -> int:
        return self.length

    @property
    def ids(self) -> dict[str, range]:
        half = self.vocab // 2
        return {"keys": range(half), "values": range(half, self.vocab)}

    @property
    def chance(self) -> float:
        return 1 / len(self.ids["values"])

    def check(self) -> None:
        self.require(self.pairs >= 1, "pairs", "at least one")
        self.require(self.length % 2 == 0, "length", "an even number: keys stand at even places")
        rule = f"at least 4 x pairs = {4 * self.pairs} ids"
        self.require(self.length >= 4 * self.pairs, "length", rule)
        rule = f"at least 2 x pairs = {2 * self.pairs} ids, and 4"
        self.require(self.vocab >= max(4, 2 * self.pairs), "vocab", rule)

    def draw(self, rng: np.random.Generator, count: int, part: Part) -> tuple[Ids, Ids]:
        begin, half = 2 * self.pairs, self.vocab // 2
        keys = distinct(rng, half, (count,), self.pairs)
        values = distinct(rng, self.vocab - half, (count,), self.pairs) + half
        tokens = np.empty((count, self.length), np.int64)
        tokens[:, 0:begin:2], tokens[:, 1:begin:2] = keys, values
        tokens[:, begin:] = _others(rng, self.vocab, keys, self.length - begin)
        places = begin + 2 * _gaps(rng, (self.length - begin) // 2, count)[:, : self.pairs]
        np.put_along_axis(tokens, places, keys, 1)
        targets = np.full(tokens.shape, IGNORED)
        np.put_along_axis(targets, places, values, 1)
        return tokens, targets


def _gaps(rng: np.random.Generator, space: int, count: int) -> NDArray[np.int64]:
    """All places 0 .. space - 1 in the order in which they are drawn without replacement.

    Places whose exponential clocks, at the rates of their weights, ring first (Efraimidis and
    Spirakis, 2006): the same as drawing one after the other.
    """
    weights = np.arange(1, space + 1) ** (GAP_EXPONENT - 1)
    return np.argsort(rng.exponential(size=(count, space)) / weights, axis=1)


def _others(
    rng: np.random.Generator, vocab: int, keys: NDArray[np.int64], length: int
) -> NDArray[np.int64]:
    """Random ids that are none of a row's keys (N, K): ranks among those left, (N, length)."""
    count, pairs = keys.shape
    passed = np.sort(keys, axis=1) - np.arange(pairs)
    ranks = rng.integers(vocab - pairs, size=(count, length))
    # Rows stand one behind the other, so that one search serves all of them.
    rows = np.arange(count)[:, None] * vocab
    places = np.searchsorted((passed + rows).ravel(), (ranks + rows).ravel(), side="right")
    below = places.reshape(ranks.shape) - np.arange(count)[:, None] * pairs
    return np.asarray(ranks + below)
