"""A Gaussian process over features of programs, refitted from scratch whenever it is asked.

A search has tens to hundreds of examples, for which the exact process takes milliseconds: sums of
a linear and a squared exponential kernel over standardised features, length scale and noise by the
largest marginal likelihood on a grid (Rasmussen and Williams 2006, equation 2.30). It draws
nothing, so that a resumed search predicts the same; a library of regressors would bring no more.

Owns: fitting and predicting. Refuses: what the features are (features.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

Array = NDArray[np.float64]
Features = Mapping[str, float]

_LENGTHS = (0.5, 1.0, 2.0, 4.0)
_NOISES = (0.01, 0.05, 0.2, 0.6)
_LINEAR = 0.5
"""The share of the linear kernel."""

MOST = 500
"""So many examples, the newest, are learnt from: time grows with the cube."""


@dataclass(frozen=True)
class Predictor:
    """A fitted process. Features that no example had are not looked at."""

    names: tuple[str, ...]
    mean: Array
    spread: Array
    examples: Array
    weights: Array
    length: float
    centre: float
    scale: float

    def predict(self, programs: Sequence[Features]) -> Array:
        """The expected value of each program (n,)."""
        if not len(programs):
            return np.zeros(0)
        wanted = (_matrix(programs, self.names) - self.mean) / self.spread
        kernel = _kernel(wanted, self.examples, self.length)
        found: Array = self.centre + self.scale * (kernel @ self.weights)
        return found


def fit(programs: Sequence[Features], values: Sequence[float]) -> Predictor:
    """The process behind examples; needs one at least, all values finite."""
    programs, values = programs[-MOST:], values[-MOST:]
    names = tuple(sorted({name for program in programs for name in program}))
    raw = _matrix(programs, names)
    varied = raw.std(axis=0) > 1e-12
    names = tuple(name for name, kept in zip(names, varied, strict=True) if kept)
    raw = raw[:, varied]
    mean, spread = raw.mean(axis=0), raw.std(axis=0)
    x = (raw - mean) / spread
    y = np.asarray(values, np.float64)
    centre, scale = float(np.median(y)), float(y.std()) or 1.0
    target = (y - centre) / scale
    best: tuple[float, float, Array] | None = None
    for length in _LENGTHS:
        kernel = _kernel(x, x, length)
        for noise in _NOISES:
            factor, lower = cho_factor(kernel + noise * np.eye(len(x)), lower=True)
            weights = cho_solve((factor, lower), target)
            likelihood = -0.5 * target @ weights - np.log(np.diag(factor)).sum()
            if best is None or likelihood > best[0]:
                best = float(likelihood), length, weights
    assert best is not None
    return Predictor(names, mean, spread, x, best[2], best[1], centre, scale)


def _matrix(programs: Sequence[Features], names: Sequence[str]) -> Array:
    rows = [[program.get(name, 0.0) for name in names] for program in programs]
    return np.array(rows, np.float64).reshape(len(programs), len(names))


def _kernel(a: Array, b: Array, length: float) -> Array:
    """Between rows; distances and products are means over features."""
    if not a.shape[1]:
        return np.zeros((len(a), len(b)))
    products = a @ b.T / a.shape[1]
    norms = (a**2).mean(axis=1)[:, None] + (b**2).mean(axis=1)[None, :]
    distances = np.maximum(norms - 2 * products, 0.0)
    found: Array = _LINEAR * products + np.exp(-distances / (2 * length**2))
    return found
