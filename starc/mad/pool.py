"""Processes that make runs side by side.

Owns: starting them, handing out runs, stopping them, and that none outlives its parent.
Refuses: what a run is.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import torch

from starc.grammar.errors import Diagnostic, StarError
from starc.mad.runs import Job, Made, Record, execute

_POLL = 0.2
"""Seconds between two looks at whether to stop."""

_stop: Any = None
"""In a worker: the event that says to stop."""


class Pool:
    """So many workers, each with its share of the cores; a context manager."""

    def __init__(self, workers: int) -> None:
        context = multiprocessing.get_context("spawn")  # a fork would copy torch's threads
        self._event = context.Event()
        self._workers = workers
        threads = max(1, torch.get_num_threads() // workers)
        self._executor = ProcessPoolExecutor(
            workers, context, initializer=_begin, initargs=(self._event, threads)
        )

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *error: object) -> None:
        self._event.set()
        self._executor.shutdown(cancel_futures=True)

    def map(
        self, groups: Iterable[tuple[Job, ...]], should_stop: Callable[[], bool]
    ) -> Iterator[Record]:
        """The records of groups of jobs as they end; fewer when `should_stop()`. Raises what a run
        does."""
        queue, waiting = deque(groups), set[Future[Made]]()
        try:
            while queue or waiting:
                while queue and len(waiting) < self._workers:
                    waiting.add(self._executor.submit(_run, queue.popleft()))
                done, waiting = wait(waiting, timeout=_POLL, return_when=FIRST_COMPLETED)
                for future in done:
                    made = future.result()
                    queue.extendleft(reversed(made.left))
                    yield from made.records
                if should_stop():
                    self._event.set()
                    queue.clear()
        except BrokenProcessPool as error:
            raise StarError(
                Diagnostic(
                    "worker-died",
                    "a process that made a run has died.",
                    hint="for want of memory, perhaps: give --jobs 1, and the same --out to go on.",
                )
            ) from error


def _begin(stop: Any, threads: int) -> None:
    """What a worker does first."""
    global _stop
    _stop = stop
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the parent says what follows
    torch.set_num_threads(threads)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _run(group: tuple[Job, ...]) -> Made:
    return Made() if _stop.is_set() else execute(group, _stop.is_set)
