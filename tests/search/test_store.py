"""The record of a search: what is written is read, also meanwhile; what is half made is none."""

from __future__ import annotations

import sqlite3
from contextlib import suppress
from pathlib import Path

import pytest

from starc.grammar.errors import StarError
from starc.search.cache import SharedCache
from starc.search.settings import Settings
from starc.search.store import FILE, ProposalRow, StateRow, Store, exists

RUN = {
    "settings": {"seed": 3},
    "versions": {"starc": "1"},
    "device": "cpu",
    "data_digest": "abc",
    "command": "starc search",
}


def create(folder: Path) -> Store:
    return Store.create(folder, **RUN)  # type: ignore[arg-type]


def test_what_is_written_is_read(tmp_path: Path):
    row = ProposalRow(0, 1, (), "draw", "", 0, 0, {"repairs": ["tie moved"]})
    with create(tmp_path) as store, Store.read(tmp_path) as reader:
        with store.transaction():
            units = [{"path": "a", "operator": "mha", "shares": [], "reuses": []}]
            assert store.add_program("identity", "text", units, {"units": 1.0}) == 1
            assert store.add_program("identity", "other words", (), {}) == 1
            store.add_proposal(row)
            first = store.begin_evaluation(1, "digest", seed=5, rung=0, attempt=0)
            second = store.begin_evaluation(1, "digest", seed=5, rung=1, attempt=0)
            store.end_evaluation(first, "done", figures={"quality": 1.5}, seconds=2.0, worker="w")
            store.add_state(StateRow(0, 0, {"population": [1]}))
            store.add_event("began", "nsga2")
            assert reader.proposals() == []  # not before the transaction has ended
        (program,) = reader.programs()
        assert (program.text, program.units[0]["operator"]) == ("text", "mha")
        assert reader.proposals() == [row]
        done, running = reader.evaluations()
        assert (done.status, done.figures, done.worker) == ("done", {"quality": 1.5}, "w")
        assert (running.id, running.status) == (second, "running")
        assert reader.evaluations(after=first) == [running]
        assert reader.last_state() == StateRow(0, 0, {"population": [1]})
        assert [event.kind for event in reader.events()] == ["began"]
        assert reader.run().settings == {"seed": 3}
        with store.transaction():
            assert store.forget_running() == 1
        assert len(reader.evaluations()) == 1
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            reader._db.execute("delete from programs")


def test_a_transaction_is_there_or_not(tmp_path: Path):
    with create(tmp_path) as store:
        with suppress(KeyError), store.transaction():
            store.add_event("began", "")
            raise KeyError
        assert store.events() == []


def test_a_record_is_not_made_twice(tmp_path: Path):
    create(tmp_path).close()
    with pytest.raises(StarError, match="there is a search in"):
        create(tmp_path)


def test_what_is_half_made_is_none(tmp_path: Path):
    (tmp_path / FILE).write_bytes(b"")  # as a driver leaves it that is killed in its first moment
    assert not exists(tmp_path)
    with pytest.raises(StarError, match="there is no search in"):
        Store.write(tmp_path)
    create(tmp_path).close()
    assert exists(tmp_path)


def test_what_is_damaged_is_said(tmp_path: Path):
    (tmp_path / FILE).write_bytes(b"no database" * 1000)
    for attempt in (Store.read, Store.write, create):
        with pytest.raises(StarError) as caught:
            attempt(tmp_path)
        assert caught.value.diagnostics[0].code == "run-damaged"


def test_another_schema_is_refused(tmp_path: Path):
    create(tmp_path).close()
    with sqlite3.connect(tmp_path / FILE) as connection:
        connection.execute("update run set schema = 99")
    connection.close()
    with pytest.raises(StarError, match="another version of starc"):
        Store.read(tmp_path)


def test_a_cache_that_is_none_is_refused(tmp_path: Path):
    (tmp_path / "cache.db").write_bytes(b"no database" * 1000)
    with pytest.raises(StarError, match="cannot be used as a cache"):
        SharedCache(tmp_path / "cache.db")


def test_settings_survive_json():
    import json

    settings = Settings(
        space="x",
        overrides=(("width", "32"),),
        algorithm_options={"mutation": 0.2},
        constraints=("units <= 3",),
        generations=3,
        seed_programs=(("a", "b"),),
    )
    assert Settings.of_json(json.loads(json.dumps(settings.to_json()))) == settings
