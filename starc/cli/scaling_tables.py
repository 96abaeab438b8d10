"""Plans and scaling laws as tables in a terminal. Owns: their looks. Refuses: computing anything
that the fits do not say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from starc.scaling_plan import Rate, Training, hours, spelt

if TYPE_CHECKING:  # a plan needs neither torch nor scipy
    from starc.runtime.scaling_law import Estimate, PowerLaw, ScalingLaw
    from starc.scaling import Outcome


def print_laws(
    outcomes: Sequence[Outcome],
    laws: Mapping[str, ScalingLaw],
    predict: Sequence[float],
    *,
    state: bool,
) -> None:
    """For every program: its optima, its laws, what they predict, and its trainings' states."""
    console = _console()
    for name in dict.fromkeys(o.training.size.model for o in outcomes):
        console.print(f"\n{name}", style="bold")
        own = [o for o in outcomes if o.training.size.model == name]
        diverged = sum(o.status == "diverged" for o in own)
        if diverged:
            console.print(f"{diverged} of {len(own)} trainings diverged and do not count")
        law = laws.get(name)
        if law is None:
            console.print("no budget has three trainings: nothing is fitted")
            continue
        _optima(console, law, state)
        _lines(console, law, state)
        for budget in predict:
            _prediction(console, law, budget)
        if state:
            _states(console, own)


def print_plan(plan: Sequence[Training], device: str, seconds: Rate) -> None:
    """Every training with its operations and hours, and the sum."""
    console = _console()
    table = _table("program", "budget", "width", "units", "parameters", "tokens", "steps", "batch")
    for title in ("operations", "hours"):
        table.add_column(title, justify="right")
    for t in plan:
        size = t.size
        table.add_row(
            size.model,
            spelt(t.budget),
            *(f"{n:,}" for n in (size.width, size.units, size.parameters, t.tokens, t.steps)),
            f"{t.batch:,} x {t.length:,}",
            f"{t.flops:.3g}",
            _hours(seconds(t) / 3600),
        )
    console.print(table)
    total = sum(t.flops for t in plan)
    console.print(
        f"{len(plan)} trainings, {total:.3g} operations, {_hours(hours(plan, seconds))} hours on "
        f"{device}"
    )


def _optima(console: Console, law: ScalingLaw, state: bool) -> None:
    table = _table("budget", "sizes", "optimal parameters", "tokens", "loss")
    if state:
        table.add_column("state", justify="right")
    for o in law.optima:
        if not o.found:
            table.add_row(spelt(o.flops), str(o.sizes), "no minimum near these sizes")
            continue
        cells = [_spelt(e) for e in (o.size, o.tokens, o.loss, *([o.state] if state else []))]
        table.add_row(spelt(o.flops), str(o.sizes), *cells)
    console.print(table)


def _lines(console: Console, law: ScalingLaw, state: bool) -> None:
    lines = [("size", law.size, "C"), ("tokens", law.tokens, "C"), ("loss", law.loss, "C")]
    if state:
        lines.append(("loss", law.state_loss, "state"))
    for name, found, variable in lines:
        if found is None:
            console.print(f"{name} against {variable}: fewer than two optima, no law")
        else:
            console.print(f"{name} ~ {variable}^{_spelt(found.exponent)}")
    if law.noise == law.noise:
        console.print(f"noise of the loss around the curves: {law.noise:.4f} nats")
    else:
        console.print("three sizes per budget: no intervals (give --sizes 5)")


def _prediction(console: Console, law: ScalingLaw, budget: float) -> None:
    if law.size is None or law.tokens is None or law.loss is None:
        return
    beyond = budget / max(o.flops for o in law.optima)
    far = f", {beyond:,.0f} times beyond what was trained" if beyond > 1.5 else ""

    def at(known: PowerLaw) -> str:
        return _spelt(known.at(budget))

    console.print(
        f"at {spelt(budget)}{far}: {at(law.size)} parameters, {at(law.tokens)} tokens, "
        f"loss {at(law.loss)}"
    )


def _states(console: Console, outcomes: Sequence[Outcome]) -> None:
    table = _table("budget", "state", "parameters", "loss")
    for o in sorted(outcomes, key=lambda o: (o.training.budget, o.training.size.state)):
        size = o.training.size
        loss = f"{o.loss:.4f}" if o.status == "finished" else o.status
        table.add_row(spelt(o.training.budget), f"{size.state:,}", f"{size.parameters:,}", loss)
    console.print(table)


def _table(first: str, *titles: str) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column(first, no_wrap=True)
    for title in titles:
        table.add_column(title, justify="right")
    return table


def _console() -> Console:
    return Console(width=None if Console().is_terminal else 160, highlight=False)


def _spelt(found: Estimate) -> str:
    if found.low != found.low:
        return _number(found.value)
    return f"{_number(found.value)} ({_number(found.low)} to {_number(found.high)})"


def _number(value: float) -> str:
    if value != value:
        return "-"
    return f"{value:,.0f}" if 1e3 <= abs(value) < 1e9 else f"{value:.4g}"


def _hours(value: float) -> str:
    return f"{value:,.1f}" if value >= 1 else f"{value:.2g}"
