"""The trainer on tasks: accuracy, early stops, heads of the data, and several replicas at once."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from starc.runtime import checkpoint, train
from starc.runtime import run as runs
from starc.runtime.data import Score
from starc.runtime.run import Run, Settings
from starc.runtime.tasks import make_task

TINY = (Path(__file__).parent / "fixtures" / "tiny.py").read_text()
SETTINGS = Settings(
    data="task",
    steps=24,
    batch=8,
    length=17,
    learning_rate=1e-2,
    warmup=4,
    validate_every=6,
    validation_tokens=17 * 16,
)
TASK = make_task("in-context-recall", length=18, examples=32, held_out_examples=16)


def of_task(folder: Path, **changes: Any) -> Run:
    settings = replace(SETTINGS, **changes)
    return runs.create(
        folder, program="", module_text=TINY, data_digest=TASK.digest, settings=settings
    )


def weights(run: Run) -> dict[str, torch.Tensor]:
    path = checkpoint.latest(run.checkpoints)
    assert path is not None
    return checkpoint.load_weights(path)


def test_a_task_is_learnt_and_judged_by_its_accuracy(tmp_path: Path):
    run = of_task(tmp_path, steps=40)
    result = train.train(run, TASK)
    assert result.score is not None
    assert (result.score.examples, result.status) == (16, "finished")
    entries = [json.loads(line) for line in run.metrics_path.read_text().splitlines()]
    judged = [entry for entry in entries if "validation_loss" in entry]
    assert judged[-1]["validation_accuracy"] == result.score.accuracy
    assert judged[-1]["validation_macro_accuracy"] == result.score.macro_accuracy
    assert "validation_bits" not in judged[-1]
    assert judged[-1]["validation_loss"] < judged[0]["validation_loss"]


def test_a_run_that_stopped_early_has_ended(tmp_path: Path):
    run = of_task(tmp_path, steps=400, learning_rate=1e-9, patience=1, validate_every=3)
    result = train.train(run, TASK)
    assert result.status == "stopped-early"
    assert result.step < 400
    record = run.metrics_path.read_text()
    assert json.loads(record.splitlines()[-1])["status"] == "stopped-early"
    again = train.train(runs.open_run(tmp_path), TASK)
    assert (again.status, again.step, again.score) == ("stopped-early", result.step, result.score)
    assert (again.reason, run.metrics_path.read_text()) == (result.reason, record)


def test_the_head_of_the_data_is_trained_and_restored(tmp_path: Path):
    class WithBias(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner, self.bias = inner, nn.Parameter(torch.zeros(256))

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            return self.inner(tokens) + self.bias  # type: ignore[no-any-return]

        def loss(self, tokens: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
            return nn.functional.cross_entropy(self(tokens).flatten(0, 1), targets.flatten())

    class Adapting(type(TASK)):  # type: ignore[misc]
        def adapt(self, model: nn.Module) -> nn.Module:
            return WithBias(model)

    data = Adapting(length=18, examples=32, held_out_examples=16)
    run = of_task(tmp_path, steps=6)
    train.train(run, data, should_stop=lambda: run.metrics_path.read_text().count("\n") > 2)
    train.train(run, data)
    assert weights(run)["bias"].abs().sum() > 0
    model = runs.trained_model(run, data=data)
    assert torch.equal(model.bias, weights(run)["bias"])  # type: ignore[arg-type]


def test_replicas_have_courses_of_their_own():
    """Three learners in one: the first diverges, the second is right at once, the third goes on."""

    class Three:
        replicas = 3
        taken = 0

        def take(self, batches: Any, step: int) -> list[tuple[float, float]]:
            self.taken = step
            return [(math.nan if step == 3 else 1.0, 1.0), (0.5, 1.0), (1.0 / step, 1.0)]

        def evaluate(self, tokens: Any, targets: Any) -> list[Score]:
            return [Score(n, right, n, 0, 1) for n, right in ((4, 0), (4, 4), (4, 2))]

    learner: Any = Three()
    settings = replace(SETTINGS, steps=10, stop_accuracy=0.99, validate_every=4, batch=16)
    seen: list[int] = []
    results = train.fit(learner, TASK, settings, observe=lambda p: seen.append(p.step))
    assert [r.status for r in results] == ["diverged", "stopped-early", "finished"]
    assert [r.step for r in results] == [2, 4, 10]
    assert results[0].score is None
    assert [r.score.accuracy for r in results if r.score] == [1.0, 0.5]
    assert results[2].loss == 0.1
    assert (seen, learner.taken) == (list(range(1, 11)), 10)
