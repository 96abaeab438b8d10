"""The driver: the same search whoever evaluates, budgets, failures, and going on."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from starc.grammar.errors import StarError
from starc.grammar.parser import parse
from starc.grammar.source import Source
from starc.search.algorithms import ALGORITHMS
from starc.search.driver import Found, Progress, resume, search
from starc.search.engine import Job, Outcome
from starc.search.evaluators import Static
from starc.search.front import front
from starc.search.objectives import FAILED, PENALTY
from starc.search.store import Store
from starc.search.texts import text_of
from tests.search.inline_engine import InlineEngine
from tests.search.searches import PROGRAM, SPACE, evaluated, record, settings


def run(out: Path, engine: InlineEngine | None = None, **changes: Any) -> Found:
    return search(settings(**changes), out, engine=engine or InlineEngine())


@pytest.mark.parametrize("steady", [False, True])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_order_of_outcomes_changes_nothing(tmp_path: Path, algorithm: str, steady: bool):
    changes = {"algorithm": algorithm, "steady": steady, "evaluator_options": {"rungs": 2}}
    found = run(tmp_path / "a", **changes)
    run(tmp_path / "b", InlineEngine(backwards=True), **changes)
    assert record(tmp_path / "a") == record(tmp_path / "b")
    assert found.status == "finished"
    assert found.front
    assert [one.id for one in found.individuals] == list(range(len(found.individuals)))
    assert len({one.identity for one in found.individuals}) > 12
    assert not (tmp_path / "a" / "work").exists()


def test_two_real_workers_find_what_one_finds(tmp_path: Path):
    search(settings(steady=True), tmp_path / "two", workers=2)
    run(tmp_path / "one", steady=True)
    assert record(tmp_path / "one") == record(tmp_path / "two")


def test_another_seed_finds_something_else(tmp_path: Path):
    run(tmp_path / "a", generations=1)
    run(tmp_path / "b", generations=1, seed=1)
    assert record(tmp_path / "a") != record(tmp_path / "b")


@pytest.mark.slow
def test_children_are_better_than_chance(tmp_path: Path):
    best = {}
    for algorithm in ("nsga2", "evolution", "ga", "random"):
        found = run(
            tmp_path / algorithm,
            algorithm=algorithm,
            objectives=("quality",),
            population=10,
            generations=8,
        )
        best[algorithm] = found.front[0].objectives[0]
    assert max(best["nsga2"], best["evolution"], best["ga"]) < best["random"]


@pytest.mark.parametrize("steady", [False, True])
def test_a_cut_search_goes_on_as_if_it_had_not_been(tmp_path: Path, steady: bool):
    run(tmp_path / "whole", steady=steady)
    found = None
    for part in itertools.count():
        countdown = itertools.count()
        limit = 3 * part + 1

        def stop(limit: int = limit, countdown: Any = countdown) -> bool:
            return next(countdown) >= limit

        engine = InlineEngine()
        if found is None:
            found = search(
                settings(steady=steady), tmp_path / "cut", engine=engine, should_stop=stop
            )
        else:
            found = resume(tmp_path / "cut", engine=engine, should_stop=stop)
        assert engine.closed
        if found.status == "finished":
            break
    assert part > 2
    assert record(tmp_path / "cut") == record(tmp_path / "whole")
    assert set(Counter(evaluated(tmp_path / "cut")).values()) == {1}
    with Store.read(tmp_path / "cut") as store:
        kinds = Counter(event.kind for event in store.events())
    assert kinds == {"began": 1, "interrupted": part, "resumed": part, "finished": 1}


def test_a_larger_budget_leads_on(tmp_path: Path):
    run(tmp_path / "long")
    run(tmp_path / "short", generations=2)
    found = resume(tmp_path / "short", budget={"generations": 3}, engine=InlineEngine())
    assert found.status == "finished"
    assert record(tmp_path / "short") == record(tmp_path / "long")


def test_budgets(tmp_path: Path):
    assert len(run(tmp_path / "a", generations=2).individuals) == 12
    engine = InlineEngine()
    run(tmp_path / "b", engine, evaluations=13)
    assert len(engine.seen) == len(evaluated(tmp_path / "b")) == 13
    shown: list[Progress] = []
    search(settings(evaluations=7), tmp_path / "c", engine=InlineEngine(), observe=shown.append)
    assert (shown[-1].spent, shown[-1].planned, shown[-1].running) == (7, 7, 0)
    assert shown[-1].statuses == {"done": 7}
    assert len(shown[-1].best) == 2
    assert shown[-1].generation == 1  # that of the last, as long as nothing new is asked for


def test_a_constraint_is_checked_before_training(tmp_path: Path):
    engine = InlineEngine()
    limit = 20_000
    found = run(tmp_path / "a", engine, constraints=(f"parameters <= {limit}",))
    broken = [one for one in found.individuals if one.status == "infeasible"]
    assert broken
    assert {job.text for job in engine.seen}.isdisjoint(one.text for one in broken)
    for one in found.individuals:
        over = max(0.0, one.figures["parameters"] / limit - 1)
        assert one.violation == pytest.approx(over)
        assert (one.objectives[0] == PENALTY) == (over > 0)
    assert all(one.figures["parameters"] <= limit for one in found.front)


def test_a_search_that_nothing_meets_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("starc.search.budget._FRUITLESS", 2)
    found = run(tmp_path / "a", constraints=("parameters <= 1",), evaluations=3)
    assert found.status == "fruitless"
    assert found.front == []


def test_a_constraint_on_what_training_says_is_checked_after_it(tmp_path: Path):
    found = run(tmp_path / "a", constraints=("quality <= 1.0",))
    over = [one for one in found.individuals if one.figures["quality"] > 1]
    assert over
    assert all(one.violation == pytest.approx(one.figures["quality"] - 1) for one in over)
    assert all(one.figures["quality"] <= 1 for one in found.front)


@pytest.mark.parametrize("status", ["nan", "diverged"])
def test_failures_are_worse_than_anything_and_finite(tmp_path: Path, status: Any):
    def fail(job: Job, outcome: Outcome) -> Outcome:
        if int(job.key) % 3:
            return outcome
        return Outcome(job.key, status, "because", worker="inline")

    engine = InlineEngine(fail)
    found = run(tmp_path / "a", engine)
    failed = [one for one in found.individuals if one.status == status]
    assert len(failed) >= 4
    for one in failed:
        assert one.violation >= FAILED
        assert all(map(math.isfinite, one.objectives))
    assert found.front
    assert all(one.violation == 0 for one in found.front)
    with Store.read(tmp_path / "a") as store:
        rows = [row for row in store.evaluations() if row.status == status]
    assert {(row.reason, row.attempt) for row in rows} == {("because", 0)}


def test_only_crashes_are_tried_again(tmp_path: Path):
    crashed: Counter[str] = Counter()

    def crash(job: Job, outcome: Outcome) -> Outcome:
        crashed[job.text] += 1
        if crashed[job.text] > 2:
            return outcome
        return Outcome(job.key, "crash", "the worker ended", worker="inline")

    found = run(tmp_path / "twice", InlineEngine(crash), generations=1, retries=2)
    assert {one.status for one in found.individuals} == {"done"}
    assert set(crashed.values()) == {3}
    crashed.clear()
    found = run(tmp_path / "once", InlineEngine(crash), generations=1, retries=1)
    assert {one.status for one in found.individuals} == {"crash"}
    assert set(crashed.values()) == {2}
    assert found.front == []
    with Store.read(tmp_path / "once") as store:
        assert sorted(row.attempt for row in store.evaluations()) == [0] * 6 + [1] * 6


def test_a_figure_that_is_missing_is_no_figure(tmp_path: Path):
    def other(job: Job, outcome: Outcome) -> Outcome:
        return replace(outcome, figures={"roughness": 1.0})

    found = run(tmp_path / "a", InlineEngine(other), generations=1)
    assert all(one.violation >= FAILED for one in found.individuals)


def test_equal_programs_in_other_words_are_trained_once(tmp_path: Path):
    named = PROGRAM.replace("backbone { gconv", "backbone { first: gconv").replace("= 32 ", "= 32")
    engine = InlineEngine()
    seeds = (("a.star", PROGRAM), ("b.star", "# a comment\n" + named))
    found = run(tmp_path / "a", engine, generations=1, seed_programs=seeds)
    first, second = found.individuals[:2]
    assert first.identity == second.identity
    assert first.figures == second.figures
    assert len(engine.seen) == len({job.text for job in engine.seen}) == 5


def test_seed_programs_come_first(tmp_path: Path):
    found = run(tmp_path / "a", generations=1, seed_programs=(("a.star", PROGRAM),))
    assert found.individuals[0].text == text_of(parse(Source("a", PROGRAM)))
    with Store.read(tmp_path / "a") as store:
        assert [row.operation for row in store.proposals()][:2] == ["seed", "draw"]


def test_a_program_without_holes_is_mutated(tmp_path: Path):
    found = run(tmp_path / "a", space=PROGRAM)
    assert found.individuals[0].text == text_of(parse(Source("a", PROGRAM)))
    assert len({one.identity for one in found.individuals}) > 14


def test_operators_of_other_files_come_along(tmp_path: Path):
    (tmp_path / "mine.star").write_text(
        "operator doubled() { V = x |> dense(width)  y = V + V }\n"
        "operator mine() { V = x |> doubled() |> dense(width)  y = V }\n"
    )
    space = SPACE.replace("use std.convolution.gconv", "use mine.mine").replace(
        "gconv(kernel = ?[2 .. 5])", "mine()"
    )
    engine = InlineEngine()
    run(tmp_path / "a", engine, space=space, name=str(tmp_path / "space.star"), generations=2)
    assert any("operator mine" in job.text for job in engine.seen)
    assert not any("use mine" in job.text for job in engine.seen)


def test_searches_share_a_cache(tmp_path: Path):
    cache = tmp_path / "shared" / "cache.db"
    search(settings(), tmp_path / "a", engine=InlineEngine(), cache=cache)
    engine = InlineEngine()
    search(settings(), tmp_path / "b", engine=engine, cache=cache)
    assert record(tmp_path / "a") == record(tmp_path / "b")
    assert engine.seen == []
    with Store.read(tmp_path / "b") as store:
        assert {row.worker for row in store.evaluations()} == {"cache"}
    engine = InlineEngine()  # another seed, other evaluations
    search(settings(seed=1, generations=1), tmp_path / "c", engine=engine, cache=cache)
    assert len(engine.seen) == 6


def test_a_seed_of_an_evaluation_follows_from_the_program(tmp_path: Path):
    engine, other = InlineEngine(), InlineEngine()
    run(tmp_path / "a", engine, generations=1, seed_programs=(("a.star", PROGRAM),))
    run(tmp_path / "b", other, space=PROGRAM, generations=1, algorithm="random")
    assert engine.seen[0].seed == other.seen[0].seed
    assert len({job.seed for job in engine.seen}) == 6


@dataclass(frozen=True)
class _Folders(Static):
    """Writes into its folder, and fails where it is not its own."""

    def evaluate(self, text: str, *, seed: int, rung: int, folder: Path) -> dict[str, float]:
        path = folder / "mine.txt"
        assert not path.exists()
        path.write_text(text)
        return super().evaluate(text, seed=seed, rung=rung, folder=folder)


def test_every_program_has_a_folder_that_goes_when_it_is_evaluated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("starc.search.preparing.make_evaluator", lambda *_: _Folders())
    left = []

    def look(job: Job, outcome: Outcome) -> Outcome:
        left.append(sorted(path.name for path in job.folder.parent.iterdir()))
        return outcome

    found = run(tmp_path / "a", InlineEngine(look), generations=1)
    assert {one.status for one in found.individuals} == {"done"}
    assert [len(names) for names in left] == [1] * 6


def test_what_is_refused_makes_nothing(tmp_path: Path):
    for changes, code in (
        ({"algorithm": "nsga3"}, "unknown-algorithm"),
        ({"algorithm_options": {"mutatoin": 0.1}}, "unknown-algorithm-option"),
        ({"algorithm_options": {"tournament": "many"}}, "bad-algorithm-option"),
        ({"algorithm": "ga", "algorithm_options": {"weights": "1"}}, "bad-algorithm-option"),
        ({"objectives": ("qualty",)}, "unknown-objective"),
        ({"constraints": ("speed >= 3",)}, "unknown-objective"),
        ({"constraints": ("units <= 2", "units >= 3")}, "impossible-constraint"),
        ({"evaluator": "statics"}, "unknown-evaluator"),
        ({"evaluator_options": {"second": 1}}, "unknown-evaluator-option"),
        ({"evaluator_options": {"rungs": 0}}, "bad-evaluator-option"),
        ({"population": 1}, "bad-search-setting"),
        ({"evaluations": 3, "generations": 3}, "bad-search-setting"),
        ({"generations": None}, "bad-search-setting"),
        ({"memory": 5}, "bad-search-setting"),
        ({"space": "model m {"}, "unclosed-bracket"),
        ({"space": PROGRAM.replace("kernel = 3", "kernel = ?[-1, 0]")}, "no-valid-filling"),
        ({"seed_programs": (("a.star", SPACE),)}, "hole-left"),
        ({"dtype": "fp12"}, "unknown-name"),
    ):
        with pytest.raises(StarError) as caught:
            search(replace(settings(), **changes), tmp_path / "a", engine=InlineEngine())
        assert caught.value.diagnostics[0].code == code, changes
        assert not (tmp_path / "a").exists()


def test_one_driver_at_a_time(tmp_path: Path):
    def resume_it(progress: Progress) -> None:
        with pytest.raises(StarError, match="another process works on the search"):
            resume(tmp_path / "a", engine=InlineEngine())

    search(settings(generations=1), tmp_path / "a", engine=InlineEngine(), observe=resume_it)
    with pytest.raises(StarError, match="there is a search in"):
        run(tmp_path / "a")
    with pytest.raises(StarError, match="there is no search in"):
        resume(tmp_path / "b")


def test_the_front_holds_what_nothing_dominates(tmp_path: Path):
    found = run(tmp_path / "a")
    members = {one.id for one in found.front}
    done = [one for one in found.individuals if one.violation == 0]
    for one in done:
        better = any(
            all(a <= b for a, b in zip(other.objectives, one.objectives, strict=True))
            and other.objectives != one.objectives
            for other in done
        )
        first = min(other.id for other in done if other.identity == one.identity)
        assert (one.id in members) == (not better and one.id == first)
    assert front([]) == []
