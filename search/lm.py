"""The evaluator `lm`: bits per byte of held-out text after a short training.

    data          what `starc train --data` takes; "stdlib" is everywhere
    tokens        the full budget; with `rungs` above 1, each rung has `factor` times the one below
    batch, length sequences of a step, and tokens of a sequence
    lr            the peak learning rate (runtime/optim.py says of what); 0: the default of training
    warmup        steps; 0: a tenth of the first rung's
    validation    held-out tokens that the score is taken on, of the part that is never tested on
    device, precision, threads
                  where and how; results of one device are compared with those of the same

Checkpoints carry over from rung to rung: the schedule is then flat with a decay at the end (wsd),
else a cosine. It ends where a training to that rung alone would end.

Owns: the recipe of such a training. Refuses: the loop (runtime/train.py).
"""

from __future__ import annotations

import math
import shutil
import statistics
import time
from dataclasses import asdict, dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from starc.compiler.driver import compile_program
from starc.compiler.options import Options
from starc.grammar.errors import Diagnostic, StarError
from starc.grammar.source import Source
from starc.runtime import run as runs
from starc.runtime.data import Data
from starc.runtime.device import memory_errors, pick_device
from starc.runtime.learner import SingleLearner
from starc.runtime.loader import Generated, load
from starc.runtime.recommend import LEARNING_RATE, recommended_settings
from starc.runtime.run import Run
from starc.runtime.sources import open_data
from starc.runtime.train import Progress, fit, train
from starc.search.objectives import Objective

_PROBE_STEPS = 6
_PROBE_SECONDS = 20.0


@dataclass(frozen=True)
class LanguageModel:
    """See the module. `budgets` are the rungs in tokens, `data_digest` that of the text."""

    data: str
    data_digest: str
    budgets: tuple[int, ...]
    batch: int
    length: int
    learning_rate: float
    warmup: int
    validation: int
    device: str
    precision: str
    threads: int

    name = "lm"
    quality = Objective("quality", 1, "bits per byte")
    figures: tuple[str, ...] = ("quality", "loss", "train_loss")

    @property
    def rungs(self) -> int:
        return len(self.budgets)

    def tokens(self, rung: int) -> float:
        """Those of whole steps."""
        return float(self._steps(rung) * self.batch * self.length)

    def describe(self) -> dict[str, Any]:
        """The whole recipe."""
        return {**asdict(self), "version": 1}

    def evaluate(self, text: str, *, seed: int, rung: int, folder: Path) -> dict[str, float]:
        """Train up to a rung, from the checkpoint of a lower one if there is one, and judge."""
        torch.set_num_threads(self.threads)
        data = opened(self.data)
        run = self._run(text, data, seed, rung, folder / "run")
        result = train(run, data)
        if result.status == "diverged" or result.score is None:
            raise StarError(Diagnostic("diverged", result.reason or "there is no held-out score."))
        return {
            "quality": result.score.bits_per_byte(data.bytes_per_token),
            "loss": result.score.loss,
            "train_loss": result.loss,
        }

    def probe(self, text: str, *, seed: int, folder: Path) -> dict[str, float]:
        """Seconds of a full evaluation, from the median of a few steps of training."""
        torch.set_num_threads(self.threads)
        began = time.monotonic()
        data = opened(self.data)
        run = self._run(text, data, seed, self.rungs - 1, folder / "probe")
        place = pick_device(self.device)
        torch.manual_seed(seed)
        with memory_errors():
            learner = SingleLearner(data.adapt(run.module().Model()), run.settings, place)
            ready = time.monotonic()
            marks = [ready]

            def mark(progress: Progress) -> None:
                marks.append(time.monotonic())

            def enough() -> bool:
                late = marks[-1] - ready > _PROBE_SECONDS and len(marks) > 2
                return late or len(marks) > _PROBE_STEPS

            fit(learner, data, run.settings, observe=mark, should_stop=enough)
        steps = [after - before for before, after in pairwise(marks[1:])]
        each = statistics.median(steps or [marks[-1] - ready])  # the first step warms up
        tokens = self.batch * self.length
        judging = each / 3 * self.validation / tokens  # forward is a third of a step
        total = self._steps(self.rungs - 1) * each + judging + (ready - began)
        return {"seconds": total, "tokens_per_second": tokens / each}

    def _run(self, text: str, data: Data, seed: int, rung: int, folder: Path) -> Run:
        """The run of a program up to a rung, new or gone on with."""
        steps = self._steps(rung)
        if runs.exists(folder):
            try:
                return runs.extend(runs.open_run(folder), steps)
            except StarError:  # damaged, or beyond this rung: begin again
                shutil.rmtree(folder)
        source = Source("<program>", text)
        artifact = compile_program(source, Options(format=False))
        module: Generated = load(artifact.text)
        settings = recommended_settings(
            module,
            data,
            steps,
            batch=self.batch,
            length=self.length,
            learning_rate=self.learning_rate,
            seed=seed,
            device=self.device,
            precision=self.precision,
            schedule="wsd" if self.rungs > 1 else "cosine",
            warmup=self.warmup or max(1, min(500, self._steps(0) // 10)),
            validate_every=max(1, self._steps(self.rungs - 1)),
            validation_tokens=max(self.length, self.validation),
        )
        return runs.create(
            folder,
            program=text,
            module_text=artifact.text,
            data_digest=data.digest,
            settings=settings,
        )

    def _steps(self, rung: int) -> int:
        return max(1, self.budgets[rung] // (self.batch * self.length))


def make(
    data: str = "stdlib",
    tokens: int = 200_000,
    rungs: int = 1,
    factor: int = 4,
    batch: int = 16,
    length: int = 128,
    lr: float = 0.0,
    warmup: int = 0,
    validation: int = 32_768,
    device: str = "cpu",
    precision: str = "fp32",
    threads: int = 1,
) -> LanguageModel:
    """The evaluator with these options; raises StarError for wrong ones, and where data has none.

    Opens the data, whose digest is part of what the evaluator is.
    """
    for name, value, least in (
        ("tokens", tokens, 1),
        ("rungs", rungs, 1),
        ("factor", factor, 2),
        ("batch", batch, 1),
        ("length", length, 1),
        ("lr", lr, 0),
        ("warmup", warmup, 0),
        ("validation", validation, 1),
        ("threads", threads, 1),
    ):
        kinds = (int, float) if name == "lr" else int
        if not isinstance(value, kinds) or not least <= value < math.inf:
            raise _error(f"'{name}' is at least {least}, and not {value!r}.")
    if precision not in ("fp32", "bf16"):
        raise _error(f"'precision' is fp32 or bf16, and not '{precision}'.")
    if tokens < batch * length * factor ** (rungs - 1):
        raise _error(f"{tokens:,} tokens are less than a step of {batch} x {length} on every rung.")
    if not isinstance(data, str):
        raise _error(f"'data' is a name, and not {data!r}.")
    text = opened(data)
    if not text.bytes_per_token:
        raise _error(f"'{data}' is no text: there are no bits per byte.")
    text.batch(1, batch=1, length=length, seed=0)  # a text that is too short is said now
    text.held_out("validation", length=length, limit=1)
    return LanguageModel(
        data=data,
        data_digest=text.digest,
        budgets=tuple(tokens // factor ** (rungs - 1 - rung) for rung in range(rungs)),
        batch=batch,
        length=length,
        learning_rate=float(lr) or LEARNING_RATE,
        warmup=warmup,
        validation=validation,
        device=str(pick_device(device)),
        precision=precision,
        threads=threads,
    )


@lru_cache(maxsize=2)
def opened(name: str) -> Data:
    """The data of that name, read once for all programs that a worker trains."""
    return open_data(name)


def _error(message: str) -> StarError:
    return StarError(Diagnostic("bad-evaluator-option", message))
