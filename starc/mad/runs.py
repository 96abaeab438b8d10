"""Runs of a protocol: a program trained on a task and scored.

    RUN/result.json               what came of it, once it has ended
    RUN/...                       else as in runtime/run.py; the weights are removed at the end
    SETTING/grid_seed=SEED.json   how the runs of a grid are trained: stacked, or one by one

Owns: the folders of runs, their scores, how long their data took, and whether the runs of a grid
train together.
Refuses: which runs there are, and processes.
"""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from starc.compiler.options import Options
from starc.grammar.errors import Diagnostic, StarError
from starc.grammar.source import Source
from starc.mad.profiles import Profile, Spec
from starc.mad.programs import artifact_for
from starc.runtime import checkpoint
from starc.runtime import run as runs
from starc.runtime.data import IGNORED, Score, Split, Tokens
from starc.runtime.device import pick_device
from starc.runtime.files import write_atomic
from starc.runtime.learner import SingleLearner, evaluate
from starc.runtime.run import Run, Settings
from starc.runtime.sweep import groups_of, train_together
from starc.runtime.tasks import Task
from starc.runtime.train import Result
from starc.runtime.ways import Decision, Way, decide

RESULT = "result.json"

WORTH = 100
"""Runs of fewer steps than this train one by one: measuring takes some thirty."""

_T = TypeVar("_T")


@dataclass(frozen=True)
class Figures:
    """Held-out figures of a run: `loss` in nats per scored token, the rest shares.

    `accuracy` counts tokens, `macro_accuracy` is the mean over examples, and `class_accuracy` the
    mean over the classes of a batch, averaged over batches: what the reference code reports.
    """

    loss: float
    accuracy: float
    macro_accuracy: float
    class_accuracy: float


@dataclass(frozen=True)
class Record:
    """What came of a run. `seconds` is all its time, `data_seconds` what its data took of it."""

    spec: Spec
    status: str
    reason: str
    step: int
    parameters: int
    seconds: float
    data_seconds: float
    validation: Figures
    test: Figures

    def to_json(self) -> dict[str, Any]:
        """Everything, fit for JSON; `record_of` is the way back."""
        content = asdict(self)
        content["spec"]["variation"] = dict(self.spec.variation)
        return content


@dataclass(frozen=True)
class Job:
    """A run to be made: `source` is a fitted program, `folder` the run's own."""

    spec: Spec
    source: Source
    options: Options
    profile: Profile
    folder: Path
    device: str


@dataclass(frozen=True)
class Made:
    """What came of some jobs: runs that have ended, and groups of jobs that are to be made yet.

    A run that was cut is in neither.
    """

    records: tuple[Record, ...] = ()
    left: tuple[tuple[Job, ...], ...] = ()


def record_of(content: dict[str, Any]) -> Record:
    """The record that `to_json` gave; raises KeyError or TypeError for anything else."""
    spec = {**content["spec"], "variation": tuple(content["spec"]["variation"].items())}
    figures = {split: Figures(**content[split]) for split in ("validation", "test")}
    return Record(**{**content, **figures, "spec": Spec(**spec)})


def finished(folder: Path) -> Record | None:
    """The record of a run that has ended, else None; StarError when it is damaged."""
    path = folder / RESULT
    try:
        return record_of(json.loads(path.read_text()))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise StarError(
            Diagnostic(
                "results-damaged",
                f"'{path}' is damaged: {error}.",
                hint="remove it, and the run is made again.",
            )
        ) from error


def execute(jobs: Sequence[Job], should_stop: Callable[[], bool] = lambda: False) -> Made:
    """Make the runs of a grid or go on with them, at once where that is faster; else one comes back
    as a group of its own.

    They differ in learning rate and decay alone. What `should_stop` cuts goes on in another call.
    Raises StarError as training does, and OSError when a folder cannot be written.
    """
    began, first = time.monotonic(), jobs[0]
    data = Watched(_task(first.profile, first.spec.anywhere), first.profile)
    opened = [_opened(job, data) for job in jobs]
    build = _learner(first.profile)
    if len(jobs) > 1:
        way = _way(jobs, opened, data, build)
        groups = [tuple(jobs[i] for i in group) for group in groups_of(opened, way.stack)]
        if len(groups) > 1:
            return Made(left=tuple(groups))
    results = train_together(opened, data, should_stop=should_stop, build=build)
    ended = [
        (job, run, result, _trained(run, data))
        for job, run, result in zip(jobs, opened, results, strict=True)
        if result.status != "interrupted"
    ]
    seconds = (time.monotonic() - began) / len(jobs)
    return Made(
        tuple(_recorded(*of, data, seconds, data.seconds / len(jobs)) for of in ended),
    )


def _recorded(
    job: Job,
    run: Run,
    result: Result,
    model: nn.Module,
    data: Watched,
    seconds: float,
    data_seconds: float,
) -> Record:
    """The record of a run that has ended, written; `seconds` are those of its training."""
    began = time.monotonic()
    record = Record(
        spec=job.spec,
        status=result.status,
        reason=result.reason,
        step=result.step,
        parameters=sum(p.numel() for p in model.parameters()),
        validation=_figures(model, data.task, "validation", job.profile),
        test=_figures(model, data.task, "test", job.profile),
        seconds=round(seconds + time.monotonic() - began, 3),
        data_seconds=round(data_seconds, 3),
    )
    write_atomic(job.folder / RESULT, (json.dumps(record.to_json(), indent=1) + "\n").encode())
    shutil.rmtree(run.checkpoints, ignore_errors=True)
    return record


def _way(
    jobs: Sequence[Job], opened: Sequence[Run], data: Watched, build: type[SingleLearner]
) -> Way:
    """How the runs of a grid train: as was decided once, else as is measured to be fastest."""
    folder = jobs[0].folder
    path = folder.parent.parent / f"grid_{folder.name}.json"
    try:
        return Decision.of_state(json.loads(path.read_text())).way
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass  # there is none that can be read
    if opened[0].settings.steps < WORTH:
        return Way()
    decision = decide(opened, data, pick_device(jobs[0].device), build=build)
    write_atomic(path, (json.dumps(decision.state(), indent=1) + "\n").encode())
    return decision.way


class Watched:
    """A task as the protocol has it learnt and validated, that times its own work."""

    def __init__(self, task: Task, profile: Profile) -> None:
        self.task, self._validation = task, profile.selection
        self._keys = task.ids.get("keys", range(0)) if profile.only_answers else range(0)
        self.seconds = 0.0

    @property
    def name(self) -> str:
        return self.task.name

    @property
    def vocab(self) -> int:
        return self.task.vocab

    @property
    def bytes_per_token(self) -> float:
        return 0.0

    @property
    def digest(self) -> str:
        return self._timed(lambda: self.task.digest)

    def batch(self, step: int, *, batch: int, length: int, seed: int) -> tuple[Tokens, Tokens]:
        return self._timed(lambda: self._batch(step, batch, length, seed))

    def held_out(self, split: Split, *, length: int, limit: int) -> tuple[Tokens, Tokens]:
        split = self._validation if split == "validation" else split
        return self._timed(lambda: self.task.held_out(split, length=length, limit=limit))

    def adapt(self, model: nn.Module) -> nn.Module:
        return self.task.adapt(model)

    def _batch(self, step: int, batch: int, length: int, seed: int) -> tuple[Tokens, Tokens]:
        tokens, targets = self.task.batch(step, batch=batch, length=length, seed=seed)
        keys = self._keys
        if keys:
            targets[(targets >= keys.start) & (targets < keys.stop)] = IGNORED
        return tokens, targets

    def _timed(self, work: Callable[[], _T]) -> _T:
        began = time.monotonic()
        value = work()
        self.seconds += time.monotonic() - began
        return value


class _PlainLearner(SingleLearner):
    """AdamW as PyTorch has it by default, and decay of all but norms and biases."""

    def __init__(self, model: nn.Module, settings: Settings, device: torch.device) -> None:
        super().__init__(model, settings, device)
        free: list[nn.Parameter] = []
        decayed: list[nn.Parameter] = []
        for name, parameter in self.model.named_parameters():
            (free if "bias" in name or "norm" in name else decayed).append(parameter)
        groups = [
            {"params": decayed, "weight_decay": settings.weight_decay},
            {"params": free, "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=settings.learning_rate, fused=True)
        self._peaks = [settings.learning_rate] * len(groups)
        self._parameters = [*decayed, *free]


def _learner(profile: Profile) -> type[SingleLearner]:
    return _PlainLearner if profile.plain else SingleLearner


@lru_cache(maxsize=2)
def _task(profile: Profile, spec: Spec) -> Task:
    return profile.task(spec)


def _opened(job: Job, data: Watched) -> Run:
    if runs.exists(job.folder):
        return runs.open_run(job.folder)
    artifact = artifact_for(job.source, job.options, data.task)
    return runs.create(
        job.folder,
        program=job.source.text,
        module_text=artifact.text,
        data_digest=data.digest,
        settings=job.profile.settings(job.spec, data.task, str(pick_device(job.device))),
    )


def _trained(run: Run, data: Watched) -> nn.Module:
    device = pick_device(run.settings.device)
    path = checkpoint.latest(run.checkpoints)
    assert path is not None  # `train` saves at the end
    model = data.adapt(run.module().Model()).to(device)
    checkpoint.restore_weights(model, checkpoint.load_weights(path, device), path)
    return model.eval()


def _figures(model: nn.Module, task: Task, split: Split, profile: Profile) -> Figures:
    limit, batch = task.held_out_examples, profile.batch
    score: Score = evaluate(model, task, split, length=task.tokens, limit=limit, batch=batch)
    return Figures(
        score.loss, score.accuracy, score.macro_accuracy, _class_accuracy(model, task, split, batch)
    )


@torch.no_grad()
def _class_accuracy(model: nn.Module, task: Task, split: Split, batch: int) -> float:
    """The mean over batches of the mean recall of the classes in it, batches by their size.

    A class that is predicted but is no target of the batch counts as a recall of 0, as it does in
    torchmetrics' MulticlassAccuracy, which the reference code uses.
    """
    device = next(model.parameters()).device
    tokens, targets = task.held_out(split, length=task.tokens, limit=task.held_out_examples)
    total = 0.0
    for first in range(0, len(tokens), batch):
        wanted = torch.from_numpy(targets[first : first + batch]).to(device)
        found = model(torch.from_numpy(tokens[first : first + batch]).to(device)).argmax(-1)
        scored = wanted != IGNORED
        wanted, found = wanted[scored], found[scored]
        classes = task.vocab
        targeted = torch.bincount(wanted, minlength=classes)
        hit = torch.bincount(wanted[wanted == found], minlength=classes)
        present = (targeted + torch.bincount(found, minlength=classes)) > 0
        recall = hit[present] / targeted[present].clamp(min=1)
        total += float(recall.mean()) * min(batch, len(tokens) - first)
    return total / len(tokens) if len(tokens) else math.nan
