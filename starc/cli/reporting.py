"""`starc report`: what a search found, in the terminal, as a page, as plots.

Owns: what is printed and where files go. Refuses: computing and drawing (starc/report).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from starc.cli import complain, files
from starc.grammar.errors import Diagnostic, StarError
from starc.report import page
from starc.report.baselines import open_baselines
from starc.report.building import build_report
from starc.report.record import read_record
from starc.report.words import duration, plain, shown

_ROWS = 12
"""Rows of a table that a terminal is given."""


@dataclass(frozen=True)
class Outputs:
    """Where a report goes, besides the terminal."""

    html: str | None
    plots: Path | None
    optuna: Path | None
    as_json: bool


def report_command(run: Path, baselines: Sequence[str], outputs: Outputs) -> None:
    """Report on a search; raises StarError."""
    if outputs.plots is not None:
        from starc.report.plots import check_plots

        check_plots()
    if outputs.optuna is not None:
        from starc.report.optuna_journal import check_optuna

        check_optuna()
    record = read_record(run)
    report = build_report(record, open_baselines(baselines, record))
    if outputs.html is not None:
        files.write_text(outputs.html, page.render_page(report))
    if outputs.plots is not None:
        _write_plots(report, outputs.plots)
    if outputs.optuna is not None:
        from starc.report.optuna_journal import render_journal

        files.write_bytes(outputs.optuna, render_journal(record))
    if outputs.as_json:
        print(json.dumps(report, indent=2))
    elif outputs.html != files.STANDARD:
        print_report(report)
        for place in (outputs.html, outputs.plots, outputs.optuna):
            if place is not None:
                complain(f"written: {place}\n")


def _write_plots(report: Mapping[str, Any], folder: Path) -> None:
    from starc.report.plots import render_plots

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StarError(
            Diagnostic("cannot-write", f"cannot make '{folder}': {error.strerror or error}.")
        ) from error
    for name, content in render_plots(report):
        files.write_bytes(folder / name, content)


def print_report(report: Mapping[str, Any]) -> None:
    """The summary that a terminal is given."""
    console = Console(highlight=False, width=None if Console().is_terminal else 140)
    run, counts = report["run"], report["counts"]
    names = ", ".join(
        f"{'least' if o['sign'] > 0 else 'most'} {plain(o['name'])}" for o in report["objectives"]
    )
    say(console, f"{run['name']}: {names}{_limits(report)}", "bold")
    statuses = ", ".join(f"{n:,} {name}" for name, n in counts["statuses"].items())
    say(console, f"{run['algorithm']} with {run['evaluator']}, seed {run['seed']}; {run['state']}")
    statuses = f" ({statuses})" if statuses else ""
    say(console, f"{counts['members']:,} proposals{statuses}, {counts['programs']:,} programs")
    busy, wall = duration(counts["seconds"]), duration(run["ended"] - run["began"])
    say(console, f"{busy} of evaluating, {wall} from begin to end; {counts['retried']:,} retried")
    say(console, f"{counts['repaired']:,} proposals were repaired when they were made")
    volume = report["hypervolume"]
    if volume["curve"]:
        say(console, f"hypervolume {_curve(volume['curve'])}")
    _print(console, f"the front: {len(report['front']):,} programs", page.front_table(report))
    _print(console, "best so far, by generation", _generations(report))
    if report["baselines"]:
        _print(console, "baselines", page.baseline_table(report))
        _print(console, "members that are no worse, against them", page.comparison_table(report))
    if report["failures"]:
        _print(console, "why evaluations failed", page.failure_table(report))
    _print(console, "operations", page.operation_table(report))
    _print(console, "provenance", page.provenance_table(report))
    say(console, run["command"])


def say(console: Console, text: str, style: str = "") -> None:
    """A line as it is: brackets in it are no markup, and escapes are shown and not obeyed."""
    console.print(Text(printable(text), style), soft_wrap=True)


def printable(text: str) -> str:
    """A text without characters that steer a terminal."""
    return "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text)


def _limits(report: Mapping[str, Any]) -> str:
    return f"; {', '.join(report['constraints'])}" if report["constraints"] else ""


def _curve(curve: Sequence[Sequence[float]]) -> str:
    """The volume at the quarters of a run."""
    last = curve[-1][0]
    parts = []
    for quarter in (1, 2, 3, 4):
        at = last * quarter / 4
        value = max((v for c, v in curve if c <= at), default=0.0)
        parts.append(f"{value:.3f} after {int(at):,}")
    return ", ".join(dict.fromkeys(parts)) + " evaluations"


def _generations(report: Mapping[str, Any]) -> dict[str, Any]:
    rows = report["generations"]
    every = max(1, -(-len(rows) // _ROWS))
    kept = [row for i, row in enumerate(rows) if i % every == 0 or i == len(rows) - 1]
    cells = [
        [
            str(row["generation"]),
            *(
                shown(value, objective["unit"])
                for value, objective in zip(row["best"], report["objectives"], strict=True)
            ),
            f"{row['members']:,}",
            f"{row['members'] - row['statuses'].get('done', 0):,}",
        ]
        for row in kept
    ]
    head = ["generation", *(plain(o["name"]) for o in report["objectives"]), "programs", "not done"]
    return {"head": head, "rows": [{"cells": row, "number": None} for row in cells], "left": []}


def _print(console: Console, title: str, table: Mapping[str, Any]) -> None:
    if not table["rows"]:
        return
    console.print()
    say(console, title, "bold")
    made = Table(box=None, pad_edge=False)
    for place, name in enumerate(table["head"]):
        left = place == 0 or place in table["left"]
        made.add_column(Text(name), justify="left" if left else "right", no_wrap=place == 0)
    for row in table["rows"][:_ROWS]:
        made.add_row(*(Text(printable(cell)) for cell in row["cells"]))
    console.print(made)
    if len(table["rows"]) > _ROWS:
        say(console, f"and {len(table['rows']) - _ROWS:,} more")
