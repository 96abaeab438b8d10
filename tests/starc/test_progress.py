"""Progress in a terminal, in a log, and with nowhere to go."""

from __future__ import annotations

import io
import re

import pytest

from starc.cli.progress import open_display
from starc.runtime.train import Progress


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


def steps(count: int) -> list[Progress]:
    return [
        Progress(n, count, 2.0, 1e-3, 1000.0, 3.25 if n > 1 else None) for n in range(1, count + 1)
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


def test_no_standard_error_is_no_fault(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sys.stderr", None)
    with open_display(1) as display:
        display(steps(1)[0])
