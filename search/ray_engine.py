"""Evaluations on the machines of a Ray cluster, or on this one by way of Ray.

Every slot is an actor with its share of processors and GPUs, and carries out its jobs as a machine
of its own would: in a process beside it, with the same limits and the same words for how it ended.
Machines share the folder of the run and have starc installed.

Owns: the cluster's slots, and what follows when one is lost. Refuses: processes and their limits
(local_engine.py), and importing ray unless it is used (it is the extra `cluster`).
"""

from __future__ import annotations

import math
import os
import pickle
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

from starc.grammar.errors import Diagnostic, StarError
from starc.search.engine import Job, Outcome, Status
from starc.search.local_engine import LocalEngine

_GRACE = 60.0
"""Seconds beyond a job's limit after which its machine is taken for lost."""

_PROBE = 5.0
"""Seconds that a cluster has to answer a connection."""

_FAULTS = 3
"""So many slots in a row that are lost before they are ready, and the engine gives up."""


class RayEngine:
    """`workers` slots of `cpus` processors and `gpus` GPUs each (fractions share one); None: as
    many as the cluster has room for.

    `address` is a running cluster's ("auto", host:port, ray://host:port); None starts Ray on this
    machine. A job whose slot is lost with its machine is tried `retries` times more on another,
    then its outcome is a crash. Raises StarError without ray, without an answer from the address,
    and for a cluster that has no room for a slot.
    """

    def __init__(
        self,
        workers: int | None = None,
        *,
        address: str | None = None,
        cpus: float = 1.0,
        gpus: float = 0.0,
        retries: int = 1,
    ) -> None:
        self._ray = _ray()
        self._retries = retries
        self._ours = not self._ray.is_initialized()
        if self._ours:
            _connect(self._ray, address, workers, cpus)
        room = _room(self._ray.cluster_resources(), cpus, gpus)
        if not room or (workers or 1) > room:
            self._leave()
            raise _error(
                "cluster-too-small",
                f"the cluster has room for {room} worker{'s' * (room != 1)} of {cpus:g} processors "
                f"and {gpus:g} GPUs" + (f", not for {workers}." if workers else "."),
                "ask for fewer, or for a smaller share each.",
            )
        self.capacity = workers or room
        self._actor = self._ray.remote(_Slot).options(num_cpus=cpus, num_gpus=gpus, max_restarts=0)
        self._waiting: deque[_Try] = deque()
        self._slots: list[_Taken] = []
        self._faults = 0

    def submit(self, job: Job) -> None:
        """Take a job."""
        self._waiting.append(_Try(job))
        self._hand_out()

    def wait(self, timeout: float) -> list[Outcome]:
        """Outcomes as soon as there are any, or none after `timeout` seconds."""
        end = time.monotonic() + timeout
        while True:
            self._hand_out()
            found = self._late()
            busy = {slot.answer: slot for slot in self._slots if slot.answer is not None}
            left = max(0.0, end - time.monotonic())
            limits = (slot.deadline - time.monotonic() for slot in self._slots)
            pause = 0.0 if found else min([left, *limits])
            if busy:
                ready, _ = self._ray.wait(
                    list(busy), num_returns=1, timeout=max(0.0, pause), fetch_local=False
                )
                if ready:  # and whatever else is there by now
                    ready, _ = self._ray.wait(
                        list(busy), num_returns=len(busy), timeout=0, fetch_local=False
                    )
                for answer in ready:
                    found += self._take(busy[answer])
                self._hand_out()
            elif left and not found:
                time.sleep(pause)
            if found or time.monotonic() >= end:
                return found

    def cancel(self, key: str) -> None:
        """Forget a job, ending it if it runs."""
        self._waiting = deque(one for one in self._waiting if one.job.key != key)
        for slot in list(self._slots):
            if slot.work is not None and slot.work.job.key == key:
                slot.work = None
                self._end(slot)
        self._hand_out()

    def close(self) -> None:
        """End everything, and Ray itself if it was not there before."""
        self._waiting.clear()
        for slot in list(self._slots):
            slot.work = None
            self._end(slot)
        self._leave()

    def _leave(self) -> None:
        if self._ours:
            self._ray.shutdown()

    def _hand_out(self) -> None:
        """Give waiting jobs to slots that are ready and free; ask for slots as long as some wait.

        No job is bound to a slot that is not there yet: where a machine was lost and none takes
        its place, the cluster keeps us waiting for that slot, and the others do the work.
        """
        for slot in self._slots:
            if self._waiting and slot.ready and slot.work is None:
                slot.give(self._waiting.popleft())
        starting = sum(not slot.ready for slot in self._slots)
        for _ in range(min(len(self._waiting) - starting, self.capacity - len(self._slots))):
            actor = self._actor.remote(os.getcwd(), list(sys.path))
            self._slots.append(_Taken(actor, actor.ready.remote()))

    def _take(self, slot: _Taken) -> list[Outcome]:
        """What a slot has answered: that it is ready, an outcome, or that it is no more."""
        exceptions = self._ray.exceptions
        try:
            answer = self._ray.get(slot.answer)
        except exceptions.RayTaskError as error:
            cause = error.as_instanceof_cause()
            if isinstance(cause, StarError):
                raise StarError(cause.diagnostics) from error
            raise _error("cluster-failed", f"a worker of the cluster failed: {cause}.") from error
        except exceptions.OutOfMemoryError as error:
            return self._lost(slot, f"its machine had no memory left: {_first_line(error)}", True)
        except exceptions.RayError as error:
            return self._lost(slot, f"its slot in the cluster was lost: {_first_line(error)}")
        if not slot.ready:
            self._faults = 0
            slot.ready, slot.answer = True, None
            return []
        assert isinstance(answer, Outcome)
        slot.work = slot.answer = None
        return [answer]

    def _lost(self, slot: _Taken, reason: str, memory: bool = False) -> list[Outcome]:
        """Try its job again elsewhere, or say what it came to."""
        work = slot.work
        seconds = time.monotonic() - slot.since
        slot.work = None
        self._end(slot)
        if not slot.ready:
            self._faults += 1
            if self._faults >= _FAULTS:
                raise _error("cluster-failed", f"the cluster starts no worker; {reason}.")
        if work is None:
            return []
        if work.lost < self._retries and not memory:
            self._waiting.appendleft(_Try(work.job, work.lost + 1))
            return []
        status: Status = "oom" if memory else "crash"
        return [Outcome(work.job.key, status, reason, {}, seconds, "lost")]

    def _late(self) -> list[Outcome]:
        """Outcomes of jobs whose machines no longer keep their limits."""
        found = []
        for slot in list(self._slots):
            if slot.work is not None and time.monotonic() >= slot.deadline:
                job, seconds = slot.work.job, time.monotonic() - slot.since
                slot.work = None
                self._end(slot)
                reason = f"its machine has not answered, {_GRACE:g} s after {job.seconds:g} s"
                found.append(Outcome(job.key, "timeout", reason, {}, seconds, "lost"))
        return found

    def _end(self, slot: _Taken) -> None:
        self._slots.remove(slot)
        try:
            self._ray.kill(slot.actor)
        except self._ray.exceptions.RayError:
            pass  # it is gone already


@dataclass(frozen=True)
class _Try:
    """A job, and how often it was lost with its slot."""

    job: Job
    lost: int = 0


@dataclass
class _Taken:
    """A slot that the engine has: its actor, the answer that is due, and its work since then."""

    actor: Any
    answer: Any
    ready: bool = False
    work: _Try | None = None
    since: float = 0.0

    @property
    def deadline(self) -> float:
        """When its machine is taken for lost."""
        limit = None if self.work is None else self.work.job.seconds
        return float("inf") if limit is None else self.since + limit + _GRACE

    def give(self, work: _Try) -> None:
        """Have a job carried out; the slot is ready and free."""
        self.work = work
        self.since = time.monotonic()
        self.answer = self.actor.run.remote(pickle.dumps(work.job))


class _Slot:
    """An actor: one worker process at a time, as LocalEngine keeps it."""

    def __init__(self, folder: str, path: Sequence[str]) -> None:
        sys.path[:] = [*path, *(place for place in sys.path if place not in path)]
        if os.path.isdir(folder):
            os.chdir(folder)
        self._engine = LocalEngine(1)

    def ready(self) -> str:
        """Say where it is."""
        return socket.gethostname()

    def run(self, payload: bytes) -> Outcome:
        """Carry out a pickled job."""
        job: Job = pickle.loads(payload)
        self._engine.submit(job)
        while not (found := self._engine.wait(60.0)):
            pass
        return replace(found[0], worker=f"{socket.gethostname()}:{found[0].worker}")


def _ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise _error(
            "missing-extra",
            "the engine 'ray' needs the package ray, which is not installed.",
            "pip install 'starc[cluster]'; '--engine local' needs nothing more.",
        ) from error
    return ray


def _connect(ray: Any, address: str | None, workers: int | None, cpus: float) -> None:
    """Connect to a cluster, or start Ray here with room for the workers."""
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if address is None and not os.environ.get("RAY_ADDRESS"):
        quiet["include_dashboard"] = False
        quiet["num_cpus"] = max(1, math.ceil((workers or os.cpu_count() or 1) * cpus))
    elif address is not None:
        _probe(address)
        quiet["address"] = address
    with _signals_kept():
        try:
            ray.init(**quiet)
        except Exception as error:  # ConnectionError, RuntimeError, ValueError, gRPC's own
            where = f"at '{address}'" if address else "on this machine"
            if address not in (None, "auto", "local") and "RAY_AUTH_MODE" not in os.environ:
                # Ray's error does not say why; what listens there most likely asks for a token,
                # which Ray sends to an address only when told to.
                raise _error(
                    "cluster-refused",
                    f"what listens {where} did not let Ray in: {_first_line(error)}.",
                    "a cluster that asks for a token needs RAY_AUTH_MODE=token (the token is read "
                    "from ~/.ray/auth_token or RAY_AUTH_TOKEN); is it a Ray of the same version?",
                ) from error
            raise _error(
                "cluster-unreachable",
                f"no Ray cluster answers {where}: {_first_line(error)}.",
                "start one with 'ray start --head', or leave --address out.",
            ) from error


def _probe(address: str) -> None:
    """Refuse an address that nothing listens at: ray would wait for a minute."""
    place = urlsplit(address if "://" in address else f"ray-head://{address}")
    try:
        host, port = place.hostname, place.port
    except ValueError:
        host, port = None, None
    if address in ("auto", "local") or not host:
        return
    if port is None:
        port = 10001 if place.scheme == "ray" else 6379  # ray's own defaults
    try:
        socket.create_connection((host, port), timeout=_PROBE).close()
    except OSError as error:
        raise _error(
            "cluster-unreachable",
            f"no Ray cluster answers at '{address}': {error.strerror or error}.",
            "start one with 'ray start --head', or leave --address out.",
        ) from error


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Ray takes SIGTERM for itself, which is the search's to act on."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        try:
            signal.signal(signal.SIGTERM, before)
        except ValueError:
            pass  # not the main thread, where ray took none


def _room(resources: dict[str, float], cpus: float, gpus: float) -> int:
    """How many slots fit a cluster."""
    shares = [(resources.get("CPU", 0.0), cpus), (resources.get("GPU", 0.0), gpus)]
    fits = [int(there / share + 1e-9) for there, share in shares if share > 0]
    return min(fits, default=0)


def _first_line(error: BaseException) -> str:
    """What an error says, by the one that it began with."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).partition(" Last connection error")[0].strip().splitlines()
    return lines[0].rstrip(".")[:300] if lines else type(error).__name__


def _error(code: str, message: str, hint: str = "") -> StarError:
    return StarError(Diagnostic(code, message, hint=hint))
