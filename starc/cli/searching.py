"""`starc search`: from arguments to a search and back to the terminal.

Owns: what is printed, signals, and which settings were given. Refuses: searching (`search`).
"""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from starc.cli import EXIT_INTERRUPTED, EXIT_WRONG, complain
from starc.cli.signals import stop_on_signals
from starc.grammar.errors import Diagnostic, StarError
from starc.grammar.library import read_source
from starc.search.archive import asked
from starc.search.driver import Found, Progress, resume, search
from starc.search.engines import EngineRequest, make_engine
from starc.search.front import front_table, number
from starc.search.objectives import Objective
from starc.search.plan import Plan, plan
from starc.search.preparing import Kit, prepare
from starc.search.settings import Settings, differing, parse_named, preset
from starc.search.store import Store, exists
from starc.search.variation import alone

LOG_SECONDS = 10.0
_BUDGETS = ("generations", "evaluations")


@dataclass(frozen=True)
class Request:
    """What `starc search` was asked for; None in `given` means "as usual, or as before"."""

    space: str | None
    out: str | None
    given: Mapping[str, Any]
    preset: str | None = None
    workers: int | None = None
    cache: str | None = None
    dry_run: bool = False
    resume: bool = False
    as_json: bool = False
    engine: EngineRequest = field(default_factory=EngineRequest)


def search_command(request: Request) -> int:
    """Search, showing progress on standard error; returns the exit status."""
    request.engine.checked()
    workers = request.workers or _cores()
    cache = None if request.cache is None else Path(request.cache)
    if request.out is None and not request.dry_run:
        raise _error(
            "missing-argument",
            "a search needs a folder of its own.",
            "starc search SPACE --out RUN --generations 10.",
        )
    out = Path(request.out or "")
    given = {name: value for name, value in request.given.items() if value is not None}
    if request.resume:
        settings, objectives = _recorded(out, request, given)
        if request.dry_run:
            complain(f"{out}: a search that would be gone on with; nothing was done\n")
            return 0
        with stop_on_signals() as stop, _display(settings, objectives) as observe:
            budget = {name: given.get(name) for name in _BUDGETS}
            found = resume(
                out,
                budget=budget,
                engine=make_engine(request.engine, request.workers, cores=_cores()),
                cache=cache,
                observe=observe,
                should_stop=lambda: bool(stop),
            )
        return _report(found, objectives, request, out)
    kit = _begun(request, given, out)
    settings, objectives = kit.settings, kit.measure.objectives
    engine = None
    if not request.dry_run:
        engine = make_engine(request.engine, request.workers, cores=_cores())
        workers = engine.capacity
    costs = plan(kit, workers=workers)
    complain(_announced(kit, costs, workers))
    if request.dry_run:
        return 0
    with stop_on_signals() as stop, _display(settings, objectives) as observe:
        found = search(
            settings,
            out,
            engine=engine,
            cache=cache,
            command=shlex.join(["starc", *sys.argv[1:]]),
            observe=observe,
            should_stop=lambda: bool(stop),
        )
    return _report(found, objectives, request, out)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _begun(request: Request, given: dict[str, Any], out: Path) -> Kit:
    """A new search, everything about it checked."""
    if request.space is None:
        raise _error(
            "missing-argument",
            "a new search needs SPACE.",
            "starc search SPACE --out RUN --generations 10; or add --resume.",
        )
    if request.out is not None and exists(out):
        raise _error(
            "run-exists",
            f"there is a search in '{out}' already.",
            "add --resume to go on with it, or name another folder with --out.",
        )
    settings = preset(request.preset) if request.preset else {}
    if "evaluations" in given:
        settings.pop("generations", None)
    for name in ("algorithm", "evaluator"):
        if name in given:
            given[name], options = parse_named(given[name])
            if name == "algorithm" and settings.get(name) == given[name]:
                options = {**settings["algorithm_options"], **options}
            elif name == "algorithm":
                settings.pop("algorithm_options", None)
            given[f"{name}_options"] = options
    if "data" in given:
        given["evaluator_options"] = {**given.get("evaluator_options", {}), "data": given["data"]}
        del given["data"]
    given["space"], given["name"] = _space(request.space, given), request.space
    if not {*given, *settings} & set(_BUDGETS):
        settings["generations"] = 10
    return prepare(Settings(**{**settings, **given}))


def _space(name: str, given: Mapping[str, Any]) -> str:
    from starc.compiler.options import Options

    options = Options(model=given.get("model"), overrides=given.get("overrides", ()))
    return alone(read_source(name), options)


def _recorded(
    out: Path, request: Request, given: dict[str, Any]
) -> tuple[Settings, tuple[Objective, ...]]:
    """What the search in `out` was asked for; refuses whatever else is asked for now."""
    with Store.read(out) as store:
        recorded, measure = asked(store.run())
    wanted = preset(request.preset) if request.preset else {}
    wanted |= given
    if request.space is not None:
        wanted["space"] = _space(request.space, given)
    for name in ("algorithm", "evaluator"):
        if name in given:
            wanted[name], options = parse_named(given[name])
            for option, value in options.items():
                known = getattr(recorded, f"{name}_options").get(option)
                if known != value:
                    wanted[f"{name}_options"] = options
    if "data" in wanted:
        data = wanted.pop("data")
        if recorded.evaluator_options.get("data", "stdlib") != data:
            wanted["evaluator_options"] = {**recorded.evaluator_options, "data": data}
    different = differing(recorded, {k: v for k, v in wanted.items() if k not in _BUDGETS})
    for name in _BUDGETS:
        known = getattr(recorded, name)
        if wanted.get(name) is not None and (known is None or wanted[name] < known):
            different.append(f"{name} {known}, not {wanted[name]}")
    if different:
        raise _error(
            "run-differs",
            f"the search in '{out}' has {'; '.join(different)}.",
            "a search is resumed as it was begun, but for a larger budget; begin another with a "
            "new --out.",
        )
    return recorded, measure.objectives


# --- before --------------------------------------------------------------------------------------


def _announced(kit: Kit, costs: Plan, workers: int) -> str:
    """What will be done, and what it will cost."""
    settings = kit.settings
    holes = kit.variation.holes
    lines = [
        f"{settings.name}: {f'{holes} holes' if holes else 'no holes, a program to be mutated'}; "
        f"{settings.algorithm}{' (steady)' * settings.steady}, population {settings.population}, "
        f"seed {settings.seed}",
        f"objectives: {', '.join(map(_described, kit.measure.objectives))}"
        + (f"; {' and '.join(settings.constraints)}" if settings.constraints else ""),
        f"evaluator: {settings.evaluator}, at most {costs.evaluations:,.0f} evaluations"
        + (f", {_short(costs.tokens)} tokens" if costs.tokens else "")
        + (f", {costs.flops:.2g} FLOPs" if costs.flops else ""),
    ]
    if costs.seconds is not None:
        speed = costs.tokens_per_second
        measured = f" ({speed:,.0f} tokens/s of one worker, measured)" if speed else ""
        many = f"{workers} worker{'s' * (workers > 1)}"
        lines.append(f"about {_duration(costs.seconds)} on {many}{measured}")
    if costs.feasible < costs.drawn:
        lines.append(
            f"{costs.feasible} of {costs.drawn} random programs meet the constraints"
            + (f" ({'; '.join(costs.nearest)})" if costs.nearest else "")
        )
    return "\n".join(lines) + "\n"


def _described(objective: Objective) -> str:
    way = "small" if objective.sign > 0 else "large"
    unit = f" in {objective.unit}" if objective.unit else ""
    return f"{objective.name}{unit} ({way})"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"


def _short(value: float) -> str:
    for scale, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= scale:
            return f"{value / scale:.3g}{letter}"
    return f"{value:.0f}"


# --- meanwhile -----------------------------------------------------------------------------------


@contextmanager
def _display(
    settings: Settings, objectives: tuple[Objective, ...]
) -> Iterator[Callable[[Progress], None]]:
    """One line: in a terminal it changes, else there is a new one now and then; and what the
    algorithm has to say."""
    if sys.stderr is None:
        yield lambda progress: None
    elif not sys.stderr.isatty():
        shown = [0.0, -1.0]

        def log(progress: Progress) -> None:
            for note in progress.notes:
                complain(note + "\n")
            ended = float(progress.told)
            if progress.seconds - shown[0] >= LOG_SECONDS and ended != shown[1]:
                shown[:] = [progress.seconds, ended]
                complain(_line(progress, objectives) + "\n")

        yield log
    else:
        from rich.live import Live
        from rich.text import Text

        with Live(console=Console(stderr=True), refresh_per_second=4, transient=True) as live:

            def show(progress: Progress) -> None:
                for note in progress.notes:
                    live.console.print(Text(note))
                live.update(Text(_line(progress, objectives)))

            yield show


def _line(progress: Progress, objectives: tuple[Objective, ...]) -> str:
    parts = [
        f"generation {progress.generation}",
        f"{progress.spent:,.4g} of {progress.planned:,.4g}",
        f"{progress.running} running",
    ]
    failed = {s: n for s, n in sorted(progress.statuses.items()) if s not in ("done", "infeasible")}
    if failed:
        parts.append(", ".join(f"{n} {status}" for status, n in failed.items()))
    if progress.best:
        best = (
            f"{objective.name} {number(objective.sign * value)}"
            for objective, value in zip(objectives, progress.best, strict=True)
        )
        parts.append(f"best {', '.join(best)}")
    parts.append(_duration(progress.seconds))
    return "  ".join(parts)


# --- afterwards ----------------------------------------------------------------------------------


def _report(found: Found, objectives: tuple[Objective, ...], request: Request, out: Path) -> int:
    if found.status == "interrupted":
        told = sum(1 for one in found.individuals if one.status != "infeasible")
        complain(
            f"stopped, with {told:,} results kept. Go on with: starc search --resume --out {out}\n"
        )
        return EXIT_INTERRUPTED
    if request.as_json:
        members = [
            {"member": one.id, "identity": one.identity, "figures": dict(one.figures)}
            for one in found.front
        ]
        print(json.dumps({"status": found.status, "front": members}, indent=2))
    else:
        print_front(found, objectives)
    if not found.front:
        complain(
            "no program met all constraints and was evaluated; "
            f"'starc report {out}' says what came of them\n"
        )
        return EXIT_WRONG
    return 0


def print_front(found: Found, objectives: tuple[Objective, ...]) -> None:
    """The front as a table on standard output."""
    headings, rows = front_table(found.front, objectives)
    width = None if Console().is_terminal else 140
    console = Console(width=width, highlight=False)
    console.print(
        f"{len(found.front)} of {len(found.individuals):,} programs are on the front"
        + (": nothing new met the constraints any more" * (found.status == "fruitless"))
    )
    table = Table(box=None, pad_edge=False)
    for heading in headings:
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(*row)
    console.print(table)


def _error(code: str, message: str, hint: str = "") -> StarError:
    return StarError(Diagnostic(code, message, hint=hint))
