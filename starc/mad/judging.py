"""Judging a program: all runs of a protocol, side by side, and those that were made before kept.

Owns: which runs are still to be made, the processes that make them, and the folder.
Refuses: a single run (runs.py), sums over runs (results.py), and printing.
"""

from __future__ import annotations

import os
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from starc.compiler.driver import compile_program
from starc.compiler.options import Options
from starc.grammar.errors import Diagnostic, StarError
from starc.grammar.source import Source
from starc.mad.pool import Pool
from starc.mad.profiles import Profile, Spec, find_profile
from starc.mad.programs import artifact_for, first_task, fitted
from starc.mad.results import RESULTS, Judgement, protocol_of, read_judgement, write_judgement
from starc.mad.runs import Job, Record, execute, finished
from starc.mad.states import with_state
from starc.runtime.device import pick_device


@dataclass(frozen=True)
class Done:
    """A run has ended: `record` is what came of it, `made` of `planned` runs are there."""

    record: Record
    made: int
    planned: int


def judge(
    source: Source,
    options: Options | None = None,
    *,
    profile: str | Profile = "quick",
    tasks: Sequence[str] = (),
    seeds: Sequence[int] | None = None,
    state: int | None = None,
    folder: Path | None = None,
    device: str = "cpu",
    workers: int = 1,
    observe: Callable[[Done], None] = lambda done: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Judgement:
    """Judge a program by a protocol's tasks (none: all), one run after the other or side by side.

    `folder` is the program's own: with it every run is kept, those that are there are not made
    again, and one that was cut goes on from its checkpoint; without it nothing is kept. `seeds` are
    those of the profile unless given; `state` asks for a total of so many state elements.
    `workers` processes make the runs, none but this one for 1. Calls `observe` after every run,
    and ends early, with what there is, when `should_stop()`.

    Raises StarError for a program that cannot be judged, and for a folder that holds other results.
    """
    options = options or Options()
    profile = find_profile(profile) if isinstance(profile, str) else profile
    seeds = tuple(range(profile.seeds)) if seeds is None else tuple(dict.fromkeys(seeds))
    chosen = profile.chosen(tasks)
    device = str(pick_device(device))
    program = fitted(source, options, profile)
    if state is not None:
        program = with_state(program, options, state)
    with ExitStack() as stack:
        if folder is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="starc-mad-")))
        for task in chosen:  # a program that cannot be compiled for one is refused before any run
            artifact = artifact_for(program, options, first_task(profile, task))
        specs = list(profile.specs(chosen, seeds))
        blank = Judgement(
            name=artifact.model_name,
            text=source.text,
            digest=compile_program(program, Options(format=False, limits=options.limits)).digest,
            profile=profile.name,
            protocol=protocol_of(profile),
            tasks=chosen,
            seeds=seeds,
            planned=len(specs),
            records=(),
            state=state,
        )
        _check_folder(folder, blank)
        found: dict[str, Record] = {}
        todo = []
        for spec in specs:
            place = folder / "runs" / spec.path
            record = finished(place)
            if record is None:
                todo.append(Job(spec, program, options, profile, place, device))
            else:
                found[spec.path] = record
        write_judgement(folder, _with(blank, found))
        for record in _make(todo, workers, should_stop):
            found[record.spec.path] = record
            observe(Done(record, len(found), len(specs)))
        judgement = _with(blank, {s.path: found[s.path] for s in specs if s.path in found})
        write_judgement(folder, judgement)
        return judgement


def _make(jobs: Sequence[Job], workers: int, should_stop: Callable[[], bool]) -> Iterator[Record]:
    """The records of jobs as they end; fewer when `should_stop()`."""
    workers = min(workers, len(jobs))
    if workers > 1:
        with Pool(workers) as pool:
            yield from pool.map(_grids(jobs, workers), should_stop)
        return
    queue = deque(_grids(jobs, 1))
    while queue and not should_stop():
        made = execute(queue.popleft(), should_stop)
        queue.extendleft(reversed(made.left))
        yield from made.records


def _grids(jobs: Sequence[Job], workers: int) -> list[tuple[Job, ...]]:
    """Jobs in groups that differ by their place in the grid alone, one for each worker at least."""
    grids: dict[Spec, list[Job]] = {}
    for job in jobs:
        grids.setdefault(job.spec.anywhere, []).append(job)
    parts = -(-workers // max(1, len(grids)))
    return [tuple(grid[k::parts]) for grid in grids.values() for k in range(min(parts, len(grid)))]


def default_workers(device: str) -> int:
    """How many runs go side by side: one on a GPU, else one for each core that is ours."""
    if pick_device(device).type != "cpu":
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _with(blank: Judgement, found: dict[str, Record]) -> Judgement:
    return replace(blank, records=tuple(found.values()))


def _check_folder(folder: Path, blank: Judgement) -> None:
    """Raise StarError when a folder holds what another program or protocol gave."""
    if not (folder / RESULTS).exists():
        return
    there = read_judgement(folder)
    different = [
        what
        for what, differs in (
            ("program", there.digest != blank.digest),
            ("protocol", there.protocol != blank.protocol),
            ("state", there.state != blank.state),
        )
        if differs
    ]
    if different:
        raise StarError(
            Diagnostic(
                "results-differ",
                f"the results in '{folder}' are of another {' and another '.join(different)}.",
                hint="name another folder with --out.",
            )
        )
