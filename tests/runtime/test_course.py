"""When a course ends, and that its state goes through JSON."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest

from starc.runtime.course import Course
from starc.runtime.data import Score
from starc.runtime.run import Settings

LIMITS = Settings(
    "data", 100, 1, 1, 1e-3, 1, divergence=1.0, divergence_steps=10, stop_accuracy=0.9, patience=3
)


def after(losses: list[float], limits: Settings = LIMITS) -> Course:
    course = Course()
    for step, loss in enumerate(losses, 1):
        if course.running:
            course.took(step, loss, 1.0, limits)
    return course


def score(loss: float, correct: int = 0) -> Score:
    return Score(nats=100 * loss, correct=correct, scored=100)


def test_a_loss_that_stays_high_is_divergence():
    course = after([5.0, *[1.0] * 50, *[2.5] * 40])
    assert course.status == "diverged"
    assert 61 < course.step < 75  # ten steps above the bound, once the mean has got there
    assert "at step" in course.reason


@pytest.mark.parametrize(
    "losses",
    [
        [*[1.0] * 50, *[9.0] * 2, *[1.0] * 50],  # a spike
        [*[1.0] * 50, *[1.8] * 60],  # above, but below the bound
        [300.0, 5.0, *[4.0] * 40],  # a bad start is no best
        [*[0.5, 2.0] * 60],  # noise
    ],
)
def test_what_is_no_divergence(losses: list[float]):
    assert after(losses).running


def test_divergence_can_be_left_out():
    assert after([*[1.0] * 9, *[99.0] * 90], replace(LIMITS, divergence=0.0)).running


@pytest.mark.parametrize(("loss", "norm"), [(math.nan, 1.0), (math.inf, 1.0), (1.0, math.nan)])
def test_what_is_not_finite_ends_a_course_before_the_step(loss: float, norm: float):
    course = after([1.0, 2.0])
    course.took(3, loss, norm, LIMITS)
    assert (course.status, course.step, course.loss) == ("diverged", 2, 2.0)
    assert course.reason.startswith("at step 3, the ")


def test_enough_accuracy_stops():
    course = after([1.0])
    course.judged(score(1.0, correct=89), LIMITS)
    assert course.running
    course.judged(score(2.0, correct=90), LIMITS)
    assert course.status == "stopped-early"
    assert "accuracy" in course.reason


def test_patience_ends():
    course = after([1.0])
    for loss in (3.0, 2.0, 2.1, 2.2, 1.9, 1.9, 2.0):
        course.judged(score(loss), LIMITS)
        assert course.running
    course.judged(score(2.0), LIMITS)
    assert course.status == "stopped-early"
    course.judged(score(0.1), LIMITS)
    assert course.score == score(0.1)


def test_a_course_goes_through_json():
    course = after([1.5, 1.25])
    for _ in range(2):
        course.judged(score(2.0), LIMITS)
    again = Course.of_state(json.loads(json.dumps(course.state())), course.step)
    assert again == course
    course.status = "interrupted"
    assert Course.of_state(course.state(), 2).running
    fresh = Course.of_state(json.loads(json.dumps(Course().state())), 0)
    assert math.isnan(fresh.loss)
    assert fresh.best == math.inf


def test_what_older_versions_wrote_is_understood():
    course = Course.of_state({"loss": 2.0, "validation_bits": 3.0}, 7)
    assert (course.step, course.loss, course.score, course.running) == (7, 2.0, None, True)
