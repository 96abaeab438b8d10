"""The hypervolume of points whose every coordinate is to be small.

Owns: how the volume that points dominate grows as they come in. Refuses: signs and penalties
(objectives.py), and fronts (front.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]


@dataclass(frozen=True)
class Growth:
    """The hypervolume after each point of a sequence that changed it: (how many points, volume).

    Coordinates are scaled so that `ideal` is 0 and `reference` is 1: volumes lie between 0 and 1.
    """

    ideal: tuple[float, ...]
    reference: tuple[float, ...]
    curve: tuple[tuple[int, float], ...]


def growth(points: Points, reference: Sequence[float] | None = None) -> Growth:
    """How the hypervolume grows as points (n, m) come in; rows with inf or NaN count for nothing.

    The ideal is the best of every coordinate. Without a reference it is a tenth of the range beyond
    the worst of every coordinate that is no outlier (Tukey's outer fence, three interquartile
    ranges above the third quartile), so volumes of two sequences compare only with one reference
    for both.
    """
    import moocore

    kept = np.isfinite(points).all(axis=1) if len(points) else np.zeros(0, dtype=np.bool_)
    if not kept.any():
        return Growth((), tuple(reference or ()), ())
    ideal = points[kept].min(axis=0)
    far = _beyond(points[kept]) if reference is None else np.asarray(reference, np.float64)
    span = np.where(far > ideal, far - ideal, 1.0)
    scaled = (points - ideal) / span
    one = np.ones(points.shape[1])
    front = np.empty((0, points.shape[1]))
    curve: list[tuple[int, float]] = []
    for place in np.flatnonzero(kept):
        new = scaled[place]
        if (front <= new).all(axis=1).any():
            continue
        front = np.vstack([front[~(new <= front).all(axis=1)], new])
        curve.append((int(place) + 1, float(moocore.hypervolume(front, ref=one))))
    last = len(points)
    if curve[-1][0] != last:
        curve.append((last, curve[-1][1]))
    return Growth(tuple(map(float, ideal)), tuple(map(float, far)), tuple(curve))


def _beyond(points: Points) -> Points:
    ideal, worst = points.min(axis=0), points.max(axis=0)
    low, high = np.quantile(points, (0.25, 0.75), axis=0)
    fence = np.where(high > low, high + 3 * (high - low), worst)
    far = np.minimum(worst, fence)
    return np.asarray(far + 0.1 * (far - ideal), np.float64)
