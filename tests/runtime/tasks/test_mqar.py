"""Multi-query recall, solved again in plain Python."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest

from starc.runtime.tasks import make_task, settings
from starc.runtime.tasks.drawing import distinct, earliest

IGNORED = -100
SMALL = {"examples": 50, "held_out_examples": 50}


@pytest.mark.parametrize("changes", [*settings("mqar"), {"vocab": 8, "length": 16, "pairs": 4}])
def test_every_key_is_asked_once_and_nothing_else(changes: dict[str, int]):
    task = make_task("mqar", **SMALL, **changes)
    pairs, half = changes.get("pairs", 4), changes.get("vocab", 8_192) // 2
    for part in ("training", "test"):
        for tokens, targets in zip(*(rows.tolist() for rows in getattr(task, part)), strict=True):
            memory = dict(zip(tokens[0 : 2 * pairs : 2], tokens[1 : 2 * pairs : 2], strict=True))
            assert len(memory) == len(set(memory.values())) == pairs
            assert max(memory) < half <= min(memory.values())
            assert set(targets[: 2 * pairs]) == {IGNORED}
            rest = range(2 * pairs, len(tokens))
            asked = [place for place in rest if targets[place] != IGNORED]
            assert all(place % 2 == 0 for place in asked)
            assert sorted(tokens[place] for place in asked) == sorted(memory)
            assert all(memory[tokens[place]] == targets[place] for place in asked)
            # What stands elsewhere is never mistaken for a question.
            assert not {tokens[place] for place in rest if place not in asked} & set(memory)


def test_ids_are_even_everywhere():
    task = make_task("mqar", vocab=16, length=16, pairs=2, examples=4_000)
    tokens, targets = task.training
    for column, first, count in ((0, 0, 8), (2, 0, 8), (1, 8, 8), (3, 8, 8)):
        counts = np.bincount(tokens[:, column], minlength=16)[first : first + count]
        assert counts.sum() == 4_000
        assert ((counts - 500) ** 2 / 500).sum() < 30  # 7 degrees of freedom
    filled = tokens[:, 4:][targets[:, 4:] == IGNORED]
    counts = np.bincount(filled, minlength=16)
    # A key of the sequence is never filled in, so ids of the lower half have 6/14 of the places.
    assert abs(counts[:8].sum() / counts.sum() - 6 / 14) < 0.01
    assert counts.min() > 0


def test_questions_near_the_pairs_are_likelier():
    task = make_task("mqar", vocab=16, length=2 + 2 * 20, pairs=1, examples=20_000)
    places = (task.training[1] != IGNORED).argmax(1)
    counts = np.bincount((places - 2) // 2, minlength=20)
    weights = np.arange(1, 21) ** (0.01 - 1.0)
    expected = 20_000 * weights / weights.sum()
    assert ((counts - expected) ** 2 / expected).sum() < 50  # 19 degrees of freedom


def test_places_follow_draws_without_replacement():
    """Of two keys and three places: the probabilities of drawing one after the other."""
    task = make_task("mqar", vocab=16, length=10, pairs=2, examples=20_000)
    rows = task.training[0].tolist()
    first = np.array([row.index(row[0], 4) - 4 for row in rows])
    second = np.array([row.index(row[2], 4) - 4 for row in rows])
    weights = [1.0, 2**-0.99, 3**-0.99]
    total = sum(weights)
    for a, b in ((0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)):
        expected = weights[a] / total * weights[b] / (total - weights[a])
        found = ((first == 2 * a) & (second == 2 * b)).mean()
        assert abs(found - expected) < 5 * math.sqrt(expected / 20_000)


@pytest.mark.parametrize(("high", "count"), [(3, 3), (5, 2), (4, 1)])
def test_distinct_draws_every_ordered_tuple_alike(high: int, count: int):
    drawn = distinct(np.random.default_rng(0), high, (6_000,), count)
    tuples = Counter(map(tuple, drawn.tolist()))
    assert len(tuples) == math.perm(high, count)
    assert all(len(set(one)) == count and max(one) < high for one in tuples)
    expected = 6_000 / len(tuples)
    assert all(abs(n - expected) < 5 * math.sqrt(expected) for n in tuples.values())


def test_distinct_up_to_all_of_many():
    drawn = distinct(np.random.default_rng(0), 60, (4, 5), 60)
    assert (np.sort(drawn, axis=-1) == np.arange(60)).all()


def test_earliest_finds_the_first_of_each_label():
    labels = np.array([[7, 2, 7, 0, 2, 7], [1, 1, 1, 1, 1, 1]])
    order = np.array([[5, 4, 3, 2, 1, 0], [3, 0, 1, 2, 5, 4]])
    assert earliest(labels, order).tolist() == [[5, 4, 5, 3, 4, 5], [1] * 6]
