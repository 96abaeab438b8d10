"""Sweeps: one program trained at several learning rates, weight decays and seeds.

    SWEEP/sweep.json                     how the points were trained, and what else was measured
    SWEEP/lr-0.001_wd-0.1_seed-0/...     a run (run.py) for every point

Owns: the points of a sweep, training several together, and going on after a kill.
Refuses: what the fastest way to train them is (ways.py measures), and choosing points.

A point comes out as it would alone, whatever the way: only rounding differs. Every run keeps its
own checkpoints, so a sweep that was cut goes on from those, and points that have ended stay.
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from starc.grammar.errors import Diagnostic, StarError
from starc.runtime import checkpoint
from starc.runtime.course import Course
from starc.runtime.data import Data, Split, Tokens
from starc.runtime.device import memory_errors, pick_device
from starc.runtime.files import write_atomic
from starc.runtime.learner import SingleLearner
from starc.runtime.loader import load
from starc.runtime.metrics import Metrics
from starc.runtime.run import Run, Settings, create, exists, open_run
from starc.runtime.schedule import rate_share, stable_until
from starc.runtime.stacked import Build, stack_runs
from starc.runtime.train import Keeper, Progress, Result, fit, train
from starc.runtime.ways import Decision, Way, decide
from starc.runtime.workers import Workers, answer

_SHOWN = 0.1
"""Seconds between two reports of a worker on a point."""


@dataclass(frozen=True)
class Point:
    """What a point of a sweep has of its own; all other settings are the sweep's."""

    learning_rate: float
    weight_decay: float
    seed: int = 0

    @property
    def folder(self) -> str:
        return f"lr-{self.learning_rate!r}_wd-{self.weight_decay!r}_seed-{self.seed}"

    def settings(self, common: Settings) -> Settings:
        return replace(
            common,
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            seed=self.seed,
        )


Observe = Callable[[Point, Progress], None]


@dataclass(frozen=True)
class _Saving:
    seconds: float
    steps: int | None


def sweep(
    folder: Path,
    *,
    program: str,
    module_text: str,
    data: Data,
    points: Sequence[Point],
    settings: Settings,
    observe: Observe = lambda point, progress: None,
    should_stop: Callable[[], bool] = lambda: False,
    save_seconds: float = 60.0,
    save_steps: int | None = None,
    way: Way | None = None,
) -> list[Result]:
    """Train every point to its end, or until `should_stop()`; the results, in the points' order.

    The way to train them is the fastest of those that are measured at the beginning, unless one is
    given; it is recorded in `sweep.json` and kept when the sweep goes on. Points that have ended
    are not trained again; those of an interrupted sweep go on from their checkpoints. Raises
    StarError for points that are given twice, for a folder that holds other runs, and as `train`
    does; OSError when the folder cannot be written.
    """
    if len({point.folder for point in points}) < len(points):
        raise _error("point-twice", "a point of the sweep is given twice.")
    runs = [_run(folder, point, program, module_text, data, settings) for point in points]
    results = [outcome(run) for run in runs]
    left = [i for i, result in enumerate(results) if result is None]
    if not left:
        return [result for result in results if result is not None]
    saving = _Saving(save_seconds, save_steps)
    with ExitStack() as stack:
        pool = _Pool(stack)
        place = pick_device(settings.device)
        decision = _recorded(folder)
        if decision is None:
            if way is None:
                decision = decide([runs[i] for i in left], data, place, pool.of)
            else:
                decision = Decision(way, {}, {})
            _record(folder, decision)
        way = decision.way
        groups = [
            [left[i] for i in group] for group in groups_of([runs[i] for i in left], way.stack)
        ]

        def seen(i: int, progress: Progress) -> None:
            observe(points[i], progress)

        if way.workers == 1:
            found = _here(runs, groups, data, seen, should_stop, saving)
        else:
            workers = pool.of(way.workers)
            found = _beside(workers, runs, groups, data, seen, should_stop, saving)
    results = [found.get(i, result) for i, result in enumerate(results)]
    return [
        _started(run) if result is None else result
        for run, result in zip(runs, results, strict=True)
    ]


def outcome(run: Run) -> Result | None:
    """How a run ended, from its newest checkpoint; None while it can go on.

    Raises StarError when the checkpoint is damaged.
    """
    course = _course(run)
    if course.running and course.step < run.settings.steps:
        return None
    status = "finished" if course.running else course.status
    return Result(status, course.step, course.loss, course.score, 0.0, course.reason)


def train_together(
    runs: Sequence[Run],
    data: Data,
    *,
    observe: Callable[[int, Progress], None] = lambda i, progress: None,
    should_stop: Callable[[], bool] = lambda: False,
    save_seconds: float = 60.0,
    save_steps: int | None = None,
    build: Build = SingleLearner,
) -> list[Result]:
    """Train runs that stand at the same step as one stack, each as `train` would alone.

    They differ in learning rate, weight decay and seed. A replica that diverges or stops early
    leaves the stack, whose steps then cost less. `build` makes the learner of each. Raises as
    `train` does.
    """
    if len(runs) == 1:
        return [
            train(
                runs[0],
                data,
                observe=lambda progress: observe(0, progress),
                should_stop=should_stop,
                save_seconds=save_seconds,
                save_steps=save_steps,
                build=build,
            )
        ]
    settings, place = runs[0].settings, pick_device(runs[0].settings.device)
    devices = [place] if place.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), memory_errors(), ExitStack() as open_files:
        learner = stack_runs(runs, data, place, build)
        keepers = [Keeper(run, own, place) for run, own in zip(runs, learner.learners, strict=True)]
        courses = [keeper.restore() for keeper in keepers]
        metrics = [
            open_files.enter_context(Metrics(run.metrics_path, course.step))
            for run, course in zip(runs, courses, strict=True)
        ]
        live = [i for i, course in enumerate(courses) if course.running]
        saved = time.monotonic()

        def after(progress: Progress) -> None:
            nonlocal saved
            now, step = time.monotonic(), progress.step
            due = now - saved >= save_seconds or bool(save_steps and step % save_steps == 0)
            speed = progress.tokens_per_second / len(live)
            share = rate_share(settings, step)
            for i in tuple(live):
                course, own = courses[i], runs[i].settings
                shown = replace(
                    progress,
                    courses=[course],
                    learning_rate=own.learning_rate * share,
                    tokens_per_second=speed,
                )
                metrics[i].record(shown)
                if settings.schedule == "wsd" and step == stable_until(settings):
                    keepers[i].save(course, runs[i].stable)
                if due or not course.running:
                    metrics[i].sync()
                    keepers[i].save(course, runs[i].checkpoints)
                if not course.running:
                    live.remove(i)
                    learner.retire(i)
                observe(i, shown)
            saved = now if due else saved

        results = fit(
            learner,
            _OfEach(data, tuple(run.settings.seed for run in runs)),
            settings,
            courses=courses,
            step=max(course.step for course in courses),
            observe=after,
            should_stop=should_stop,
        )
        for i in live:
            keepers[i].save(courses[i], runs[i].checkpoints)
    return results


def train_points(
    folders: Sequence[Path],
    data: Data,
    saving: _Saving,
    say: Callable[[Any], None],
    stopped: Callable[[], bool],
) -> list[Result]:
    """What a worker does with a group of points."""
    shown = dict.fromkeys(range(len(folders)), 0.0)

    def observe(i: int, progress: Progress) -> None:
        now = time.monotonic()
        if progress.judged or not progress.courses[0].running or now - shown[i] >= _SHOWN:
            shown[i] = now
            say((i, progress))

    return train_together(
        [open_run(folder) for folder in folders],
        data,
        observe=observe,
        should_stop=stopped,
        save_seconds=saving.seconds,
        save_steps=saving.steps,
    )


class _Pool:
    """Workers that are started when they are first asked for, and kept for as long as `stack`."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._workers: Workers | None = None

    def of(self, count: int) -> Workers:
        if self._workers is None or len(self._workers) != count:
            threads = max(1, torch.get_num_threads() // count)
            self._workers = self._stack.enter_context(Workers(count, threads))
        return self._workers


class _OfEach:
    """Data of which every replica draws the batches of its own seed, (batch, replicas, T)."""

    def __init__(self, data: Data, seeds: tuple[int, ...]) -> None:
        self._data, self._seeds = data, seeds
        self.name, self.digest, self.vocab = data.name, data.digest, data.vocab
        self.bytes_per_token = data.bytes_per_token

    def batch(self, step: int, *, batch: int, length: int, seed: int) -> tuple[Tokens, Tokens]:
        """Those of all seeds; (batch, T) where the seeds are one. `seed` is not looked at."""
        drawn = {
            own: self._data.batch(step, batch=batch, length=length, seed=own)
            for own in dict.fromkeys(self._seeds)
        }
        if len(drawn) == 1:
            return drawn[self._seeds[0]]
        tokens, targets = zip(*(drawn[own] for own in self._seeds), strict=True)
        return np.stack(tokens, axis=1), np.stack(targets, axis=1)

    def held_out(self, split: Split, *, length: int, limit: int) -> tuple[Tokens, Tokens]:
        return self._data.held_out(split, length=length, limit=limit)

    def adapt(self, model: nn.Module) -> nn.Module:
        return self._data.adapt(model)


def _here(
    runs: Sequence[Run],
    groups: Sequence[Sequence[int]],
    data: Data,
    observe: Callable[[int, Progress], None],
    should_stop: Callable[[], bool],
    saving: _Saving,
) -> dict[int, Result]:
    found: dict[int, Result] = {}
    for group in groups:
        if should_stop():
            break
        results = train_together(
            [runs[i] for i in group],
            data,
            observe=lambda k, progress, group=group: observe(group[k], progress),  # type: ignore[misc]
            should_stop=should_stop,
            save_seconds=saving.seconds,
            save_steps=saving.steps,
        )
        found.update(zip(group, results, strict=True))
    return found


def _beside(
    workers: Workers,
    runs: Sequence[Run],
    groups: Sequence[Sequence[int]],
    data: Data,
    observe: Callable[[int, Progress], None],
    should_stop: Callable[[], bool],
    saving: _Saving,
) -> dict[int, Result]:
    waiting, found = deque(groups), dict[int, Result]()
    busy: dict[int, Sequence[int]] = {}
    stopped = False

    def give(worker: int) -> None:
        if waiting:
            busy[worker] = group = waiting.popleft()
            folders = [runs[i].folder for i in group]
            workers.call(worker, "starc.runtime.sweep:train_points", folders, data, saving)

    for worker in range(len(workers)):
        give(worker)
    while busy:
        if not stopped and should_stop():
            stopped = True
            waiting.clear()
            workers.stop()
        message = workers.receive(0.1)
        if message is None:
            continue
        if message.kind == "progress":
            i, progress = message.value
            observe(busy[message.worker][i], progress)
        else:
            results = answer(message)
            found.update(zip(busy.pop(message.worker), results, strict=True))
            give(message.worker)
    return found


def _run(
    folder: Path, point: Point, program: str, module_text: str, data: Data, common: Settings
) -> Run:
    """The run of a point, made if it is not there."""
    path, settings = folder / point.folder, point.settings(common)
    if not exists(path):
        return create(
            path,
            program=program,
            module_text=module_text,
            data_digest=data.digest,
            settings=settings,
        )
    run = open_run(path)
    digest = load(module_text).DIGEST
    if (run.digest, run.data_digest, run.settings) != (digest, data.digest, settings):
        raise _error(
            "sweep-differs",
            f"'{path}' holds a run of another program, other data or other settings.",
            "give the sweep another folder.",
        )
    return run


def groups_of(runs: Sequence[Run], size: int) -> Iterator[list[int]]:
    """Numbers of runs in groups of at most `size` that stand at the same step."""
    at: dict[int, list[int]] = {}
    for i, run in enumerate(runs):
        at.setdefault(_course(run).step, []).append(i)
    for step in sorted(at):
        numbers = at[step]
        count = -(-len(numbers) // size)
        yield from (numbers[k::count] for k in range(count))


def _course(run: Run) -> Course:
    """The course of a run at its newest checkpoint."""
    path = checkpoint.latest(run.checkpoints)
    if path is None:
        return Course()
    state = checkpoint.load_state(path)
    try:
        return Course.of_state(state, int(state.pop("step")))
    except (TypeError, KeyError, ValueError) as error:
        raise checkpoint.damaged(path, f"state.json: {error}") from error


def _started(run: Run) -> Result:
    course = _course(run)
    return Result("interrupted", course.step, course.loss, course.score, 0.0)


def _recorded(folder: Path) -> Decision | None:
    """The decision that a sweep began with; None where it has none that can be read."""
    try:
        return Decision.of_state(json.loads((folder / "sweep.json").read_text()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _record(folder: Path, decision: Decision) -> None:
    write_atomic(folder / "sweep.json", (json.dumps(decision.state(), indent=2) + "\n").encode())


def _error(code: str, message: str, hint: str = "") -> StarError:
    return StarError(Diagnostic(code, message, hint=hint))
