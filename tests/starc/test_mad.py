"""`starc mad`: protocols, runs that are cut and go on, scores, comparison and what is refused."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from starc.compiler.driver import resolve_source
from starc.compiler.options import Options
from starc.grammar.errors import StarError
from starc.grammar.source import Source
from starc.mad import PROFILES, Judgement, Profile, judge, read_judgements
from starc.mad import judging as judging_module
from starc.mad import runs as runs_module
from starc.mad.judging import Done
from starc.mad.profiles import Spec, TaskPlan
from starc.mad.programs import fitted
from starc.mad.results import TOTAL, Spread, check_comparable, orderings, protocol_of
from starc.mad.runs import Figures, Job, Record, Watched, record_of
from starc.mad.states import state_elements, with_state
from starc.runtime.data import IGNORED
from starc.runtime.tasks import MAD
from starc.runtime.ways import Decision, Way

Command = Callable[..., Any]

PAPER, STANDARD, QUICK = PROFILES["paper"], PROFILES["standard"], PROFILES["quick"]

TINY = Profile(
    name="tiny",
    tasks=(
        TaskPlan("memorization", ((("vocab", 16), ("length", 8)),), 6),
        TaskPlan("compression", ((("vocab", 8), ("length", 8)),), 6),
    ),
    width=16,
    units=2,
    batch=4,
    learning_rates=(1e-3, 1e-2),
    weight_decays=(0.0,),
    seeds=2,
    validations=2,
    held_out_examples=8,
)


@pytest.fixture
def tiny(small: Path, monkeypatch: pytest.MonkeyPatch) -> Source:
    """A small program, and the profile `tiny` among those that can be asked for."""
    monkeypatch.setitem(PROFILES, "tiny", TINY)
    return Source("small.star", small.read_text())


# --- protocols -----------------------------------------------------------------------------------


def test_the_published_protocol_has_66_settings_and_396_runs():
    specs = list(PAPER.specs((), (0,)))
    settings = {spec.anywhere for spec in specs}
    counts = {task: sum(s.task == task for s in settings) for task in MAD}
    assert counts == {
        "in-context-recall": 11,
        "noisy-in-context-recall": 14,
        "fuzzy-in-context-recall": 11,
        "memorization": 6,
        "compression": 11,
        "selective-copying": 13,
    }
    assert len(settings) == 66
    assert len(specs) == len({spec.path for spec in specs}) == 396
    assert len(list(STANDARD.specs((), range(STANDARD.seeds)))) == 3 * 396
    assert len(list(QUICK.specs((), range(QUICK.seeds)))) == 6


def test_the_published_protocol_trains_for_200_epochs():
    specs = {spec.task: spec for spec in reversed(list(PAPER.specs((), (0,))))}
    recall = specs["in-context-recall"]
    settings = PAPER.settings(recall, PAPER.task(recall), "cpu")
    assert (settings.steps, settings.batch, settings.length) == (20_000, 128, 127)
    assert (settings.schedule, settings.warmup, settings.clip) == ("constant", 0, 0.0)
    assert (settings.validate_every, settings.stop_accuracy) == (100, 0.999)
    memory = specs["memorization"]
    assert PAPER.settings(memory, PAPER.task(memory), "cpu").steps == 400
    assert PAPER.selection == "test"
    assert STANDARD.selection == "validation"
    assert STANDARD.settings(recall, STANDARD.task(recall), "cpu").schedule == "cosine"


# --- scores --------------------------------------------------------------------------------------


def record(spec: Spec, validation: float, test: float) -> Record:
    figures = [Figures(1.0, share, share / 2, share / 4) for share in (validation, test)]
    return Record(spec, "finished", "", 6, 100, 1.0, 0.1, *figures)


def judged(name: str, accuracies: dict[str, list[float]], profile: Profile = TINY) -> Judgement:
    """A judgement in which every run of a task and seed has the same accuracy."""
    seeds = range(len(next(iter(accuracies.values()))))
    specs = list(profile.specs(tuple(accuracies), seeds))
    records = [record(s, 0.5, accuracies[s.task][s.seed]) for s in specs]
    return Judgement(
        name=name,
        text="",
        digest=name,
        profile=profile.name,
        protocol=protocol_of(profile),
        tasks=tuple(accuracies),
        seeds=tuple(seeds),
        planned=len(specs),
        records=tuple(records),
    )


def test_the_best_of_the_grid_is_chosen_by_the_selection_split():
    specs = list(TINY.specs(("memorization",), (0,)))
    rates = [record(specs[0], 0.4, 0.9), record(specs[1], 0.6, 0.3)]
    made = replace(judged("one", {"memorization": [0.0]}), records=tuple(rates))
    assert made.scores["memorization"].scores == (0.3,)
    looking = replace(made, protocol={**made.protocol, "selection": "test"})
    assert looking.scores["memorization"].scores == (0.9,)
    by_class = replace(looking, protocol={**looking.protocol, "metric": "class_accuracy"})
    assert by_class.scores["memorization"].scores == (0.225,)
    half = replace(made, records=tuple(rates[:1]))
    assert "memorization" not in half.scores


def test_the_total_is_the_mean_over_all_tasks_and_needs_all():
    both = judged("one", {"memorization": [0.2, 0.4], "compression": [0.6, 0.7]})
    assert both.scores[TOTAL].scores == pytest.approx((0.4, 0.55))
    assert both.scores["memorization"].deviation == pytest.approx(0.02**0.5)
    assert TOTAL not in judged("one", {"memorization": [0.2, 0.4]}).scores


def test_differences_are_beyond_the_spread_where_ranges_do_not_overlap():
    assert Spread((0.9, 0.8)).beyond(Spread((0.7, 0.79)))
    assert not Spread((0.9, 0.8)).beyond(Spread((0.7, 0.8)))
    assert not Spread((0.9,)).beyond(Spread((0.1, 0.2)))
    assert Spread((0.9,)).deviation is None
    three = [
        judged("good", {"memorization": [0.9, 0.8], "compression": [0.3, 0.4]}),
        judged("fair", {"memorization": [0.5, 0.6], "compression": [0.3, 0.4]}),
        judged("poor", {"memorization": [0.1, 0.2], "compression": [0.35, 0.4]}),
    ]
    found = orderings(three)
    assert found["memorization"] == [("good", "fair"), ("good", "poor"), ("fair", "poor")]
    assert found["compression"] == []


def test_records_and_judgements_come_back_from_json(tmp_path: Path):
    made = judged("one", {"memorization": [0.2, 0.4], "compression": [0.6, 0.7]})
    assert [record_of(r.to_json()) for r in made.records] == list(made.records)
    from starc.mad.results import write_judgement

    write_judgement(tmp_path / "one", made)
    assert read_judgements(tmp_path) == read_judgements(tmp_path / "one") == [made]


# --- runs ----------------------------------------------------------------------------------------


def losses(folder: Path) -> dict[str, list[float]]:
    found = {}
    for path in sorted(folder.rglob("metrics.jsonl")):
        entries = map(json.loads, path.read_text().splitlines())
        found[str(path.relative_to(folder))] = [e["loss"] for e in entries if "loss" in e]
    return found


def stopper(after: int) -> Callable[[], bool]:
    """Something that says stop from the `after`th question on."""
    asked = iter(range(10**9))
    return lambda: next(asked) >= after


def test_what_was_made_is_kept_and_what_was_cut_goes_on(
    tiny: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    whole = judge(tiny, profile="tiny", seeds=[0], folder=tmp_path / "whole")
    assert whole.complete
    assert set(whole.scores) == {"memorization", "compression", TOTAL}
    assert whole.parameters > 1000
    assert 0 < whole.data_share < 1

    cut = judge(tiny, profile="tiny", seeds=[0], folder=tmp_path / "cut", should_stop=stopper(12))
    assert len(cut.records) == 1
    assert read_judgements(tmp_path / "cut") == [cut]
    second = losses(tmp_path / "cut")
    assert 0 < min(map(len, second.values())) < 6  # the run that was cut had begun

    made: list[str] = []
    real = judging_module.execute

    def counted(jobs: Any, should_stop: Any) -> Any:
        found = real(jobs, should_stop)
        made.extend(record.spec.path for record in found.records)
        return found

    monkeypatch.setattr(judging_module, "execute", counted)
    seen: list[Done] = []
    judge(tiny, profile="tiny", seeds=[0], folder=tmp_path / "cut", observe=seen.append)
    assert len(made) == 3
    assert cut.records[0].spec.path not in made
    assert [done.made for done in seen] == [2, 3, 4]
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")
    again = judge(tiny, profile="tiny", seeds=[0], folder=tmp_path / "cut")
    assert len(made) == 3
    assert {t: s.scores for t, s in again.scores.items()} == {
        t: s.scores for t, s in whole.scores.items()
    }
    more = judge(tiny, profile="tiny", tasks=["memorization"], folder=tmp_path / "cut")
    assert more.seeds == (0, 1)
    assert len(made) == 5


@pytest.mark.parametrize("plain", [False, True])
def test_a_grid_that_trains_as_one_stack_gives_the_same(
    tiny: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plain: bool
):
    """The protocol's own optimiser too; a grid that was cut goes on as it began."""
    profile = replace(TINY, plain=plain, weight_decays=(0.0, 0.1))
    chosen: dict[str, Any] = {"profile": profile, "tasks": ["compression"], "seeds": [0]}
    alone = judge(tiny, folder=tmp_path / "alone", **chosen)
    monkeypatch.setattr(runs_module, "WORTH", 0)
    monkeypatch.setattr(
        runs_module, "decide", lambda *runs, build: Decision(Way(1, 4), {"x": 1.0}, {})
    )
    stacked = {"folder": tmp_path / "stacked", **chosen}
    assert judge(tiny, should_stop=stopper(4), **stacked).records == ()
    monkeypatch.delattr(runs_module, "decide")  # nothing is measured again
    together = judge(tiny, **stacked)
    assert together.complete
    for a, b in zip(alone.records, together.records, strict=True):
        assert (a.spec, a.step, a.status) == (b.spec, b.step, b.status)
        assert a.test.loss == pytest.approx(b.test.loss, rel=1e-5)
    first, second = losses(tmp_path / "alone"), losses(tmp_path / "stacked")
    assert first.keys() == second.keys()
    for name in first:
        assert second[name] == pytest.approx(first[name], rel=1e-5)


def test_the_way_to_train_a_grid_is_measured_and_kept(
    tiny: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(runs_module, "WORTH", 0)
    judge(tiny, profile="tiny", tasks=["compression"], seeds=[0], folder=tmp_path)
    (path,) = tmp_path.rglob("grid_seed=0.json")
    decision = Decision.of_state(json.loads(path.read_text()))
    assert set(decision.seconds) == {"one after another", "2 stacked"}
    assert decision.way.name == min(decision.seconds, key=lambda name: decision.seconds[name])


def test_every_worker_has_a_part_of_the_grids():
    specs = TINY.specs((), (0,))
    source = Source("x", "")
    jobs = [Job(spec, source, Options(), TINY, Path(spec.path), "cpu") for spec in specs]
    for workers, sizes in ((1, [2, 2]), (2, [2, 2]), (3, [1, 1, 1, 1])):
        groups = judging_module._grids(jobs, workers)
        assert [len(group) for group in groups] == sizes
        assert {job.spec for group in groups for job in group} == {job.spec for job in jobs}
        assert all(len({job.spec.anywhere for job in group}) == 1 for group in groups)


def test_the_command_prints_and_saves(command: Command, tiny: Source):
    del tiny
    begun = command("mad", "small.star", "--profile", "tiny", "--jobs", 1, "--out", "out")
    assert begun.status == 0, begun.err
    assert "[8/8] compression" in begun.err
    rows = {line.split()[1] for line in begun.out.splitlines() if line.startswith("│")}
    assert rows == {"memorization", "compression", TOTAL}
    assert "8 of 8 runs" in begun.out
    assert "making data" in begun.out
    assert {p.name for p in Path("out/small").iterdir()} == {"results.json", "program.star", "runs"}

    outcome = command("mad", "--compare", "out", "--json")
    (content,) = json.loads(outcome.out)["programs"]
    assert content["complete"]
    assert content["profile"] == "tiny"
    assert set(content["scores"]["memorization"]) == {"mean", "deviation", "seeds"}
    assert len(content["records"]) == 8

    program = Path("small.star").read_text().replace("model small", "model other")
    Path("other.star").write_text(program)
    both = ["mad", "small.star", "other.star", "--profile", "tiny", "--jobs", 1, "--out", "out"]
    compared = command(*both, "--task", "memorization", "--verbose")
    assert compared.status == 0, compared.err
    assert "beyond the spread of small" in compared.out
    assert "memorization: no difference beyond the spread" in compared.out
    assert "other: chosen runs" in compared.out


def test_refusals(command: Command, tiny: Source, tmp_path: Path):
    def code(*arguments: object) -> str:
        outcome = command("mad", *arguments)
        assert outcome.status == 1
        return str(outcome.err.partition("[")[2].partition("]")[0])

    assert code("small.star", "--profile", "swift") == "unknown-profile"
    assert code("small.star", "--task", "memorisation") == "unknown-task"
    assert code("small.star", "small.star") == "duplicate"
    assert code("--compare", "nowhere") == "no-results"
    Path("all.star").write_text(tiny.text.replace("vocab ", "causal = false vocab "))
    assert code("all.star", "--profile", "tiny") == "causality"
    assert code("small.star", "--profile", "tiny", "--state", 3) == "state-not-reachable"
    judge(tiny, profile="tiny", seeds=[], folder=tmp_path / "out" / "small")
    Path("small.star").write_text(tiny.text.replace("explicit(width, 4)", "explicit(width, 3)"))
    assert code("small.star", "--profile", "tiny", "--out", "out") == "results-differ"
    Path("out/small/results.json").write_text("{")
    assert code("--compare", "out") == "results-damaged"


def test_only_results_of_one_protocol_are_compared():
    one = judged("one", {"memorization": [0.2]})
    other = judged("other", {"memorization": [0.2]}, replace(TINY, batch=8))
    with pytest.raises(StarError, match="another version"):
        check_comparable([one, other])


@pytest.fixture
def killed() -> Iterator[list[subprocess.Popen[bytes]]]:
    processes: list[subprocess.Popen[bytes]] = []
    yield processes
    for process in processes:
        if process.poll() is None:
            process.kill()
            process.wait()


@pytest.mark.slow
def test_a_killed_command_goes_on(small: Path, killed: list[subprocess.Popen[bytes]]):
    """Two workers are killed with their parent once a run is done: all end, and nothing is lost."""
    arguments = ["mad", "small.star", "--task", "memorization", "--seeds", "2", "--jobs", "2"]
    line = [sys.executable, "-m", "starc.cli", *arguments, "--out", "out"]
    process = subprocess.Popen(line, env={**os.environ, "OMP_NUM_THREADS": "1"})
    killed.append(process)
    deadline = time.monotonic() + 300
    while not list(Path("out").rglob("result.json")) and time.monotonic() < deadline:
        time.sleep(0.1)
    children = [
        int(pid)
        for task in Path(f"/proc/{process.pid}/task").iterdir()
        for pid in (task / "children").read_text().split()
    ]
    process.send_signal(signal.SIGKILL)
    process.wait()
    first = next(Path("out").rglob("result.json"))
    stamp = first.stat().st_mtime_ns
    deadline = time.monotonic() + 60
    while any(Path(f"/proc/{pid}").exists() for pid in children) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(Path(f"/proc/{pid}").exists() for pid in children)
    assert subprocess.run(line, timeout=600, check=False).returncode == 0
    assert first.stat().st_mtime_ns == stamp
    (judgement,) = read_judgements(Path("out"))
    assert judgement.complete


# --- programs ------------------------------------------------------------------------------------

RECURRENT = """\
use std.linear.gla
model recurrent { vocab = 64 width = 32 context = 64 backbone { repeat 2 { gla(heads = 2) } } }
"""


def test_states_are_brought_to_a_total_by_an_argument_of_units():
    given = Source("recurrent.star", RECURRENT)
    assert state_elements(given, Options()) == (2 * 2 * 8 * 16, True)
    wanted = with_state(given, Options(), 128)
    assert state_elements(wanted, Options()) == (128, True)
    assert "gla(heads = 8)" in wanted.text
    assert with_state(given, Options(), 500) is given  # near enough
    with pytest.raises(StarError, match="the nearest total is"):
        with_state(given, Options(), 5)
    growing = Source("attention.star", RECURRENT.replace("linear.gla", "attention.mha"))
    growing = Source(growing.name, growing.text.replace("gla(", "mha("))
    assert with_state(growing, Options(), 128) is growing  # it keeps every token


def test_programs_get_the_size_and_the_settings_of_the_protocol():
    given = Source("recurrent.star", RECURRENT)
    paper, _ = resolve_source(fitted(given, Options(), PAPER), Options())
    assert (paper.width, paper.head.bias, paper.embedding.tied) == (128, True, False)
    quick, _ = resolve_source(fitted(given, Options(), QUICK), Options())
    assert (quick.width, quick.head.bias, quick.embedding.scale) == (64, False, 50)
    asgiven = replace(QUICK, width=0, units=0)
    assert resolve_source(fitted(given, Options(), asgiven), Options())[0].width == 32


def test_keys_are_no_targets_where_only_answers_are_learnt():
    (recall,) = QUICK.specs(("in-context-recall",), (0,))
    task = QUICK.task(recall)
    _, targets = Watched(task, QUICK).batch(1, batch=8, length=32, seed=0)
    _, all_targets = Watched(task, STANDARD).batch(1, batch=8, length=32, seed=0)
    keys = task.ids["keys"]
    assert not ((targets >= keys.start) & (targets < keys.stop)).any()
    assert (targets[targets != IGNORED] == all_targets[targets != IGNORED]).all()
    assert (targets == IGNORED).any()
    assert not (all_targets == IGNORED).any()
