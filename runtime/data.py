"""What a model is trained and judged on, as the trainer sees it: a text corpus or a synthetic task.

Owns: the interface between data and the trainer, and what an evaluation counts.
Refuses: where the tokens come from, and how a model learns.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import nn

Tokens = NDArray[np.int64]

IGNORED = -100
"""A target that is neither learnt nor scored."""

Split = Literal["validation", "test"]


class Data(Protocol):
    """Batches to learn from, and held-out examples to be judged by.

    `name` is what the user asked for; `digest` identifies everything that is drawn from, to the
    byte; tokens are 0 .. vocab - 1; `bytes_per_token` is 1 for bytes and 0 where bits per byte
    have no meaning.
    """

    @property
    def name(self) -> str: ...

    @property
    def digest(self) -> str: ...

    @property
    def vocab(self) -> int: ...

    @property
    def bytes_per_token(self) -> float: ...

    def batch(self, step: int, *, batch: int, length: int, seed: int) -> tuple[Tokens, Tokens]:
        """Tokens and targets of a training step, both (batch, T); it depends on (seed, step) alone.

        `length` is the number of tokens of a text's window; a task has a length of its own.
        """
        ...

    def held_out(self, split: Split, *, length: int, limit: int) -> tuple[Tokens, Tokens]:
        """At most `limit` examples that training never draws, tokens and targets, both (n, T)."""
        ...

    def adapt(self, model: nn.Module) -> nn.Module:
        """The model with the head that this data needs: most need none and give it back.

        The result maps tokens (B, T) to logits (B, T, V) and has `loss(tokens, targets)`.
        """
        ...


@dataclass(frozen=True)
class Score:
    """Sums over the scored positions of held-out examples.

    `nats` is the summed cross-entropy, `correct` how many were predicted first, `scored` how many
    there are; `macro` is the summed accuracy of examples (each the share of its own scored
    positions) and `examples` counts those that have a scored position.
    """

    nats: float = 0.0
    correct: int = 0
    scored: int = 0
    macro: float = 0.0
    examples: int = 0

    def __add__(self, other: Score) -> Score:
        return Score(
            self.nats + other.nats,
            self.correct + other.correct,
            self.scored + other.scored,
            self.macro + other.macro,
            self.examples + other.examples,
        )

    @property
    def loss(self) -> float:
        """Mean cross-entropy in nats per scored token."""
        return self.nats / self.scored if self.scored else math.nan

    @property
    def accuracy(self) -> float:
        """The share of scored tokens that were predicted first."""
        return self.correct / self.scored if self.scored else math.nan

    @property
    def macro_accuracy(self) -> float:
        """The mean over examples of the share of each one's scored tokens."""
        return self.macro / self.examples if self.examples else math.nan

    def bits_per_byte(self, bytes_per_token: float) -> float:
        """Bits per byte of text; NaN where the data has none."""
        return self.loss / math.log(2.0) / bytes_per_token if bytes_per_token else math.nan
