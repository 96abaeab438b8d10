"""The loop: one training from its first step, or from its newest checkpoint, to its last.

Owns: the order of batches, steps, validation, records and checkpoints.
Refuses: taking steps (a `Learner` does), showing progress (it reports to an observer), signals (it
asks `should_stop`), and raising because a model diverged: that is a result.

Batches depend on the seed and the step alone, and a checkpoint holds all else that decides what
follows, so that a run cut anywhere and resumed takes the same steps, on one CPU to the bit.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from starc.grammar.errors import Diagnostic, StarError
from starc.runtime import checkpoint
from starc.runtime.checkpoint import Checkpoint
from starc.runtime.course import Course, Status
from starc.runtime.data import Data, Score, Tokens
from starc.runtime.device import memory_errors, pick_device
from starc.runtime.learner import Batch, Learner, SingleLearner
from starc.runtime.metrics import Metrics
from starc.runtime.run import Run, Settings
from starc.runtime.schedule import rate_share, stable_until

_RANDOM = "<random>"
"""Stands where a parameter's name stands in a checkpoint; no parameter can be called so."""


@dataclass(frozen=True)
class Progress:
    """The state after `step` steps, of one course per replica.

    `judged` says that this step was followed by a validation. `learning_rate` is the setting's
    under the schedule.
    """

    step: int
    steps: int
    courses: Sequence[Course]
    learning_rate: float
    tokens_per_second: float
    bytes_per_token: float
    judged: bool = False

    @property
    def loss(self) -> float:
        """The lowest loss of this step, in nats per scored token."""
        return min(course.loss for course in self.courses)

    @property
    def score(self) -> Score | None:
        """The best held-out score so far, by loss."""
        scores = [course.score for course in self.courses if course.score is not None]
        return min(scores, key=lambda score: score.loss, default=None)


@dataclass(frozen=True)
class Result:
    """How a training ended: `finished`, `interrupted`, `diverged` or `stopped-early`.

    The weights are those after `step` steps; `loss` is the last one's, in nats per scored token,
    and `score` the newest held-out score. `reason` says why it ended before its last step, and at
    which. `seconds` counts this call only.
    """

    status: Status
    step: int
    loss: float
    score: Score | None
    seconds: float
    reason: str = ""


def fit(
    learner: Learner,
    data: Data,
    settings: Settings,
    *,
    courses: Sequence[Course] | None = None,
    step: int = 0,
    observe: Callable[[Progress], None] = lambda progress: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> list[Result]:
    """Train the replicas of a learner from after `step` to the last, without a folder.

    `courses` (one per replica) are changed in place. Replicas see the same batches and are
    validated together; one that diverged or stopped early is no longer looked at, and the loop ends
    with the last of them. Calls `observe` after every step; `should_stop` is asked before each.
    Raises StarError for data that scores nothing, and whatever `observe` raises.
    """
    courses = [Course() for _ in range(learner.replicas)] if courses is None else courses
    began = time.monotonic()
    parts: list[Batch] = []
    while step < settings.steps and any(course.running for course in courses):
        if should_stop():
            for course in courses:
                course.status = "interrupted" if course.running else course.status
            break
        step += 1
        started = time.monotonic()
        tokens, targets = data.batch(
            step, batch=settings.batch, length=settings.length, seed=settings.seed
        )
        figures = learner.take(_split(tokens, targets, settings.accumulate), step)
        for course, (loss, norm) in zip(courses, figures, strict=True):
            if course.running:
                course.took(step, loss, norm, settings)
        speed = tokens.size / (time.monotonic() - started)
        judged = step % settings.validate_every == 0 or step == settings.steps
        if judged and any(course.step == step for course in courses):
            parts = parts or _held_out(data, settings)
            for course, score in zip(courses, _judge(learner, parts), strict=True):
                if course.step == step:
                    course.judged(score, settings)
        rate = settings.learning_rate * rate_share(settings, step)
        observe(Progress(step, settings.steps, courses, rate, speed, data.bytes_per_token, judged))
    for course in courses:
        course.status = "finished" if course.running else course.status
    return [_result(course, time.monotonic() - began) for course in courses]


def train(
    run: Run,
    data: Data,
    *,
    observe: Callable[[Progress], None] = lambda progress: None,
    should_stop: Callable[[], bool] = lambda: False,
    save_seconds: float = 60.0,
    save_steps: int | None = None,
    tensorboard: bool = False,
    build: Callable[[torch.nn.Module, Settings, torch.device], Learner] = SingleLearner,
) -> Result:
    """Train a run to its last step, or until `should_stop()`, going on from its newest checkpoint.

    Saves every `save_seconds` (and every `save_steps` steps), and at the end in any case. `build`
    makes the learner from the model with the data's head. The processes of a `DistributedLearner`
    all call this, and one keeps the records. Raises StarError for data that changed, a damaged
    checkpoint, too little memory, or TensorBoard where there is none; OSError when the folder
    cannot be written.
    """
    if data.digest != run.data_digest:
        raise StarError(
            Diagnostic(
                "data-changed",
                f"'{data.name}' is not the data that the run in '{run.folder}' began with.",
                hint="bring the old data back, or begin a new run.",
            )
        )
    settings, place = run.settings, pick_device(run.settings.device)
    devices = [place] if place.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), memory_errors():
        torch.manual_seed(settings.seed)
        learner = build(data.adapt(run.module().Model()), settings, place)
        # Of several processes one keeps records, and all stop and save at the same step.
        leads: bool = getattr(learner, "leads", True)
        agree: Callable[[bool], bool] = getattr(learner, "agree", bool)
        keeper = Keeper(run, learner, place, leads, agree)
        course = keeper.restore()
        if not course.running:  # it had ended, and would end there again
            return _result(course, 0.0)
        saved = time.monotonic()

        board = run.board if tensorboard else None
        records = Metrics(run.metrics_path, course.step, board) if leads else nullcontext()
        with records as metrics:

            def after(progress: Progress) -> None:
                nonlocal saved
                if metrics:
                    metrics.record(progress)
                if settings.schedule == "wsd" and progress.step == stable_until(settings):
                    keeper.save(course, run.stable)
                now = time.monotonic()
                due = bool(save_steps) and progress.step % (save_steps or 1) == 0
                if agree(due or now - saved >= save_seconds):
                    if metrics:
                        metrics.sync()
                    keeper.save(course, run.checkpoints)
                    saved = now
                observe(progress)

            (result,) = fit(
                learner,
                data,
                settings,
                courses=[course],
                step=course.step,
                observe=after,
                should_stop=lambda: agree(should_stop()),
            )
        keeper.save(course, run.checkpoints)
    return result


def _result(course: Course, seconds: float) -> Result:
    return Result(course.status, course.step, course.loss, course.score, seconds, course.reason)


class Keeper:
    """The checkpoints of a run."""

    def __init__(
        self,
        run: Run,
        learner: Learner,
        device: torch.device,
        writes: bool = True,
        agree: Callable[[bool], bool] = bool,
    ) -> None:
        self.run, self.learner, self.device = run, learner, device
        self.writes, self.agree = writes, agree

    def save(self, course: Course, folder: Path) -> None:
        weights, slots = self.learner.save()
        slots[_RANDOM + "/cpu"] = torch.get_rng_state()
        if self.device.type == "cuda":
            slots[_RANDOM + "/cuda"] = torch.cuda.get_rng_state(self.device)
        stable = course.step <= stable_until(self.run.settings)
        state = {**course.state(), "stable": stable, "budget": self._budget()}
        if self.writes:
            checkpoint.save(folder, Checkpoint(course.step, weights, slots, state))

    def restore(self) -> Course:
        """Take up the newest checkpoint that is on the way to the run's last step, if any.

        Of a run that got another budget, what had decayed for the old one is removed.
        """
        found = checkpoint.all_in(self.run.checkpoints, self.run.stable)
        path = next(filter(self._leads_on, found), None)
        self.agree(True)  # every process has looked before one removes anything
        for other in found[: found.index(path) if path else None] if self.writes else ():
            checkpoint.remove(other)
        if path is None:
            return Course()
        course = self._load(path)
        if self.run.settings.schedule == "wsd" and course.step == stable_until(self.run.settings):
            self.save(course, self.run.stable)
        return course

    def _leads_on(self, path: Path) -> bool:
        """Whether training to the run's last step passes through a checkpoint."""
        if self.run.settings.schedule == "cosine":
            return True
        state = checkpoint.load_state(path)
        stable = bool(state.get("stable")) and state["step"] <= stable_until(self.run.settings)
        return stable or state.get("budget") == self._budget()

    def _budget(self) -> list[int]:
        return [self.run.settings.steps, self.run.settings.decay_after]

    def _load(self, path: Path) -> Course:
        stored = checkpoint.load(path, self.device)
        random = {key: stored.optimizer.pop(f"{_RANDOM}/{key}", None) for key in ("cpu", "cuda")}
        self.learner.restore(stored.weights, stored.optimizer, path)
        if random["cpu"] is None:
            raise checkpoint.damaged(path, "the random state is missing")
        torch.set_rng_state(random["cpu"].cpu())
        if self.device.type == "cuda" and random["cuda"] is not None:
            torch.cuda.set_rng_state(random["cuda"].cpu(), self.device)
        try:
            return Course.of_state(stored.state, stored.step)
        except TypeError as error:
            raise checkpoint.damaged(path, f"state.json: {error}") from error


def _split(tokens: Tokens, targets: Tokens, parts: int) -> list[Batch]:
    """A batch as micro-batches, as even as can be."""
    if parts == 1:
        return [(tokens, targets)]
    return list(zip(np.array_split(tokens, parts), np.array_split(targets, parts), strict=True))


def _held_out(data: Data, settings: Settings) -> list[Batch]:
    """The validation examples, in batches as large as a step computes at once."""
    limit = max(1, settings.validation_tokens // settings.length)
    tokens, targets = data.held_out("validation", length=settings.length, limit=limit)
    size = -(-settings.batch // settings.accumulate)
    parts = (slice(first, first + size) for first in range(0, len(tokens), size))
    return [(tokens[part], targets[part]) for part in parts]


def _judge(learner: Learner, parts: Sequence[Batch]) -> list[Score]:
    scores = [learner.evaluate(*part) for part in parts]
    return [sum(column, Score()) for column in zip(*scores, strict=True)]
