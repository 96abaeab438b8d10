"""Scaling laws of programs, from a plan to fits: every training in a folder of its own.

    OUT/scaling.json                        what all runs have in common
    OUT/MODEL/BUDGET/WIDTHxUNITS/           a run, as `starc train` makes them
    OUT/MODEL/BUDGET/WIDTHxUNITS/result.json  what came of it, once it has ended

The same call goes on where it was stopped: a training that has a result is not repeated, one that
has begun goes on from its checkpoint.

Owns: doing a plan's trainings, their records, and handing them to the fit. Refuses: what to train
(scaling_plan.py), the loop (runtime/train.py), and the terminal.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from starc.compiler.driver import Artifact, compile_program
from starc.compiler.options import Options
from starc.grammar.errors import Diagnostic, StarError
from starc.runtime import run as runs
from starc.runtime.corpus import Corpus
from starc.runtime.data import Data
from starc.runtime.device import memory_errors, pick_device
from starc.runtime.files import write_atomic
from starc.runtime.learner import SingleLearner
from starc.runtime.loader import load
from starc.runtime.recommend import recommended_settings
from starc.runtime.run import Run, Settings
from starc.runtime.scaling_law import Point, ScalingLaw, fit_scaling_law
from starc.runtime.train import Progress, train
from starc.scaling_plan import Training

VALIDATION_TOKENS = 65_536
"""Held-out tokens that every training is judged on, the same ones."""

TIMED_STEPS = 4

_RESULT = "result.json"
_COMMON = "scaling.json"


@dataclass(frozen=True)
class Outcome:
    """A training that has ended: `status` is "finished" or "diverged", `loss` the held-out loss in
    nats per token (NaN where it diverged), `bits` the same per byte."""

    training: Training
    status: str
    loss: float
    bits: float
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        found = {
            **self.training.as_dict(),
            "status": self.status,
            "loss": self.loss,
            "bits": self.bits,
            "seconds": self.seconds,
        }
        return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in found.items()}


@dataclass(frozen=True)
class Choices:
    """How all trainings are done; None is what fits, decided once for all of them."""

    learning_rate: float | None = None
    seed: int = 0
    device: str = "auto"
    precision: str = "auto"
    validation_tokens: int = VALIDATION_TOKENS
    save_seconds: float = 60.0


Display = Callable[[Training, int], AbstractContextManager[Callable[[Progress], None]]]
"""(training, steps) -> a context that gives an observer of it."""


def _silent(training: Training, steps: int) -> AbstractContextManager[Callable[[Progress], None]]:
    return nullcontext(lambda progress: None)


def run_plan(
    trainings: Sequence[Training],
    data: Data,
    out: Path,
    choices: Choices | None = None,
    *,
    display: Display = _silent,
    should_stop: Callable[[], bool] = lambda: False,
) -> list[Outcome]:
    """Do the trainings of a plan, the cheapest first, and give what came of them.

    Those that have ended before are read from `out`. Fewer outcomes than trainings mean that
    `should_stop()` stopped it. Raises StarError for folders that hold other runs than the plan's.
    """
    choices = choices or Choices()
    common = _Common(out, data, choices)
    found = []
    for training in sorted(trainings, key=lambda t: (t.budget, t.size.parameters)):
        outcome = _done(training, out) or _trained(
            training, data, out, common, display, should_stop
        )
        if outcome is None:
            break
        found.append(outcome)
    return found


def points_of(outcomes: Sequence[Outcome]) -> list[Point]:
    """What outcomes of one program tell the fit: the nominal budget, since steps are whole."""
    return [
        Point(
            o.training.budget,
            o.training.size.parameters,
            o.training.tokens,
            o.loss,
            o.training.size.state,
        )
        for o in outcomes
        if o.status == "finished"
    ]


def fits(outcomes: Sequence[Outcome], *, samples: int = 1000) -> dict[str, ScalingLaw]:
    """The scaling law of every program of which there is enough, by the model's name."""
    found = {}
    for model in dict.fromkeys(o.training.size.model for o in outcomes):
        points = points_of([o for o in outcomes if o.training.size.model == model])
        try:
            found[model] = fit_scaling_law(points, samples=samples)
        except StarError as failure:
            if any(d.code != "too-few-trainings" for d in failure.diagnostics):
                raise
    return found


def measured_rate(training: Training, data: Data, choices: Choices | None = None) -> float:
    """Operations a second that a few steps of a training reach here."""
    choices = choices or Choices()
    artifact = _compiled(training)
    settings = _settings(training, artifact, data, choices)
    place = pick_device(settings.device)
    with torch.random.fork_rng(devices=[place] if place.type == "cuda" else []), memory_errors():
        learner = SingleLearner(data.adapt(load(artifact.text).Model()), settings, place)
        best = math.inf
        for step in range(1, TIMED_STEPS + 1):
            batch = data.batch(step, batch=settings.batch, length=settings.length, seed=0)
            began = time.monotonic()
            learner.take([batch], step)
            best = min(best, time.monotonic() - began)
    return training.size.flops * training.batch * training.length / best


# --- one training ------------------------------------------------------------------------------


class _Common:
    """What all runs of a folder have in common: it is decided by the first and holds for all."""

    def __init__(self, out: Path, data: Data, choices: Choices) -> None:
        self.path, self.data, self.choices = out / _COMMON, data, choices
        self._known: dict[str, Any] = {}
        if self.path.exists():
            self._known = _read(self.path)
            for name, wanted in (("data", data.digest), ("seed", choices.seed)):
                if self._known.get(name) != wanted:
                    raise _differs(out, f"{name} {self._known.get(name)}, not {wanted}")

    def precision(self, training: Training, artifact: Artifact) -> str:
        """The precision of all runs: as asked, as before, or the faster one for the first."""
        known = self._known.get("precision")
        asked = self.choices.precision
        if known and asked not in ("auto", known):
            raise _differs(self.path.parent, f"precision {known}, not {asked}")
        if not known:
            known = _settings(training, artifact, self.data, self.choices).precision
            self._known = {
                "data": self.data.digest,
                "seed": self.choices.seed,
                "precision": known,
            }
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(self.path, (json.dumps(self._known, indent=2) + "\n").encode())
        return str(known)


def _trained(
    training: Training,
    data: Data,
    out: Path,
    common: _Common,
    display: Display,
    should_stop: Callable[[], bool],
) -> Outcome | None:
    """Train from the start or from a checkpoint; None if it was stopped."""
    artifact = _compiled(training)
    choices = replace(common.choices, precision=common.precision(training, artifact))
    settings = _settings(training, artifact, data, choices)
    run = _opened(training, artifact, data, out, settings)
    with display(training, settings.steps) as observe:
        result = train(
            run, data, observe=observe, should_stop=should_stop, save_seconds=choices.save_seconds
        )
    if result.status == "interrupted":
        return None
    status = "diverged" if result.status == "diverged" else "finished"
    score = result.score if status == "finished" else None
    outcome = Outcome(
        training,
        status,
        score.loss if score else math.nan,
        score.bits_per_byte(data.bytes_per_token) if score else math.nan,
        result.seconds,
    )
    record = (json.dumps(outcome.as_dict(), indent=2) + "\n").encode()
    write_atomic(out / training.place / _RESULT, record)
    return outcome


def _compiled(training: Training) -> Artifact:
    return compile_program(training.size.source, Options(format=False))


def _settings(training: Training, artifact: Artifact, data: Data, choices: Choices) -> Settings:
    settings = recommended_settings(
        load(artifact.text),
        data,
        training.steps,
        batch=training.batch,
        length=training.length,
        learning_rate=choices.learning_rate,
        seed=choices.seed,
        device=choices.device,
        precision=choices.precision,
    )
    # All are judged once, at their end, on the same text.
    return replace(
        settings,
        validate_every=training.steps,
        validation_tokens=max(training.length, choices.validation_tokens),
    )


def _opened(
    training: Training, artifact: Artifact, data: Data, out: Path, settings: Settings
) -> Run:
    folder = out / training.place
    if not runs.exists(folder):
        return runs.create(
            folder,
            program=training.size.source.text,
            module_text=artifact.text,
            data_digest=data.digest,
            settings=settings,
            tokenizer=data.tokenizer if isinstance(data, Corpus) else None,
        )
    run = runs.open_run(folder)
    if run.digest != artifact.digest:
        raise _differs(folder, "another program")
    recorded, wanted = asdict(run.settings), asdict(settings)
    different = [f"{n} {recorded[n]}, not {v}" for n, v in wanted.items() if recorded[n] != v]
    if different:
        raise _differs(folder, "; ".join(different))
    return run


def _done(training: Training, out: Path) -> Outcome | None:
    """The outcome of a training that ended before."""
    path = out / training.place / _RESULT
    if not path.exists():
        return None
    found = _read(path)
    wanted = training.as_dict()
    different = [f"{n} {found.get(n)}, not {v}" for n, v in wanted.items() if found.get(n) != v]
    if different:
        raise _differs(path.parent, "; ".join(different))
    numbers = {
        name: math.nan if found.get(name) is None else float(found[name])
        for name in ("loss", "bits", "seconds")
    }
    return Outcome(training, str(found.get("status")), **numbers)


def _read(path: Path) -> dict[str, Any]:
    try:
        found: Any = json.loads(path.read_text())
        if not isinstance(found, dict):
            raise ValueError("it is no object")
    except (OSError, ValueError) as error:
        raise StarError(
            Diagnostic(
                "run-damaged",
                f"'{path}' cannot be read: {error}.",
                hint="remove its folder, and that training is done again.",
            )
        ) from error
    return dict(found)


def _differs(folder: Path, what: str) -> StarError:
    return StarError(
        Diagnostic(
            "run-differs",
            f"the runs in '{folder}' have {what}.",
            hint="give the arguments of the first call, or another --out.",
        )
    )
