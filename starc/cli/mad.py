"""`starc mad`: from arguments to judgements and back to the terminal.

Owns: folders, signals, and the tables that are printed.
Refuses: making runs and adding up their scores (starc/mad).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from starc.cli import EXIT_INTERRUPTED, complain
from starc.cli.signals import stop_on_signals
from starc.compiler.driver import resolve_source
from starc.compiler.options import Options
from starc.grammar.errors import Diagnostic, StarError
from starc.grammar.library import read_source
from starc.grammar.source import Source
from starc.mad.judging import Done, default_workers, judge
from starc.mad.profiles import find_profile
from starc.mad.results import (
    TOTAL,
    Judgement,
    Spread,
    check_comparable,
    compared,
    orderings,
    read_judgements,
)
from starc.runtime.tasks import make_task


@dataclass(frozen=True)
class Request:
    """What `starc mad` was asked for."""

    arguments: tuple[str, ...]
    tasks: tuple[str, ...]
    profile: str
    seeds: int | None
    state: int | None
    out: str | None
    device: str
    jobs: int | None
    options: Options
    compare: bool = False
    as_json: bool = False
    verbose: bool = False


def mad_command(request: Request) -> int:
    """Judge programs, or read judgements, and print them; returns the exit status."""
    if request.compare:
        found = [j for folder in request.arguments for j in read_judgements(Path(folder))]
        _print(found, request)
        return 0
    profile = find_profile(request.profile)
    profile.chosen(request.tasks)
    sources = [read_source(argument) for argument in request.arguments]
    names = _names(sources, request.options)
    out = Path(request.out or f"runs/mad-{profile.name}")
    found = []
    with stop_on_signals() as stop:
        for source, name in zip(sources, names, strict=True):
            with _progress(name) as observe:
                judgement = judge(
                    source,
                    request.options,
                    profile=profile,
                    tasks=request.tasks,
                    seeds=None if request.seeds is None else range(request.seeds),
                    state=request.state,
                    folder=out / name,
                    device=request.device,
                    workers=request.jobs or default_workers(request.device),
                    observe=observe,
                    should_stop=lambda: bool(stop),
                )
            found.append(judgement)
            if stop:
                complain(
                    f"stopped after {len(judgement.records)} of {judgement.planned} runs of "
                    f"{name}, all saved. Go on with the same command.\n"
                )
                return EXIT_INTERRUPTED
    _print(found, request)
    if not request.as_json:
        print(f"saved in {out}")
    return 0


def _names(sources: Sequence[Source], options: Options) -> list[str]:
    """The names of the programs' models, under which their results are kept."""
    names = [resolve_source(source, options)[0].name for source in sources]
    for i, name in enumerate(names):
        if name in names[:i]:
            first = sources[names.index(name)].name
            raise StarError(
                Diagnostic(
                    "duplicate",
                    f"the models of '{first}' and '{sources[i].name}' are both called '{name}'.",
                    hint="judge them one by one with an --out each, then --compare the folders.",
                )
            )
    return names


# --- progress ------------------------------------------------------------------------------------


@contextmanager
def _progress(name: str) -> Iterator[Callable[[Done], None]]:
    """A display to call after every run: a bar in a terminal, a line for each in a log."""
    if sys.stderr is None or not sys.stderr.isatty():
        yield lambda done: complain(f"{name} [{done.made}/{done.planned}] {_described(done)}\n")
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as Remaining

    columns = TextColumn(name), BarColumn(), MofNCompleteColumn(), Remaining()
    with Progress(*columns, TextColumn("{task.description}"), console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=None)

        def observe(done: Done) -> None:
            bar.update(task, completed=done.made, total=done.planned, description=_described(done))

        yield observe


def _described(done: Done) -> str:
    record = done.record
    ended = "" if record.status == "finished" else f", {record.status} at step {record.step:,}"
    return (
        f"{record.spec.setting} seed {record.spec.seed}: accuracy {record.test.accuracy:.3f}"
        f"{ended} ({record.seconds:.0f} s)"
    )


# --- tables --------------------------------------------------------------------------------------


def _print(judgements: Sequence[Judgement], request: Request) -> None:
    check_comparable(judgements)
    if request.as_json:
        content: dict[str, Any] = {"programs": [j.to_json() for j in judgements]}
        if len(judgements) > 1:
            content["beyond_spread"] = orderings(judgements)
        print(json.dumps(content, indent=1))
        return
    console = Console(width=None if sys.stdout.isatty() else 100)
    if len(judgements) == 1:
        console.print(_single(judgements[0]))
    else:
        console.print(_side_by_side(judgements))
        for line in _ordering_lines(judgements):
            print(line)
    for judgement in judgements:
        if request.verbose:
            console.print(_details(judgement))
        print(_footer(judgement))


def _single(judgement: Judgement) -> Table:
    table = Table(title=f"{judgement.name}, profile {judgement.profile}")
    table.add_column("task")
    for heading in ("score", "±", "chance"):
        table.add_column(heading, justify="right")
    if len(judgement.seeds) > 1:
        table.add_column("seeds", justify="right")
    for task in compared([judgement]):
        spread = judgement.scores[task]
        deviation = "" if spread.deviation is None else f"{spread.deviation:.3f}"
        cells = [task, f"{spread.mean:.3f}", deviation, _chance(judgement, task)]
        if len(judgement.seeds) > 1:
            cells.append(" ".join(f"{score:.3f}" for score in spread.scores))
        table.add_row(*cells, style="bold" if task == TOTAL else None)
    return table


def _side_by_side(judgements: Sequence[Judgement]) -> Table:
    first = judgements[0]
    table = Table(title=f"profile {first.profile}; ▲ ▼ beyond the spread of {first.name}")
    table.add_column("task")
    for judgement in judgements:
        table.add_column(judgement.name, justify="right")
    for task in compared(judgements):
        base = first.scores.get(task)
        cells = [_cell(j.scores.get(task), base) for j in judgements]
        table.add_row(task, *cells, style="bold" if task == TOTAL else None)
    return table


def _cell(spread: Spread | None, base: Spread | None) -> str:
    if spread is None:
        return "-"
    text = f"{spread.mean:.3f}"
    if spread.deviation is not None:
        text += f" ±{spread.deviation:.3f}"
    if base is None:
        return text
    return f"{text} {'▲' if spread.beyond(base) else '▼' if base.beyond(spread) else ' '}"


def _ordering_lines(judgements: Sequence[Judgement]) -> Iterator[str]:
    """Who is better than whom beyond the spread of the seeds, a line for each task."""
    if any(len(judgement.seeds) < 2 for judgement in judgements):
        yield "with a single seed no spread is known, and no difference is marked: --seeds 3"
        return
    for task, pairs in orderings(judgements).items():
        beaten: dict[str, list[str]] = {}
        for better, worse in pairs:
            beaten.setdefault(better, []).append(worse)
        said = "; ".join(f"{better} > {', '.join(worse)}" for better, worse in beaten.items())
        yield f"{task}: {said or 'no difference beyond the spread'}"


def _details(judgement: Judgement) -> Table:
    """The chosen run of every setting and seed."""
    table = Table(title=f"{judgement.name}: chosen runs")
    headings = "setting", "seed", "score", "tokens", "examples", "lr", "decay", "steps", "seconds"
    for i, heading in enumerate(headings):
        table.add_column(heading, justify="right" if i else "left")
    for place, record in judgement.best.items():
        test, spec = record.test, record.spec
        ended = "" if record.status in ("finished", "stopped-early") else f" {record.status}"
        table.add_row(
            place.setting,
            str(place.seed),
            f"{judgement.score(record):.3f}",
            f"{test.accuracy:.3f}",
            f"{test.macro_accuracy:.3f}",
            f"{spec.learning_rate:g}",
            f"{spec.weight_decay:g}",
            f"{record.step:,}{ended}",
            f"{record.seconds:.0f}",
        )
    return table


def _chance(judgement: Judgement, task: str) -> str:
    if task == TOTAL:
        return ""
    (plan,) = (plan for plan in judgement.protocol["tasks"] if plan["task"] == task)
    chances = [make_task(task, **variation).chance for variation in plan["variations"]]
    return f"{sum(chances) / len(chances):.3f}"


def _footer(judgement: Judgement) -> str:
    state = "" if judgement.state is None else f", {judgement.state:,} state elements asked for"
    return (
        f"{judgement.name}: {judgement.parameters:,} parameters at the smallest vocabulary{state}; "
        f"{len(judgement.records)} of {judgement.planned} runs, {judgement.seconds:.0f} s of one "
        f"process, {judgement.data_share:.1%} of it making data"
    )
