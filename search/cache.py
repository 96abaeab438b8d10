"""Evaluations that runs share: one SQLite file, which several may use at once.

Owns: finding what was evaluated before, by identity, evaluator, seed and rung. Refuses: failures,
which may have been the machine's.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Mapping
from pathlib import Path

from starc.grammar.errors import Diagnostic, StarError

_TABLE = """
create table if not exists evaluations (
    identity text not null, evaluator text not null, seed integer not null, rung integer not null,
    figures text not null, seconds real not null, time real not null,
    primary key (identity, evaluator, seed, rung)
)
"""


class SharedCache:
    """The cache in a file, made where there is none; raises StarError for a file that is none."""

    def __init__(self, path: Path) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, timeout=30, isolation_level=None)
            self._db.execute("pragma journal_mode = wal")
            self._db.execute(_TABLE)
            self._db.execute("select figures from evaluations limit 1")
        except (sqlite3.Error, OSError, ValueError) as error:
            raise StarError(
                Diagnostic(
                    "cannot-read",
                    f"'{path}' cannot be used as a cache of evaluations: {error}.",
                    hint="name another file with --cache.",
                )
            ) from error

    def get(self, identity: str, evaluator: str, seed: int, rung: int) -> dict[str, float] | None:
        """The figures of an evaluation, if any run has made it."""
        row = self._db.execute(
            "select figures from evaluations "
            "where identity = ? and evaluator = ? and seed = ? and rung = ?",
            (identity, evaluator, seed, rung),
        ).fetchone()
        return None if row is None else dict(json.loads(row[0]))

    def put(
        self,
        identity: str,
        evaluator: str,
        seed: int,
        rung: int,
        figures: Mapping[str, float],
        seconds: float,
    ) -> None:
        """Remember an evaluation."""
        self._db.execute(
            "insert or ignore into evaluations values (?, ?, ?, ?, ?, ?, ?)",
            (identity, evaluator, seed, rung, json.dumps(figures), seconds, time.time()),
        )

    def close(self) -> None:
        """Close the file."""
        self._db.close()
