"""The evaluator `mad`: scores as figures, seeds, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from starc.grammar.errors import StarError
from starc.mad import PROFILES, Profile
from starc.mad.evaluating import make
from starc.mad.profiles import TaskPlan
from starc.search.evaluators import make_evaluator

PROGRAM = """
use std.convolution.gconv
model m {
    vocab = 64  width = 16  context = 64  residual = pre(rmsnorm)
    backbone { gconv(kernel = 3)  gconv(kernel = 3) }
}
"""


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """A profile `tiny` among those that can be asked for."""
    plans = [
        TaskPlan(task, ((("vocab", 16), ("length", 8)),), 6)
        for task in ("memorization", "compression")
    ]
    profile = Profile(
        name="tiny",
        tasks=tuple(plans),
        width=16,
        units=2,
        batch=4,
        learning_rates=(1e-2,),
        weight_decays=(0.0,),
        seeds=1,
        validations=2,
        held_out_examples=8,
    )
    monkeypatch.setitem(PROFILES, "tiny", profile)


def test_scores_are_figures(tmp_path: Path):
    found = make(profile="tiny", seeds=2)
    figures = found.evaluate(PROGRAM, seed=5, rung=0, folder=tmp_path / "a")
    assert set(figures) == set(found.figures) == {"quality", "memorization", "compression"}
    assert figures["quality"] == pytest.approx(
        (figures["memorization"] + figures["compression"]) / 2
    )
    assert figures == found.evaluate(PROGRAM, seed=5, rung=0, folder=tmp_path / "b")
    assert {p.name for p in (tmp_path / "a").rglob("seed=*")} == {"seed=5", "seed=6"}
    assert found.quality.sign == -1
    assert found.tokens(0) > 0


def test_a_part_of_the_tasks(tmp_path: Path):
    found = make(profile="tiny", tasks="memorization")
    figures = found.evaluate(PROGRAM, seed=5, rung=0, folder=tmp_path / "a")
    assert figures["quality"] == figures["memorization"]
    assert found.describe() != make(profile="tiny").describe()
    assert found.probe(PROGRAM, seed=0, folder=tmp_path)["seconds"] > 0


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"profile": "slow"}, "unknown-profile"),
        ({"tasks": "memory"}, "unknown-task"),
        ({"seeds": 0}, "bad-evaluator-option"),
        ({"state": "much"}, "bad-evaluator-option"),
        ({"task": "memorization"}, "unknown-evaluator-option"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], code: str):
    with pytest.raises(StarError) as caught:
        make_evaluator("mad", options)
    assert caught.value.diagnostics[0].code == code
