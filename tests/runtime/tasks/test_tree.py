"""The tree grammar: its optimum and its predictions, against writing out every sequence."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from starc.runtime.tasks import make_task, settings
from starc.runtime.tasks.tree import TreeGrammar

SMALL = {"vocab": 4, "length": 4, "rules": 3, "examples": 4_000, "held_out_examples": 4_000}


def grammar(**changes: int) -> TreeGrammar:
    task = make_task("tree-grammar", **(SMALL | changes))
    assert isinstance(task, TreeGrammar)
    return task


def language(task: TreeGrammar) -> dict[tuple[int, ...], float]:
    """Every sequence of the grammar and its probability, by writing out all derivations."""
    symbols = task.vocab - 1
    found = {(root,): 1 / symbols for root in range(symbols)}
    for level in task.levels:
        grown: dict[tuple[int, ...], float] = {}
        for sequence, chance in found.items():
            for picks in itertools.product(range(task.rules), repeat=len(sequence)):
                bodies = [level.bodies[s, r] for s, r in zip(sequence, picks, strict=True)]
                whole = tuple(int(i) for body in bodies for i in body)
                factors = [level.chances[s, r] for s, r in zip(sequence, picks, strict=True)]
                assert whole not in grown  # one tree for each sequence
                grown[whole] = chance * math.prod(factors)
        found = grown
    return found


@pytest.fixture(scope="module", params=[{}, {"branching": 4, "rules": 5}, {"vocab": 3, "rules": 2}])
def task(request: pytest.FixtureRequest) -> TreeGrammar:
    return grammar(**request.param)


def test_the_optimum_is_the_entropy_of_the_language(task: TreeGrammar):
    chances = np.array(list(language(task).values()))
    assert chances.sum() == pytest.approx(1)
    entropy = -(chances * np.log(chances)).sum()
    assert task.optimum() == pytest.approx(entropy / task.length)


def test_predictions_are_the_conditionals_of_the_language(task: TreeGrammar):
    known = language(task)
    tokens = task.test[0][:60]
    predicted = task.next_token(tokens)
    for row, shown in enumerate(tokens.tolist()):
        for place in range(task.length):
            prefix = tuple(shown[1 : place + 1])
            after = np.zeros(task.vocab - 1)
            for sequence, chance in known.items():
                if sequence[:place] == prefix:
                    after[sequence[place]] += chance
            np.testing.assert_allclose(predicted[row, place], after / after.sum(), atol=1e-12)


def test_sequences_are_drawn_with_their_probabilities(task: TreeGrammar):
    known = language(task)
    drawn, counts = np.unique(task.training[1], axis=0, return_counts=True)
    for sequence, count in zip(drawn.tolist(), counts.tolist(), strict=True):
        expected = 4_000 * known[tuple(sequence)]
        assert abs(count - expected) < 6 * math.sqrt(expected) + 4
    marginals = np.zeros((task.length, task.vocab - 1))
    for sequence, chance in known.items():
        marginals[np.arange(task.length), list(sequence)] += chance
    np.testing.assert_allclose(task.marginals[-1], marginals, atol=1e-12)


@pytest.mark.parametrize("changes", settings("tree-grammar"))
def test_the_exact_predictor_reaches_the_optimum_on_drawn_sequences(changes: dict[str, int]):
    task = make_task("tree-grammar", examples=10, held_out_examples=100, **changes)
    assert isinstance(task, TreeGrammar)
    for split in ("validation", "test"):
        # The loss of a sequence varies by a few tenths of a nat per token.
        assert task.optimum(split) == pytest.approx(task.optimum(), abs=0.1)
    assert task.chance < task.ceiling("test") < 1
    assert 0 < task.optimum() < math.log(task.vocab - 1)


def test_layout():
    task = grammar(length=8)
    for part in ("training", "validation", "test"):
        tokens, targets = getattr(task, part)
        assert tokens.shape == targets.shape == (4_000, 8)
        assert (tokens[:, 0] == 3).all()
        assert (tokens[:, 1:] == targets[:, :-1]).all()
        assert targets.max() == 2
    assert task.depth == 3
