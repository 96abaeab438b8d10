"""Memorization, compression and selective copying: what a model keeps, in weights and in its state.

Owns: these three tasks.
Refuses: the auto-encoder that compression is learnt with (runtime/autoencoder.py).

The tasks of MAD (arXiv 2403.17844); docs/tasks.md says where its published code differs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import nn

from starc.runtime.autoencoder import AutoEncoder
from starc.runtime.data import IGNORED, Split
from starc.runtime.tasks.recall import EXAMPLES
from starc.runtime.tasks.task import Ids, Part, Task


@dataclass(frozen=True, kw_only=True)
class Memorization(Task):
    """A map from keys to values that is the same in all sets, and must be held in the weights.

    Of the ids below vocab - 1, the first half is keys, and each is mapped to a value of its own
    among the rest. A sequence is a random key and the id vocab - 1, in turn; the key's value is the
    target at the place after it.
    """

    vocab: int = 256
    length: int = 32
    examples: int = 256

    NAME: ClassVar[str] = "memorization"
    VARIATIONS: ClassVar[Mapping[str, tuple[float, ...]]] = {
        "vocab": (512, 1_024, 2_048, 4_096, 8_192)
    }

    @property
    def tokens(self) -> int:
        return self.length

    @property
    def ids(self) -> dict[str, range]:
        end = self.vocab - 1
        parts = {"keys": range(end // 2), "values": range(end // 2, end)}
        return parts | {"question": range(end, self.vocab)}

    @property
    def chance(self) -> float:
        return 1 / len(self.ids["keys"])  # no other value is ever the answer

    @cached_property
    def values(self) -> NDArray[np.int64]:
        """The value of each key, (keys,)."""
        values, keys = self.ids["values"], self.ids["keys"]
        return self.generator("map").permutation(np.array(values))[: len(keys)]

    def ceiling(self, split: Split = "test") -> float:
        """What is reached by knowing every key that training shows, and guessing the others.

        A guess is one of the values of no such key, each as good as another.
        """
        known = np.zeros(len(self.values), bool)
        known[self.training[0][:, 0::2]] = True
        tokens, _ = self.validation if split == "validation" else self.test
        share = float(known[tokens[:, 0::2]].mean())
        left = len(self.ids["values"]) - int(known.sum())
        return share + (1 - share) / max(left, 1)

    def check(self) -> None:
        self.require(self.vocab >= 5, "vocab", "at least 5 ids, two keys and two values")
        self.require(self.length % 2 == 0, "length", "an even number: keys and places for answers")

    def draw(self, rng: np.random.Generator, count: int, part: Part) -> tuple[Ids, Ids]:
        keys = rng.integers(len(self.values), size=(count, self.length // 2))
        tokens = np.full((count, self.length), self.vocab - 1)
        targets = np.full(tokens.shape, IGNORED)
        tokens[:, 0::2] = keys
        targets[:, 1::2] = self.values[keys]
        return tokens, targets


@dataclass(frozen=True, kw_only=True)
class Compression(Task):
    """Random ids, then vocab - 1, at whose place the whole sequence must be in one vector.

    `adapt` wraps the model in an auto-encoder, which gives the sequence back from that vector. With
    `noise`, that share of the random ids is drawn from `noise_ids` ids of noise, the last ones
    below vocab - 1, and never scored.
    """

    vocab: int = 16
    length: int = 32
    noise: float = 0.0
    noise_ids: int = 16

    NAME: ClassVar[str] = "compression"
    VARIATIONS: ClassVar[Mapping[str, tuple[float, ...]]] = {
        "vocab": (32, 64, 128),
        "length": (64, 128, 256),
        "examples": EXAMPLES,
    }

    @property
    def tokens(self) -> int:
        return self.length

    @property
    def ids(self) -> dict[str, range]:
        last = self.vocab - 1
        end = last - self.noise_ids if self.noise > 0 else last
        parts = {"data": range(end), "noise": range(end, last), "end": range(last, self.vocab)}
        return {name: part for name, part in parts.items() if part}

    @property
    def chance(self) -> float:
        scored = (self.length - 1) * (1 - self.noise)  # and the last id, which is always the same
        return (scored / len(self.ids["data"]) + 1) / (scored + 1)

    def check(self) -> None:
        self.require_share("noise")
        self.require(self.noise_ids >= 1, "noise_ids", "at least one")
        rule = "at least two ids of data, beside the last id and those of noise"
        self.require(self.vocab - 1 - self.noise_ids * (self.noise > 0) >= 2, "vocab", rule)
        self.require(self.length >= 2, "length", "at least 2 ids")

    def draw(self, rng: np.random.Generator, count: int, part: Part) -> tuple[Ids, Ids]:
        tokens = np.full((count, self.length), self.vocab - 1)
        tokens[:, :-1] = rng.integers(len(self.ids["data"]), size=(count, self.length - 1))
        targets = tokens.copy()
        if self.noise > 0:
            noisy = np.zeros(tokens.shape, bool)
            noisy[:, :-1] = rng.random((count, self.length - 1)) < self.noise
            area = self.ids["noise"]
            tokens[noisy] = rng.integers(area.start, area.stop, size=int(noisy.sum()))
            targets[noisy] = IGNORED
        return tokens, targets

    def adapt(self, model: nn.Module) -> nn.Module:
        """The model as the encoder of an auto-encoder, which takes it over."""
        return AutoEncoder(model, vocab=self.vocab, length=self.length)


@dataclass(frozen=True, kw_only=True)
class SelectiveCopying(Task):
    """Ids of data among blanks, to be given back in order without the blanks.

    `data` random ids below vocab - 2; before each of them, blanks (vocab - 2), length - 2 data - 1
    in all, each at a place drawn evenly; then the copy id (vocab - 1) and `data` blanks, whose
    targets are the data.
    """

    vocab: int = 16
    length: int = 256
    data: int = 16

    NAME: ClassVar[str] = "selective-copying"
    VARIATIONS: ClassVar[Mapping[str, tuple[float, ...]]] = {
        "vocab": (32, 64, 128),
        "length": (512, 1_024),
        "examples": EXAMPLES,
        "data": (32, 64, 96),
    }

    @property
    def tokens(self) -> int:
        return self.length

    @property
    def ids(self) -> dict[str, range]:
        blank = self.vocab - 2
        parts = {"data": range(blank), "blank": range(blank, blank + 1)}
        return parts | {"copy": range(blank + 1, self.vocab)}

    @property
    def chance(self) -> float:
        return 1 / (self.vocab - 2)

    def check(self) -> None:
        self.require(self.vocab >= 4, "vocab", "at least 4 ids, two of data")
        self.require(self.data >= 1, "data", "at least one id")
        rule = f"at least 2 x data + 1 = {2 * self.data + 1} ids"
        self.require(self.length > 2 * self.data, "length", rule)

    def draw(self, rng: np.random.Generator, count: int, part: Part) -> tuple[Ids, Ids]:
        n, blanks = self.data, self.length - 2 * self.data - 1
        data = rng.integers(self.vocab - 2, size=(count, n))
        before = np.cumsum(rng.multinomial(blanks, np.full(n, 1 / n), size=count), axis=1)
        tokens = np.full((count, self.length), self.vocab - 2)
        np.put_along_axis(tokens, before + np.arange(n), data, 1)
        tokens[:, -n - 1] = self.vocab - 1
        targets = np.full(tokens.shape, IGNORED)
        targets[:, -n:] = data
        return tokens, targets
