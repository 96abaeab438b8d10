"""Floating-point work as a formula in the length: coefficients that structure gives.

Owns: counts of operations from coefficients. Refuses: where coefficients come from (walk.py).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

WHOLE = 1 << 62
"""A window longer than any sequence: all past tokens."""


@dataclass(frozen=True, slots=True)
class Work:
    """Floating-point operations of matrix products and convolutions, as coefficients.

    `token`: per token. `position`: per position whatever the batch (filters made from positions).
    `pairs`: (window, step, causal, operations per visible pair), where every step-th token of the
    window is visible. `spectrum`: channels convolved by FFT.
    `triple`: per pair of tokens and token between them, for a product of two written-out mixers.
    `modal`: channels convolved by FFT in a forward pass, and operations of their states in a step.
    """

    token: int = 0
    position: int = 0
    pairs: tuple[tuple[int, int, bool, int], ...] = ()
    spectrum: int = 0
    triple: int = 0
    modal: tuple[int, int] = (0, 0)

    def forward(self, length: int, batch: int) -> int:
        """Operations of one forward pass over (batch, length) tokens."""
        each = self.token * length
        for window, step, causal, operations in self.pairs:
            each += operations * visible_pairs(length, window, causal, step)
        if channels := self.spectrum + self.modal[0]:
            each += round(10 * length * math.log2(length) * channels)
        if self.triple:
            each += self.triple * length * (length + 1) * (length + 2) // 6
        return batch * each + self.position * length

    def decode(self, length: int, batch: int) -> int:
        """Operations of the step that completes a sequence of `length` tokens.

        Values that are kept are at hand; making others from them again is not counted.
        """
        each = self.token + self.modal[1]
        for window, step, _, operations in self.pairs:
            each += operations * -(-min(length, window) // step)
        each += 2 * length * self.spectrum
        each += self.triple * length * (length + 1) // 2
        return batch * each


def visible_pairs(length: int, window: int, causal: bool, step: int = 1) -> int:
    """Pairs (i, j) with |i - j| < window and a multiple of step, and j <= i when causal."""
    width = min(length, window)
    whole, rest = divmod(width, step)  # row i < width sees i // step + 1 tokens up to itself
    pairs = step * whole * (whole + 1) // 2 + rest * (whole + 1)
    pairs += (length - width) * -(-width // step)
    return pairs if causal else 2 * pairs - length
