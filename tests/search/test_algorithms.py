"""Algorithms of several rungs, with vectors and with predictions: what they do, and that a search
that is cut anywhere goes on as if it had not been."""

from __future__ import annotations

import random
from collections import Counter, deque
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from starc.compiler.options import Options
from starc.grammar.errors import StarError
from starc.grammar.source import Source
from starc.search.algorithms import Individual
from starc.search.algorithms.nsga2 import Crowding, standings
from starc.search.archive import individuals
from starc.search.driver import resume, search
from starc.search.encoding import Encoding
from starc.search.engine import Job, Outcome, carry_out
from starc.search.features import features
from starc.search.predictor import fit
from starc.search.settings import Settings
from starc.search.store import Store
from starc.search.variation import Variation

SPACE = """
use std.attention.mha
use std.convolution.gconv
use std.channel.swiglu
model m {
    vocab = 64  width = 32  context = 64  residual = pre(rmsnorm)
    backbone {
        repeat 3 {
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
    backbone { a: gconv(kernel = 3)  swiglu(hidden = 32)  gconv(kernel = 3) shares * with a }
}
"""

SETTINGS = Settings(
    space=SPACE,
    population=5,
    generations=5,
    objectives=("quality", "cache_bytes"),
    evaluator="static",
    evaluator_options={"rungs": 3},
    units=10,
)

ALGORITHMS: dict[str, dict[str, Any]] = {
    "halving": {"eta": 2},
    "dehb": {"eta": 2},
    "surrogate": {"least": 5, "candidates": 2, "explore": 0.3},
    "nsga2": {"stages": "backbone:2+operator"},
}


class Cut(Exception):
    """Ends a search between two looks at its engine."""


class Inline:
    """Carries out jobs in this process, and gives up after so many."""

    capacity = 1

    def __init__(self, most: int | None = None) -> None:
        self.most, self.waiting = most, deque[Job]()

    def submit(self, job: Job) -> None:
        self.waiting.append(job)

    def wait(self, timeout: float) -> list[Outcome]:
        if self.most is not None:
            self.most -= 1
            if self.most < 0:
                raise Cut
        return [carry_out(self.waiting.popleft(), "inline")] if self.waiting else []

    def cancel(self, key: str) -> None: ...

    def close(self) -> None: ...


def asked(name: str, **changes: Any) -> Settings:
    return replace(SETTINGS, algorithm=name, algorithm_options=ALGORITHMS[name], **changes)


def record(out: Path) -> list[Any]:
    with Store.read(out) as store:
        rows = {row.number: row for row in store.proposals()}
        return [(one, rows[one.id].operation) for one in individuals(store)]


@pytest.mark.parametrize("steady", [False, True], ids=["generations", "steady"])
@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_search_that_is_cut_goes_on_as_if_it_had_not_been(
    tmp_path: Path, name: str, steady: bool
):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    search(asked(name, steady=steady), whole, engine=Inline())
    rng = random.Random(3)
    with pytest.raises(Cut):
        search(asked(name, steady=steady), cut, engine=Inline(most=2))
    while True:
        try:
            resume(cut, engine=Inline(most=rng.randrange(1, 9)))
        except Cut:
            continue
        break
    assert record(cut) == record(whole)
    with Store.read(cut) as store:
        done = Counter(
            (row.program, row.rung) for row in store.evaluations() if row.status == "done"
        )
    assert set(done.values()) == {1}


def test_halving_promotes_the_best_of_every_rung(tmp_path: Path):
    found = search(asked("halving"), tmp_path / "run", engine=Inline()).individuals
    rungs = Counter(one.rung for one in found if one.generation == 0)
    assert rungs == {0: 5, 1: 2, 2: 1}
    by_id = {one.id: one for one in found}
    lowest = [one for one in found if one.generation == 0 and one.rung == 0]
    for one in found:
        if one.generation == 0 and one.rung == 1:
            parent = by_id[one.parents[0]]
            assert (parent.identity, parent.rung) == (one.identity, 0)
            better = [
                other
                for other in lowest
                if all(a < b for a, b in zip(other.objectives, parent.objectives, strict=True))
            ]
            promoted = {other.parents[0] for other in found if other.rung == 1}
            assert {other.id for other in better} <= promoted


def test_halving_needs_rungs(tmp_path: Path):
    settings = asked("halving", evaluator_options={"rungs": 1})
    with pytest.raises(StarError, match="at least two rungs"):
        search(settings, tmp_path / "run", engine=Inline())


@pytest.mark.parametrize("text", [SPACE, PROGRAM], ids=["space", "program"])
def test_points_are_programs(text: str):
    variation = Variation(Source("space.star", text))
    encoding = Encoding(variation)
    rng = random.Random(0)
    found = [encoding.program([rng.random() for _ in range(encoding.size)]) for _ in range(30)]
    verified = [program for program in found if program]
    assert len(verified) >= 25
    assert len({program.identity for program in verified}) >= 15
    start = variation.origin or verified[0]
    point = encoding.point(start.text)
    assert point is not None
    again = encoding.program(point)
    assert again is not None
    assert again.identity == start.identity


def test_differential_evolution_challenges_members(tmp_path: Path):
    settings = asked("dehb", evaluator_options={"rungs": 1})
    found = search(settings, tmp_path / "run", engine=Inline()).individuals
    later = [one for one in found if one.generation > 0]
    assert len({one.identity for one in found}) == len(found)
    assert later
    assert all(len(one.parents) == 1 for one in later)


def test_a_predictor_ranks_what_it_has_not_seen():
    rng = random.Random(1)
    programs = [{f"f{i}": rng.random() for i in range(12)} for _ in range(80)]
    values = [3 * p["f0"] - 2 * p["f1"] * p["f2"] + 0.02 * rng.random() for p in programs]
    predicted = fit(programs[:60], values[:60]).predict(programs[60:])
    order = sorted(range(20), key=lambda i: predicted[i])
    true = sorted(range(20), key=lambda i: values[60 + i])
    agree = sum((order.index(i) - true.index(i)) ** 2 for i in range(20))
    assert 1 - 6 * agree / (20 * 399) > 0.8


def test_a_predictor_of_one_example_says_its_value():
    assert fit([{"a": 1.0}], [2.5]).predict([{"a": 7.0}, {}]).tolist() == [2.5, 2.5]


def test_features_say_what_stands_where():
    variation = Variation(Source("program.star", PROGRAM), Options())
    checked = variation.verified(PROGRAM)
    found = features(checked, variation.check(PROGRAM).figures)
    assert (found["unit gconv"], found["unit swiglu"]) == (2, 1)
    assert found["call gconv(kernel = 3)"] == 2
    assert found["gconv, swiglu"] == found["swiglu, gconv"] == 1
    assert found["tied units"] == 1
    assert found["gconv(kernel = 3) at 0"] == 1
    assert found["log parameters"] > 5


def test_a_surrogate_says_how_well_it_predicts(tmp_path: Path):
    out = tmp_path / "run"
    search(asked("surrogate", evaluator_options={}), out, engine=Inline())
    with Store.read(out) as store:
        said = [event.text for event in store.events() if event.kind == "algorithm"]
    assert len(said) >= 2
    assert all("rank correlation of predicted quality" in line for line in said)


def test_stages_change_their_level_only(tmp_path: Path):
    found = search(asked("nsga2", evaluator_options={}), tmp_path / "run", engine=Inline())
    with Store.read(tmp_path / "run") as store:
        rows = list(store.proposals())
    assert {row.level for row in rows if row.generation >= 2} == {"operator"}
    assert "operator" not in {row.level for row in rows if row.generation < 2}
    assert found.front


def test_stages_that_are_none_are_refused(tmp_path: Path):
    settings = replace(asked("nsga2"), algorithm_options={"stages": "backbone:x"})
    with pytest.raises(StarError, match="is no stage"):
        search(settings, tmp_path / "run", engine=Inline())


def test_what_is_remembered_of_fronts_changes_no_standing():
    """Results come one by one, and the worst goes: most fronts stay, with many equal values."""
    rng, crowding = random.Random(0), Crowding()
    population: list[Individual] = []
    for id in range(200):
        values = rng.randrange(8) / 8, rng.randrange(8) / 8, float(rng.randrange(3))
        missed = float(rng.randrange(12) == 0)
        population.append(Individual(id, "", str(id), {}, values, missed, 0, 0, ()))
        stands = standings(population)
        assert standings(population, crowding) == stands
        if len(population) > 40:
            del population[stands.index(max(stands))]
