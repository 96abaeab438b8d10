"""`starc watch`: a search as it stands, until it ends."""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from starc.cli import watching
from starc.report.record import Record, read_record
from starc.search.store import EventRow, Store
from tests.starc.conftest import Command


@pytest.fixture
def running(searched: Path, tmp_path: Path) -> Iterator[Path]:
    """The search with its last evaluation still under way, held by a driver."""
    folder = shutil.copytree(searched, tmp_path / "running")
    with Store.write(folder) as store, store.transaction():
        store.add_event("resumed", "1 evaluation was cut")
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder


def test_a_frame_says_what_the_record_says(searched: Path, command: Command):
    done = command("watch", searched, "--once")
    assert (done.status, done.err) == (0, "")
    assert "finished" in done.out
    assert "35 of 36" in done.out
    assert "1 running, 32 done, 3 nan" in done.out
    assert "on the front" in done.out


def test_the_time_left_is_that_at_the_pace_since_it_was_resumed(searched: Path):
    record = read_record(searched)
    began = record.run.began
    ends = [began + n for n in range(len(record.attempts))]
    record = replace(
        record,
        attempts=tuple(
            replace(row, began=end, seconds=0.0)
            for row, end in zip(record.attempts, ends, strict=True)
        ),
        events=(EventRow(1, began, "began", ""), EventRow(2, began + 25.0, "resumed", "")),
    )
    now = watching.snapshot(record, began + 45.0)
    assert (now.done, now.planned, now.running, now.ended) == (35, 36, 1, False)
    assert now.left == pytest.approx(20.0 / 10)  # ten evaluations in twenty seconds, one to go
    assert now.elapsed == 45.0
    assert 0 < now.volumes[-1] < 1


def test_it_ends_with_the_search(running: Path, command: Command, monkeypatch: pytest.MonkeyPatch):
    looks: list[float] = []
    look = watching.snapshot

    def finishing(record: Record, now: float) -> watching.Snapshot:
        looks.append(now)
        if len(looks) == 3:  # it is being watched by now
            with Store.write(running) as store, store.transaction():
                (row,) = [row for row in store.evaluations() if row.status == "running"]
                store.end_evaluation(row.id, "timeout", reason="it took longer than 3 s")
                store.add_event("finished", "36 of 36 proposals told")
        return look(record, now)

    monkeypatch.setattr(watching, "snapshot", finishing)
    done = command("watch", running, "--every", 0.1)
    assert (done.status, done.err) == (0, "")
    assert done.out.startswith("35 of 36")
    assert "1 timeout" in done.out
    assert "36 of 36" in done.out
    assert "no process works on it" not in done.out
    assert len(looks) >= 4


def test_it_ends_when_the_driver_is_gone(
    running: Path, command: Command, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(watching, "_QUIET", 0.3)
    (running / "lock").unlink()
    (running / "lock").touch()
    done = command("watch", running, "--every", 0.1)
    assert done.status == 0
    assert f"starc search --resume --out {running}" in done.out.replace("\n", "")


def test_it_leaves_the_record_as_it_is(searched: Path, command: Command):
    before = {path.name: path.read_bytes() for path in searched.glob("search.db")}
    command("watch", searched, "--once")
    assert {path.name: path.read_bytes() for path in searched.glob("search.db")} == before


def test_without_a_search_there_is_nothing_to_watch(tmp_path: Path, command: Command):
    done = command("watch", tmp_path)
    assert done.status == 1
    assert "error[no-run]" in done.err
