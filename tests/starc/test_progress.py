"""Progress in a terminal, in a log, and with nowhere to go."""

from __future__ import annotations

import io
import math
import re

import pytest

from starc.cli.progress import open_display
from starc.runtime.course import Course
from starc.runtime.data import Score
from starc.runtime.train import Progress

SCORE = Score(nats=3.25 * math.log(2) * 8, correct=6, scored=8, macro=3.0, examples=4)


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


def steps(count: int, bytes_per_token: float = 1.0) -> list[Progress]:
    return [
        Progress(
            n,
            count,
            [Course(step=n, loss=2.0, score=SCORE if n > 1 else None)],
            learning_rate=1e-3,
            tokens_per_second=1000.0,
            bytes_per_token=bytes_per_token,
        )
        for n in range(1, count + 1)
    ]


def test_a_terminal_gets_one_live_line(monkeypatch: pytest.MonkeyPatch):
    screen = Screen()
    monkeypatch.setattr("sys.stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with open_display(5) as display:
        for progress in steps(5):
            display(progress)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.getvalue())
    assert "5/5" in text
    assert "loss 2.000  held out 3.250 bits/byte  1,000 tokens/s" in text


def test_a_log_gets_plain_lines_and_always_the_last(monkeypatch: pytest.MonkeyPatch):
    log = io.StringIO()
    monkeypatch.setattr("sys.stderr", log)
    with open_display(5) as display:
        for progress in steps(5):
            display(progress)
    assert log.getvalue() == (
        "step 5/5  loss 2.000  held out 3.250 bits/byte  1,000 tokens/s  0 s left\n"
    )


def test_a_task_shows_its_accuracy(monkeypatch: pytest.MonkeyPatch):
    log = io.StringIO()
    monkeypatch.setattr("sys.stderr", log)
    with open_display(2) as display:
        for progress in steps(2, bytes_per_token=0.0):
            display(progress)
    assert "held out 75.0% right, loss 2.253" in log.getvalue()


def test_no_standard_error_is_no_fault(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sys.stderr", None)
    with open_display(1) as display:
        display(steps(1)[0])
