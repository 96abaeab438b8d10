"""Reports as tables in a terminal. Owns: their looks. Refuses: computing anything."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table


def print_cost(report: dict[str, Any]) -> None:
    """The cost of a model: a row per unit, then the totals."""
    names = [key for key in report["units"][0]] if report["units"] else []
    table = Table(box=None, pad_edge=False)
    for name in names:
        numeric = all(isinstance(unit[name], int | float) for unit in report["units"])
        table.add_column(name.replace("_", " "), justify="right" if numeric else "left")
    for unit in report["units"]:
        table.add_row(*(_show(unit[name]) for name in names))
    console = Console()
    console.print(table)
    for name, value in report.items():
        if name != "units":
            console.print(f"{name.replace('_', ' ')}: {_show(value)}", highlight=False)


def _show(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
