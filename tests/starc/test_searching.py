"""`starc search`: what it says, what it refuses, and that it can be stopped and gone on with."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from starc.search.archive import individuals
from starc.search.store import Store
from tests.search.searches import PROGRAM, SPACE, record

Command = Callable[..., Any]
NEW = ("space.star", "--out", "run")
QUICK = ("--evaluator", "static", "--population", 4, "--generations", 2, "--workers", 1)


@pytest.fixture
def space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A space in an empty folder, which is the current one."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "space.star"
    path.write_text(SPACE)
    return path


def test_a_search_says_what_it_costs_and_what_it_found(space: Path, command: Command):
    done = command("search", space, "--out", "run", *QUICK, "--objectives", "quality,units")
    assert (done.status, done.err.count("error")) == (0, 0)
    assert "space.star: 2 holes; nsga2, population 4, seed 0\n" in done.err
    assert "objectives: quality (small), units (small)\n" in done.err
    assert "evaluator: static, at most 8 evaluations\n" in done.err
    first, heading, *rows = done.out.splitlines()
    assert first == f"{len(rows)} of 8 programs are on the front"
    assert heading.split() == [
        "member", "quality", "units", "parameters", "cache_bytes", "flops_decode", "parents"
    ]  # fmt: skip
    with Store.read(Path("run")) as store:
        run = store.run()
        assert len(individuals(store)) == 8
    assert run.command.startswith("starc")
    assert run.settings["space"] == SPACE
    assert {"starc", "python", "torch", "numpy", "pymoo"} <= set(run.versions)


def test_a_dry_run_makes_nothing(space: Path, command: Command):
    limit = ("--constraint", "parameters <= 10")
    done = command("search", space, "--dry-run", *QUICK, *limit, "--preset", "star")
    assert (done.status, done.out) == (0, "")
    assert "at most 8 evaluations" in done.err  # what is given goes before the preset
    assert "0 of 24 random programs meet the constraints (parameters <= 10: the nearest" in done.err
    assert sorted(path.name for path in space.parent.iterdir()) == ["space.star"]
    done = command("search", space, "--dry-run", "--evaluator", "static", "--preset", "star")
    assert "at most 288 evaluations" in done.err


def test_resuming_takes_the_settings_it_began_with(space: Path, command: Command):
    assert command("search", space, "--out", "run", *QUICK).status == 0
    done = command("search", space, "--out", "run", *QUICK)
    assert (done.status, "error[run-exists]" in done.err) == (1, True)
    for options, said in (
        (("--seed", 1), "seed 0, not 1"),
        (("--algorithm", "random"), "algorithm nsga2, not random"),
        (("--algorithm", "nsga2,mutation=0.5"), "algorithm_options no options, not mutation=0.5"),
        (("--evaluator", "lm"), "evaluator static, not lm"),
        (("--generations", 1), "generations 2, not 1"),
        (("--evaluations", 9), "evaluations None, not 9"),
        (("--data", "text.txt"), "evaluator_options"),
    ):
        done = command("search", "--resume", "--out", "run", *options)
        assert (done.status, "error[run-differs]" in done.err) == (1, True), options
        assert said in done.err
    space.write_text(SPACE.replace("width = 32", "width = 64"))
    assert "another space" in command("search", space, "--resume", "--out", "run").err
    space.write_text(SPACE)
    done = command("search", space, "--resume", "--out", "run", *QUICK, "--json")
    assert done.status == 0
    front = json.loads(done.out)["front"]
    assert front[0]["figures"]["quality"]
    longer = command("search", "--resume", "--out", "run", "--generations", 3, "--workers", 1)
    assert longer.status == 0
    assert "of 12 programs" in longer.out
    command("search", space, "--out", "whole", *QUICK, "--generations", 3)
    assert record(Path("run")) == record(Path("whole"))


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("missing.star", "--out", "run"), "file-not-found"),
        (("space.star",), "missing-argument"),
        (("--out", "run"), "missing-argument"),
        (("--resume", "--out", "run"), "no-run"),
        ((*NEW, "--algorithm", "annealing"), "unknown-algorithm"),
        ((*NEW, "--algorithm", "nsga2,mutation"), "bad-option"),
        ((*NEW, "--preset", "sun"), "unknown-preset"),
        ((*NEW, "--memory", "much"), "wrong-argument"),
        ((*NEW, "--evaluator", "nowhere:f"), "cannot-evaluate"),
        ((*NEW, "--evaluator", "json:nothing"), "cannot-evaluate"),
        ((*NEW, "--evaluator", "json:__name__"), "cannot-evaluate"),
        ((*NEW, "--evaluator", "json:dumps,a=1"), "unknown-evaluator-option"),
        ((*NEW, "--objectives", "qality", *QUICK), "unknown-objective"),
        ((*NEW, "--objectives", "", *QUICK), "bad-objective"),
        ((*NEW, "--constraint", "units < 3", *QUICK), "bad-constraint"),
        ((*NEW, "--constraint", "units <= -3", *QUICK), "impossible-constraint"),
        ((*NEW, "--seed-programs", "no.star", *QUICK), "file-not-found"),
        (("space.star", "--out", "space.star", *QUICK), "system"),
        ((*NEW, "--cache", "/proc/no/file", *QUICK), "cannot-read"),
    ],
)  # fmt: skip
def test_wrong_input_is_said(space: Path, command: Command, arguments: Any, code: str):
    done = command("search", *arguments)
    assert done.status == 1, done.err
    assert f"error[{code}]" in done.err
    assert not Path("run", "search.db").exists()


def test_ctrl_c_says_how_to_go_on(space: Path, command: Command):
    arguments = ["search", space, "--out", "run", "--evaluator", "static,seconds=0.2"]
    arguments += ["--population", 4, "--generations", 5, "--workers", 2, "--steady-state"]
    process = subprocess.Popen(
        [sys.executable, "-m", "starc.cli", *map(str, arguments)],
        stderr=subprocess.PIPE,
        start_new_session=True,
        text=True,
    )
    end = time.monotonic() + 60
    while time.monotonic() < end and not finished(Path("run")):
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does, to every process of it
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Go on with: starc search --resume --out run\n" in said
    with Store.read(Path("run")) as store:
        assert {row.status for row in store.evaluations()} == {"done"}
        assert store.events()[-1].kind == "interrupted"
    assert command("search", "--resume", "--out", "run", "--workers", 2).status == 0
    command("search", *arguments[1:2], "--out", "whole", *arguments[4:])
    assert record(Path("run")) == record(Path("whole"))


def finished(out: Path) -> int:
    """How many evaluations have ended."""
    if not (out / "search.db").exists():
        return 0
    try:
        with Store.read(out) as store:
            return sum(row.status == "done" for row in store.evaluations())
    except Exception:  # it is just being made
        return 0


def test_a_search_of_programs_that_crash_has_no_front(space: Path, command: Command):
    Path("mine.py").write_text("import os\ndef f(text, seed):\n    os._exit(9)\n")
    arguments = ("--evaluator", "mine:f", "--population", 2, "--generations", 1, "--workers", 1)
    done = command("search", space, "--out", "run", *arguments)
    assert done.status == 1
    assert "no program met all constraints and was evaluated" in done.err
    with Store.read(Path("run")) as store:
        assert [row.status for row in store.evaluations()] == ["crash"] * 4
        assert {row.reason for row in store.evaluations()} == {"the worker ended with status 9"}


def test_a_function_of_ones_own(space: Path, command: Command):
    Path("mine.py").write_text("def f(text, seed):\n    return {'size': len(text), 'seed': seed}\n")
    Path("start.star").write_text(PROGRAM)
    arguments = ("--evaluator", "mine:f", "--population", 3, "--generations", 1, "--workers", 1)
    start = ("--seed-programs", "start.star")
    done = command("search", space, "--out", "run", *arguments, *start, "--objectives", "max:size")
    assert done.status == 0
    with Store.read(Path("run")) as store:
        found = individuals(store)
    assert [one.objectives[0] for one in found] == [-len(one.text) for one in found]
