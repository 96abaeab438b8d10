"""How training shows on standard error: a live bar in a terminal, a line now and then in a log.

Owns: smoothing and the time left. Refuses: anything that is not for a person to look at.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from starc.runtime.train import Progress

LOG_SECONDS = 5.0
_SMOOTHING = 0.9

Display = Callable[[Progress], None]


@contextmanager
def open_display(steps: int) -> Iterator[Display]:
    """A display to call after every step, fit for where standard error goes."""
    if sys.stderr is None:
        yield lambda progress: None
    elif sys.stderr.isatty():
        with _bar(steps) as display:
            yield display
    else:
        yield _Log()


class _Smooth:
    """Exponential means of loss and speed, without the bias of the first values."""

    def __init__(self) -> None:
        self.loss = self.rate = self.weight = 0.0

    def add(self, progress: Progress) -> tuple[float, float]:
        self.weight = _SMOOTHING * self.weight + 1 - _SMOOTHING
        self.loss += (1 - _SMOOTHING) * (progress.loss - self.loss)
        self.rate += (1 - _SMOOTHING) * (progress.tokens_per_second - self.rate)
        return self.loss / self.weight, self.rate / self.weight


class _Log:
    def __init__(self) -> None:
        self._smooth = _Smooth()
        self._began = self._shown = time.monotonic()
        self._first: int | None = None

    def __call__(self, progress: Progress) -> None:
        if self._first is None:
            self._first = progress.step - 1
        text = _describe(progress, *self._smooth.add(progress))
        now = time.monotonic()
        if now - self._shown < LOG_SECONDS and progress.step != progress.steps:
            return
        self._shown = now
        pace = (now - self._began) / (progress.step - self._first)
        left = pace * (progress.steps - progress.step)
        sys.stderr.write(f"step {progress.step:,}/{progress.steps:,}  {text}  {left:.0f} s left\n")
        sys.stderr.flush()


@contextmanager
def _bar(steps: int) -> Iterator[Display]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    smooth = _Smooth()
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.description}"),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=steps)

        def display(progress: Progress) -> None:
            text = _describe(progress, *smooth.add(progress))
            bar.update(task, completed=progress.step, description=text)

        yield display


def _describe(progress: Progress, loss: float, rate: float) -> str:
    score = progress.score
    if score is None:
        held_out = ""
    elif progress.bytes_per_token:
        held_out = f"  held out {score.bits_per_byte(progress.bytes_per_token):.3f} bits/byte"
    else:
        held_out = f"  held out {score.accuracy:.1%} right, loss {score.loss:.3f}"
    return f"loss {loss:.3f}{held_out}  {rate:,.0f} tokens/s"
