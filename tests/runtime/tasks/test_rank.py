"""The rank task: what must be remembered is exactly what the setting says."""

from __future__ import annotations

import math

import numpy as np
import pytest

from starc.runtime.tasks import make_task
from starc.runtime.tasks.rank import RankRecall

IGNORED = -100


def rank_task(**changes: int) -> RankRecall:
    task = make_task("rank", examples=300, held_out_examples=300, **changes)
    assert isinstance(task, RankRecall)
    return task


@pytest.mark.parametrize("rank", [1, 8, 48])
def test_each_sequence_binds_so_many_keys(rank: int):
    task = rank_task(rank=rank)
    for tokens, targets in zip(*(part.tolist() for part in task.test), strict=True):
        memory: dict[int, int] = {}
        for place in range(0, 127, 2):
            key = tokens[place]
            assert key < 64
            if place < 2 * rank:
                assert key not in memory
                assert targets[place] == IGNORED
                memory[key] = tokens[place + 1]
            else:
                assert targets[place] == memory[key]
            assert targets[place + 1 : place + 2] in ([IGNORED], [])
        binding = np.zeros((64, 64))
        binding[np.array(list(memory.values())) - 64, list(memory)] = 1
        assert np.linalg.matrix_rank(binding) == rank
    tokens, targets = task.training
    assert (tokens[:, 1:] == targets[:, :-1]).all()


def test_no_state_gives_chance_and_a_whole_one_everything():
    task = rank_task(rank=4)
    assert task.bits == pytest.approx(math.log2(64 * 63 * 62 * 61))
    assert task.bound(task.bits) == 1.0
    assert task.bound(1e9) == 1.0
    # Distinct values tell a little of each other, so the bound of no bits is just above chance.
    assert task.chance < task.bound(0.0) < 0.1


def test_the_bound_grows_with_the_state_and_falls_with_the_rank():
    few, many = rank_task(rank=8), rank_task(rank=32)
    for task in (few, many):
        assert (np.diff([task.bound(bits) for bits in np.linspace(0, 200, 30)]) >= 0).all()
    assert all(few.bound(bits) > many.bound(bits) + 0.1 for bits in (10, 20, 40, 100))


def test_the_bound_is_kept_by_one_who_remembers_some_pairs():
    """Whoever keeps m pairs, and guesses a value that is none of theirs, is below the bound."""
    task = rank_task(rank=8)
    for kept in range(9):
        bits = sum(math.log2(64 - i) for i in range(kept))
        accuracy = kept / 8 + (1 - kept / 8) / (64 - kept)
        assert accuracy <= task.bound(bits) + 1e-9
        assert task.bound(bits) < accuracy + 0.2  # and the bound is of use


def test_the_bound_for_two_values_is_the_binary_rate_distortion_function():
    task = rank_task(vocab=4, rank=1)
    error = 1 - task.bound(0.5)
    entropy = -error * math.log2(error) - (1 - error) * math.log2(1 - error)
    assert entropy == pytest.approx(0.5)
