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

from starc.grammar.errors import Diagnostic, StarError
from starc.runtime.files import write_atomic

if TYPE_CHECKING:
    from starc.runtime.data import Score
    from starc.runtime.train import Progress


class Metrics:
    """An open record of one course, cut to what was there after `step` steps.

    With a `board`, TensorBoard finds the same figures in that folder. Raises OSError, and StarError
    where there is no TensorBoard.
    """

    def __init__(self, path: Path, step: int, board: Path | None = None) -> None:
        self.path = path
        self._board = None if board is None else _writer(board, step)
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
        if self._board is not None:
            self._board.close()

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
        if self._board is not None:
            for name, value in entry.items():
                if name != "step" and isinstance(value, int | float):
                    group = "validation" if name.startswith("validation_") else "training"
                    tag = f"{group}/{name.removeprefix('validation_')}"
                    self._board.add_scalar(tag, value, entry["step"])


def described(score: Score, bytes_per_token: float) -> dict[str, float]:
    """A held-out score by the names that metrics have; bits per byte only where there are bytes."""
    named = {
        "validation_loss": score.loss,
        "validation_accuracy": score.accuracy,
        "validation_macro_accuracy": score.macro_accuracy,
        "validation_bits": score.bits_per_byte(bytes_per_token),
    }
    return {name: value for name, value in named.items() if not math.isnan(value)}


def _writer(folder: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise StarError(
            Diagnostic(
                "missing-extra",
                "the metrics cannot be written for TensorBoard: it is not installed.",
                hint="pip install 'starc[tensorboard]'; metrics.jsonl is written in any case.",
            )
        ) from error
    # Steps after the checkpoint that an earlier process wrote are taken again.
    return SummaryWriter(str(folder), purge_step=step + 1)


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
