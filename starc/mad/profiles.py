"""The protocols by which programs are judged: which runs there are, and how each is trained.

    paper      the published protocol: 66 settings of six tasks, six learning rates and decays
    standard   the same tasks without the faults of the published one; several seeds
    quick      six small tasks that take minutes on a laptop

Owns: every number of a protocol; docs/mad.md explains them. Refuses: carrying one out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from starc.grammar.errors import Diagnostic, StarError, suggest
from starc.runtime.data import Split
from starc.runtime.run import Settings
from starc.runtime.tasks import MAD, Task, make_task, settings

Variation = tuple[tuple[str, Any], ...]
"""Settings of a task as (name, value) pairs."""


@dataclass(frozen=True)
class TaskPlan:
    """A task at its difficulty settings; `steps` 0 leaves the number to the profile's epochs."""

    task: str
    variations: tuple[Variation, ...]
    steps: int = 0


@dataclass(frozen=True)
class Spec:
    """One training run of a profile."""

    task: str
    variation: Variation
    learning_rate: float
    weight_decay: float
    seed: int

    @property
    def path(self) -> str:
        """Its folder, which is its name as well."""
        varied = ",".join(f"{name}={value}" for name, value in self.variation) or "baseline"
        grid = f"lr={self.learning_rate:g},wd={self.weight_decay:g}"
        return f"{self.task}/{varied}/{grid}/seed={self.seed}"

    @property
    def anywhere(self) -> Spec:
        """The run apart from its place in the grid: what decides its data."""
        return replace(self, learning_rate=0.0, weight_decay=0.0)

    @property
    def setting(self) -> str:
        """Its task at its difficulty setting, in one line."""
        return " ".join((self.task, *(f"{name}={value}" for name, value in self.variation)))


@dataclass(frozen=True)
class Profile:
    """A protocol.

    `metric` is a field of `runs.Figures`; `selection` is the split by which the best learning rate
    and decay of every setting are chosen, and at which `stop_accuracy` ends a run early. `warmup`
    is a share of the steps. `plain` trains all parameters at one learning rate, as AdamW of PyTorch
    is by default; else rates follow the rules of runtime/optim. `overrides` are settings of the
    model that the protocol prescribes. `seeds` is how many are run unless asked otherwise.
    """

    name: str
    tasks: tuple[TaskPlan, ...]
    width: int
    units: int
    batch: int
    learning_rates: tuple[float, ...]
    weight_decays: tuple[float, ...]
    seeds: int
    epochs: int = 0
    schedule: str = "cosine"
    warmup: float = 0.1
    clip: float = 1.0
    plain: bool = False
    stop_accuracy: float = 0.999
    validations: int = 0
    """Validations of a run; 0: one after every epoch."""
    selection: Split = "validation"
    metric: str = "accuracy"
    held_out_examples: int = 1_280
    overrides: tuple[tuple[str, str], ...] = ()
    only_answers: bool = False
    """Whether keys, which are drawn at random, are no targets in training."""

    def plan(self, task: str) -> TaskPlan:
        """The part of the protocol that is about a task; StarError when there is none."""
        for plan in self.tasks:
            if plan.task == task:
                return plan
        names = [plan.task for plan in self.tasks]
        raise StarError(
            Diagnostic(
                "unknown-task",
                f"there is no task '{task}' in the profile '{self.name}'.",
                hint=suggest(task, names) or f"there are {', '.join(names)}.",
            )
        )

    def chosen(self, tasks: Sequence[str]) -> tuple[str, ...]:
        """The tasks that were asked for in the protocol's order, all of them for none."""
        for task in tasks:
            self.plan(task)
        return tuple(p.task for p in self.tasks if not tasks or p.task in tasks)

    def specs(self, tasks: Sequence[str], seeds: Sequence[int]) -> Iterator[Spec]:
        """All runs, those of the first seed first, so that a partial result says something."""
        for seed in seeds:
            for task in self.chosen(tasks):
                for variation in self.plan(task).variations:
                    for rate in self.learning_rates:
                        for decay in self.weight_decays:
                            yield Spec(task, variation, rate, decay, seed)

    def task(self, spec: Spec) -> Task:
        """The data of a run: the same for all points of the grid."""
        counts = {"held_out_examples": self.held_out_examples}
        return make_task(spec.task, seed=spec.seed, **{**counts, **dict(spec.variation)})

    def settings(self, spec: Spec, task: Task, device: str) -> Settings:
        """How a run is trained."""
        epoch = math.ceil(task.examples / self.batch)
        steps = self.plan(spec.task).steps or math.ceil(self.epochs * task.examples / self.batch)
        every = math.ceil(steps / self.validations) if self.validations else epoch
        return Settings(
            data=spec.setting,
            steps=steps,
            batch=self.batch,
            length=task.tokens,
            learning_rate=spec.learning_rate,
            warmup=int(self.warmup * steps),
            weight_decay=spec.weight_decay,
            clip=self.clip,
            seed=spec.seed,
            device=device,
            schedule=self.schedule,
            validate_every=every,
            validation_tokens=task.held_out_examples * task.context,
            stop_accuracy=self.stop_accuracy,
        )


def _all_settings() -> tuple[TaskPlan, ...]:
    return tuple(TaskPlan(n, tuple(tuple(s.items()) for s in settings(n))) for n in MAD)


_GRID: dict[str, Any] = {
    "learning_rates": (1e-4, 5e-4, 1e-3),
    "weight_decays": (0.0, 0.1),
    "batch": 128,
    "epochs": 200,
    "width": 128,
    "units": 4,
}

PAPER = Profile(
    name="paper",
    tasks=_all_settings(),
    seeds=1,
    schedule="constant",
    warmup=0.0,
    clip=0.0,
    plain=True,
    selection="test",
    metric="class_accuracy",
    overrides=(
        ("embedding", "untied"),
        ("position", "none"),
        ("residual", "pre(rmsnorm)"),
        ("final_norm", "rmsnorm"),
        ("head", "linear(bias = true)"),
    ),
    **_GRID,
)

STANDARD = Profile(name="standard", tasks=_all_settings(), seeds=3, warmup=0.05, **_GRID)


def _quick(task: str, steps: int, **variation: Any) -> TaskPlan:
    return TaskPlan(task, (tuple(variation.items()),), steps)


QUICK = Profile(
    name="quick",
    tasks=(
        _quick("in-context-recall", 500, vocab=16, length=32),
        _quick("noisy-in-context-recall", 500, vocab=16, length=32, noise_ids=4),
        _quick("fuzzy-in-context-recall", 500, vocab=8, length=32),
        _quick("memorization", 60, vocab=2048),
        _quick("compression", 400, vocab=16, length=16),
        _quick("selective-copying", 400, vocab=16, length=48, data=8),
    ),
    width=64,
    units=4,
    batch=32,
    learning_rates=(3e-3,),
    weight_decays=(0.0,),
    seeds=1,
    validations=10,
    held_out_examples=256,
    overrides=(("embedding", "untied(scale = 50)"),),
    only_answers=True,
)

PROFILES = {profile.name: profile for profile in (QUICK, STANDARD, PAPER)}


def find_profile(name: str) -> Profile:
    """The profile called `name`; raises StarError when there is none."""
    if name not in PROFILES:
        raise StarError(
            Diagnostic(
                "unknown-profile",
                f"there is no profile '{name}'.",
                hint=suggest(name, PROFILES) or f"there are {', '.join(PROFILES)}.",
            )
        )
    return PROFILES[name]
