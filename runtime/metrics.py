"""The record of a training: a line of JSON per step and per validation.

Owns: what a line says, and what stays of it when a run goes on from a checkpoint.
Refuses: showing it.
"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from starc.runtime.files import write_atomic

if TYPE_CHECKING:
    from starc.runtime.data import Score
    from starc.runtime.train import Progress


class Metrics:
    """An open record of one course, cut to what was there after `step` steps; raises OSError."""

    def __init__(self, path: Path, step: int) -> None:
        self.path = path
        _cut(path, step)

    def __enter__(self) -> Metrics:
        self._file = self.path.open("a")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def record(self, progress: Progress) -> None:
        """Write what a step came to, what its validation did, and why it was the last, if so."""
        (course,) = progress.courses
        if course.step == progress.step:
            self._write(
                {
                    "step": progress.step,
                    "loss": course.loss,
                    "learning_rate": progress.learning_rate,
                    "gradient_norm": course.norm,
                    "tokens_per_second": round(progress.tokens_per_second),
                }
            )
            if progress.judged and course.score is not None:
                entry = described(course.score, progress.bytes_per_token)
                self._write({"step": progress.step, **entry})
        if not course.running:
            reason = {"status": course.status, "reason": course.reason}
            self._write({"step": progress.step, **reason})

    def sync(self) -> None:
        """Put the lines on the disk, before a checkpoint that counts on them."""
        os.fsync(self._file.fileno())

    def _write(self, entry: dict[str, Any]) -> None:
        self._file.write(json.dumps(entry) + "\n")
        self._file.flush()


def described(score: Score, bytes_per_token: float) -> dict[str, float]:
    """A held-out score by the names that metrics have; bits per byte only where there are bytes."""
    named = {
        "validation_loss": score.loss,
        "validation_accuracy": score.accuracy,
        "validation_macro_accuracy": score.macro_accuracy,
        "validation_bits": score.bits_per_byte(bytes_per_token),
    }
    return {name: value for name, value in named.items() if not math.isnan(value)}


def _cut(path: Path, step: int) -> None:
    """Drop lines of steps after the checkpoint: they will be taken again."""
    if not path.exists():
        return
    kept = []
    for line in path.read_bytes().splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue  # the line that a killed process was writing
        if entry.get("step", 0) <= step and "status" not in entry:
            kept.append(line)
    write_atomic(path, b"".join(line + b"\n" for line in kept))
