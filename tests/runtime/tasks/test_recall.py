"""Recall, noisy recall and length extrapolation, counted again in plain Python."""

from __future__ import annotations

import math

import numpy as np
import pytest

from starc.runtime.tasks import Task, make_task

IGNORED = -100


def solve(tokens: list[int], keys: range) -> list[int | None]:
    """What a reader who remembers every pair says comes next, where the token is a known key."""
    memory: dict[int, int] = {}
    said: list[int | None] = []
    for place in range(0, len(tokens), 2):
        key = tokens[place]
        said += [memory.get(key), None]
        if key in keys and place + 1 < len(tokens):
            memory[key] = tokens[place + 1]
    return said[: len(tokens)]


@pytest.fixture(scope="module")
def recall() -> Task:
    return make_task("in-context-recall", examples=2_000, held_out_examples=800)


@pytest.fixture(scope="module")
def noisy() -> Task:
    return make_task("noisy-in-context-recall", examples=2_000, held_out_examples=800)


def near(found: float, expected: float, count: int, deviation: float) -> bool:
    """Whether the mean of `count` draws is within five standard errors."""
    return abs(found - expected) < 5 * deviation / math.sqrt(count)


def test_training_asks_for_every_next_id(recall: Task, noisy: Task):
    for task in (recall, noisy):
        tokens, targets = task.training
        assert tokens.shape == targets.shape == (2_000, 127)
        assert (targets[:, :-1] == tokens[:, 1:]).all()


def test_keys_and_values_alternate_within_their_halves(recall: Task):
    tokens, targets = recall.training
    whole = np.concatenate([tokens, targets[:, -1:]], axis=1)
    assert set(np.unique(whole[:, 0::2])) == set(range(8))
    assert set(np.unique(whole[:, 1::2])) == set(range(8, 16))


def test_keys_are_even_and_values_independent_of_them(recall: Task):
    tokens, targets = recall.training
    keys, values = tokens[:, 0].astype(int), targets[:, 0].astype(int)
    assert all(near((keys == k).mean(), 1 / 8, 2_000, 0.33) for k in range(8))
    table = np.zeros((8, 8))
    np.add.at(table, (keys, values - 8), 1)
    expected = 2_000 / 64
    assert ((table - expected) ** 2 / expected).sum() < 120  # chi-square, 63 degrees of freedom


@pytest.mark.parametrize("split", ["validation", "test"])
def test_exactly_the_answers_that_are_known_are_asked(recall: Task, noisy: Task, split: str):
    for task in (recall, noisy):
        for tokens, targets in zip(*(part.tolist() for part in getattr(task, split)), strict=True):
            said = solve(tokens, task.ids["keys"])
            assert [IGNORED if answer is None else answer for answer in said] == targets
            assert targets[-1] != IGNORED


def test_a_key_keeps_its_value(recall: Task):
    tokens, targets = (part.tolist() for part in recall.training)
    for row, after in zip(tokens, targets, strict=True):
        said = solve(row, range(8))
        assert all(answer in (None, after[place]) for place, answer in enumerate(said))


def test_the_probe_is_any_key_that_was_shown_however_often(recall: Task):
    keys = recall.test[0][:, 0::2]
    difference = []
    for row in keys.tolist():
        shown = row[:-1]
        assert row[-1] in shown
        difference.append(shown.count(row[-1]) - len(shown) / len(set(shown)))
    assert near(float(np.mean(difference)), 0.0, len(difference), float(np.std(difference)))


def test_noise_hides_the_wanted_share_of_slots_and_is_never_asked(noisy: Task):
    tokens, targets = noisy.test
    tokens = np.concatenate([tokens, targets[:, -1:]], axis=1).astype(int)
    noise = tokens >= 16
    assert (noise[:, 0::2] == noise[:, 1::2]).all()
    assert not noise[:, -2:].any()
    assert set(np.unique(tokens[noise])) == set(range(16, 32))
    assert targets.max() < 16
    # One of the 63 slots before the probe is always a pair.
    assert near(noise[:, :-2:2].mean(), 0.2 * 62 / 63, 800 * 63, 0.4)
    assert set(np.unique(tokens[:, 0::2][~noise[:, 0::2]])) == set(range(8))


def test_every_sequence_holds_a_pair_whatever_the_noise():
    task = make_task("noisy-in-context-recall", noise=0.99, length=8, examples=500)
    tokens = task.training[0]
    pairs = (tokens[:, 0:6:2] < 16).sum(1)
    assert pairs.min() == 1
    assert (pairs == 1).mean() > 0.9
    places = (tokens[:, 0:6:2] < 16).argmax(1)
    assert set(places.tolist()) == {0, 1, 2}
    assert all(near((places == p).mean(), 1 / 3, 500, 0.48) for p in range(3))


def test_no_noise_is_plain_recall():
    task = make_task("noisy-in-context-recall", noise=0.0, examples=50)
    assert task.training[0].max() < 16


@pytest.mark.parametrize("factor", [2, 8])
def test_extrapolation_asks_only_beyond_the_length_of_training(factor: int):
    task = make_task(
        "length-extrapolation", factor=factor, examples=10, held_out_examples=200, length=32
    )
    assert task.training[0].shape == (10, 31)
    assert task.validation[0].shape == (200, 31)
    assert task.test[0].shape == (200, 32 * factor - 1)
    assert task.context == 32 * factor - 1
    asked = 0
    for tokens, targets in zip(*(part.tolist() for part in task.test), strict=True):
        said, last = solve(tokens, task.ids["keys"]), dict[int, int]()
        for place in range(0, len(tokens), 2):
            far = place - last.get(tokens[place], place) >= 32
            assert targets[place] == (said[place] if far else IGNORED)
            last[tokens[place]] = place
            asked += far
    assert asked > 100


def test_extrapolation_is_validated_as_it_is_learnt():
    task = make_task("length-extrapolation", examples=10, held_out_examples=50)
    for tokens, targets in zip(*(part.tolist() for part in task.validation), strict=True):
        said = solve(tokens, task.ids["keys"])
        assert [IGNORED if answer is None else answer for answer in said] == targets
