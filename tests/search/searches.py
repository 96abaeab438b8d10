"""A small space and settings of fast searches, and what must be equal of two runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from starc.search.archive import individuals
from starc.search.settings import Settings
from starc.search.store import Store

SPACE = """
use std.attention.mha
use std.convolution.gconv
use std.channel.swiglu
model m {
    vocab = 64  width = 32  context = 64  residual = pre(rmsnorm)
    backbone {
        repeat 2 {
            ?[mha(heads = ?[2, 4]), gconv(kernel = ?[2 .. 5])]
            swiglu(hidden = ?[16, 32, 64])
        }
    }
}
"""

PROGRAM = """
use std.convolution.gconv
use std.channel.swiglu
model m {
    vocab = 64  width = 32  context = 64  residual = pre(rmsnorm)
    backbone { gconv(kernel = 3)  swiglu(hidden = 32)  gconv(kernel = 4)  swiglu(hidden = 64) }
}
"""

SETTINGS = Settings(
    space=SPACE,
    population=6,
    generations=3,
    objectives=("quality", "cache_bytes"),
    evaluator="static",
    units=10,
)


def settings(**changes: Any) -> Settings:
    changes = {"generations": None, **changes} if "evaluations" in changes else changes
    return replace(SETTINGS, **changes)


def record(out: Path) -> list[tuple[Any, ...]]:
    """All that a search found and how, apart from times and workers."""
    with Store.read(out) as store:
        rows = {row.number: row for row in store.proposals()}
        return [(one, rows[one.id].operation, rows[one.id].repairs) for one in individuals(store)]


def evaluated(out: Path) -> list[tuple[int, int]]:
    """Program and rung of every finished evaluation."""
    with Store.read(out) as store:
        return [(row.program, row.rung) for row in store.evaluations() if row.status == "done"]
