"""Draws that several tasks share, for all examples at once.

Owns: distinct ids, and which entry of a row repeats an earlier one.
Refuses: generators of its own.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]


def distinct(rng: np.random.Generator, high: int, shape: tuple[int, ...], count: int) -> Indices:
    """Ordered tuples of `count` distinct ids of 0 .. high - 1, all equally likely: (*shape, count).

    The i-th id is drawn from those that are left: its rank among them, raised by one for each id
    before that it must pass over, the smallest first.
    """
    chosen = np.empty((count, *shape), np.int64)
    ascending: list[Indices] = []
    for i in range(count):
        value = rng.integers(high - i, size=shape)
        for smaller in ascending:
            value += value >= smaller
        chosen[i] = value
        for j, other in enumerate(ascending):
            ascending[j], value = np.minimum(other, value), np.maximum(other, value)
        ascending.append(value)
    return np.moveaxis(chosen, 0, -1)


def earliest(labels: Indices, order: Indices) -> Indices:
    """For every entry of a row the entry of the same label that is first in `order`, (N, S).

    `labels` and `order` are (N, S), not negative, and `order` has no entry twice in a row.
    """
    span = int(order.max(initial=0)) + 1
    places = np.argsort(labels * span + order, axis=1)
    grouped = np.take_along_axis(labels, places, 1)
    begins = np.ones(labels.shape, bool)
    begins[:, 1:] = grouped[:, 1:] != grouped[:, :-1]
    heads = np.maximum.accumulate(np.where(begins, np.arange(labels.shape[1]), 0), axis=1)
    found = np.empty(labels.shape, np.int64)
    np.put_along_axis(found, places, np.take_along_axis(places, heads, 1), 1)
    return found
