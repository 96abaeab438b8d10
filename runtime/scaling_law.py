"""Scaling laws from trainings: compute-optimal sizes, and how they grow with compute.

The second approach of Chinchilla (arXiv 2203.15556), as MAD uses it (arXiv 2403.17844): for every
compute budget C a quadratic of the loss in the logarithm of the size, whose minimum is the
compute-optimal size; then straight lines of optimal size, tokens and loss against C, all in
logarithms: y = a C^b. There is no irreducible loss in these lines: they hold over the range that
was trained, and a prediction far beyond it is an extrapolation.

Intervals come from the residual bootstrap: residuals of all quadratics, each divided by the square
root of 1 - its leverage, are drawn anew around the fitted curves, everything is fitted again, and
the interval holds the middle share of the results. A budget with three sizes is met by its
quadratic exactly and tells nothing about noise; where no budget has more, there are no intervals.
Intervals speak of noise around quadratics, not of how good a description quadratics are.

Owns: fits, intervals and predictions. Refuses: which trainings to do, and doing them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.polynomial import Polynomial
from numpy.typing import NDArray
from scipy.stats import norm, t

from starc.grammar.errors import Diagnostic, StarError

Array = NDArray[np.float64]

FEWEST_SIZES = 3
"""A quadratic has three coefficients."""

REACH = 0.5
"""A minimum may lie this share of the trained range of log size outside of it, no further."""


@dataclass(frozen=True)
class Point:
    """A finished training: the operations it took (FLOPs), the size of the model (parameters),
    tokens seen, held-out loss (nats per token) and state (elements that decoding keeps)."""

    flops: float
    size: float
    tokens: float
    loss: float
    state: float = 0.0


@dataclass(frozen=True)
class Estimate:
    """A value and the bounds of its interval, NaN where the data say nothing about noise."""

    value: float
    low: float = math.nan
    high: float = math.nan

    @classmethod
    def of(cls, value: float, samples: Array, share: float) -> Estimate:
        """The value with the middle `share` of what other noise would have given."""
        found = samples[np.isfinite(samples)]
        if len(found) < 2 or not math.isfinite(value):
            return cls(value)
        low, high = np.quantile(found, [(1 - share) / 2, (1 + share) / 2])
        return cls(value, float(low), float(high))


@dataclass(frozen=True)
class Optimum:
    """The best training of one budget, from the quadratic through all of them.

    `curve` are the coefficients of loss = c0 + c1 u + c2 u^2 in u = log(size / centre). `found`
    says that the quadratic has a minimum within reach of the sizes that were trained; only then do
    the estimates mean anything, and only then does the budget count in the power laws.
    """

    flops: float
    sizes: int
    centre: float
    curve: tuple[float, float, float]
    found: bool
    size: Estimate
    tokens: Estimate
    loss: Estimate
    state: Estimate


@dataclass(frozen=True)
class PowerLaw:
    """y = exp(intercept) x^exponent, with the pairs that other noise would have given."""

    exponent: Estimate
    intercept: float
    samples: Array = field(repr=False, compare=False)
    share: float

    def at(self, x: float) -> Estimate:
        """The value of the law at x, with its interval."""
        logs = self.samples[:, 0] + self.samples[:, 1] * math.log(x)
        value = math.exp(self.intercept + self.exponent.value * math.log(x))
        return Estimate.of(value, np.exp(logs), self.share)


@dataclass(frozen=True)
class ScalingLaw:
    """The optima of all budgets, smallest first, and power laws through those that were found.

    `size`, `tokens` and `loss` are laws in FLOPs. `state_loss` is the loss of compute-optimal
    models as a law in their state, where models have one. A law needs two budgets; with two it is
    a line through two points.
    """

    optima: tuple[Optimum, ...]
    size: PowerLaw | None
    tokens: PowerLaw | None
    loss: PowerLaw | None
    state_loss: PowerLaw | None
    noise: float
    """Standard deviation of the loss around the quadratics; NaN if unknown."""


def fit_scaling_law(
    points: Sequence[Point], *, samples: int = 1000, share: float = 0.95, seed: int = 0
) -> ScalingLaw:
    """Fit quadratics per budget and power laws across budgets, with intervals of `share`.

    Points of one budget have `flops` within one percent of each other. Budgets with fewer than
    three sizes are left out. Raises StarError `too-few-trainings` when none is left.
    """
    budgets = [_Budget(group) for group in _grouped(points) if len(group) >= FEWEST_SIZES]
    if not budgets:
        raise StarError(
            Diagnostic(
                "too-few-trainings",
                "no budget has three trainings of different size to fit a quadratic to.",
                hint="give --sizes 5, and budgets that allow so many sizes.",
            )
        )
    first = _Minima.of(budgets, [b.loss[None] for b in budgets])
    freedom = sum(len(b.u) - FEWEST_SIZES for b in budgets)
    noise, again = math.nan, None
    if freedom:
        noise = math.sqrt(sum(float(b.errors @ b.errors) for b in budgets) / freedom)
        again = _Minima.of(budgets, _resampled(budgets, freedom, samples, share, seed))
        again = again.where(np.isfinite(first.size))
    optima = tuple(_optimum(i, b, first, again, share) for i, b in enumerate(budgets))
    compute = np.log([[b.flops for b in budgets]])

    def law(x: Callable[[_Minima], Array], y: Callable[[_Minima], Array]) -> PowerLaw | None:
        intercept, exponent = (float(v) for v in _line(x(first), y(first))[0])
        if not math.isfinite(exponent):
            return None
        sampled = _line(x(again), y(again)) if again else np.empty((0, 2))
        sampled = sampled[np.isfinite(sampled).all(axis=1)]
        return PowerLaw(Estimate.of(exponent, sampled[:, 1], share), intercept, sampled, share)

    return ScalingLaw(
        optima,
        law(lambda m: compute, lambda m: m.size),
        law(lambda m: compute, lambda m: m.tokens),
        law(lambda m: compute, lambda m: np.log(m.loss)),
        law(lambda m: m.state, lambda m: np.log(m.loss)),
        noise,
    )


def _resampled(
    budgets: Sequence[_Budget], freedom: int, samples: int, share: float, seed: int
) -> list[Array]:
    """Losses (samples, n) of every budget with its residuals drawn anew from all."""
    spread = np.concatenate([b.residuals for b in budgets if len(b.u) > FEWEST_SIZES])
    tail = (1 + share) / 2
    # Few residuals look less wide than what they were drawn from, as in Student's distribution.
    spread = (spread - spread.mean()) * float(t.ppf(tail, freedom) / norm.ppf(tail))
    generator = np.random.default_rng(seed)
    return [b.fitted + generator.choice(spread, (samples, len(b.u))) for b in budgets]


@dataclass(frozen=True)
class _Minima:
    """Where quadratics are least: arrays (samples, budgets), NaN where there is no minimum in
    reach; logarithms but for the loss."""

    size: Array
    tokens: Array
    loss: Array
    state: Array

    @classmethod
    def of(cls, budgets: Sequence[_Budget], losses: Sequence[Array]) -> _Minima:
        found = [b.minima(loss) for b, loss in zip(budgets, losses, strict=True)]
        return cls(*(np.stack(column, axis=1) for column in zip(*found, strict=True)))

    def where(self, kept: NDArray[np.bool_]) -> _Minima:
        """Those of the budgets in `kept`; NaN for the others."""
        arrays = (self.size, self.tokens, self.loss, self.state)
        return _Minima(*(np.where(kept, a, math.nan) for a in arrays))


class _Budget:
    """The trainings of one budget, with the linear algebra of their quadratic."""

    def __init__(self, points: Sequence[Point]) -> None:
        points = sorted(points, key=lambda p: p.size)
        self.flops = math.exp(sum(math.log(p.flops) for p in points) / len(points))
        logs = np.log([p.size for p in points])
        self.log_centre = float(logs.mean())
        self.u: Array = logs - self.log_centre
        self.loss: Array = np.array([p.loss for p in points])
        design = np.vander(self.u, 3, increasing=True)
        self.solve: Array = np.linalg.pinv(design).astype(np.float64)
        self.fitted: Array = (design @ (self.solve @ self.loss)).astype(np.float64)
        self.errors: Array = self.loss - self.fitted
        leverage = np.einsum("ij,ji->i", design, self.solve)
        self.residuals: Array = self.errors / np.sqrt(np.maximum(1 - leverage, 1e-6))
        # Tokens and states of models between two sizes: both are nearly powers of the size.
        self.tokens = Polynomial.fit(self.u, np.log([p.tokens for p in points]), 2)
        self.state: Polynomial | None = None
        if all(p.state > 0 for p in points):
            self.state = Polynomial.fit(self.u, np.log([p.state for p in points]), 2)

    def curve(self) -> tuple[float, float, float]:
        c0, c1, c2 = (float(c) for c in self.solve @ self.loss)
        return c0, c1, c2

    def minima(self, loss: Array) -> tuple[Array, Array, Array, Array]:
        """Size, tokens, loss and state at the minima of quadratics through losses (samples, n)."""
        c0, c1, c2 = (loss @ self.solve.T).T
        u = np.divide(-c1, 2 * c2, out=np.full_like(c1, math.nan), where=c2 > 0)
        beyond = REACH * float(self.u[-1] - self.u[0])
        u[(u < self.u[0] - beyond) | (u > self.u[-1] + beyond)] = math.nan
        state = self.state(u) if self.state else np.full_like(u, math.nan)
        return self.log_centre + u, self.tokens(u), c0 + c1 * u / 2, state


def _grouped(points: Sequence[Point]) -> list[list[Point]]:
    """Points by budget, those whose loss is a number and whose size differs from the others'."""
    groups: list[list[Point]] = []
    for point in sorted(points, key=lambda p: p.flops):
        if not math.isfinite(point.loss):
            continue
        if groups and point.flops <= 1.01 * groups[-1][0].flops:
            if all(other.size != point.size for other in groups[-1]):
                groups[-1].append(point)
        else:
            groups.append([point])
    return groups


def _optimum(
    i: int, budget: _Budget, first: _Minima, again: _Minima | None, share: float
) -> Optimum:
    def estimate(value: Array, samples: Array | None) -> Estimate:
        return Estimate.of(
            float(value[0, i]), np.empty(0) if samples is None else samples[:, i], share
        )

    return Optimum(
        budget.flops,
        len(budget.u),
        math.exp(budget.log_centre),
        budget.curve(),
        bool(np.isfinite(first.size[0, i])),
        estimate(np.exp(first.size), np.exp(again.size) if again else None),
        estimate(np.exp(first.tokens), np.exp(again.tokens) if again else None),
        estimate(first.loss, again.loss if again else None),
        estimate(np.exp(first.state), np.exp(again.state) if again else None),
    )


def _line(x: Array, y: Array) -> Array:
    """Intercept and slope (samples, 2) of least-squares lines through the pairs of every row that
    are numbers; NaN where there are fewer than two different ones."""
    x = np.broadcast_to(x, y.shape)
    known = np.isfinite(x) & np.isfinite(y)
    count = np.maximum(known.sum(axis=1, keepdims=True), 1)
    x, y = np.where(known, x, 0.0), np.where(known, y, 0.0)
    mean_x, mean_y = x.sum(axis=1, keepdims=True) / count, y.sum(axis=1, keepdims=True) / count
    dx, dy = np.where(known, x - mean_x, 0.0), np.where(known, y - mean_y, 0.0)
    spread = (dx * dx).sum(axis=1)
    slope = np.divide(
        (dx * dy).sum(axis=1), spread, out=np.full_like(spread, math.nan), where=spread > 1e-12
    )
    return np.stack([mean_y[:, 0] - slope * mean_x[:, 0], slope], axis=1)
