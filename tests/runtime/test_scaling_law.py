"""Fits of scaling laws on trainings whose law is known, exactly and under noise."""

from __future__ import annotations

import math

import numpy as np
import pytest

from starc.grammar.errors import StarError
from starc.runtime.scaling_law import Point, fit_scaling_law

BUDGETS = [1e14, 3e14, 1e15, 3e15, 1e16]
SIZE, LOSS, STATE = 0.46, -0.05, 0.7


def best_size(flops: float) -> float:
    return float(0.3 * flops**SIZE)


def best_loss(flops: float) -> float:
    return float(3.0 * (flops / 1e15) ** LOSS)


def trainings(
    budgets: list[float] = BUDGETS, sizes: int = 6, noise: float = 0.0, seed: int = 0
) -> list[Point]:
    """A quadratic of known minimum for each budget; tokens follow from 6 operations per parameter
    and token, states are a power of the size. Sizes are not centred on the best one."""
    generator = np.random.default_rng(seed)
    found = []
    for flops in budgets:
        for size in best_size(flops) * 1.3 * 16.0 ** np.linspace(-0.5, 0.5, sizes):
            loss = best_loss(flops) + 0.08 * math.log(size / best_size(flops)) ** 2
            loss += generator.normal(0, noise)
            found.append(Point(flops, size, flops / (6 * size), loss, 2 * size**STATE))
    return found


def test_a_law_without_noise_is_found_exactly() -> None:
    law = fit_scaling_law(trainings(), samples=50)
    assert law.size is not None
    assert law.tokens is not None
    assert law.loss is not None
    assert law.state_loss is not None
    assert law.size.exponent.value == pytest.approx(SIZE, abs=1e-9)
    assert law.tokens.exponent.value == pytest.approx(1 - SIZE, abs=1e-9)
    assert law.loss.exponent.value == pytest.approx(LOSS, abs=1e-9)
    # state ~ C^(SIZE * STATE), loss ~ C^LOSS
    assert law.state_loss.exponent.value == pytest.approx(LOSS / (SIZE * STATE), abs=1e-9)
    assert law.noise == pytest.approx(0, abs=1e-9)
    for optimum in law.optima:
        assert optimum.found
        assert optimum.size.value == pytest.approx(best_size(optimum.flops))
        assert optimum.loss.value == pytest.approx(best_loss(optimum.flops))
        assert optimum.tokens.value == pytest.approx(optimum.flops / 6 / best_size(optimum.flops))
        assert optimum.curve[2] == pytest.approx(0.08)
    assert law.size.at(1e20).value == pytest.approx(best_size(1e20))
    assert law.loss.at(1e20).value == pytest.approx(best_loss(1e20))


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    """Under noise of 0.01, 120 times; intervals of 95 %, so surely in 88 to 99 % of them."""
    hits = np.zeros(3)
    times = 120
    for seed in range(times):
        law = fit_scaling_law(trainings(noise=0.01, seed=seed), samples=200, seed=seed)
        assert law.size is not None
        assert law.loss is not None
        predicted = law.size.at(1e17)
        hits += [
            law.size.exponent.low <= SIZE <= law.size.exponent.high,
            law.loss.exponent.low <= LOSS <= law.loss.exponent.high,
            predicted.low <= best_size(1e17) <= predicted.high,
        ]
    assert (hits / times > 0.88).all()
    assert (hits / times < 0.99).all()


def test_noise_is_estimated_and_widens_intervals() -> None:
    widths = []
    for noise in (0.003, 0.03):
        law = fit_scaling_law(trainings(noise=noise, sizes=12, seed=1), samples=200)
        assert law.noise == pytest.approx(noise, rel=0.3)
        assert law.size is not None
        widths.append(law.size.exponent.high - law.size.exponent.low)
    assert 4 < widths[1] / widths[0] < 25


def test_prediction_is_less_certain_further_away() -> None:
    law = fit_scaling_law(trainings(noise=0.01), samples=200)
    assert law.size is not None
    near, far = (law.size.at(flops) for flops in (1e15, 1e20))
    assert near.high / near.low < far.high / far.low


def test_three_sizes_give_a_fit_without_intervals() -> None:
    law = fit_scaling_law(trainings(sizes=3, noise=0.001), samples=50)
    assert law.size is not None
    assert law.size.exponent.value == pytest.approx(SIZE, abs=0.1)
    assert math.isnan(law.size.exponent.low)
    assert math.isnan(law.noise)


def test_the_same_seed_gives_the_same_intervals() -> None:
    points = trainings(noise=0.01)
    assert fit_scaling_law(points, samples=50) == fit_scaling_law(points[::-1], samples=50)


def test_a_budget_without_a_minimum_does_not_count() -> None:
    """Losses that only fall, or bend downwards, say nothing about the best size."""
    points = trainings(noise=0.002)
    falling = [
        Point(1e17, size, 1e17 / 6 / size, 5 - 0.5 * math.log(size))
        for size in (1e7, 3e7, 1e8, 3e8)
    ]
    law = fit_scaling_law([*points, *falling], samples=50)
    assert [o.found for o in law.optima] == [True] * 5 + [False]
    assert math.isnan(law.optima[-1].size.value)
    alone = fit_scaling_law(points, samples=50)
    assert law.size is not None
    assert alone.size is not None
    assert law.size.exponent.value == pytest.approx(alone.size.exponent.value)
    assert law.state_loss is not None


def test_diverged_trainings_and_doubles_are_left_out() -> None:
    points = trainings()
    bad = [Point(p.flops, p.size * 1.01, p.tokens, math.nan) for p in points]
    assert fit_scaling_law([*points, *bad, *points], samples=50) == fit_scaling_law(
        points, samples=50
    )


def test_one_budget_gives_an_optimum_and_no_law() -> None:
    law = fit_scaling_law(trainings(budgets=[1e15]), samples=50)
    assert law.optima[0].size.value == pytest.approx(best_size(1e15))
    assert law.size is None


def test_two_sizes_are_too_few() -> None:
    with pytest.raises(StarError) as refused:
        fit_scaling_law(trainings(sizes=2))
    assert [d.code for d in refused.value.diagnostics] == ["too-few-trainings"]
