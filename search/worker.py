"""A process that evaluates: `python -m starc.search.worker FD PARENT`.

Not a fork, and no copy of the caller's main module. Jobs and outcomes come and go as pickles over
one connection between a process and its own child; what an evaluator prints goes elsewhere.

Owns: this process, its memory, and that it ends with its parent. Refuses: what a job is
(engine.py), and its time limit, which its parent keeps.
"""

from __future__ import annotations

import ctypes
import os
import pickle
import signal
import sys
import threading
import time
from multiprocessing.connection import Connection
from typing import Any

from starc.search.engine import Job, Outcome, carry_out

_PR_SET_PDEATHSIG = 1


def main(descriptor: int, parent: int) -> None:
    """Carry out jobs until the connection ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to act on
    _end_with(parent)
    os.dup2(2, 1)
    connection: Connection[Any, Any] = Connection(descriptor)
    name = str(os.getpid())
    try:
        sys.path[:] = connection.recv()
        connection.send(None)  # ready: the time of a job does not count what came before
        while True:
            key, payload = connection.recv()
            _forget_output()
            connection.send(_outcome(key, payload, name))
    except (EOFError, OSError):
        return


def _outcome(key: str, payload: bytes, name: str) -> Outcome:
    try:
        job: Job = pickle.loads(payload)
    except MemoryError as error:
        return Outcome(key, "oom", str(error), worker=name)
    except Exception as error:  # whatever it takes to make a foreign object
        return Outcome(key, "failed", f"{type(error).__name__}: {error}", worker=name)
    _limit(job.memory)
    return carry_out(job, name)


def _forget_output() -> None:
    """Empty the file that takes what evaluators print: only the last words are of interest."""
    try:
        os.ftruncate(2, 0)
    except OSError:
        pass  # it is no file


def _limit(memory: int | None) -> None:
    """Let this process have so many bytes of data, where the system knows how."""
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    soft = resource.RLIM_INFINITY if memory is None else memory
    if hard != resource.RLIM_INFINITY:
        soft = hard if memory is None else min(memory, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _end_with(parent: int) -> None:
    """End when the parent does, also when it is killed: nobody would take the outcome."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
