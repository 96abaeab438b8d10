"""The report as one HTML page that needs nothing else: no network, no other file.

Owns: the tables, and putting data, style and script into the page. Every text goes through Jinja's
escaping or JSON; the page's policy runs no script but its own. Refuses: computing (building.py) and
drawing (charts.js, page.js).
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from starc import __version__
from starc.report.words import NONE, change, duration, plain, shown

Table = dict[str, Any]


def render_page(report: Mapping[str, Any]) -> str:
    """The page of a report as HTML."""
    environment = Environment(
        loader=PackageLoader("starc.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    # In a script element; nothing in it can end the element, and the hash is of exactly this.
    script = "\n" + _file("charts.js") + _file("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template("page.html.j2").render(
        report=report,
        summary=_summary(report),
        data=Markup(embedded(report)),
        style=Markup(_file("page.css")),
        script=Markup(script),
        script_hash=Markup(f"sha256-{digest}"),
        version=__version__,
    )


def embedded(value: object) -> str:
    """JSON that may stand inside a script element, whatever texts are in it."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _file(name: str) -> str:
    return resources.files("starc.report").joinpath(name).read_text(encoding="utf-8")


def _summary(report: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "subtitle": _subtitle(report),
        "tiles": _tiles(report),
        "front": _front_words(report),
        "front_table": front_table(report),
        "baselines": "Programs that the search was given, or that were named, evaluated as all "
        "others were: with the same evaluator, budget and seed rule.",
        "baseline_table": baseline_table(report),
        "comparison": "Members of the front that are no worse than the baseline in "
        f"{plain(report['objectives'][0]['name'])}, each the best of them in one objective. "
        "Changes are relative to the baseline.",
        "comparison_table": comparison_table(report),
        "motifs": "Of all programs that a generation proposed, by the structure of each unit's T: "
        "repeats are unrolled, and a parallel is one place.",
        "operations": "How proposals were made, what that took, and how often the result "
        "dominates its first parent where both have values. A proposal that several operations "
        "made counts for each.",
        "operation_table": operation_table(report),
        "failure_table": failure_table(report),
        "provenance_table": provenance_table(report),
        "event_table": _event_table(report),
        "settings": json.dumps(report["run"]["settings"], indent=2),
    }


def _subtitle(report: Mapping[str, Any]) -> str:
    run = report["run"]
    names = ", ".join(
        f"{'least' if o['sign'] > 0 else 'most'} {plain(o['name'])}" for o in report["objectives"]
    )
    limits = f"; {', '.join(report['constraints'])}" if report["constraints"] else ""
    return f"Search for {names}{limits}. Begun {_when(run['began'])}, {run['state']}."


def _tiles(report: Mapping[str, Any]) -> list[dict[str, str]]:
    counts, run = report["counts"], report["run"]
    ended = counts["evaluated"]
    failed = ended - counts["statuses"].get("done", 0)
    tiles = [("programs evaluated", f"{ended:,}"), ("on the front", f"{len(report['front']):,}")]
    for place, objective in enumerate(report["objectives"]):
        best = report["generations"][-1]["best"][place] if report["generations"] else None
        tiles.append((f"best {plain(objective['name'])}", shown(best, objective["unit"])))
    tiles += [
        ("hypervolume", f"{report['hypervolume']['final']:.3f}"),
        ("failed", f"{failed / ended:.1%}" if ended else NONE),
        ("of evaluating", duration(counts["seconds"])),
        ("from begin to end", duration(run["ended"] - run["began"])),
    ]
    return [{"name": name, "value": value} for name, value in tiles]


def _front_words(report: Mapping[str, Any]) -> str:
    count, evaluated = len(report["front"]), report["counts"]["evaluated"]
    if not count:
        return "No program has all objectives and meets every constraint."
    return (
        f"{count:,} of {evaluated:,} evaluated programs {'is' if count == 1 else 'are'} not "
        "dominated by any other."
    )


# --- tables, which the terminal prints as well ---------------------------------------------------


def front_table(report: Mapping[str, Any]) -> Table:
    """The front: number, objectives, other figures, how it was made."""
    objectives = report["objectives"]
    names = {o["name"] for o in objectives}
    extra = [n for n in ("parameters", "cache_bytes", "units") if n not in names]
    members = {m["number"]: m for m in report["members"]}
    rows = []
    for number in report["front"]:
        m = members[number]
        values = [shown(v, o["unit"]) for v, o in zip(m["values"], objectives, strict=True)]
        values += [shown(m["figures"].get(n), report["units"].get(n, "")) for n in extra]
        made = m["operation"] + (f" of {_numbers(m['parents'])}" if m["parents"] else "")
        rows.append(_row([f"#{number}", *values, str(m["generation"]), made], number))
    head = ["member", *(plain(o["name"]) for o in objectives), *map(plain, extra)]
    head += ["generation", "made by"]
    return {"head": head, "rows": rows, "left": [len(head) - 1]}


def baseline_table(report: Mapping[str, Any]) -> Table:
    """Baselines with their values and who dominates them."""
    objectives = report["objectives"]
    extra = [n for n in ("parameters",) if n not in [o["name"] for o in objectives]]
    head = ["baseline", *(plain(o["name"]) for o in objectives), *extra, "dominated by"]
    rows = []
    for b in report["baselines"]:
        values = [shown(v, o["unit"]) for v, o in zip(b["values"], objectives, strict=True)]
        if not b["evaluated"]:
            dominated = "not evaluated in this run" if b["number"] is None else "failed"
        else:
            dominated = _numbers(b["dominated_by"]) or "none of the front"
        name = b["name"] if b["number"] is None else f"{b['name']} (#{b['number']})"
        values += [shown(b["figures"].get(n)) for n in extra]
        rows.append(_row([name, *values, dominated], b["number"]))
    return {"head": head, "rows": rows, "left": [len(head) - 1]}


def comparison_table(report: Mapping[str, Any]) -> Table:
    """What members of the front change against baselines at no loss of the first objective."""
    rows = []
    names: list[str] = []
    for b in report["baselines"]:
        for row in b["against"]:
            names = list(dict.fromkeys([*names, *row["changes"]]))
    for b in report["baselines"]:
        for row in b["against"]:
            cells = [b["name"], f"#{row['number']}", plain(row["best_in"])]
            cells += [change(row["changes"].get(name)) for name in names]
            rows.append(_row(cells, row["number"]))
    head = ["baseline", "member", "best in", *map(plain, names)]
    return {"head": head, "rows": rows, "left": []}


def operation_table(report: Mapping[str, Any]) -> Table:
    """Operations with repair and failure rates."""
    rows = []
    for o in report["operations"]:
        kinds = ", ".join(f"{kind} {n}" for kind, n in o["repairs"].items())
        rows.append(
            _row(
                [
                    o["operation"],
                    o["level"],
                    f"{o['proposals']:,}",
                    _share(o["repaired"], o["proposals"]),
                    f"{o['rejected']:,}",
                    _share(o["ended"] - o["done"], o["ended"]),
                    f"{o['dominate_parent']:,} of {o['compared']:,}" if o["compared"] else NONE,
                    kinds,
                ]
            )
        )
    head = ["operation", "level", "proposals", "repaired", "draws rejected", "failed"]
    return {"head": [*head, "dominate parent", "repairs"], "rows": rows, "left": [7]}


def failure_table(report: Mapping[str, Any]) -> Table:
    """Why attempts failed."""
    rows = [_row([f["status"], f"{f['attempts']:,}", f["reason"]]) for f in report["failures"]]
    return {"head": ["status", "attempts", "for example"], "rows": rows, "left": [2]}


def provenance_table(report: Mapping[str, Any]) -> Table:
    """Versions, seeds, device and digests."""
    run = report["run"]
    pairs = [
        ("seed", run["seed"]),
        ("device", run["device"]),
        ("data digest", run["data_digest"] or NONE),
        ("evaluator digest", ", ".join(run["evaluators"]) or NONE),
        ("folder", run["folder"]),
        ("begun", _when(run["began"])),
        ("last event", f"{run['state']}, {_when(run['ended'])}"),
        *((f"version of {name}", text) for name, text in run["versions"].items()),
    ]
    rows = [_row([name, str(text)]) for name, text in pairs]
    return {"head": ["what", "value"], "rows": rows, "left": [1]}


def _event_table(report: Mapping[str, Any]) -> Table:
    events = report["run"]["events"]
    rows = [_row([_when(e["time"]), e["kind"], e["text"]]) for e in events]
    return {"head": ["time", "event", "text"], "rows": rows, "left": [2]}


def _row(cells: Sequence[str], number: int | None = None) -> dict[str, Any]:
    return {"cells": list(cells), "number": number}


def _numbers(numbers: Sequence[int], most: int = 6) -> str:
    more = f" and {len(numbers) - most} more" if len(numbers) > most else ""
    return ", ".join(f"#{n}" for n in numbers[:most]) + more


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.0%}" if whole else NONE


def _when(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
