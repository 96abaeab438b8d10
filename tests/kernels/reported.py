"""Compiles the kernels of examples for targets and writes what came out, a table to compare with.

    reported.py REPORT TARGET,... [EXAMPLE...]

Entries of the table that are not compiled again stay as they are. The process must not have
TRITON_INTERPRET=1.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from starc.compiler.driver import compile_program
from starc.compiler.options import Options
from starc.grammar.library import read_source
from starc.kernel_check import check_kernels

EXAMPLES = Path(__file__).parents[2] / "examples"
KEPT = (
    "registers",
    "spills",
    "shared_bytes",
    "matrix_instructions",
    "group_instructions",
    "wide_accesses",
    "narrow_accesses",
    "warps",
    "defects",
)


def table(example: str, targets: list[str]) -> dict[str, dict[str, Any]]:
    """`kernel target` -> figures of one example."""
    source = read_source(str(EXAMPLES / f"{example}.star"))
    artifact = compile_program(source, Options(format=False))
    found = {}
    for checked in check_kernels(artifact, targets=targets):
        figures = checked.as_dict()
        place = f"{figures['kernel']} {figures['target']}"
        found[place] = {name: figures[name] for name in KEPT}
    return found


def main() -> None:
    path, targets = Path(sys.argv[1]), sys.argv[2].split(",")
    examples = sys.argv[3:] or sorted(p.stem for p in EXAMPLES.glob("*.star"))
    for example in examples:
        found = table(example, targets)
        report = json.loads(path.read_text()) if path.exists() else {}
        report.setdefault(example, {}).update(found)
        ordered = {
            name: dict(sorted(report[name].items())) for name in sorted(report) if report[name]
        }
        path.write_text(json.dumps(ordered, indent=1) + "\n")


if __name__ == "__main__":
    main()
