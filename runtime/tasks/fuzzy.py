"""Fuzzy in-context recall: keys and values are tuples of ids, of sizes that vary.

Owns: sequences of such pairs, of which one returns at the end.
Refuses: keys and values of one id each (recall.py).

The task of MAD (arXiv 2403.17844); docs/tasks.md says where its published code differs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from starc.runtime.data import IGNORED
from starc.runtime.tasks.drawing import distinct, earliest
from starc.runtime.tasks.recall import EXAMPLES, next_ids
from starc.runtime.tasks.task import Ids, Part, Task

LONGEST = 3
"""The most ids of a key, and of a value."""

PAIR = 2 * LONGEST


@dataclass(frozen=True)
class _Motifs:
    """A key and a value per slot: ids (N, S, 3), of which the first `size` (N, S) count."""

    keys: NDArray[np.int64]
    key_sizes: NDArray[np.int64]
    values: NDArray[np.int64]
    value_sizes: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class FuzzyInContextRecall(Task):
    """In-context recall whose keys and values are ordered tuples of distinct ids.

    Of the ids below vocab - 1, the first half makes keys and the rest values. Sizes are drawn
    evenly from 1 to 3, but keys have 3 ids in validation and test. A key that is new in the
    sequence draws a value; one pair, put at a random place, returns at the end. Sequences are
    padded on the left, with vocab - 1, to length + 1 ids; the model sees all but the last. In
    training every next id is a target, padding too; in validation and test every id of the values
    of keys that were shown before.
    """

    vocab: int = 16
    length: int = 128

    NAME: ClassVar[str] = "fuzzy-in-context-recall"
    VARIATIONS: ClassVar[Mapping[str, tuple[float, ...]]] = {
        "vocab": (32, 64, 128),
        "length": (256, 512, 1024),
        "examples": EXAMPLES,
    }

    @property
    def tokens(self) -> int:
        return self.length

    @property
    def ids(self) -> dict[str, range]:
        pad = self.vocab - 1
        parts = {"keys": range(pad // 2), "values": range(pad // 2, pad)}
        return parts | {"padding": range(pad, self.vocab)}

    @property
    def chance(self) -> float:
        return 1 / len(self.ids["values"])

    def check(self) -> None:
        self.require(self.vocab >= 2 * LONGEST + 1, "vocab", "at least 7 ids: keys have three ids")
        self.require(self.length > 2 * PAIR, "length", "at least 13 ids: a pair has up to six")

    def draw(self, rng: np.random.Generator, count: int, part: Part) -> tuple[Ids, Ids]:
        smallest = 1 if part == "training" else LONGEST
        # Slot 0 is the pair that returns; the others follow one another until there is no room.
        motifs = self._motifs(rng, count, 1 + self.length // (smallest + 1), smallest)
        sizes = motifs.key_sizes + motifs.value_sizes
        probe = sizes[:, :1]
        starts = np.cumsum(sizes, axis=1) - sizes - probe
        end = self.length - probe - PAIR  # a slot starts before it, or not at all
        wanted = rng.integers(self.length - 2 * probe[:, 0])[:, None]
        room = (starts[:, 1:] < end).sum(1, keepdims=True)
        place = np.minimum((starts[:, 1:] < wanted).sum(1, keepdims=True), room - 1)
        starts[:, :1] = np.take_along_axis(starts[:, 1:], place, 1)
        starts[:, 1:] += np.where(np.arange(sizes.shape[1] - 1) >= place, probe, 0)
        shown = starts < end
        finish = np.where(shown, starts + sizes, 0).max(1, keepdims=True)
        shift = self.length + 1 - finish - probe

        sequence = np.full((count, self.length + 1), self.vocab - 1)
        scored = np.zeros(sequence.shape, bool)
        # Slots that are not shown come last, so none of them is anybody's earliest.
        first = earliest(_labels(motifs, self.vocab), np.where(shown, starts, starts + self.length))
        known = first != np.arange(sizes.shape[1])
        _write(sequence, scored, motifs, starts + shift, shown, known)
        returning = _Motifs(*(part[:, :1] for part in vars(motifs).values()))
        always = np.ones((count, 1), bool)
        _write(sequence, scored, returning, finish + shift, always, always)
        if part == "training":
            return next_ids(sequence)
        return sequence[:, :-1], np.where(scored, sequence, IGNORED)[:, 1:]

    def _motifs(self, rng: np.random.Generator, count: int, slots: int, smallest: int) -> _Motifs:
        """Keys and values of slots; a key that an earlier slot has brings that slot's value."""
        shape = (count, slots)
        keys, values = self.ids["keys"], self.ids["values"]
        drawn = _Motifs(
            distinct(rng, len(keys), shape, LONGEST),
            rng.integers(smallest, LONGEST, size=shape, endpoint=True),
            distinct(rng, len(values), shape, LONGEST) + values.start,
            rng.integers(1, LONGEST, size=shape, endpoint=True),
        )
        order = np.broadcast_to(np.arange(slots), shape)
        first = earliest(_labels(drawn, self.vocab), order)
        return _Motifs(
            drawn.keys,
            drawn.key_sizes,
            np.take_along_axis(drawn.values, first[..., None], 1),
            np.take_along_axis(drawn.value_sizes, first, 1),
        )


def _labels(motifs: _Motifs, vocab: int) -> NDArray[np.int64]:
    """A number per slot, the same for the same key."""
    labels = np.zeros(motifs.key_sizes.shape, np.int64)
    for i in range(LONGEST):
        digit = np.where(i < motifs.key_sizes, motifs.keys[..., i] + 1, 0)
        labels += digit * vocab**i
    return labels


def _write(
    sequence: NDArray[np.int64],
    scored: NDArray[np.bool_],
    motifs: _Motifs,
    starts: NDArray[np.int64],
    shown: NDArray[np.bool_],
    known: NDArray[np.bool_],
) -> None:
    """Write the slots that are `shown` where they start, and mark the values of `known` keys."""
    for i in range(LONGEST):
        rows, slots = np.nonzero(shown & (i < motifs.key_sizes))
        sequence[rows, starts[rows, slots] + i] = motifs.keys[rows, slots, i]
        rows, slots = np.nonzero(shown & (i < motifs.value_sizes))
        places = starts[rows, slots] + motifs.key_sizes[rows, slots] + i
        sequence[rows, places] = motifs.values[rows, slots, i]
        scored[rows, places] = known[rows, slots]
