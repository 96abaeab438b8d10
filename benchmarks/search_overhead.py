"""What the driver of a search costs: time per evaluation, and how busy workers are.

    python benchmarks/search_overhead.py [--population 256] [--generations 3] [--out FILE]

Overhead is all of the driver's processor time (drawing, verifying, costing, writing to the disk),
by evaluations of the made-up evaluator, which takes no time. Worker use is the time that workers
spent in evaluations, by all the time that they had from the first to the last, in a steady search
whose evaluations sleep for times as different as those of trainings (log-normal, sigma 0.5).
"""

from __future__ import annotations

import argparse
import math
import os
import platform
import random
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

from starc.search.driver import search
from starc.search.engine import Engine, Job, Outcome
from starc.search.settings import Settings
from starc.search.store import Store

SPACES = Path(__file__).parents[1] / "examples" / "searches"
MEAN_SECONDS = 0.4


def sleeps(text: str, seed: int) -> dict[str, float]:
    """An evaluation that takes as long as its seed says, and notes when it was made, and where."""
    began = time.time()
    time.sleep(MEAN_SECONDS * random.Random(seed).lognormvariate(-0.125, 0.5))
    return {"quality": 1.0, "began": began, "ended": time.time(), "process": os.getpid()}


class Immediate:
    """An engine that carries jobs out at once, in this process: what is left is the driver."""

    capacity = 1

    def __init__(self, evaluate: Callable[[Job], Outcome]) -> None:
        self._evaluate, self._waiting = evaluate, list[Job]()

    def submit(self, job: Job) -> None:
        self._waiting.append(job)

    def wait(self, timeout: float) -> list[Outcome]:
        done, self._waiting = [self._evaluate(job) for job in self._waiting[:8]], self._waiting[8:]
        return done

    def cancel(self, key: str) -> None: ...

    def close(self) -> None: ...


def evaluate(job: Job) -> Outcome:
    figures = job.evaluator.evaluate(job.text, seed=job.seed, rung=job.rung, folder=job.folder)
    return Outcome(job.key, "done", figures=dict(figures) if isinstance(figures, dict) else {})


def overhead(space: str, population: int, generations: int, steady: bool) -> tuple[float, float]:
    """Milliseconds of the processor, and of the clock, per evaluation."""
    settings = Settings(
        space=(SPACES / space).read_text(encoding="utf-8"),
        population=population,
        generations=generations,
        objectives=("quality", "cache_bytes"),
        evaluator="static",
        steady=steady,
    )
    with tempfile.TemporaryDirectory() as folder:
        engine: Engine = Immediate(evaluate)
        began, clock = time.process_time(), time.monotonic()
        found = search(settings, Path(folder) / "run", engine=engine)
        used, passed = time.process_time() - began, time.monotonic() - clock
    count = len({one.identity for one in found.individuals})
    return 1e3 * used / count, 1e3 * passed / count


def worker_use(workers: int, evaluations: int) -> float:
    """The share of their time, from the first evaluation of each to the last of all, that workers
    evaluate."""
    settings = Settings(
        space=(SPACES / "tiny.star").read_text(encoding="utf-8"),
        population=16,
        evaluations=evaluations,
        evaluator="search_overhead:sleeps",
        steady=True,
    )
    with tempfile.TemporaryDirectory() as folder:
        search(settings, Path(folder) / "run", workers=workers)
        with Store.read(Path(folder) / "run") as store:
            figures = [row.figures for row in store.evaluations()]
    busy = sum(one["ended"] - one["began"] for one in figures)
    first: dict[float, float] = {}
    for one in figures:
        first[one["process"]] = min(one["began"], first.get(one["process"], math.inf))
    last = max(one["ended"] for one in figures)
    return busy / sum(last - began for began in first.values())


def main() -> None:
    """Print the tables, and write them."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--population", type=int, default=256)
    parser.add_argument("--generations", type=int, default=3)
    parser.add_argument("--evaluations", type=int, default=150)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    lines = [
        "# What the driver of a search costs",
        "",
        f"{date.today()}, {platform.machine()} with {os.cpu_count()} cores, load "
        f"{os.getloadavg()[0]:.1f}. `python benchmarks/search_overhead.py --population "
        f"{given.population} --generations {given.generations} --evaluations {given.evaluations}`: "
        "milliseconds of the driver per evaluation, of the processor and of the clock.",
        "",
        "| space | mode | processor (ms) | clock (ms) |",
        "|---|---|--:|--:|",
    ]
    overhead("tiny.star", 4, 1, False)  # what is imported once belongs to no evaluation
    for space in ("tiny.star", "star.star"):
        for steady in (False, True):
            used, passed = overhead(space, given.population, given.generations, steady)
            mode = "steady" if steady else "generations"
            lines.append(f"| {space} | {mode} | {used:.1f} | {passed:.1f} |")
            print(lines[-1], flush=True)
    share = worker_use(given.workers, given.evaluations)
    lines += [
        "",
        f"Worker use, steady, {given.workers} workers, {given.evaluations} evaluations of "
        f"{MEAN_SECONDS} s in the mean: {share:.1%}.",
    ]
    text = "\n".join(lines) + "\n"
    print(text)
    if given.out:
        given.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
