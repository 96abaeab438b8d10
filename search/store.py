"""The record of a search: one SQLite file, RUN/search.db, written by one driver and read by anyone.

    run          one row: what was asked for, with what, where
    programs     every program once (by `identity`): text, units, figures that need no training
    proposals    in the order they were made: which program, from which parents, by what
    evaluations  every attempt at evaluating a program on a rung; `running` until it has ended
    states       the algorithm's state after so many results were told, with what it proposed next
    events       what happened to the run: begun, resumed, interrupted, retried, ended

A proposal is a row before it is evaluated, and a state is written in one transaction with the
proposals that followed from it, so that whatever is in the file is a moment of the search. The file
is in write-ahead mode: readers never wait, and commits are on the disk when they return.

Owns: the schema, transactions, and frozen rows. Refuses: deciding what is in them.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from starc.grammar.errors import Diagnostic, StarError

SCHEMA = 1
FILE = "search.db"

_TABLES = """
create table run (
    schema integer not null, settings text not null, versions text not null,
    device text not null, data_digest text not null, command text not null, began real not null
);
create table programs (
    id integer primary key, identity text not null unique, text text not null,
    units text not null, figures text not null
);
create table proposals (
    number integer primary key, program integer not null references programs,
    parents text not null, operation text not null, level text not null,
    generation integer not null, rung integer not null, repairs text not null
);
create table evaluations (
    id integer primary key, program integer not null references programs,
    evaluator text not null, seed integer not null, rung integer not null,
    status text not null, reason text not null, figures text not null,
    seconds real not null, worker text not null, began real not null, attempt integer not null
);
create index evaluations_of on evaluations (program, rung, status);
create table states (
    id integer primary key, number integer not null, generation integer not null,
    state text not null
);
create table events (
    id integer primary key, time real not null, kind text not null, text text not null
);
"""


@dataclass(frozen=True)
class RunRow:
    """What the run was asked for. `settings` and `versions` are JSON objects; `began` is in seconds
    since 1970, as all times are."""

    schema: int
    settings: Mapping[str, Any]
    versions: Mapping[str, str]
    device: str
    data_digest: str
    command: str
    began: float


@dataclass(frozen=True)
class ProgramRow:
    """A program. `units` says of each unit its path, operator, what it shares and what it reuses;
    `figures` are those of objectives.static_figures."""

    id: int
    identity: str
    text: str
    units: tuple[Mapping[str, Any], ...]
    figures: Mapping[str, float]


@dataclass(frozen=True)
class ProposalRow:
    """A proposal: `parents` are numbers of proposals, `repairs` what its making took."""

    number: int
    program: int
    parents: tuple[int, ...]
    operation: str
    level: str
    generation: int
    rung: int
    repairs: Mapping[str, Any]


@dataclass(frozen=True)
class EvaluationRow:
    """An attempt at an evaluation; `status` is one of engine.STATUSES, or "running"."""

    id: int
    program: int
    evaluator: str
    seed: int
    rung: int
    status: str
    reason: str
    figures: Mapping[str, float]
    seconds: float
    worker: str
    began: float
    attempt: int


@dataclass(frozen=True)
class StateRow:
    """The algorithm after `number` results were told."""

    number: int
    generation: int
    state: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True)
class EventRow:
    """Something that happened to the run."""

    id: int
    time: float
    kind: str
    text: str


def exists(folder: Path) -> bool:
    """Whether there is a search in `folder`."""
    path = folder / FILE
    if not path.is_file():
        return False
    with Store._open(path, "ro") as store:
        return bool(store._rows("select 1 from sqlite_master where name = 'run'"))


class Store:
    """An open record. The driver opens it to write; everyone else with `read`."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path, self._db = path, connection

    @classmethod
    def create(
        cls,
        folder: Path,
        *,
        settings: Mapping[str, Any],
        versions: Mapping[str, str],
        device: str,
        data_digest: str,
        command: str,
    ) -> Store:
        """A record with its one row of `run`, in a folder that has none; raises StarError, OSError.

        One that was killed before it was whole counts as none.
        """
        folder.mkdir(parents=True, exist_ok=True)
        store = cls._open(folder / FILE, "rwc")
        with store.transaction():
            if store._rows("select 1 from sqlite_master where name = 'run'"):
                raise _error(
                    "run-exists",
                    f"there is a search in '{folder}' already.",
                    "add --resume to go on with it, or name another folder with --out.",
                )
            for statement in filter(None, map(str.strip, _TABLES.split(";"))):
                store._db.execute(statement)
            texts = _json(settings), _json(versions)
            store._insert("run", (SCHEMA, *texts, device, data_digest, command, time.time()))
        return store

    @classmethod
    def write(cls, folder: Path) -> Store:
        """The record in a folder, to go on with; raises StarError when there is none."""
        return cls._checked(folder, "rw")

    @classmethod
    def read(cls, folder: Path) -> Store:
        """The record in a folder, to be looked at, also while a driver writes it."""
        return cls._checked(folder, "ro")

    @classmethod
    def _checked(cls, folder: Path, mode: str) -> Store:
        path = folder / FILE
        if not exists(folder):
            raise _error(
                "no-run",
                f"there is no search in '{folder}'.",
                "begin one with 'starc search SPACE --out RUN'.",
            )
        store = cls._open(path, mode)
        try:
            found = store.run()
        except StarError:
            raise
        except (sqlite3.Error, ValueError, TypeError, IndexError) as error:
            raise _damaged(path, str(error)) from error
        if found.schema != SCHEMA:
            raise _error(
                "run-damaged",
                f"'{path}' was written by another version of starc (schema {found.schema}, not "
                f"{SCHEMA}).",
                "go on with the version that began it.",
            )
        return store

    @classmethod
    def _open(cls, path: Path, mode: str) -> Store:
        uri = f"{path.resolve().as_uri()}?mode={mode}"
        try:
            connection = sqlite3.connect(uri, uri=True, timeout=30, isolation_level=None)
            if mode != "ro":
                connection.execute("pragma journal_mode = wal")
                connection.execute("pragma synchronous = full")
                connection.execute("pragma foreign_keys = on")
        except sqlite3.Error as error:
            raise _damaged(path, str(error)) from error
        return cls(path, connection)

    def close(self) -> None:
        """Close it; a writer leaves everything in the one file."""
        self._db.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All that is written inside is there afterwards, or none of it. They do not nest."""
        self._db.execute("begin immediate")
        try:
            yield
        except BaseException:
            self._db.execute("rollback")
            raise
        self._db.execute("commit")

    # --- writing: each inside a transaction ------------------------------------------------------

    def change_settings(self, settings: Mapping[str, Any]) -> None:
        """Another budget, for a run that is extended."""
        self._db.execute("update run set settings = ?", (_json(settings),))

    def add_program(
        self,
        identity: str,
        text: str,
        units: Sequence[Mapping[str, Any]],
        figures: Mapping[str, float],
    ) -> int:
        """The id of a program, new or known. The text that came first stays."""
        row = self._db.execute("select id from programs where identity = ?", (identity,)).fetchone()
        if row:
            return int(row[0])
        return self._insert("programs", (None, identity, text, _json(units), _json(figures)))

    def add_proposal(self, row: ProposalRow) -> None:
        """The next proposal."""
        self._insert(
            "proposals",
            (
                row.number,
                row.program,
                _json(row.parents),
                row.operation,
                row.level,
                row.generation,
                row.rung,
                _json(row.repairs),
            ),
        )

    def begin_evaluation(
        self, program: int, evaluator: str, *, seed: int, rung: int, attempt: int
    ) -> int:
        """Note that an evaluation was handed to an engine; the id of its row."""
        now = time.time()
        values = (None, program, evaluator, seed, rung, "running", "", "{}", 0.0, "", now, attempt)
        return self._insert("evaluations", values)

    def end_evaluation(
        self,
        id: int,
        status: str,
        *,
        reason: str = "",
        figures: Mapping[str, float] | None = None,
        seconds: float = 0.0,
        worker: str = "",
    ) -> None:
        """Note what came of it."""
        self._db.execute(
            "update evaluations set status = ?, reason = ?, figures = ?, seconds = ?, worker = ? "
            "where id = ?",
            (status, reason, _json(figures or {}), seconds, worker, id),
        )

    def forget_running(self) -> int:
        """Remove attempts that a driver before this one left unfinished; how many there were."""
        return self._db.execute("delete from evaluations where status = 'running'").rowcount

    def add_state(self, row: StateRow) -> None:
        """The newest state of the algorithm."""
        self._insert("states", (None, row.number, row.generation, _json(row.state)))

    def add_event(self, kind: str, text: str) -> None:
        """Something to be remembered, now."""
        self._insert("events", (None, time.time(), kind, text))

    def _insert(self, table: str, values: Sequence[Any]) -> int:
        marks = ", ".join("?" * len(values))
        done = self._db.execute(f"insert into {table} values ({marks})", tuple(values))
        return int(done.lastrowid or 0)

    # --- reading ---------------------------------------------------------------------------------

    def run(self) -> RunRow:
        """What the run was asked for; raises StarError for a record that was never begun."""
        rows = self._rows("select * from run")
        if not rows:
            raise _damaged(self.path, "the search was never begun")
        schema, settings, versions, *others = rows[0]
        return RunRow(schema, json.loads(settings), json.loads(versions), *others)

    def programs(self) -> list[ProgramRow]:
        """All programs, by id."""
        return [
            ProgramRow(id, identity, text, tuple(json.loads(units)), json.loads(figures))
            for id, identity, text, units, figures in self._rows(
                "select * from programs order by id"
            )
        ]

    def proposals(self) -> list[ProposalRow]:
        """All proposals, by number."""
        found = []
        for row in self._rows("select * from proposals order by number"):
            number, program, parents, operation, level, generation, rung, repairs = row
            parents, repairs = tuple(json.loads(parents)), json.loads(repairs)
            found.append(
                ProposalRow(number, program, parents, operation, level, generation, rung, repairs)
            )
        return found

    def evaluations(self, after: int = 0) -> list[EvaluationRow]:
        """All attempts, by id; only those with a larger id than `after`."""
        rows = self._rows("select * from evaluations where id > ? order by id", after)
        return [
            EvaluationRow(
                id, program, evaluator, seed, rung, status, reason, json.loads(figures), *others
            )
            for id, program, evaluator, seed, rung, status, reason, figures, *others in rows
        ]

    def states(self) -> list[StateRow]:
        """All states, oldest first."""
        rows = self._rows("select number, generation, state from states order by id")
        return [
            StateRow(number, generation, json.loads(state)) for number, generation, state in rows
        ]

    def last_state(self) -> StateRow | None:
        """The newest state."""
        rows = self._rows("select number, generation, state from states order by id desc limit 1")
        return StateRow(rows[0][0], rows[0][1], json.loads(rows[0][2])) if rows else None

    def events(self, after: int = 0) -> list[EventRow]:
        """All events, by id; only those with a larger id than `after`."""
        rows = self._rows("select * from events where id > ? order by id", after)
        return [EventRow(*row) for row in rows]

    def _rows(self, query: str, *values: Any) -> list[Any]:
        try:
            return self._db.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise _damaged(self.path, str(error)) from error


def _json(value: Any) -> str:
    return json.dumps(value, allow_nan=False)


def _damaged(path: Path, reason: str) -> StarError:
    return _error("run-damaged", f"'{path}' is damaged: {reason}.")


def _error(code: str, message: str, hint: str = "") -> StarError:
    return StarError(Diagnostic(code, message, hint=hint))
