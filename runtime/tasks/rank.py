"""Recall whose needed state is known: how many bindings are alive at once is a setting.

Owns: the task, and the bound on what a state of so many bits can reach.
Refuses: recall in which chance decides how much there is to remember (recall.py).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from starc.runtime.tasks.drawing import distinct
from starc.runtime.tasks.recall import answers, next_ids
from starc.runtime.tasks.task import Ids, Part, Task


@dataclass(frozen=True, kw_only=True)
class RankRecall(Task):
    """`rank` distinct keys with distinct values, and then nothing but questions about them.

    Keys are the first half of the ids, values the second. The first `rank` slots show the pairs;
    each later slot draws one of the keys, and its value is the answer. Targets are as in recall.
    Neither length nor distances grow with `rank`: only what must be remembered does.

    What is known about it:

    - The binding of keys to values, as a matrix with a column per key and a row per value, has rank
      exactly `rank`. A memory that is a sum of r outer products of values and keys, read by a
      product with the key, has a squared error of at least rank - r (Eckart and Young, 1936), so
      it is exact only for r >= rank.
    - If a product with a matrix must give back every sign of `rank` signs by the sign of its
      result, the matrix is strictly diagonally dominant up to order, so it has rank `rank` (Levy
      and Desplanques): fewer dimensions cannot recall all contents without something nonlinear.
    - Whatever the model does, `bound` limits its accuracy by the bits of its state.
    """

    vocab: int = 128
    length: int = 128
    rank: int = 8

    NAME: ClassVar[str] = "rank"
    VARIATIONS: ClassVar[Mapping[str, tuple[float, ...]]] = {"rank": (16, 32, 48)}

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

    @property
    def bits(self) -> float:
        """The entropy of the values, given the keys: what a state must hold for all answers."""
        values = len(self.ids["values"])
        return (math.lgamma(values + 1) - math.lgamma(values - self.rank + 1)) / math.log(2)

    def bound(self, bits: float) -> float:
        """The accuracy that no model exceeds whose state after the pairs holds `bits` bits.

        By Fano's inequality for each binding and concavity: with an error rate e over n values,
        h(e) + e log2(n - 1) >= (self.bits - bits) / rank, where h is the binary entropy.
        """
        missing = (self.bits - bits) / self.rank
        values = len(self.ids["values"])
        low, high = 0.0, 1 - 1 / values  # the left side grows between them
        for _ in range(60):
            error = (low + high) / 2
            enough = _binary_entropy(error) + error * math.log2(values - 1) >= missing
            low, high = (low, error) if enough else (error, high)
        return 1 - low

    def check(self) -> None:
        self.require(self.vocab >= 4, "vocab", "at least 4 ids, two keys and two values")
        self.require(self.length % 2 == 0, "length", "an even number: ids come in pairs")
        rule = f"from 1 to {self.vocab // 2}, the number of keys"
        self.require(1 <= self.rank <= self.vocab // 2, "rank", rule)
        rule = f"more than 2 x rank = {2 * self.rank} ids, or nothing is asked"
        self.require(self.length > 2 * self.rank, "length", rule)

    def draw(self, rng: np.random.Generator, count: int, part: Part) -> tuple[Ids, Ids]:
        keys, values = self.ids["keys"], self.ids["values"]
        drawn = distinct(rng, len(keys), (count,), self.rank)
        bound = distinct(rng, len(values), (count,), self.rank) + values.start
        slots = self.length // 2
        asked = rng.integers(self.rank, size=(count, slots))
        asked[:, : self.rank] = np.arange(self.rank)
        sequence = np.empty((count, self.length), np.int64)
        sequence[:, 0::2] = np.take_along_axis(drawn, asked, 1)
        sequence[:, 1::2] = np.take_along_axis(bound, asked, 1)
        if part == "training":
            return next_ids(sequence)
        scored = np.broadcast_to(np.arange(slots) >= self.rank, (count, slots))
        return answers(sequence, scored)


def _binary_entropy(share: float) -> float:
    if not 0 < share < 1:
        return 0.0
    return -share * math.log2(share) - (1 - share) * math.log2(1 - share)
