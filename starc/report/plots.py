"""The plots of a report as pictures: one PNG and one SVG each.

Owns: the drawing. Refuses: computing (building.py), and matplotlib at import (it is the extra
`plot`).
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from starc.grammar.errors import Diagnostic, StarError
from starc.report.words import plain

FORMATS = ("png", "svg")

_FRONT, _OTHER, _BASELINE = "#2a78d6", "#b9b9b2", "#eb6834"
_COLOURS = ("#2a78d6", "#eb6834", "#1baf7a", "#eda100", "#4a3aa7", "#e87ba4", "#008300", "#e34948")
_SPAN = 50
"""Positive values that span a larger factor stand on a logarithmic axis."""

Report = Mapping[str, Any]


def check_plots() -> None:
    """Raise StarError when nothing can be drawn."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise StarError(
            Diagnostic(
                "missing-extra",
                "plots need matplotlib, which is not installed.",
                hint="pip install 'starc[plot]'; the page of --html needs nothing more.",
            )
        ) from error


def render_plots(report: Report) -> Iterator[tuple[str, bytes]]:
    """Names of files and their contents, every plot in all FORMATS."""
    import matplotlib
    from matplotlib.figure import Figure

    # Texts stay texts, so that they can be read and searched, and files of equal plots are equal.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "starc"}):
        for name, size, draw in _plots(report):
            figure = Figure(figsize=size, layout="constrained")
            draw(figure.subplots())
            for kind in FORMATS:
                file = io.BytesIO()
                metadata = {"Date": None} if kind == "svg" else {}
                figure.savefig(file, format=kind, dpi=150, metadata=metadata)
                yield f"{name}.{kind}", file.getvalue()


Plot = tuple[str, tuple[float, float], Callable[[Any], None]]


def _plots(report: Report) -> Iterator[Plot]:
    objectives = report["objectives"]
    for (i, b), (j, a) in combinations(enumerate(objectives), 2):
        yield (
            f"front_{_file(b['name'])}_{_file(a['name'])}",
            (6.0, 4.2),
            lambda axes, i=i, j=j: _front(axes, report, i, j),  # type: ignore[misc]
        )
    yield "hypervolume", (6.0, 3.8), lambda axes: _hypervolume(axes, report)
    for i, objective in enumerate(objectives):
        name = f"generations_{_file(objective['name'])}"
        yield name, (6.0, 3.8), lambda axes, i=i: _generations(axes, report, i)  # type: ignore[misc]
    yield "parallel_coordinates", (10.0, 4.2), lambda axes: _parallel(axes, report)
    motifs = report["motifs"]
    if motifs["classes"]:
        yield "classes", (7.5, 4.2), lambda axes: _classes(axes, motifs)
    for rows in motifs["grams"]:
        if rows["rows"]:
            names = [row["name"] for row in rows["rows"]]
            cells = [row["rates"] for row in rows["rows"]]
            yield _heat(f"runs_of_{rows['n']}", f"runs of {rows['n']} units", names, cells, motifs)
    for sharing in motifs["sharing"]:
        if sharing["distances"]:
            names = [str(distance) for distance in sharing["distances"]]
            title = f"shared {sharing['kind']}: distance in units"
            yield _heat(f"shared_{sharing['kind']}", title, names, sharing["rates"], motifs)
    yield "statuses", (7.5, 4.0), lambda axes: _statuses(axes, report)
    for found in report["importance"]["objectives"]:
        genes = found["genes"]
        if genes:
            yield (
                f"genes_{_file(found['objective'])}",
                (7.0, 1.0 + 0.26 * len(genes)),
                lambda axes, f=found: _genes(axes, f),  # type: ignore[misc]
            )


def _front(axes: Any, report: Report, i: int, j: int) -> None:
    y, x = report["objectives"][i], report["objectives"][j]
    members = [m for m in report["members"] if m["values"][i] is not None]
    members = [m for m in members if m["values"][j] is not None]
    for kept, colour, size, label in (
        ([m for m in members if not m["front"]], _OTHER, 12, "dominated"),
        ([m for m in members if m["front"]], _FRONT, 26, "front"),
    ):
        if kept:
            points = np.array([[m["values"][j], m["values"][i]] for m in kept])
            axes.scatter(points[:, 0], points[:, 1], s=size, c=colour, label=label, linewidths=0)
    for baseline in report["baselines"]:
        if baseline["evaluated"]:
            point = baseline["values"][j], baseline["values"][i]
            axes.plot(*point, "D", color=_BASELINE, ms=7)
            axes.annotate(_text(baseline["name"]), point, (7, -3), textcoords="offset points")
    for scale, values in (
        (axes.set_xscale, [m["values"][j] for m in members]),
        (axes.set_yscale, [m["values"][i] for m in members]),
    ):
        if values and min(values) > 0 and max(values) > _SPAN * min(values):
            scale("log")
    _prefixed(axes.xaxis, x["unit"], [m["values"][j] for m in members])
    _prefixed(axes.yaxis, y["unit"], [m["values"][i] for m in members])
    axes.set(xlabel=_axis(x, True), ylabel=_axis(y, True))
    if members:
        axes.legend(fontsize="small")


def _hypervolume(axes: Any, report: Report) -> None:
    curve = report["hypervolume"]["curve"]
    axes.step([c for c, _ in curve], [v for _, v in curve], where="post", color=_FRONT)
    axes.set(xlabel="evaluations", ylabel="hypervolume", ylim=(0, None))


def _generations(axes: Any, report: Report, i: int) -> None:
    rows = report["generations"]
    best = [(r["generation"], r["best"][i]) for r in rows if r["best"][i] is not None]
    judged = [r for r in rows if r["quartiles"][i]]
    middle = [(r["generation"], r["median"][i], *r["quartiles"][i]) for r in judged]
    if middle:
        x, median, low, high = map(list, zip(*middle, strict=True))
        axes.fill_between(x, low, high, color=_BASELINE, alpha=0.18, linewidth=0)
        axes.plot(x, median, color=_BASELINE, label="median and quartiles of the generation")
    if best:
        x, values = map(list, zip(*best, strict=True))
        axes.step(x, values, where="post", color=_FRONT, label="best so far")
        axes.legend(fontsize="small")
    objective = report["objectives"][i]
    _prefixed(axes.yaxis, objective["unit"], [value for _, value in best])
    axes.set(xlabel="generation", ylabel=_axis(objective, False))


def _parallel(axes: Any, report: Report) -> None:
    names = report["axes"]
    rows = []
    for m in report["members"]:
        values = [
            m["figures"].get(n["name"]) if n["objective"] is None else m["values"][n["objective"]]
            for n in names
        ]
        if not m["violation"] and None not in values:
            rows.append((m["front"], values))
    rows.sort(key=lambda row: row[0])
    if not rows:
        return
    table = np.array([values for _, values in rows], dtype=np.float64)
    low, high = table.min(axis=0), table.max(axis=0)
    share = (table - low) / np.where(high > low, high - low, 1.0)
    for place, axis in enumerate(names):
        if axis["sign"] > 0:
            share[:, place] = 1 - share[:, place]
    for (front, _), line in zip(rows, share, strict=True):
        colour, alpha = (_FRONT, 0.9) if front else (_OTHER, 0.35)
        axes.plot(range(len(names)), line, color=colour, alpha=alpha, linewidth=1)
    labels = [plain(axis["name"]) for axis in names]
    axes.set_xticks(range(len(names)), labels)
    axes.set(ylabel="worst to best of each", yticks=[0, 1])
    axes.grid(axis="x")


def _classes(axes: Any, motifs: Report) -> None:
    counts = np.array(motifs["counts"], dtype=np.float64)
    names = list(motifs["classes"])
    if len(names) > len(_COLOURS):
        most = len(_COLOURS) - 1
        rest = counts[:, most:].sum(axis=1, keepdims=True)
        counts, names = np.hstack([counts[:, :most], rest]), [*names[:most], "other"]
    total = counts.sum(axis=1, keepdims=True)
    _stack(axes, motifs["generations"], counts / np.where(total > 0, total, 1.0), names)
    axes.set(ylabel="share of units")


def _statuses(axes: Any, report: Report) -> None:
    names = report["statuses"]
    rows = report["generations"]
    counts = [[row["statuses"].get(name, 0) for name in names] for row in rows]
    table = np.array(counts, dtype=np.float64).reshape(len(rows), len(names))
    _stack(axes, [row["generation"] for row in rows], table, names)
    axes.set(ylabel="programs")


def _stack(axes: Any, places: Sequence[int], table: Any, names: Sequence[str]) -> None:
    bottom = np.zeros(len(places))
    for k, name in enumerate(names):
        colour = _COLOURS[k % len(_COLOURS)] if name not in ("other", "running") else _OTHER
        axes.bar(places, table[:, k], bottom=bottom, color=colour, label=_text(name), width=0.8)
        bottom += table[:, k]
    axes.set(xlabel="generation")
    axes.legend(fontsize="small", loc="center left", bbox_to_anchor=(1.0, 0.5))


def _heat(
    file: str, title: str, names: Sequence[str], cells: Sequence[Sequence[float]], motifs: Report
) -> Plot:
    def draw(axes: Any) -> None:
        image = axes.imshow(cells, aspect="auto", cmap="Blues", vmin=0)
        generations = motifs["generations"]
        every = max(1, len(generations) // 12)
        axes.set_xticks(range(0, len(generations), every), generations[::every])
        axes.set_yticks(range(len(names)), [_text(name) for name in names])
        axes.set(xlabel="generation", title=title)
        axes.figure.colorbar(image, ax=axes, label="per program")

    return file, (10.0, 1.4 + 0.3 * len(names)), draw


def _genes(axes: Any, found: Report) -> None:
    genes = found["genes"][::-1]
    places = range(len(genes))
    values = np.array([[g["correlation"], g["low"], g["high"]] for g in genes])
    axes.errorbar(
        values[:, 0],
        places,
        xerr=[values[:, 0] - values[:, 1], values[:, 2] - values[:, 0]],
        fmt="o",
        color=_FRONT,
    )
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(places, [_text(g["gene"]) for g in genes])
    title = f"genes and {plain(found['objective'])}"
    axes.set(xlim=(-1, 1), xlabel="rank correlation; to the right is better", title=_text(title))


def _prefixed(axis: Any, unit: str, values: Sequence[float]) -> None:
    """Large numbers with a prefix, as words.shown has them."""
    from matplotlib.ticker import EngFormatter

    if values and max(map(abs, values)) >= 1e4:
        axis.set_major_formatter(EngFormatter("B" if unit == "bytes" else ""))


def _axis(objective: Mapping[str, Any], direction: bool) -> str:
    unit = objective["unit"]
    unit = f", {unit}" if unit and unit not in objective["name"] else ""
    end = " (less is better)" if objective["sign"] > 0 else " (more is better)"
    return _text(plain(objective["name"]) + unit + (end if direction else ""))


def _text(text: str) -> str:
    """A text without formulas: matplotlib would set what stands between two dollars as one."""
    return text.replace("$", r"\$")


def _file(name: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in name)
