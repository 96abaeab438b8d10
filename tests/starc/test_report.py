"""`starc report`: what it says is what the search's record says."""

from __future__ import annotations

import json
import re
import sys
import xml.etree.ElementTree as ElementTree
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from starc.report.building import build_report
from starc.report.genes import average_ranks, permutation_importance
from starc.report.page import embedded, render_page
from starc.report.plots import render_plots
from starc.report.record import Record, read_record
from starc.report.words import change, duration, shown
from starc.search.archive import individuals
from starc.search.front import front
from starc.search.store import Store
from tests.starc.conftest import Command
from tests.starc.searched import GIVEN, HOSTILE


@pytest.fixture(scope="module")
def record(searched: Path) -> Record:
    return read_record(searched)


@pytest.fixture(scope="module")
def report(record: Record) -> dict[str, Any]:
    return build_report(record)


def test_the_front_is_that_of_the_search(searched: Path, report: dict[str, Any]):
    with Store.read(searched) as store:
        expected = [member.id for member in front(individuals(store))]
    assert report["front"] == expected
    assert {m["number"] for m in report["members"] if m["front"]} == set(expected)


def test_statuses_and_attempts_are_counted(report: dict[str, Any]):
    assert report["counts"]["members"] == 36
    assert report["counts"]["statuses"] == {"done": 32, "nan": 3, "running": 1}
    assert report["counts"]["evaluated"] == 35
    assert report["counts"]["seconds"] == 32 * 1.0 + 3 * 0.5
    assert [g["members"] for g in report["generations"]] == [8, 8, 8, 8, 4]
    (failure,) = report["failures"]
    assert (failure["status"], failure["attempts"]) == ("nan", 3)


def test_the_volume_grows_with_the_evaluations(report: dict[str, Any]):
    curve = report["hypervolume"]["curve"]
    assert [c for c, _ in curve] == sorted({c for c, _ in curve})
    assert curve[-1][0] == 35
    assert [v for _, v in curve] == sorted(v for _, v in curve)
    assert 0 < report["hypervolume"]["final"] < 1


def test_the_best_of_a_generation_is_the_best_until_then(record: Record, report: dict[str, Any]):
    for row in report["generations"]:
        until = [m for m in record.members if m.generation <= row["generation"] and m.feasible]
        for place, objective in enumerate(record.objectives):
            best = min(m.figures[objective.name] for m in until)
            assert row["best"][place] == pytest.approx(best, rel=1e-5)


def test_seeds_are_baselines_and_changes_are_relative_to_them(
    record: Record, report: dict[str, Any]
):
    (baseline,) = report["baselines"]
    assert (baseline["name"], baseline["number"], baseline["evaluated"]) == ("given", 0, True)
    own = record.members[0].figures
    for row in baseline["against"]:
        found = record.members[row["number"]].figures
        assert found["quality"] <= own["quality"]
        before, after = own["cache_bytes"], found["cache_bytes"]
        assert row["changes"]["cache_bytes"] == pytest.approx(after / before - 1)


def test_motifs_count_the_units_of_programs(record: Record, report: dict[str, Any]):
    motifs = report["motifs"]
    units = [sum(row) for row in motifs["counts"]]
    assert motifs["programs"] == [8, 8, 8, 8, 4]
    for generation, count in zip(motifs["generations"], units, strict=True):
        members = [m for m in record.members if m.generation == generation]
        # A parallel is one place but several units.
        assert 0 < count <= sum(m.program.figures["units"] for m in members)
    assert "gated memoryless" in motifs["classes"]


def test_operations_add_up(record: Record, report: dict[str, Any]):
    rows = {row["operation"]: row for row in report["operations"]}
    assert rows["seed"]["proposals"] == 1
    assert rows["draw"]["proposals"] == 7
    repaired = [m for m in record.members if m.repairs.repairs]
    assert report["counts"]["repaired"] == len(repaired)
    assert sum(g["repaired"] for g in report["generations"]) == len(repaired)


# --- importance of genes -------------------------------------------------------------------------


def test_ranks_share_their_mean():
    assert average_ranks(np.array([3.0, 1.0, 3.0, 2.0])).tolist() == [3.5, 1.0, 3.5, 2.0]


def test_what_decides_the_target_matters_and_noise_does_not():
    rng = np.random.default_rng(0)
    columns = rng.random((200, 4))
    target = 3 * columns[:, 1] + columns[:, 2] + 0.1 * rng.random(200)
    found = permutation_importance(columns, target)
    assert found[1] > found[2] > 0.05
    assert max(abs(found[0]), abs(found[3])) < 0.05


# --- the page ------------------------------------------------------------------------------------


def test_no_text_of_a_program_breaks_out_of_the_page(report: dict[str, Any]):
    page = render_page(report)
    assert HOSTILE not in page
    assert page.count("</script>") == 2
    assert "<img" not in page
    content = page.split('id="report">')[1].split("</script>")[0]
    assert HOSTILE in " ".join(json.loads(content)["programs"])
    assert json.loads(embedded("</script>&<!--")) == "</script>&<!--"


def test_the_page_names_nothing_outside_of_itself(report: dict[str, Any]):
    page = render_page(report)
    assert set(re.findall(r"https?://[^\s\"'<]*", page)) == {"http://www.w3.org/2000/svg"}
    assert "default-src 'none'" in page
    assert len(page) < 2_000_000


def test_a_large_search_still_makes_a_small_page(record: Record, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("starc.report.building._MOST_MEMBERS", 12)
    monkeypatch.setattr("starc.report.building._MOST_TEXT", 2_000)
    found = build_report(record)
    assert set(found["front"]) <= {m["number"] for m in found["members"]}
    assert found["left_out_members"] == 36 - len(found["members"]) > 0
    assert sum(map(len, found["programs"])) <= 2_000
    assert found["left_out_members"] == json.loads(json.dumps(found))["left_out_members"]


# --- the command ---------------------------------------------------------------------------------


def test_the_terminal_is_told_the_same(searched: Path, command: Command):
    done = command("report", searched)
    assert (done.status, done.err) == (0, "")
    assert "32 done, 3 nan, 1 running" in done.out
    assert "seed 0" in done.out
    assert f"--out '{HOSTILE}'" in done.out


def test_json_is_the_whole_report(searched: Path, command: Command, report: dict[str, Any]):
    assert json.loads(command("report", searched, "--json").out) == json.loads(json.dumps(report))


def test_baselines_are_found_by_what_they_mean(searched: Path, tmp_path: Path, command: Command):
    same = tmp_path / "same.star"
    same.write_text("# another text\n" + GIVEN.replace("given", "renamed"))
    other = tmp_path / "other.star"
    other.write_text(GIVEN.replace("repeat 2", "repeat 3"))
    done = command("report", searched, "--json", "--baseline", same, "--baseline", other)
    first, renamed, unknown = json.loads(done.out)["baselines"]
    assert renamed["values"] == first["values"]
    assert (unknown["evaluated"], unknown["number"]) == (False, None)
    assert unknown["values"][0] is None
    assert unknown["figures"]["parameters"] > first["figures"]["parameters"]


def test_plots_come_in_pairs(report: dict[str, Any]):
    (png, first), (svg, second) = islice(render_plots(report), 2)
    assert (png, svg) == ("front_quality_cache_bytes.png", "front_quality_cache_bytes.svg")
    assert first.startswith(b"\x89PNG")
    assert b"cache bytes (less is better)" in second


@pytest.mark.slow
def test_every_plot_is_there_as_png_and_svg(searched: Path, tmp_path: Path, command: Command):
    done = command("report", searched, "--plots", tmp_path / "plots")
    assert done.status == 0, done.err
    files = {path.name for path in (tmp_path / "plots").iterdir()}
    stems = {name.partition(".")[0] for name in files}
    assert files == {f"{stem}.{kind}" for stem in stems for kind in ("png", "svg")}
    assert {"hypervolume", "front_quality_cache_bytes", "classes", "statuses"} <= stems
    for path in (tmp_path / "plots").glob("*.svg"):
        assert ElementTree.parse(path).getroot().tag.endswith("svg")
    for path in (tmp_path / "plots").glob("*.png"):
        assert path.read_bytes().startswith(b"\x89PNG")


def test_what_cannot_be_reported_is_said(searched: Path, tmp_path: Path, command: Command):
    (tmp_path / "file").write_text("")
    for arguments, code in (
        ((tmp_path,), "no-run"),
        ((searched, "--html", tmp_path / "no" / "page.html"), "cannot-write"),
        ((searched, "--plots", tmp_path / "file"), "cannot-write"),
        ((searched, "--baseline", tmp_path / "no.star"), "file-not-found"),
    ):
        done = command("report", *arguments)
        assert (done.status, f"error[{code}]" in done.err) == (1, True), done.err


def test_plots_need_their_extra(
    searched: Path, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    done = command("report", searched, "--plots", tmp_path / "plots")
    assert "error[missing-extra]" in done.err
    assert not (tmp_path / "plots").exists()


def test_an_empty_search_has_a_report(searched: Path, tmp_path: Path, command: Command):
    with Store.read(searched) as store:
        run = store.run()
    Store.create(
        tmp_path / "empty",
        settings=run.settings,
        versions=run.versions,
        device="cpu",
        data_digest="",
        command="starc search",
    ).close()
    page = tmp_path / "page.html"
    done = command("report", tmp_path / "empty", "--html", page)
    assert done.status == 0, done.err
    assert "0 proposals" in done.out
    assert "No program has all objectives" in page.read_text()


# --- words ---------------------------------------------------------------------------------------


def test_numbers_are_spelt_for_people():
    assert [shown(v) for v in (None, 0.0, 3.0, 0.12345, 1234.0, 12_345.0, 4.2e9)] == [
        "\N{EN DASH}", "0", "3", "0.1235", "1234", "12.3 k", "4.2 G",
    ]  # fmt: skip
    assert shown(805_306_368.0, "bytes") == "805 MB"
    assert [change(v) for v in (0.125, -0.9)] == ["+12.5 %", "\N{MINUS SIGN}90.0 %"]
    assert [duration(v) for v in (1.5, 45, 90, 7200)] == ["1.5 s", "45 s", "1.5 min", "2.0 h"]


# --- Optuna --------------------------------------------------------------------------------------


def test_the_journal_is_a_study_of_the_same_search(
    searched: Path, tmp_path: Path, command: Command, report: dict[str, Any]
):
    optuna = pytest.importorskip("optuna", reason="the extra 'optuna' is not installed")
    journal = tmp_path / "study.log"
    done = command("report", searched, "--optuna-journal", journal)
    assert (done.status, done.err) == (0, f"written: {journal}\n")
    backend = optuna.storages.journal.JournalFileBackend(str(journal))
    study = optuna.load_study(study_name="run", storage=optuna.storages.JournalStorage(backend))
    assert study.metric_names == ["quality", "cache_bytes", "parameters"]
    trials = study.trials
    assert [trial.number for trial in trials] == list(range(36))
    states = Counter(trial.state.name for trial in trials)
    assert states == {"COMPLETE": 32, "FAIL": 3, "RUNNING": 1}
    members = {m["number"]: m for m in report["members"]}
    for trial in trials:
        if trial.state.name == "COMPLETE":
            assert trial.values == pytest.approx(members[trial.number]["values"], rel=1e-5)
        assert trial.user_attrs["parents"] == members[trial.number]["parents"]
    # Optuna knows directions, but nothing of equal programs: its front has at least ours.
    assert {trial.number for trial in study.best_trials} >= set(report["front"])
    assert trials[0].params["width"] == 96


def test_a_journal_needs_its_extra(
    searched: Path, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "optuna", None)
    done = command("report", searched, "--optuna-journal", tmp_path / "study.log")
    assert "error[missing-extra]" in done.err
    assert not (tmp_path / "study.log").exists()
