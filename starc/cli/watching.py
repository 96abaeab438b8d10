"""`starc watch`: a search that runs, as it stands now.

Owns: the frame, and when it is over. Refuses: writing to the run; what a member is
(starc/report/record.py).
"""

from __future__ import annotations

import fcntl
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from starc.cli.reporting import printable
from starc.report.building import front_of
from starc.report.record import RUNNING, WAITING, Member, Record, read_record
from starc.report.words import NONE, duration, plain, shown
from starc.search.front import front_table
from starc.search.hypervolume import growth
from starc.search.store import FILE

ENDED = ("finished", "interrupted", "fruitless")
"""Events behind which nothing comes until the search is resumed."""

LOG_SECONDS = 10.0
_QUIET = 10.0
"""Seconds without a change after which it is asked whether a driver is still there."""

_ROWS = 12
_BLOCKS = " ▁▂▃▄▅▆▇█"


@dataclass(frozen=True)
class Snapshot:
    """A search at a moment: what a frame shows. `left` are seconds, None where nobody knows."""

    record: Record
    state: str
    done: int
    planned: int
    running: int
    statuses: Counter[str]
    front: list[Member]
    volumes: tuple[float, ...]
    elapsed: float
    left: float | None

    @property
    def ended(self) -> bool:
        """Whether the search does not go on."""
        return self.state in ENDED


def snapshot(record: Record, now: float) -> Snapshot:
    """What is to be seen of a record at a time in seconds since 1970."""
    settings, members = record.settings, record.members
    kinds = [event.kind for event in record.events if event.kind != "retried"]
    state = kinds[-1] if kinds else "began"
    if settings.generations is not None:
        planned = settings.generations * settings.population
        done = sum(1 for m in members if m.individual is not None)
    else:
        planned = settings.evaluations or 0
        done = len({m.program.id for m in record.full if m.order})
    since = max((e.time for e in record.events if e.kind in ("began", "resumed")), default=now)
    ends = [row.began + row.seconds for row in record.attempts if row.status != RUNNING]
    fresh = sum(1 for end in ends if end >= since)
    left = None
    if state not in ENDED and fresh and planned:
        left = max(0, planned - done) * (now - since) / fresh
    last = record.events[-1].time if record.events and state in ENDED else now
    return Snapshot(
        record,
        state,
        done,
        planned,
        sum(1 for row in record.attempts if row.status == RUNNING),
        Counter(m.status for m in members if m.status not in (RUNNING, WAITING)),
        front_of(record.full),
        _volumes(record),
        last - record.run.began,
        left,
    )


def _volumes(record: Record, most: int = 40) -> tuple[float, ...]:
    """The hypervolume at even steps of the evaluations so far."""
    ended = sorted((m for m in record.full if m.order), key=lambda m: m.order)
    nothing = (np.inf,) * len(record.objectives)
    rows = [m.individual.objectives if m.feasible and m.individual else nothing for m in ended]
    curve = growth(np.array(rows, np.float64).reshape(len(rows), len(nothing))).curve
    if not curve:
        return ()
    counts = [count for count, _ in curve]
    steps = np.linspace(1, len(ended), min(most, len(ended)))
    places = np.searchsorted(counts, steps, side="right") - 1
    return tuple(curve[place][1] if place >= 0 else 0.0 for place in places)


def frame(now: Snapshot) -> RenderableType:
    """What a terminal is shown."""
    record = now.record
    settings = record.settings
    parts: list[RenderableType] = [
        _line(f"{record.folder}: {settings.algorithm} with {settings.evaluator}", now.state),
        _progress(now),
        _line(_statuses(now)),
    ]
    if now.volumes:
        top = max(now.volumes) or 1.0
        curve = "".join(_BLOCKS[round(v / top * (len(_BLOCKS) - 1))] for v in now.volumes)
        parts.append(_line(f"hypervolume {now.volumes[-1]:.3f}  {curve}"))
    if now.front:
        parts += [_line(f"best: {_best(now)}"), Text(), _table(now)]
    for event in record.events[-3:]:
        at = time.strftime("%H:%M:%S", time.localtime(event.time))
        parts.append(_line(f"{at} {event.kind}: {event.text}"[:300], style="dim"))
    return Group(*parts)


def _line(text: str, state: str = "", style: str = "") -> Text:
    line = Text(printable(text), "bold" if state else style, no_wrap=True, overflow="ellipsis")
    return line.append(f"  {state}", "green" if state in ENDED else "yellow") if state else line


def _progress(now: Snapshot) -> RenderableType:
    grid = Table.grid(padding=(0, 2))
    grid.add_row(
        ProgressBar(total=max(1, now.planned), completed=min(now.done, now.planned), width=40),
        Text(_counted(now)),
    )
    return grid


def _counted(now: Snapshot) -> str:
    left = "" if now.ended else f", about {duration(now.left)} left" if now.left is not None else ""
    return f"{now.done:,} of {now.planned:,}, {duration(now.elapsed)}{left}"


def _statuses(now: Snapshot) -> str:
    generation = max((m.generation for m in now.record.members), default=0)
    parts = [f"generation {generation}", f"{now.running:,} running"]
    return ", ".join([*parts, *(f"{n:,} {status}" for status, n in now.statuses.most_common())])


def _best(now: Snapshot) -> str:
    found = []
    for objective in now.record.objectives:
        values = [m.figures[objective.name] for m in now.front]
        best = min(values, key=lambda value: objective.sign * value) if values else None
        found.append(f"{plain(objective.name)} {shown(best, objective.unit) if values else NONE}")
    return ", ".join(found)


def _table(now: Snapshot) -> Table:
    found = [m.individual for m in now.front if m.individual is not None]
    headings, rows = front_table(found[:_ROWS], now.record.objectives)
    more = f", the first {_ROWS} of them" if len(found) > _ROWS else ""
    table = Table(box=None, pad_edge=False, title_justify="left")
    table.title = Text(f"{len(found):,} on the front{more}", "bold")
    for heading in headings:
        table.add_column(Text(heading), justify="right")
    for row in rows:
        table.add_row(*map(Text, row))
    return table


# --- watching ------------------------------------------------------------------------------------


def watch_command(run: Path, *, every: float, once: bool) -> None:
    """Show a search until it ends; raises StarError when there is none."""
    console = Console(highlight=False)
    now = snapshot(read_record(run), time.time())
    if once or now.ended:
        console.print(frame(now))
        return
    if console.is_terminal:
        with Live(frame(now), console=console, auto_refresh=False) as live:
            now, alive = _follow(run, every, lambda new: live.update(frame(new), refresh=True))
    else:
        print(_logged(now), flush=True)
        shown_at = [time.monotonic(), now.done]

        def log(new: Snapshot) -> None:
            if time.monotonic() - shown_at[0] >= LOG_SECONDS and new.done != shown_at[1]:
                shown_at[:] = [time.monotonic(), new.done]
                print(_logged(new), flush=True)

        now, alive = _follow(run, every, log)
        console.print(frame(now))
    if not alive:
        console.print(
            Text(f"no process works on it any more: starc search --resume --out {run}", "yellow")
        )


def _logged(now: Snapshot) -> str:
    return f"{_counted(now)}; {_statuses(now)}" + (f"; best {_best(now)}" if now.front else "")


def _follow(run: Path, every: float, show: Callable[[Snapshot], object]) -> tuple[Snapshot, bool]:
    """Show the search as it changes, until it has ended or nobody works on it."""
    seen = _version(run)
    record = read_record(run)
    changed = time.monotonic()
    while True:
        now = snapshot(record, time.time())
        show(now)
        if now.ended:
            return now, True
        if time.monotonic() - changed > _QUIET and not _driven(run):
            return now, False
        time.sleep(every)
        version = _version(run)
        if version != seen:
            seen, changed = version, time.monotonic()
            record = read_record(run)


def _version(run: Path) -> tuple[tuple[int, int], ...]:
    """What changes with every commit to a record."""
    found = []
    for name in (FILE, f"{FILE}-wal"):
        try:
            stat = (run / name).stat()
            found.append((stat.st_mtime_ns, stat.st_size))
        except OSError:
            found.append((0, 0))
    return tuple(found)


def _driven(run: Path) -> bool:
    """Whether a driver holds the folder (run_folder.held)."""
    try:
        with open(run / "lock") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
