"""The hypervolume of a sequence of points."""

from __future__ import annotations

import numpy as np
import pytest

from starc.search.hypervolume import growth

INF = float("inf")


def test_the_volume_is_that_of_the_boxes():
    points = np.array([[3.0, 1.0], [INF, INF], [1.0, 3.0], [2.0, 2.0], [4.0, 4.0]])
    found = growth(points, reference=(5.0, 5.0))
    assert found.ideal == (1.0, 1.0)
    # Of the box from (1, 1) to (5, 5), 16 in all.
    assert [count for count, _ in found.curve] == [1, 3, 4, 5]
    volumes = [16 * volume for _, volume in found.curve]
    assert volumes == pytest.approx([8, 12, 13, 13])


def test_it_never_falls_and_outliers_do_not_stretch_it():
    rng = np.random.default_rng(1)
    points = rng.random((100, 2))
    volumes = [volume for _, volume in growth(points).curve]
    assert volumes == sorted(volumes)
    points[3] = 1e6, 1e6
    assert growth(points).reference < (10.0, 10.0)


@pytest.mark.parametrize("points", [np.empty((0, 2)), np.full((3, 2), INF)])
def test_without_a_point_there_is_no_volume(points: np.ndarray):
    assert growth(points).curve == ()


def test_one_value_for_all_is_no_division_by_zero():
    assert growth(np.full((4, 2), 7.0)).curve[-1][0] == 4
