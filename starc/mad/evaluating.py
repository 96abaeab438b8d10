"""The evaluator `mad` of a search: a program's score by the tasks of MAD.

    profile   quick, standard or paper
    tasks     names joined by "+", none for all
    seeds     trainings of every setting, each with a seed of its own
    state     a total of state elements that every program is brought to; 0 leaves it
    device    where it is trained

Owns: turning a judgement into figures. Refuses: judging (judging.py).
"""

from __future__ import annotations

import math
import statistics
import time
from dataclasses import asdict, dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from starc.compiler.options import Options
from starc.grammar.errors import Diagnostic, StarError
from starc.grammar.source import Source
from starc.mad.judging import judge
from starc.mad.profiles import Profile, find_profile
from starc.mad.programs import artifact_for, first_task, fitted
from starc.mad.results import protocol_of
from starc.runtime.device import pick_device
from starc.runtime.learner import SingleLearner
from starc.runtime.loader import load
from starc.runtime.train import Progress, fit
from starc.search.objectives import Objective

_PROBE_STEPS = 4


@dataclass(frozen=True)
class Mad:
    """See the module. Its quality is the mean over the chosen tasks, to be made large."""

    profile: str
    tasks: tuple[str, ...]
    seeds: int
    state: int
    device: str

    name = "mad"
    quality = Objective("quality", -1, "MAD score")
    rungs = 1

    @property
    def figures(self) -> tuple[str, ...]:
        """The mean, and the score of every task."""
        return ("quality", *self._profile.chosen(self.tasks))

    @property
    def _profile(self) -> Profile:
        return find_profile(self.profile)

    def tokens(self, rung: int) -> float:
        """Of all trainings together."""
        return _tokens(self._profile, self.tasks) * self.seeds

    def describe(self) -> dict[str, Any]:
        """The options and the whole protocol."""
        return {**asdict(self), "protocol": protocol_of(self._profile), "version": 1}

    def evaluate(self, text: str, *, seed: int, rung: int, folder: Path) -> dict[str, float]:
        """All trainings of the protocol; those that are in the folder are not made again."""
        torch.set_num_threads(1)
        judgement = judge(
            Source("<program>", text),
            profile=self._profile,
            tasks=self.tasks,
            seeds=[seed + n for n in range(self.seeds)],
            state=self.state or None,
            folder=folder / "mad",
            device=self.device,
        )
        chosen = self._profile.chosen(self.tasks)
        scores = {task: judgement.scores[task].mean for task in chosen if task in judgement.scores}
        quality = statistics.fmean(scores.values()) if len(scores) == len(chosen) else math.nan
        return {"quality": quality, **scores}

    def probe(self, text: str, *, seed: int, folder: Path) -> dict[str, float]:
        """Seconds of all trainings, from a few steps of the first one of every task."""
        torch.set_num_threads(1)
        profile, place = self._profile, pick_device(self.device)
        program = fitted(Source("<program>", text), Options(), profile)
        total = 0.0
        for name in profile.chosen(self.tasks):
            task = first_task(profile, name)
            specs = list(profile.specs([name], range(self.seeds)))
            settings = profile.settings(specs[0], task, str(place))
            model = load(artifact_for(program, Options(), task).text).Model()
            learner = SingleLearner(task.adapt(model), settings, place)
            marks = [time.monotonic()]

            def mark(progress: Progress, marks: list[float] = marks) -> None:
                marks.append(time.monotonic())

            def enough(marks: list[float] = marks) -> bool:
                return len(marks) > _PROBE_STEPS

            fit(learner, task, settings, observe=mark, should_stop=enough)
            each = statistics.median(b - a for a, b in pairwise(marks[1:]))
            total += each * sum(profile.settings(s, task, "cpu").steps for s in specs)
        return {"seconds": total}


def make(
    profile: str = "quick", tasks: str = "", seeds: int = 1, state: int = 0, device: str = "cpu"
) -> Mad:
    """The evaluator with these options; raises StarError for wrong ones."""
    chosen = tuple(task for task in str(tasks).split("+") if task)
    find_profile(str(profile)).chosen(chosen)
    for name, value, least in (("seeds", seeds, 1), ("state", state, 0)):
        if not isinstance(value, int) or value < least:
            message = f"'{name}' is at least {least}, and not {value!r}."
            raise StarError(Diagnostic("bad-evaluator-option", message))
    return Mad(str(profile), chosen, seeds, state, str(pick_device(device)))


@lru_cache(maxsize=8)
def _tokens(profile: Profile, tasks: tuple[str, ...]) -> float:
    total = 0.0
    for spec in profile.specs(tasks, [0]):
        task = profile.task(spec)
        settings = profile.settings(spec, task, "cpu")
        total += settings.steps * settings.batch * task.tokens
    return total
