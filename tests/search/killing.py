"""A process that searches in children and kills them; test_killing.py starts it.

Arguments: a folder, "steady" or "generations", the number of workers (0: within the child), how
many children to kill, the seconds of an evaluation, and the algorithm. Forking after the imports
spares each child the seconds that they take.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path

from starc.search.algorithms import find_algorithm
from starc.search.driver import resume, search
from starc.search.engine import Engine
from starc.search.local_engine import LocalEngine
from starc.search.store import exists
from tests.search.inline_engine import InlineEngine
from tests.search.searches import settings

OPTIONS: dict[str, dict[str, int]] = {"surrogate": {"least": 6, "candidates": 2}}
RUNGS = {"halving": 3, "dehb": 3}


def child(out: Path, algorithm: str, steady: bool, workers: int, seconds: float) -> int:
    """Search in a process of its own, from the beginning or from where it was cut; its id."""
    pid = os.fork()
    if not pid:
        status = 70
        try:
            engine: Engine = LocalEngine(workers) if workers else InlineEngine()
            if exists(out):
                found = resume(out, engine=engine)
            else:
                asked = settings(
                    algorithm=algorithm,
                    algorithm_options=OPTIONS.get(algorithm, {}),
                    steady=steady,
                    generations=4,
                    evaluator_options={"seconds": seconds, "rungs": RUNGS.get(algorithm, 1)},
                )
                found = search(asked, out, engine=engine)
            status = 0 if found.status == "finished" else 71
        finally:
            os._exit(status)
    return pid


def ended(pid: int) -> int | None:
    found, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if found else None


def main() -> None:
    folder, steady = Path(sys.argv[1]), sys.argv[2] == "steady"
    workers, kills, seconds = int(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5])
    algorithm = sys.argv[6]
    find_algorithm(algorithm)  # imports what every child would
    whole = child(folder / "whole", algorithm, steady, workers, seconds)
    began = time.monotonic()
    assert os.waitpid(whole, 0)[1] == 0
    length = time.monotonic() - began
    rng = random.Random(11)
    killed = 0
    while killed < kills:
        pid = child(folder / "cut", algorithm, steady, workers, seconds)
        # Short lives, so that it takes many of them to come to the end.
        until = time.monotonic() + rng.random() * 2.5 * length / kills + 0.05 + 0.5 * (workers > 0)
        while time.monotonic() < until and (status := ended(pid)) is None:
            time.sleep(0.0005)
        if status is not None:
            assert status == 0, status
            break
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        killed += 1
    else:
        assert os.waitpid(child(folder / "cut", algorithm, steady, workers, seconds), 0)[1] == 0
    print(killed)


if __name__ == "__main__":
    main()
