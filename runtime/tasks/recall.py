"""Recall from the context: in-context, noisy, and at lengths beyond those of training.

Owns: sequences of key-value pairs in which a key keeps its value, and which answers can be known.
Refuses: keys and values of several ids (fuzzy.py).

The tasks of MAD (arXiv 2403.17844); docs/tasks.md says where its published code differs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from starc.runtime.data import IGNORED
from starc.runtime.tasks.task import Ids, Part, Task

EXAMPLES = (6_400, 3_200, 1_600, 800)
"""MAD's smaller training sets."""


@dataclass(frozen=True)
class Pairs:
    """Slots of a key and its value.

    `ids` (N, 2 S) is the sequence; `since` (N, S) how many slots ago the slot's key was shown last,
    0 where it is new or the slot holds noise.
    """

    ids: Ids
    since: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class InContextRecall(Task):
    """Pairs of a key and its value, in which a known key returns with its value.

    Keys are the first half of the ids, values the second. Each of length / 2 slots draws a key; a
    key that is new in the sequence draws a value, with replacement. The last slot is a probe: one
    of the keys shown, all equally likely. The model sees all ids but the last. In training every
    next id is a target; in validation and test the values of keys that were shown before.
    """

    vocab: int = 16
    length: int = 128

    NAME: ClassVar[str] = "in-context-recall"
    VARIATIONS: ClassVar[Mapping[str, tuple[float, ...]]] = {
        "vocab": (32, 64, 128),
        "length": (256, 512, 1024),
        "examples": EXAMPLES,
    }

    @property
    def tokens(self) -> int:
        return self.length - 1

    @property
    def ids(self) -> dict[str, range]:
        half = self.vocab // 2
        return {"keys": range(half), "values": range(half, self.vocab)}

    @property
    def chance(self) -> float:
        return 1 / len(self.ids["values"])

    def check(self) -> None:
        self.require(self.vocab >= 4, "vocab", "at least 4 ids, two keys and two values")
        self._check_length()

    def draw(self, rng: np.random.Generator, count: int, part: Part) -> tuple[Ids, Ids]:
        pairs = draw_pairs(rng, count, self.length // 2, self.ids)
        return next_ids(pairs.ids) if part == "training" else answers(pairs.ids, pairs.since > 0)

    def _check_length(self) -> None:
        self.require(self.length % 2 == 0, "length", "an even number: ids come in pairs")
        self.require(self.length >= 4, "length", "at least 4 ids: a pair and the probe")


@dataclass(frozen=True, kw_only=True)
class NoisyInContextRecall(InContextRecall):
    """In-context recall in which each slot but the probe is, with probability `noise`, noise.

    The last `noise_ids` ids are noise and nothing else; keys and values share the others. A noisy
    slot holds two of them, never scored. One slot of every sequence, drawn first, holds a pair.
    """

    vocab: int = 32
    noise: float = 0.2
    noise_ids: int = 16

    NAME: ClassVar[str] = "noisy-in-context-recall"
    VARIATIONS: ClassVar[Mapping[str, tuple[float, ...]]] = {
        "vocab": (48, 80, 144),
        "length": (256, 512, 1024),
        "examples": EXAMPLES,
        "noise": (0.4, 0.6, 0.8),
    }

    @property
    def ids(self) -> dict[str, range]:
        end = self.vocab - self.noise_ids
        parts = {"keys": range(end // 2), "values": range(end // 2, end)}
        return parts | {"noise": range(end, self.vocab)}

    def check(self) -> None:
        self.require_share("noise")
        self.require(self.noise_ids >= 1, "noise_ids", "at least one")
        rule = f"at least 4 ids beside the {self.noise_ids} of noise, two keys and two values"
        self.require(self.vocab - self.noise_ids >= 4, "vocab", rule)
        self._check_length()

    def draw(self, rng: np.random.Generator, count: int, part: Part) -> tuple[Ids, Ids]:
        pairs = draw_pairs(rng, count, self.length // 2, self.ids, self.noise)
        return next_ids(pairs.ids) if part == "training" else answers(pairs.ids, pairs.since > 0)


@dataclass(frozen=True, kw_only=True)
class LengthExtrapolation(InContextRecall):
    """In-context recall, learnt at one length and tested over distances that it never showed.

    Training and validation sequences have `length` ids, those of the test `factor` times as many,
    of which only the answers are scored whose key was shown last at least `length` ids ago: further
    than any training sequence reaches.
    """

    vocab: int = 128
    length: int = 64
    factor: int = 2

    NAME: ClassVar[str] = "length-extrapolation"
    VARIATIONS: ClassVar[Mapping[str, tuple[float, ...]]] = {"factor": (4, 8, 16)}

    @property
    def context(self) -> int:
        return self.factor * self.length - 1

    def check(self) -> None:
        super().check()
        self.require(self.factor >= 2, "factor", "at least 2")
        rule = "at least half of 'length', or hardly a key stays away for so long"
        self.require(2 * self.vocab >= self.length, "vocab", rule)

    def draw(self, rng: np.random.Generator, count: int, part: Part) -> tuple[Ids, Ids]:
        if part != "test":
            return super().draw(rng, count, part)
        slots = self.factor * self.length // 2
        pairs = draw_pairs(rng, count, slots, self.ids)
        return answers(pairs.ids, pairs.since >= self.length // 2)


def draw_pairs(
    rng: np.random.Generator, count: int, slots: int, ids: dict[str, range], noise: float = 0.0
) -> Pairs:
    """Sequences of `slots` pairs, the last one a probe with a key shown before."""
    keys, values = ids["keys"], ids["values"]
    drawn = rng.integers(len(keys), size=(slots, count))  # a row per slot: the loop reads rows
    bound = rng.integers(values.start, values.stop, size=(count, len(keys)))
    noisy = np.zeros((slots, count), bool)
    if noise > 0:
        noisy[:-1] = rng.random((slots - 1, count)) < noise
        noisy[rng.integers(slots - 1, size=count), np.arange(count)] = False
    rows = np.arange(count)
    last = np.full((count, len(keys) + 1), -1)  # the last column is written by noisy slots
    since = np.zeros((slots, count), np.int64)
    for slot in range(slots):
        if slot == slots - 1:
            known = last[:, :-1] >= 0
            drawn[slot] = np.where(known, rng.random(known.shape), -1.0).argmax(1)
        key = np.where(noisy[slot], len(keys), drawn[slot])
        before = last[rows, key]
        since[slot] = np.where((before < 0) | noisy[slot], 0, slot - before)
        last[rows, key] = slot
    sequence = np.empty((count, 2 * slots), np.int64)
    sequence[:, 0::2] = drawn.T
    sequence[:, 1::2] = np.take_along_axis(bound, drawn.T, 1)
    if noise > 0:
        area = ids["noise"]
        hidden = np.repeat(noisy.T, 2, axis=1)
        sequence[hidden] = rng.integers(area.start, area.stop, size=int(hidden.sum()))
    return Pairs(sequence, since.T)


def next_ids(sequence: Ids) -> tuple[Ids, Ids]:
    """All ids but the last, and after each the next one as its target."""
    return sequence[:, :-1], sequence[:, 1:]


def answers(sequence: Ids, scored: NDArray[np.bool_]) -> tuple[Ids, Ids]:
    """All ids but the last, with the values of the slots `scored` (N, S) as the only targets."""
    targets = np.full(sequence.shape, IGNORED)
    targets[:, 1::2] = np.where(scored, sequence[:, 1::2], IGNORED)
    return sequence[:, :-1], targets[:, 1:]
