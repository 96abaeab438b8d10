"""Resources of all examples' kernels, compared with the committed table: nothing may get worse.

`make kernel-report` writes the table anew; rows change where kernels do.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from fnmatch import fnmatchcase
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from starc.kernel_check import DEFAULT_TARGETS

HERE = Path(__file__).parent
COMMITTED: dict[str, Any] = json.loads((HERE / "report.json").read_text())
COLUMNS: list[str] = COMMITTED["columns"]
ROWS: dict[str, dict[str, list[int]]] = COMMITTED["rows"]
EXCEPTIONS: dict[str, str] = json.loads((HERE / "exceptions.json").read_text())
"""Why some kernels have defects: a pattern of `program/kernel target`, the reason."""

ROOM = 8
"""Registers that a kernel may need more without a failure: ptxas rounds them to this."""


@pytest.mark.kernels
@pytest.mark.parametrize("target", DEFAULT_TARGETS)
def test_resources_are_no_worse(tmp_path: Path, target: str) -> None:
    options = {"--targets": target, "--jobs": "1", "--out": str(tmp_path / "report.json")}
    subprocess.run(
        [sys.executable, str(HERE / "reported.py"), *chain.from_iterable(options.items())],
        env={**os.environ, "TRITON_INTERPRET": "0"},
        check=True,
    )
    found = json.loads((tmp_path / "report.json").read_text())
    known = {name for name, row in ROWS.items() if target in row}
    worse, unknown = [], []
    for name, row in found["rows"].items():
        # A program that was added may have become the first of several with the same code.
        names = [own for own in found["names"][f"{name} {target}"] if own in known]
        unknown += [] if names else [name]
        for own in names:
            known.discard(own)
            worse += [f"{own}: {x}" for x in differences(row[target], ROWS[own][target])]
    assert worse == []
    assert (unknown, sorted(known)) == ([], []), "kernels came or went: make kernel-report"
    assert [place for place in found["defects"] if not excused(place)] == []


def differences(new: list[int], old: list[int]) -> list[str]:
    """What got worse."""
    after, before = (dict(zip(COLUMNS, row, strict=True)) for row in (new, old))
    found = []
    for name, room in (("registers", ROOM), ("spills", 0), ("shared_bytes", 0)):
        if after[name] > before[name] + room:
            found.append(f"{name} {before[name]} -> {after[name]}")
    for name in ("matrix_instructions", "group_instructions", "wide_accesses"):
        if bool(before[name]) > bool(after[name]):
            found.append(f"no {name} any more")
    if after["narrow_accesses"] > before["narrow_accesses"]:
        found.append(f"narrow accesses {before['narrow_accesses']} -> {after['narrow_accesses']}")
    return found


def excused(place: str) -> list[str]:
    return [pattern for pattern in EXCEPTIONS if fnmatchcase(place, pattern)]


def test_every_spill_has_a_reason() -> None:
    spills, groups = COLUMNS.index("spills"), COLUMNS.index("group_instructions")
    spilling = [f"{k} {t}" for k, row in ROWS.items() for t in row if row[t][spills]]
    assert [place for place in spilling if not excused(place)] == []
    slow = [f"{k} {t}" for k, row in ROWS.items() for t in row if not row[t][groups]]
    used = {pattern for place in (*spilling, *slow) for pattern in excused(place)}
    assert used == set(EXCEPTIONS), "an exception that nothing needs any more"


def test_every_example_is_there() -> None:
    counts = {target: sum(target in row for row in ROWS.values()) for target in DEFAULT_TARGETS}
    assert min(counts[target] for target in ("sm_80", "sm_90", "gfx942")) > 500, counts
    assert counts["sm_100"] >= 5, counts


def test_a_worse_figure_is_found() -> None:
    given = {name: 8 for name in COLUMNS} | {"registers": 128, "spills": 0, "narrow_accesses": 0}

    def against(**changes: int) -> list[str]:
        return differences(list({**given, **changes}.values()), list(given.values()))

    assert against() == []
    assert against(registers=136) == []
    assert against(registers=137) == ["registers 128 -> 137"]
    assert against(spills=4) == ["spills 0 -> 4"]
    assert against(group_instructions=0) == ["no group_instructions any more"]
    assert against(narrow_accesses=1) == ["narrow accesses 0 -> 1"]
