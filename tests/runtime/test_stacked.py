"""Stacked replicas against the same models trained alone."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from starc.compiler.driver import compile_program
from starc.compiler.options import Options
from starc.grammar.source import Source
from starc.runtime.data import IGNORED, Tokens
from starc.runtime.learner import Learner, SingleLearner
from starc.runtime.loader import Generated, load
from starc.runtime.run import Settings
from starc.runtime.stacked import StackedLearner, places

EXAMPLES = Path(__file__).parents[2] / "examples"
CPU = torch.device("cpu")
GRID = ((1e-2, 0.0, 0), (1e-3, 0.5, 1), (3e-3, 0.1, 0))
"""Learning rate, weight decay and seed of each replica."""


def module(name: str) -> Generated:
    text = re.sub(r"\brepeat ([3-9]|\d\d+) ", "repeat 2 ", (EXAMPLES / name).read_text())
    sizes = (("width", "64"), ("vocab", "32"), ("context", "32"))
    return load(compile_program(Source(name, text), Options(overrides=sizes)).text)


def settings(rate: float, decay: float, seed: int, **others: object) -> Settings:
    values = {"data": "none", "steps": 20, "batch": 4, "length": 19, "warmup": 2, "clip": 0.5}
    given = {"learning_rate": rate, "weight_decay": decay, "seed": seed}
    return Settings(**{**values, **given, **others})  # type: ignore[arg-type]


def models(
    generated: Generated, grid: tuple[tuple[float, float, int], ...]
) -> list[torch.nn.Module]:
    built = []
    for _, _, seed in grid:
        torch.manual_seed(seed)
        # Rounding grows tenfold in a step or two: with float64's, steps can be compared.
        built.append(generated.Model().double())
    return built


def batch(seed: int, examples: int = 4) -> tuple[Tokens, Tokens]:
    """Tokens and targets, some of which are ignored."""
    random = np.random.default_rng(seed)
    tokens = random.integers(0, 32, (examples, 20))
    targets = tokens[:, 1:].copy()
    targets[random.random(targets.shape) < 0.2] = IGNORED
    return tokens[:, :-1], targets


def together(parts: list[tuple[Tokens, Tokens]]) -> tuple[Tokens, Tokens]:
    """Batches of several replicas as one, (B, replicas, T)."""
    tokens, targets = (np.stack(arrays, axis=1) for arrays in zip(*parts, strict=True))
    return tokens, targets


def both(name: str, **others: object) -> tuple[StackedLearner, list[SingleLearner]]:
    generated = module(name)
    own = [settings(*point, **others) for point in GRID]
    stacked = StackedLearner(models(generated, GRID), own, CPU)
    alone = [SingleLearner(m, s, CPU) for m, s in zip(models(generated, GRID), own, strict=True)]
    return stacked, alone


def weights(learner: Learner) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in learner.save()[0].items()}


def assert_alike(stacked: StackedLearner, alone: list[SingleLearner]) -> None:
    found = weights(stacked)
    for i, learner in enumerate(alone):
        for name, value in weights(learner).items():
            torch.testing.assert_close(found[f"{i}/{name}"], value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "name",
    [
        "transformer_pp",
        "mamba2",
        "gated_deltanet",
        "hyena",
        "byte_hybrid",
        "mixtral",
        "shared_blocks",
    ],
)
def test_replicas_learn_as_alone(name: str) -> None:
    stacked, alone = both(f"{name}.star")
    for step in range(1, 4):
        parts = [batch(10 * seed + step) for _, _, seed in GRID]
        found = stacked.take([together(parts)], step)
        want = [learner.take([part], step)[0] for learner, part in zip(alone, parts, strict=True)]
        np.testing.assert_allclose(found, want, rtol=1e-6)
    held_out = batch(99)
    for own, learner in zip(stacked.evaluate(*held_out), alone, strict=True):
        (score,) = learner.evaluate(*held_out)
        assert own.loss == pytest.approx(score.loss, rel=1e-6)
        assert own.scored == score.scored
    assert_alike(stacked, alone)


@pytest.fixture
def pair() -> tuple[StackedLearner, list[SingleLearner]]:
    return both("transformer_pp.star", accumulate=2)


def test_micro_batches_count_what_they_score(
    pair: tuple[StackedLearner, list[SingleLearner]],
) -> None:
    stacked, alone = pair
    parts = [batch(1, 3), batch(2, 1)]
    parts[1][1][0, 1:] = IGNORED  # one target
    found = stacked.take(parts, 1)
    np.testing.assert_allclose(found, [a.take(parts, 1)[0] for a in alone], rtol=1e-6)
    parts[1][1][:] = IGNORED  # none: replicas go on alone
    found = stacked.take(parts, 2)
    np.testing.assert_allclose(found, [a.take(parts, 2)[0] for a in alone], rtol=1e-6)
    assert_alike(stacked, alone)


def test_a_replica_that_diverges_stands_still(
    pair: tuple[StackedLearner, list[SingleLearner]],
) -> None:
    stacked, alone = pair
    stacked.take([batch(1)], 1)
    with torch.no_grad():
        stacked.learners[1].model.head.weight[0, 0] = math.inf  # type: ignore[index, union-attr]
    before = weights(stacked)
    figures = stacked.take([batch(2)], 2)
    after = weights(stacked)
    assert not math.isfinite(figures[1][0])
    assert all(math.isfinite(x) for i in (0, 2) for x in figures[i])
    for name, value in after.items():
        moved = not torch.equal(value, before[name])
        assert moved == (not name.startswith("1/")), name
    for learner in (alone[0], alone[2]):
        learner.take([batch(1)], 1)
        learner.take([batch(2)], 2)
    stacked.retire(1)
    figures = stacked.take([batch(3)], 3)
    assert math.isnan(figures[1][0])
    for i in (0, 2):
        np.testing.assert_allclose(figures[i], alone[i].take([batch(3)], 3)[0], rtol=1e-6)
    assert stacked.evaluate(*batch(4))[1].scored == 0
    for name, value in weights(stacked).items():
        if name.startswith("1/"):
            assert torch.equal(value, after[name])


def test_each_retired_to_the_last(pair: tuple[StackedLearner, list[SingleLearner]]) -> None:
    stacked, _ = pair
    for i in (2, 0, 1, 1):
        stacked.retire(i)
    assert all(math.isnan(loss) for loss, _ in stacked.take([batch(1)], 1))
    assert all(not score.scored for score in stacked.evaluate(*batch(1)))


def test_saved_and_restored(pair: tuple[StackedLearner, list[SingleLearner]]) -> None:
    stacked, _ = pair
    stacked.take([batch(1)], 1)
    kept, slots = ({name: value.clone() for name, value in part.items()} for part in stacked.save())
    want = stacked.take([batch(2)], 2)
    stacked.restore(kept, slots, Path("nowhere"))
    assert stacked.take([batch(2)], 2) == want
    other, _ = both("transformer_pp.star", accumulate=2)
    other.restore(kept, slots, Path("nowhere"))
    assert other.take([batch(2)], 2) == want


def test_random_numbers_cannot_be_stacked() -> None:
    class Noisy(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = torch.nn.Parameter(torch.zeros(32, 32))

        def loss(self, tokens: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
            logits = self.table[tokens] + torch.randn(32)
            return torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())

    own = [settings(*point) for point in GRID]
    stacked = StackedLearner([Noisy() for _ in GRID], own, CPU)
    with pytest.raises(RuntimeError, match="random"):
        stacked.take([batch(1)], 1)


def test_places_of_tied_weights_and_shared_modules() -> None:
    class Tied(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = torch.nn.Linear(2, 2, bias=False)
            self.again = self.first
            self.other = torch.nn.Linear(2, 2, bias=False)
            self.other.weight = self.first.weight

    model = Tied()
    assert places(model) == {"first.weight": "first.weight", "other.weight": "first.weight"}
