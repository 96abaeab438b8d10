"""Resources of the examples' kernels, compared with the committed table: nothing may get worse.

STARC_REGENERATE=1 rewrites the rows of the table (`reported.py` adds new ones).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

REPORT = Path(__file__).parent / "report.json"
TABLE: dict[str, dict[str, dict[str, Any]]] = json.loads(REPORT.read_text())
ROOM = 8
"""Registers that a kernel may need more without a failure: ptxas rounds them to this."""


EXCEPTIONS = {
    "streaming: fused_softmax_attention_8x96_keys sm_90",
    "streaming: fused_softmax_attention_8x96_2_keys sm_90",
}
"""Kernels that spill: four query heads a program, 128 padded channels. No tile that
keeps the instructions of four warps was found without spills."""


@pytest.mark.kernels
@pytest.mark.parametrize("example", sorted(TABLE))
def test_resources_are_no_worse(tmp_path: Path, example: str) -> None:
    targets = sorted({place.split()[1] for place in TABLE[example]})
    path = REPORT if os.environ.get("STARC_REGENERATE") else tmp_path / "report.json"
    script = Path(__file__).parent / "reported.py"
    subprocess.run(
        [sys.executable, str(script), str(path), ",".join(targets), example],
        env={**os.environ, "TRITON_INTERPRET": "0"},
        check=True,
    )
    found = json.loads(path.read_text())[example]
    worse = [
        f"{place}: {what}"
        for place, old in TABLE[example].items()
        for what in (differences(found[place], old) if place in found else ["is gone"])
    ]
    assert worse == []
    assert set(found) <= set(TABLE[example]), "kernels that the table does not know: add them"


def differences(new: dict[str, Any], old: dict[str, Any]) -> list[str]:
    """What got worse."""
    found = [] if old["defects"] else list(new["defects"])
    for name, room in (("registers", ROOM), ("spills", 0), ("shared_bytes", 0)):
        if new[name] > old[name] + room:
            found.append(f"{name} {old[name]} -> {new[name]}")
    for name in ("matrix_instructions", "group_instructions", "wide_accesses"):
        if bool(old[name]) > bool(new[name]):
            found.append(f"no {name} any more")
    if new["narrow_accesses"] > old["narrow_accesses"]:
        found.append(f"narrow accesses {old['narrow_accesses']} -> {new['narrow_accesses']}")
    return found


def test_the_table_has_no_defects() -> None:
    assert TABLE
    wrong = {
        f"{example}: {place}": figures["defects"]
        for example, rows in TABLE.items()
        for place, figures in rows.items()
        if figures["defects"]
    }
    assert set(wrong) == EXCEPTIONS


def test_a_worse_figure_is_found() -> None:
    old = {
        "registers": 128,
        "spills": 0,
        "shared_bytes": 1024,
        "matrix_instructions": 8,
        "group_instructions": 8,
        "wide_accesses": 4,
        "narrow_accesses": 0,
        "defects": [],
    }
    assert differences(old, old) == []
    assert differences({**old, "registers": 136}, old) == []
    assert differences({**old, "registers": 137}, old) == ["registers 128 -> 137"]
    assert differences({**old, "spills": 4, "defects": ["4 spills"]}, old)
    assert differences({**old, "group_instructions": 0}, old) == ["no group_instructions any more"]
    assert differences({**old, "narrow_accesses": 1}, old) == ["narrow accesses 0 -> 1"]
