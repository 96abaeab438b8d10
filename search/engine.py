"""How evaluations are carried out: jobs go in, outcomes come out, in whatever order they end.

    done      figures, all finite
    nan       a figure that is no finite number
    diverged  the training says so (the diagnostic `diverged`)
    oom       more memory than allowed, or than there is
    timeout   more seconds than allowed
    failed    the evaluator raised: the same would happen again
    crash     the worker died: by a signal, by os._exit, or with its machine

Owns: jobs, outcomes, the interface of engines, and carrying out a job inside a worker. Refuses:
processes (local_engine.py), retrying (the driver does that), and the store.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from numbers import Real
from pathlib import Path
from typing import Literal, Protocol, get_args

from starc.grammar.errors import StarError
from starc.search.evaluators import Evaluator

Status = Literal["done", "crash", "oom", "nan", "timeout", "diverged", "failed"]
STATUSES: tuple[Status, ...] = get_args(Status)

_LONGEST = 2_000
"""Characters of a reason that are kept."""


@dataclass(frozen=True)
class Job:
    """One evaluation. `key` is the caller's and comes back with the outcome.

    `folder` is the program's own, there for all its rungs. `seconds` and `memory` (bytes of the
    worker's data) are limits, None for none; the time starts when a worker takes the job up.
    """

    key: str
    evaluator: Evaluator
    text: str
    seed: int
    rung: int
    folder: Path
    seconds: float | None = None
    memory: int | None = None


@dataclass(frozen=True)
class Outcome:
    """What came of a job: `figures` are empty unless it is done; `reason` says why it is not.

    `seconds` are those that a worker spent on it; `worker` names it.
    """

    key: str
    status: Status
    reason: str = ""
    figures: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    worker: str = ""


class Engine(Protocol):
    """Carries out jobs side by side. All methods are called from one thread."""

    @property
    def capacity(self) -> int:
        """How many jobs run at once."""
        ...

    def submit(self, job: Job) -> None:
        """Take a job; beyond the capacity it waits for its turn, first come first served."""
        ...

    def wait(self, timeout: float) -> list[Outcome]:
        """Outcomes as soon as there are any, each job's once; none after `timeout` seconds."""
        ...

    def cancel(self, key: str) -> None:
        """Forget a job, ending it if it runs: it has no outcome. Unknown keys are none's."""
        ...

    def close(self) -> None:
        """End everything at once, running jobs as well; nothing else may be called after it."""
        ...


def carry_out(job: Job, worker: str) -> Outcome:
    """Evaluate in this process; whatever the evaluator raises becomes an outcome."""
    began = time.monotonic()

    def ended(status: Status, reason: str = "", figures: Mapping[str, float] = {}) -> Outcome:
        seconds = time.monotonic() - began
        return Outcome(job.key, status, reason[:_LONGEST], figures, seconds, worker)

    try:
        job.folder.mkdir(parents=True, exist_ok=True)
        found = job.evaluator.evaluate(job.text, seed=job.seed, rung=job.rung, folder=job.folder)
        figures = plain_figures(found)
    except StarError as error:
        codes = {diagnostic.code for diagnostic in error.diagnostics}
        if "out-of-memory" in codes:
            return ended("oom", str(error))
        return ended("diverged" if "diverged" in codes else "failed", str(error))
    except MemoryError as error:
        return ended("oom", str(error) or "the worker has no more memory")
    except Exception as error:  # an evaluator may be anybody's
        return ended("failed", f"{type(error).__name__}: {error}")
    except SystemExit as error:
        return ended("failed", f"the evaluator left with SystemExit({error.code!r})")
    wrong = [f"{name} is {value}" for name, value in figures.items() if not math.isfinite(value)]
    return ended("nan", "; ".join(wrong)) if wrong else ended("done", "", figures)


def plain_figures(found: object) -> dict[str, float]:
    """What an evaluator gave as figures; a bare number is the quality. Raises TypeError."""
    if isinstance(found, Real):
        return {"quality": float(found)}
    if not isinstance(found, Mapping) or not found:
        raise TypeError(f"an evaluator gives figures or a number, not {type(found).__name__}")
    figures: dict[str, float] = {}
    for name, value in found.items():
        if not isinstance(name, str):
            raise TypeError(f"the name of a figure is a text, not {name!r}")
        try:
            figures[name] = float(value)
        except (TypeError, ValueError) as error:
            raise TypeError(f"the figure '{name}' is no number but {value!r:.80}") from error
    return figures
