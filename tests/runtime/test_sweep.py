"""Sweeps: every way gives what the points give alone, whatever cuts them."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from starc.compiler.driver import compile_program
from starc.compiler.options import Options
from starc.grammar.errors import StarError
from starc.grammar.source import Source
from starc.runtime import ways
from starc.runtime.run import Settings, create, open_run
from starc.runtime.sweep import Point, outcome, sweep, train_together
from starc.runtime.tasks import make_task
from starc.runtime.train import Progress, Result, train
from starc.runtime.ways import Decision, Way, decide
from starc.runtime.workers import Workers

PROGRAM = """
use std.attention.mha
use std.channel.swiglu
model small {
    vocab = 16  width = 16  context = 32
    residual = pre(rmsnorm)
    backbone { mha(heads = 2)  swiglu(hidden = 32) }
}
"""
DATA = make_task("in-context-recall", length=16, examples=64, held_out_examples=16)
COMMON = Settings(
    data="in-context-recall",
    steps=8,
    batch=8,
    length=15,
    learning_rate=0.0,
    warmup=2,
    validate_every=3,
)
POINTS = (Point(1e-2, 0.0), Point(1e-3, 0.1, 1), Point(3e-3, 0.1))
HERE = Way(1, 3)


@pytest.fixture(scope="module")
def text() -> str:
    return compile_program(Source("small.star", PROGRAM), Options()).text


def run_sweep(folder: Path, text: str, way: Way | None, **others: object) -> list[Result]:
    given = {"points": POINTS, "settings": COMMON, **others}
    return sweep(folder, program=PROGRAM, module_text=text, data=DATA, way=way, **given)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def alone(text: str, tmp_path_factory: pytest.TempPathFactory) -> list[Result]:
    """What `train` makes of every point."""
    folder = tmp_path_factory.mktemp("alone")
    found = []
    for point in POINTS:
        run = create(
            folder / point.folder,
            program=PROGRAM,
            module_text=text,
            data_digest=DATA.digest,
            settings=point.settings(COMMON),
        )
        found.append(train(run, DATA))
    return found


def assert_alike(found: list[Result], want: list[Result]) -> None:
    for own, single in zip(found, want, strict=True):
        assert (own.status, own.step) == (single.status, single.step)
        assert own.loss == pytest.approx(single.loss, rel=1e-4)
        assert own.score is not None
        assert single.score is not None
        assert own.score.loss == pytest.approx(single.score.loss, rel=1e-4)


def steps_of(folder: Path, point: Point) -> list[int]:
    lines = (folder / point.folder / "metrics.jsonl").read_text().splitlines()
    return [entry["step"] for entry in map(json.loads, lines) if "loss" in entry]


@pytest.mark.parametrize("way", [Way(1, 1), Way(1, 2), HERE], ids=lambda way: way.name)
def test_ways_within_this_process(way: Way, text: str, alone: list[Result], tmp_path: Path) -> None:
    seen: dict[Point, list[int]] = {}
    rates: dict[Point, float] = {}

    def observe(point: Point, progress: Progress) -> None:
        seen.setdefault(point, []).append(progress.step)
        rates[point] = max(rates.get(point, 0.0), progress.learning_rate)

    assert_alike(run_sweep(tmp_path, text, way, observe=observe), alone)
    for point in POINTS:
        assert seen[point] == steps_of(tmp_path, point) == list(range(1, 9))
        assert rates[point] == pytest.approx(point.learning_rate)
    assert json.loads((tmp_path / "sweep.json").read_text())["way"]["stack"] == way.stack
    # What has ended is not trained again.
    seen.clear()
    assert_alike(run_sweep(tmp_path, text, None, observe=observe), alone)
    assert not seen


@pytest.mark.slow
@pytest.mark.parametrize("way", [Way(2, 1), Way(2, 2)], ids=lambda way: way.name)
def test_processes(way: Way, text: str, alone: list[Result], tmp_path: Path) -> None:
    asked = 0

    def should_stop() -> bool:
        nonlocal asked
        asked += 1
        return asked > 3

    cut = run_sweep(tmp_path, text, way, should_stop=should_stop)
    assert {result.status for result in cut} <= {"interrupted", "finished"}
    assert_alike(run_sweep(tmp_path, text, None), alone)


def test_stopped_and_killed_sweeps_go_on(text: str, alone: list[Result], tmp_path: Path) -> None:
    cut = 0

    def stop() -> bool:
        nonlocal cut
        cut += 1
        return cut > 5

    found = run_sweep(tmp_path, text, HERE, should_stop=stop)
    assert {(result.status, result.step) for result in found} == {("interrupted", 4)}

    class Killed(Exception):
        pass

    def die(point: Point, progress: Progress) -> None:
        if progress.step == 6 and point == POINTS[1]:  # between two checkpoints of one step
            raise Killed

    with pytest.raises(Killed):
        run_sweep(tmp_path, text, None, observe=die, save_steps=1)
    stands = [len(steps_of(tmp_path, point)) for point in POINTS]
    assert stands == [6, 6, 5]
    assert_alike(run_sweep(tmp_path, text, None), alone)
    assert all(steps_of(tmp_path, point) == list(range(1, 9)) for point in POINTS)


def test_points_that_end_early(text: str, tmp_path: Path) -> None:
    points = (Point(1e30, 0.0), Point(1e-3, 0.0), Point(2e-3, 0.0))
    settings = replace(COMMON, clip=0.0, warmup=1)
    found = run_sweep(tmp_path, text, HERE, points=points, settings=settings)
    assert found[0].status == "diverged"
    assert found[0].step < 8
    assert str(found[0].step + 1) in found[0].reason
    assert [result.status for result in found[1:]] == ["finished"] * 2
    lines = (tmp_path / points[0].folder / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line).get("status") for line in lines].count("diverged") == 1
    again = run_sweep(tmp_path, text, None, points=points, settings=settings)
    assert [replace(r, seconds=0.0) for r in again] == [replace(r, seconds=0.0) for r in found]

    settings = replace(COMMON, stop_accuracy=1e-9)
    found = run_sweep(tmp_path / "stopped", text, HERE, settings=settings)
    assert {(result.status, result.step) for result in found} == {("stopped-early", 3)}


def test_what_cannot_be_swept(text: str, tmp_path: Path) -> None:
    with pytest.raises(StarError, match="twice"):
        run_sweep(tmp_path, text, HERE, points=(POINTS[0], POINTS[0]))
    run_sweep(tmp_path, text, HERE, points=POINTS[:1])
    with pytest.raises(StarError, match="another program"):
        run_sweep(tmp_path, text, HERE, settings=replace(COMMON, steps=9))
    (state,) = (tmp_path / POINTS[0].folder / "checkpoint").glob("*/state.json")
    state.write_text("{")
    with pytest.raises(StarError, match="cannot be used"):
        run_sweep(tmp_path, text, HERE)


def test_the_decision(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [
        create(
            tmp_path / point.folder,
            program=PROGRAM,
            module_text=text,
            data_digest=DATA.digest,
            settings=point.settings(COMMON),
        )
        for point in POINTS
    ]

    def none(count: int) -> Workers:
        raise AssertionError("the sweep is too short for processes")

    decision = decide(runs, DATA, torch.device("cpu"), none)
    assert set(decision.seconds) == {"one after another", "3 stacked"}
    assert decision.seconds[decision.way.name] == min(decision.seconds.values())
    assert decision.gain >= 1
    assert Decision.of_state(json.loads(json.dumps(decision.state()))) == decision

    monkeypatch.setattr(ways, "_that_fit", lambda bytes_each, device: 1)
    decision = decide(runs, DATA, torch.device("cpu"), none)
    assert decision.way == Way()
    assert decision.left_out["3 stacked"] == "the device has too little memory"
    monkeypatch.undo()

    def refuse(*arguments: object) -> None:
        raise RuntimeError("vmap: it draws random numbers\nand more")

    monkeypatch.setattr(ways, "stack_runs", refuse)
    decision = decide(runs, DATA, torch.device("cpu"), none)
    assert decision.way == Way()
    assert decision.left_out["3 stacked"] == "vmap: it draws random numbers"
    assert math.isclose(decision.gain, 1.0)


@pytest.mark.slow
def test_processes_are_measured(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ways, "WORTH", 0.0)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    run_sweep(tmp_path, text, None)
    recorded = json.loads((tmp_path / "sweep.json").read_text())
    assert "one after another in each of 2 processes" in recorded["seconds"]


def test_outcome_and_groups_of_one(text: str, alone: list[Result], tmp_path: Path) -> None:
    point = POINTS[0]
    run = create(
        tmp_path,
        program=PROGRAM,
        module_text=text,
        data_digest=DATA.digest,
        settings=point.settings(COMMON),
    )
    assert outcome(run) is None
    assert_alike(train_together([run], DATA), alone[:1])
    ended = outcome(open_run(tmp_path))
    assert ended is not None
    assert_alike([ended], alone[:1])
