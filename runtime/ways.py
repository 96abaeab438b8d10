"""Ways to train the points of a sweep, and which is the fastest for a program on a device.

Owns: timing steps of each way, what is not worth timing, and the decision.
Refuses: training.

What is compared is the time of a step of a point: the time of a step of all that train at once,
over how many they are. Measured on the sweep's own models, batches and device, in turns, best of a
few steps.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from starc.grammar.errors import StarError
from starc.runtime.data import Data
from starc.runtime.device import memory_errors
from starc.runtime.learner import Learner, SingleLearner
from starc.runtime.run import Run, open_run
from starc.runtime.stacked import Build, stack_runs
from starc.runtime.workers import Workers

WORTH = 60.0
"""Seconds that a sweep must take for processes to be considered: starting them takes some."""

CLOSE = 1e-2
"""How far the first loss in a stack may be from that alone, relative to it."""

_ROUNDS, _STEPS = 2, 2
_MEMORY_SHARE = 0.5


@dataclass(frozen=True)
class Way:
    """`workers` processes, each of which trains `stack` points at once; 1 worker is no process."""

    workers: int = 1
    stack: int = 1

    @property
    def name(self) -> str:
        one = "one after another" if self.stack == 1 else f"{self.stack} stacked"
        return one if self.workers == 1 else f"{one} in each of {self.workers} processes"


@dataclass(frozen=True)
class Decision:
    """A way, and by name the seconds per step and point of those that were measured.

    `left_out` says of the others why they were not, or why they cannot be.
    """

    way: Way
    seconds: dict[str, float]
    left_out: dict[str, str]

    @property
    def gain(self) -> float:
        """How many times as fast as one point after another; NaN where that was not measured."""
        alone, best = self.seconds.get(Way().name), self.seconds.get(self.way.name)
        return alone / best if alone and best else math.nan

    def state(self) -> dict[str, Any]:
        """Everything, fit for JSON; `of_state` is the way back."""
        gain = None if math.isnan(self.gain) else round(self.gain, 3)
        return {**asdict(self), "name": self.way.name, "gain": gain}

    @classmethod
    def of_state(cls, state: dict[str, Any]) -> Decision:
        """KeyError or TypeError for what is none."""
        return cls(Way(**state["way"]), dict(state["seconds"]), dict(state["left_out"]))


def decide(
    runs: Sequence[Run],
    data: Data,
    device: torch.device,
    workers: Callable[[int], Workers] | None = None,
    build: Build = SingleLearner,
) -> Decision:
    """The fastest way to train runs that differ in rates, decays and seeds.

    `workers(count)` gives as many processes; without it ways in this process alone are looked at.
    `build` makes the learner of a point here. Raises StarError for too little memory for one point.
    """
    alone = Way()
    if len(runs) == 1:
        return Decision(alone, {}, {})
    seconds: dict[str, float] = {}
    left_out: dict[str, str] = {}
    ways = {alone.name: alone}

    def consider(way: Way, measure: Callable[[], float]) -> None:
        """Times a way once more, unless it has failed before."""
        if way.name in left_out:
            return
        ways[way.name] = way
        try:
            found = measure()
        except Exception as error:  # whatever stands in the way of this way; another one is there
            left_out[way.name] = _reason(error)
            seconds.pop(way.name, None)
        else:
            seconds[way.name] = min(found, seconds.get(way.name, math.inf))

    trial = Trial(runs[:1], data, device, build)
    stack = min(len(runs), _that_fit(trial.memory, device))
    stacked = Way(1, stack)
    many: Trial | None = None
    for _ in range(_ROUNDS):
        seconds[alone.name] = min(trial.time()[0], seconds.get(alone.name, math.inf))
        if stack == 1:
            left_out[Way(1, len(runs)).name] = "the device has too little memory"
        elif stacked.name not in left_out:

            def time_stack() -> float:
                nonlocal many
                many = many or Trial(runs[:stack], data, device, build, like=trial)
                return many.time()[0]

            consider(stacked, time_stack)
    many = None
    for way in _with_processes(len(runs), stacked) if workers else ():
        left = sum(run.settings.steps for run in runs) * seconds[alone.name]
        if device.type != "cpu":
            left_out[way.name] = "a device is best used by one process"
        elif left < WORTH:
            left_out[way.name] = f"the sweep takes {left:.0f} seconds: too little to start them"
        elif way.stack > 1 and seconds.get(stacked.name, math.inf) > seconds[alone.name]:
            left_out[way.name] = "stacking is slower here"
        else:

            def time_workers(way: Way = way) -> float:
                assert workers is not None
                folders = [run.folder for run in runs[: way.stack]]
                call = ("starc.runtime.ways:time_steps", folders, data)
                slowest: float = max(found for found, _ in workers(way.workers).answers(*call))
                return slowest / way.workers

            for _ in range(_ROUNDS):
                consider(way, time_workers)
    best = min(seconds, key=lambda name: seconds[name])
    return Decision(ways[best], seconds, left_out)


def time_steps(
    folders: Sequence[Path],
    data: Data,
    say: Callable[[Any], None],
    stopped: Callable[[], bool],
) -> tuple[float, float]:
    """What a worker does to be timed: `Trial.time` of a group of points."""
    runs = [open_run(folder) for folder in folders]
    return Trial(runs, data, torch.device(runs[0].settings.device)).time()


class Trial:
    """A learner of some runs, to be timed and thrown away."""

    def __init__(
        self,
        runs: Sequence[Run],
        data: Data,
        device: torch.device,
        build: Build = SingleLearner,
        like: Trial | None = None,
    ) -> None:
        settings = runs[0].settings
        batch = data.batch(1, batch=settings.batch, length=settings.length, seed=settings.seed)
        self._batches = [batch]
        if settings.accumulate > 1:
            size = -(-settings.batch // settings.accumulate)
            firsts = range(0, settings.batch, size)
            self._batches = [
                (batch[0][first : first + size], batch[1][first : first + size]) for first in firsts
            ]
        self.points, self.memory = len(runs), 0
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            self._learner: Learner
            if len(runs) == 1:
                torch.manual_seed(settings.seed)
                model = data.adapt(runs[0].module().Model())
                self._learner = build(model, settings, device)
            else:
                self._learner = stack_runs(runs, data, device, build)
            with memory_errors(), _Saved() as saved:
                (self.loss, _), *_ = self._learner.take(self._batches, 1)
        self.memory = saved.bytes
        if like is not None and not math.isclose(self.loss, like.loss, rel_tol=CLOSE):
            raise ValueError(f"its loss is {self.loss:.4f}, and {like.loss:.4f} alone")

    def time(self) -> tuple[float, float]:
        """Seconds per step and point, of the clock and of the processor, best of a few steps.

        A step ends when its loss is known.
        """
        best = [math.inf, math.inf]
        for step in range(_STEPS):
            began = time.perf_counter(), time.process_time()
            self._learner.take(self._batches, 2 + step)
            ended = time.perf_counter(), time.process_time()
            best = [min(*pair) for pair in zip(best, map(float.__sub__, ended, began), strict=True)]
        return best[0] / self.points, best[1] / self.points


class _Saved:
    """How many bytes operations keep for the backward pass."""

    def __init__(self) -> None:
        self._storages: dict[int, int] = {}

    @property
    def bytes(self) -> int:
        return sum(self._storages.values())

    def _pack(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        self._storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    def __enter__(self) -> _Saved:
        self._hooks = torch.autograd.graph.saved_tensors_hooks(self._pack, lambda tensor: tensor)
        self._hooks.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._hooks.__exit__(*error)


def _with_processes(points: int, stacked: Way) -> list[Way]:
    """Ways with a process per core that PyTorch may use."""
    count = min(points, torch.get_num_threads())
    if count < 2:
        return []
    each = min(stacked.stack, -(-points // count))
    return [Way(count), *([Way(count, each)] if each > 1 else [])]


def _that_fit(bytes_each: int, device: torch.device) -> int:
    """How many points of `bytes_each` fit into half the memory that is free."""
    if device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0]
    else:
        try:
            free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        except (ValueError, OSError, AttributeError):  # not every system says
            return 1_000_000
    return max(1, int(_MEMORY_SHARE * free / max(1, bytes_each)))


def _reason(error: Exception) -> str:
    if isinstance(error, StarError):
        return error.diagnostics[0].message
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
