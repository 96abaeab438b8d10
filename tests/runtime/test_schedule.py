"""Learning rates of steps."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from starc.runtime.run import Settings
from starc.runtime.schedule import FINAL_SHARE, rate_share, stable_until

PLAN = Settings("data", steps=100, batch=1, length=1, learning_rate=1.0, warmup=10)


def shares(plan: Settings) -> list[float]:
    return [rate_share(plan, step) for step in range(1, plan.steps + 1)]


@pytest.mark.parametrize("schedule", ["cosine", "wsd", "constant"])
def test_all_warm_up(schedule: str):
    found = shares(replace(PLAN, schedule=schedule))
    assert found[:10] == pytest.approx([n / 10 for n in range(1, 11)])
    assert found[10:] == sorted(found[10:], reverse=True)


def test_the_cosine_decays_to_a_tenth():
    found = shares(PLAN)
    assert found[54] == pytest.approx((1 + FINAL_SHARE) / 2)  # half of the way down
    assert found[-1] == pytest.approx(FINAL_SHARE)
    assert stable_until(PLAN) == 0


def test_wsd_is_the_same_for_any_budget_until_it_decays():
    short, long = replace(PLAN, schedule="wsd"), replace(PLAN, schedule="wsd", steps=400)
    assert stable_until(short) == 80
    assert stable_until(long) == 320
    assert shares(short)[:80] == shares(long)[:80]
    assert shares(short)[79] == 1.0
    decay = shares(short)[80:]
    assert all(a > b for a, b in pairwise(decay))
    assert 0 < decay[-1] < 0.05


def test_wsd_decays_from_any_moment():
    plan = replace(PLAN, schedule="wsd", steps=60, decay_after=55)
    found = shares(plan)
    assert found[54] == 1.0
    assert 0 < found[-1] < found[55] < 1.0
