"""Fuzzy recall, parsed again in plain Python."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest

from starc.runtime.tasks import Task, make_task

IGNORED = -100
Motif = tuple[int, ...]


def parse(sequence: list[int], keys: range, padding: int) -> tuple[int, list[tuple[Motif, Motif]]]:
    """How many ids of padding stand before, and the pairs after them."""
    pad = 0
    while sequence[pad] == padding:
        pad += 1
    pairs: list[tuple[Motif, Motif]] = []
    for place in range(pad, len(sequence)):
        token = sequence[place]
        if token in keys and (place == pad or sequence[place - 1] not in keys):
            pairs.append(((), ()))
        key, value = pairs[-1]
        pairs[-1] = ((*key, token), value) if token in keys else (key, (*value, token))
    return pad, pairs


def solve(tokens: list[int], keys: range, padding: int) -> list[int | None]:
    """What a reader who remembers every pair says comes next: the next id of a known value."""
    memory: dict[Motif, Motif] = {}
    key: Motif = ()
    value: Motif = ()
    said: list[int | None] = []
    for token in tokens:
        if token in keys:
            if value:
                memory[key] = value
                key = value = ()
            key = (*key, token)
        elif token != padding:
            value = (*value, token)
        known = memory.get(key, ())
        said.append(known[len(value)] if len(value) < len(known) else None)
    return said


def sequences(task: Task, part: str) -> list[list[int]]:
    """All ids, the last one too, which is always a target."""
    tokens, targets = getattr(task, part)
    return np.concatenate([tokens, targets[:, -1:]], axis=1).astype(int).tolist()


@pytest.fixture(scope="module")
def task() -> Task:
    return make_task("fuzzy-in-context-recall", examples=1_500, held_out_examples=1_500)


@pytest.mark.parametrize("part", ["training", "test"])
def test_layout(task: Task, part: str):
    keys, values = task.ids["keys"], task.ids["values"]
    assert (keys, values) == (range(7), range(7, 15))
    shortest = 1 if part == "training" else 3
    for sequence in sequences(task, part):
        assert len(sequence) == 129
        pad, pairs = parse(sequence, keys, 15)
        assert 15 not in sequence[pad:]
        memory: dict[Motif, Motif] = {}
        for key, value in pairs:
            assert shortest <= len(key) <= 3
            assert 1 <= len(value) <= 3
            assert len(set(key)) == len(key)
            assert len(set(value)) == len(value)
            assert set(value) <= set(values)
            assert memory.setdefault(key, value) == value
        # The last pair was shown before, and another would have had no room.
        assert pairs[-1] in pairs[:-1]
        probe = len(pairs[-1][0]) + len(pairs[-1][1])
        shown = 129 - pad - probe
        assert shown >= 128 - probe - 6
        assert shown - sum(map(len, pairs[-2])) < 128 - probe - 6


def test_training_asks_for_every_next_id(task: Task):
    tokens, targets = task.training
    assert (targets[:, :-1] == tokens[:, 1:]).all()


@pytest.mark.parametrize("split", ["validation", "test"])
def test_exactly_the_answers_that_are_known_are_asked(task: Task, split: str):
    for tokens, targets in zip(*(part.tolist() for part in getattr(task, split)), strict=True):
        said = solve(tokens, task.ids["keys"], 15)
        assert [IGNORED if answer is None else answer for answer in said] == targets
        assert targets[-1] != IGNORED


def test_sizes_and_ids_are_even(task: Task):
    for part, sizes in (("training", (1, 2, 3)), ("test", (3,))):
        firsts = [parse(s, task.ids["keys"], 15)[1][0] for s in sequences(task, part)]
        keys = Counter(len(key) for key, _ in firsts)
        values = Counter(len(value) for _, value in firsts)
        for counted, expected in ((keys, sizes), (values, (1, 2, 3))):
            assert set(counted) == set(expected)
            share = 1 / len(expected)
            slack = 5 * math.sqrt(share * (1 - share) / len(firsts))
            assert all(abs(n / len(firsts) - share) <= slack for n in counted.values())
        # Position by position every id is as likely as another.
        for ids, motifs in (
            (task.ids["keys"], [key for key, _ in firsts]),
            (task.ids["values"], [value for _, value in firsts]),
        ):
            for place in range(3):
                drawn = Counter(motif[place] for motif in motifs if len(motif) > place)
                expected_count = drawn.total() / len(ids)
                chi = sum((drawn[i] - expected_count) ** 2 / expected_count for i in ids)
                assert chi < 35


def test_the_pair_that_returns_stands_anywhere(task: Task):
    places = []
    for sequence in sequences(task, "test"):
        _, pairs = parse(sequence, task.ids["keys"], 15)
        places.append(pairs.index(pairs[-1]) / (len(pairs) - 2))
    counts, _ = np.histogram(places, bins=5, range=(0, 1))
    assert counts.min() > 200


def test_the_shortest_sequences_still_hold_the_probe():
    task = make_task("fuzzy-in-context-recall", length=13, vocab=7, examples=300)
    for part in ("training", "test"):
        for sequence in sequences(task, part):
            _, pairs = parse(sequence, task.ids["keys"], 6)
            assert pairs[-1] in pairs[:-1]
