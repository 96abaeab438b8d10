"""Memorization, compression and selective copying, solved again in plain Python."""

from __future__ import annotations

import math

import numpy as np
import pytest

from starc.runtime.tasks import make_task
from starc.runtime.tasks.memory import Memorization

IGNORED = -100


def test_memorization_layout():
    task = make_task("memorization")
    for part in ("training", "validation", "test"):
        tokens, targets = getattr(task, part)
        assert tokens.shape == ((256 if part == "training" else 1_280), 32)
        assert set(np.unique(tokens[:, 0::2])) == set(range(127))
        assert (tokens[:, 1::2] == 255).all()
        assert (targets[:, 0::2] == IGNORED).all()
        assert targets[:, 1::2].min() >= 127
        assert targets.max() <= 254


def test_the_map_is_one_to_one_and_the_same_in_all_sets():
    task = make_task("memorization", seed=3)
    known: dict[int, int] = {}
    for part in ("training", "validation", "test"):
        tokens, targets = getattr(task, part)
        keys, values = tokens[:, 0::2].ravel().tolist(), targets[:, 1::2].ravel().tolist()
        assert all(
            known.setdefault(key, value) == value for key, value in zip(keys, values, strict=True)
        )
    assert len(set(known.values())) == len(known) == 127
    assert [known[key] for key in range(127)] != list(range(127, 254))


def test_the_map_follows_from_the_seed():
    first, again, other = (make_task("memorization", seed=seed) for seed in (0, 0, 1))
    assert isinstance(first, Memorization)
    assert isinstance(again, Memorization)
    assert isinstance(other, Memorization)
    assert (first.values == again.values).all()
    assert (first.values != other.values).any()


@pytest.mark.parametrize("vocab", [256, 2_048, 8_192])
def test_the_ceiling_of_memorization_is_what_a_memoriser_reaches(vocab: int):
    task = make_task("memorization", vocab=vocab)
    keys, values = task.training[0][:, 0::2], task.training[1][:, 1::2]
    known = dict(zip(keys.ravel().tolist(), values.ravel().tolist(), strict=True))
    left = sorted(set(task.ids["values"]) - set(known.values()))
    right, asked = 0.0, 0
    tokens, targets = (part.tolist() for part in task.test)
    for row, after in zip(tokens, targets, strict=True):
        for key, value in zip(row[0::2], after[1::2], strict=True):
            asked += 1
            right += float(known[key] == value) if key in known else 1 / len(left)
    assert task.ceiling("test") == pytest.approx(right / asked, abs=1e-12)
    # 4,096 draws from the keys: the share that is drawn at all.
    count = (vocab - 1) // 2
    expected = 1 - (1 - 1 / count) ** 4_096
    assert abs(right / asked - expected) < 0.02
    assert task.ceiling("validation") == pytest.approx(task.ceiling("test"), abs=0.02)


def test_compression_gives_back_all_of_a_random_sequence():
    task = make_task("compression", examples=2_000)
    tokens, targets = task.training
    assert tokens.shape == (2_000, 32)
    assert (tokens == targets).all()
    assert (tokens[:, -1] == 15).all()
    counts = np.bincount(tokens[:, :-1].ravel(), minlength=16)
    assert counts[15] == 0
    expected = counts.sum() / 15
    assert ((counts[:15] - expected) ** 2 / expected).sum() < 45  # 14 degrees of freedom


def test_noise_of_compression_is_not_scored():
    task = make_task("compression", vocab=32, noise=0.25, noise_ids=8, examples=1_000)
    assert task.ids == {"data": range(23), "noise": range(23, 31), "end": range(31, 32)}
    tokens, targets = task.training
    noise = (tokens >= 23) & (tokens < 31)
    assert (targets[noise] == IGNORED).all()
    assert (targets[~noise] == tokens[~noise]).all()
    assert not noise[:, -1].any()
    slack = 5 * math.sqrt(0.25 * 0.75 / noise[:, :-1].size)
    assert abs(noise[:, :-1].mean() - 0.25) < slack


def copied(tokens: list[int], vocab: int) -> list[int]:
    """The targets by the rule: what is data before the copy id, at the places after it."""
    at = tokens.index(vocab - 1)
    data = [token for token in tokens[:at] if token != vocab - 2]
    return [IGNORED] * (at + 1) + data


@pytest.mark.parametrize("changes", [{}, {"data": 96}, {"length": 33}, {"data": 1, "length": 7}])
def test_copying_asks_for_the_data_in_order(changes: dict[str, int]):
    task = make_task("selective-copying", examples=200, held_out_examples=200, **changes)
    count = changes.get("data", 16)
    for part in ("training", "test"):
        for tokens, targets in zip(*(rows.tolist() for rows in getattr(task, part)), strict=True):
            assert len(tokens) == changes.get("length", 256)
            assert copied(tokens, 16) == targets
            assert tokens[-count - 1] == 15
            assert tokens[-count:] == [14] * count
            assert max(targets) <= 13


def test_blanks_stand_before_each_id_of_data_alike():
    task = make_task("selective-copying", examples=4_000)
    tokens, targets = task.training
    assert np.bincount(targets[:, -16:].ravel(), minlength=14).min() > 4_000 * 16 / 14 * 0.93
    places = np.nonzero(tokens[:, :-17] < 14)[1].reshape(4_000, 16)
    assert (places[:, -1] == 238).all()  # none stands after the last
    gaps = np.diff(places, axis=1, prepend=-1) - 1
    assert gaps.sum(1).tolist() == [223] * 4_000
    deviation = math.sqrt(223 / 16 * 15 / 16)  # binomial
    assert (abs(gaps.mean(0) - 223 / 16) < 5 * deviation / math.sqrt(4_000)).all()
    assert (abs(gaps.std(0) - deviation) < 0.15).all()
