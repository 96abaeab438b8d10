"""Evaluations in processes of this machine.

A worker that crashes, hangs or runs out of memory is replaced; the others do not notice.

Owns: the processes, handing out jobs, and time limits. Refuses: what happens in them (worker.py).
"""

from __future__ import annotations

import fcntl
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from dataclasses import dataclass, field
from multiprocessing import connection
from multiprocessing.connection import Connection
from typing import IO, Any

from starc.grammar.errors import Diagnostic, StarError
from starc.search.engine import Job, Outcome

_LOOK = 0.5
"""Seconds between two looks at whether processes are alive."""

_START_SECONDS = 120.0
"""A worker that is not ready by then never will be."""

_FAULTS = 3
"""So many workers in a row that die before they are ready, and the engine gives up."""

_WORDS_OF_MEMORY = ("bad_alloc", "MemoryError", "can't allocate memory", "Cannot allocate memory")


class LocalEngine:
    """`workers` processes of one thread each (an evaluator may ask torch for more).

    They start with the first job. Raises StarError where no process can be started.
    """

    def __init__(self, workers: int) -> None:
        self.capacity = workers
        self._waiting: deque[Job] = deque()
        self._workers: list[_Worker] = []
        self._faults = 0

    def submit(self, job: Job) -> None:
        """Take a job."""
        self._waiting.append(job)
        self._hand_out()

    def wait(self, timeout: float) -> list[Outcome]:
        """Outcomes as soon as there are any, or none after `timeout` seconds."""
        end = time.monotonic() + timeout
        while True:
            found = [outcome for worker in list(self._workers) for outcome in self._look(worker)]
            self._hand_out()
            left = end - time.monotonic()
            if found or left <= 0:
                return found
            limits = [worker.deadline - time.monotonic() for worker in self._workers]
            pause = max(0.0, min(left, _LOOK, *limits))
            if self._workers:
                connection.wait([worker.connection for worker in self._workers], pause)
            else:
                time.sleep(pause)

    def cancel(self, key: str) -> None:
        """Forget a job, ending it if it runs."""
        self._waiting = deque(job for job in self._waiting if job.key != key)
        for worker in list(self._workers):
            if any(job.key == key for job in worker.jobs):
                rest = [job for job in worker.jobs if job.key != key]
                worker.jobs.clear()
                self._remove(worker)
                self._waiting.extendleft(reversed(rest))
        self._hand_out()

    def close(self) -> None:
        """End all processes."""
        self._waiting.clear()
        for worker in list(self._workers):
            worker.jobs.clear()
            self._remove(worker)

    def _hand_out(self) -> None:
        """Give waiting jobs to workers that are idle, and to busy ones a second to go on with while
        there are more than enough, so that none waits for the driver."""
        while self._waiting:
            idle = next((w for w in self._workers if not w.jobs), None)
            if idle is None and len(self._workers) < self.capacity:
                idle = _start()
                self._workers.append(idle)
            if idle is None and len(self._waiting) > self.capacity:
                idle = next((w for w in self._workers if len(w.jobs) == 1 and w.ready), None)
            if idle is None:
                return
            idle.give(self._waiting.popleft())

    def _look(self, worker: _Worker) -> list[Outcome]:
        """What a worker has sent, and whether it still works."""
        found: list[Outcome] = []
        try:
            while worker.connection.poll():
                message = worker.connection.recv()
                if message is None:
                    worker.become_ready()
                    self._faults = 0
                    continue
                found.append(worker.took(message))
                if found[-1].status == "oom":  # what it still holds nobody knows
                    self._replace(worker)
                    return found
        except (EOFError, OSError, pickle.UnpicklingError):
            found += self._died(worker)
            return found
        if worker.process.poll() is not None and not worker.connection.poll():
            found += self._died(worker)
        elif time.monotonic() >= worker.deadline:
            found += self._late(worker)
        return found

    def _late(self, worker: _Worker) -> list[Outcome]:
        if not worker.ready:
            worker.stop()
            return self._died(worker)
        job = worker.jobs.popleft()
        seconds = time.monotonic() - worker.since
        self._replace(worker)
        reason = f"it took longer than {job.seconds:g} s"
        return [Outcome(job.key, "timeout", reason, {}, seconds, worker.name)]

    def _died(self, worker: _Worker) -> list[Outcome]:
        """The outcome of the job that a worker died of; what came behind it waits again."""
        said = worker.last_words()
        worker.stop()
        how = _described(worker.process.returncode)
        reason = f"the worker {how}" + (f": {said}" if said else "")
        if not worker.ready:
            self._faults += 1
            self._replace(worker)
            if self._faults >= _FAULTS:
                raise StarError(
                    Diagnostic("worker-failed", f"no worker process can be started; {reason}.")
                )
            return []
        if not worker.jobs:
            self._replace(worker)
            return []
        job = worker.jobs.popleft()
        seconds = time.monotonic() - worker.since
        self._replace(worker)
        memory = any(word in said for word in _WORDS_OF_MEMORY)
        return [Outcome(job.key, "oom" if memory else "crash", reason, {}, seconds, worker.name)]

    def _replace(self, worker: _Worker) -> None:
        self._waiting.extendleft(reversed(worker.jobs))
        worker.jobs.clear()
        self._remove(worker)
        self._hand_out()

    def _remove(self, worker: _Worker) -> None:
        worker.stop()
        self._workers.remove(worker)


@dataclass
class _Worker:
    """A process with the jobs that it was given, the first of which it is at `since` then."""

    process: subprocess.Popen[bytes]
    connection: Connection[Any, Any]
    said: IO[bytes]
    jobs: deque[Job] = field(default_factory=deque)
    ready: bool = False
    since: float = field(default_factory=time.monotonic)

    @property
    def name(self) -> str:
        return str(self.process.pid)

    @property
    def deadline(self) -> float:
        """When the first job has had its time."""
        if not self.ready:
            return self.since + _START_SECONDS
        limit = self.jobs[0].seconds if self.jobs else None
        return float("inf") if limit is None else self.since + limit

    def give(self, job: Job) -> None:
        """Send a job; one that cannot be sent comes back as failed."""
        if not self.jobs and self.ready:
            self.since = time.monotonic()
        self.jobs.append(job)
        if self.ready:
            self._send(job)

    def become_ready(self) -> None:
        self.ready, self.since = True, time.monotonic()
        for job in self.jobs:
            self._send(job)

    def took(self, outcome: Outcome) -> Outcome:
        self.jobs.popleft()
        self.since = time.monotonic()
        return outcome

    def _send(self, job: Job) -> None:
        try:
            self.connection.send((job.key, pickle.dumps(job)))
        except (BrokenPipeError, ConnectionError):
            pass  # it is gone, which the next look at it says

    def last_words(self) -> str:
        """The last line that it wrote."""
        size = self.said.seek(0, os.SEEK_END)
        self.said.seek(max(0, size - 4096))
        lines = self.said.read().decode("utf-8", "replace").strip().splitlines()
        return lines[-1].strip()[:500] if lines else ""

    def stop(self) -> None:
        """End the process and those that it began, at once."""
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass
        self.process.wait()
        self.connection.close()
        self.said.close()


def _start() -> _Worker:
    ours, theirs = connection.Pipe()
    said = tempfile.TemporaryFile()
    fcntl.fcntl(said, fcntl.F_SETFL, os.O_APPEND)  # a worker empties it before every job
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}  # results must not depend on the machine
    number = theirs.fileno()
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "starc.search.worker", str(number), str(os.getpid())],
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            pass_fds=(number,),
            env=environment,
            start_new_session=True,
        )
    except OSError as error:
        raise StarError(
            Diagnostic("worker-failed", f"no worker process can be started: {error.strerror}.")
        ) from error
    theirs.close()
    ours.send([os.getcwd(), *sys.path])
    return _Worker(process, ours, said)


def _described(status: int | None) -> str:
    """How a process ended."""
    if status is None or status >= 0:
        return f"ended with status {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = str(-status)
    if name == "SIGKILL":
        return "was killed (SIGKILL), for want of memory perhaps"
    return f"was killed by {name}"
