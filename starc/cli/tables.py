"""Reports as tables in a terminal. Owns: their looks. Refuses: computing anything."""

from __future__ import annotations

import re
from typing import Any

from rich.console import Console
from rich.table import Table

COLUMNS = (
    ("parameters", "parameters"),
    ("flops_forward", "FLOPs forward"),
    ("flops_decode", "FLOPs decode"),
    ("cache_bytes", "cache bytes"),
    ("state_elements", "state elements"),
)


def print_cost(report: dict[str, Any]) -> None:
    """The cost of a model: a row per kind of unit with how many there are, then the totals.

    Numbers of a row are those of one unit; units of the same place in different iterations of a
    repeat that cost the same share a row.
    """
    width = None if Console().is_terminal else 140
    console = Console(width=width, highlight=False)
    length, batch, dtype = report["length"], report["batch"], report["dtype"]
    console.print(f"{report['model']}: {length:,} tokens, batch {batch}, cache in {dtype}")
    table = Table(box=None, pad_edge=False)
    for name in ("path", "operator"):
        table.add_column(name, no_wrap=True)
    table.add_column("units", justify="right")
    for _, title in COLUMNS:
        table.add_column(title, justify="right")
    table.add_row("embedding", "", "", *_numbers(report["embedding"]))
    for (path, operator, *_), units in _grouped(report["units"]).items():
        table.add_row(path, operator, str(len(units)), *_numbers(units[0]))
    table.add_row("head", "", "", *_numbers(report["head"]))
    table.add_section()
    depth = str(len(report["units"]))
    table.add_row("total", "", depth, *_numbers(report), style="bold")
    console.print(table)
    if report["active_parameters"] != report["parameters"]:
        console.print(f"parameters that a token uses: {report['active_parameters']:,}")
    console.print(f"FLOPs of a training step: {report['flops_train']:,} (three times forward)")
    for name, what in (
        ("prefill", "reading a prompt of this length"),
        ("decode", "its last token"),
    ):
        flops, intensity = report[f"flops_{name}"], report[f"intensity_{name}"]
        console.print(f"FLOPs of {what}: {flops:,}, {intensity:,.2f} per byte moved")


def _grouped(units: list[dict[str, Any]]) -> dict[tuple[Any, ...], list[dict[str, Any]]]:
    found: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for unit in units:
        place = re.sub(r"\.\d+\.", ".*.", unit["path"])
        key = (place, unit["operator"], *(unit[name] for name, _ in COLUMNS))
        found.setdefault(key, []).append(unit)
    return found


def _numbers(row: dict[str, Any]) -> list[str]:
    return [f"{row[name]:,}" if name in row else "" for name, _ in COLUMNS]
