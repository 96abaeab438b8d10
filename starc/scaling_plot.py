"""Scaling laws as a picture: curves of equal compute, and what is optimal against compute.

Owns: the drawing. Refuses: fitting, and matplotlib at import (it is the extra `plot`).
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from starc.grammar.errors import Diagnostic, StarError
from starc.runtime.scaling_law import PowerLaw, ScalingLaw
from starc.scaling import Outcome
from starc.scaling_plan import spelt

FORMATS = (".png", ".svg", ".pdf")


def check_plot(path: Path) -> None:
    """Raise StarError when no picture can be drawn to `path`, before anything is trained."""
    if path.suffix.lower() not in FORMATS:
        raise StarError(
            Diagnostic(
                "wrong-argument",
                f"'{path}' names no kind of picture.",
                hint=f"end it with {', '.join(FORMATS[:-1])} or {FORMATS[-1]}.",
            )
        )
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise StarError(
            Diagnostic(
                "missing-extra",
                "plots need matplotlib, which is not installed.",
                hint="pip install 'starc[plot]'; the table needs nothing more.",
            )
        ) from error


def plot(
    outcomes: Sequence[Outcome], laws: Mapping[str, ScalingLaw], kind: str, *, state: bool = False
) -> bytes:
    """A picture in a format of `FORMATS`: one row of panels for each program.

    Left the loss against size for every budget, with its quadratic and minimum; then size, tokens
    and loss of the optima against compute, with their laws; with `state` also the loss against the
    state, all trainings of a budget joined, the optima starred.
    """
    from matplotlib.figure import Figure

    columns = 5 if state else 4
    figure = Figure(figsize=(4.2 * columns, 3.4 * max(1, len(laws))), layout="constrained")
    axes = figure.subplots(max(1, len(laws)), columns, squeeze=False)
    for row, (name, law) in zip(axes, laws.items(), strict=True):
        own = [o for o in outcomes if o.training.size.model == name and o.status == "finished"]
        _curves(row[0], name, own, law)
        for panel, title, found, value in (
            (row[1], "optimal parameters", law.size, lambda o: o.size),
            (row[2], "optimal tokens", law.tokens, lambda o: o.tokens),
            (row[3], "loss, nats per token", law.loss, lambda o: o.loss),
        ):
            _law(panel, title, law, found, value)
        if state:
            _states(row[4], own, law)
    file = io.BytesIO()
    figure.savefig(file, format=kind.lstrip(".").lower(), dpi=150)
    return file.getvalue()


def _curves(panel: Any, name: str, outcomes: Sequence[Outcome], law: ScalingLaw) -> None:
    for optimum in law.optima:
        own = [o for o in outcomes if abs(o.training.budget / optimum.flops - 1) < 0.01]
        sizes = np.array([o.training.size.parameters for o in own], dtype=np.float64)
        (points,) = panel.plot(sizes, [o.loss for o in own], "o", label=f"{spelt(optimum.flops)}")
        line = np.geomspace(sizes.min(), sizes.max(), 100)
        u = np.log(line / optimum.centre)
        c0, c1, c2 = optimum.curve
        panel.plot(line, c0 + c1 * u + c2 * u * u, color=points.get_color(), linewidth=1)
        if optimum.found:
            panel.plot(
                [optimum.size.value], [optimum.loss.value], "*", color=points.get_color(), ms=12
            )
    panel.set(xscale="log", xlabel="parameters", ylabel="loss, nats per token", title=name)
    panel.legend(title="operations", fontsize="small")


def _law(panel: Any, title: str, law: ScalingLaw, found: PowerLaw | None, value: Any) -> None:
    optima = [o for o in law.optima if o.found]
    compute = np.array([o.flops for o in optima])
    values = [value(o) for o in optima]
    # Without an interval a bar has no length.
    below = [max(0.0, e.value - e.low) if e.low == e.low else 0.0 for e in values]
    above = [max(0.0, e.high - e.value) if e.high == e.high else 0.0 for e in values]
    panel.errorbar(compute, [e.value for e in values], yerr=[below, above], fmt="*", ms=10)
    if found:
        line = np.geomspace(compute.min() / 1.5, compute.max() * 10, 50)
        at = [found.at(float(x)) for x in line]
        panel.plot(line, [e.value for e in at], linewidth=1, color="black")
        if at[0].low == at[0].low:
            panel.fill_between(line, [e.low for e in at], [e.high for e in at], alpha=0.2)
        title = f"{title}: exponent {found.exponent.value:.3f}"
    panel.set(xscale="log", yscale="log", xlabel="operations", title=title)


def _states(panel: Any, outcomes: Sequence[Outcome], law: ScalingLaw) -> None:
    for optimum in law.optima:
        own = [o for o in outcomes if abs(o.training.budget / optimum.flops - 1) < 0.01]
        own.sort(key=lambda o: o.training.size.state)
        states = [max(1, o.training.size.state) for o in own]
        (points,) = panel.plot(states, [o.loss for o in own], "o-", linewidth=1)
        if optimum.found and optimum.state.value == optimum.state.value:
            panel.plot(
                [optimum.state.value], [optimum.loss.value], "*", color=points.get_color(), ms=12
            )
    panel.set(xscale="log", yscale="log", xlabel="state, elements", title="loss against state")
