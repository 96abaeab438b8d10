"""What an engine adds to an evaluation: Ray against processes of this machine.

    python benchmarks/engines.py [--jobs 400] [--workers 2] [--repeats 5] [--out FILE]

Jobs are of the static evaluator, which takes no time itself (or --seconds): overhead is the time
from the first submission to the last outcome, per job, times the workers, less what jobs sleep.
Workers are there and warm before the clock starts; starting them is reported apart. Engines take
turns, so that both meet the same load. `--engine local` needs no ray.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from starc.search.engine import Engine, Job
from starc.search.engines import ENGINES, EngineRequest, make_engine
from starc.search.evaluators import Static

TEXT = (Path(__file__).parents[1] / "examples" / "byte_hybrid.star").read_text(encoding="utf-8")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--engine", action="append", choices=ENGINES)
    parser.add_argument("--jobs", type=int, default=400)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.0)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    engines: dict[str, Engine] = {}
    starts: dict[str, float] = {}
    times: dict[str, list[float]] = {name: [] for name in given.engine or ENGINES}
    with tempfile.TemporaryDirectory() as folder:
        for name in times:
            began = time.perf_counter()
            engines[name] = make_engine(EngineRequest(name), given.workers, cores=given.workers)
            run(engines[name], 4 * given.workers, 0.05, Path(folder))
            starts[name] = time.perf_counter() - began
        try:
            for _ in range(given.repeats):
                for name, engine in engines.items():
                    seconds = run(engine, given.jobs, given.seconds, Path(folder))
                    each = seconds / given.jobs * given.workers - given.seconds
                    times[name].append(1000 * each)
        finally:
            for engine in engines.values():
                engine.close()
    text = report(given, starts, times)
    print(text)
    if given.out:
        given.out.write_text(text, encoding="utf-8")


def run(engine: Engine, jobs: int, seconds: float, folder: Path) -> float:
    """Seconds that so many jobs take."""
    evaluator = Static(seconds)
    began = time.perf_counter()
    for n in range(jobs):
        engine.submit(Job(str(n), evaluator, TEXT, n, 0, folder / "work"))
    done = 0
    while done < jobs:
        done += len(engine.wait(1.0))
    return time.perf_counter() - began


def report(
    given: argparse.Namespace, starts: dict[str, float], times: dict[str, Sequence[float]]
) -> str:
    """A table in Markdown."""
    lines = [
        "# Engines",
        "",
        f"{datetime.now(UTC):%Y-%m-%d}, {platform.machine()} with {os.cpu_count()} cores, load "
        f"{os.getloadavg()[0]:.1f} at the end. `python benchmarks/engines.py --jobs {given.jobs} "
        f"--workers {given.workers} --repeats {given.repeats} --seconds {given.seconds:g}`: "
        "milliseconds of a worker that a job costs beside its evaluation, median, least and most "
        f"of {given.repeats} turns; starting includes the first evaluations.",
        "",
        "| engine | started in (s) | overhead (ms) | least | most |",
        "|---|--:|--:|--:|--:|",
    ]
    for name, found in times.items():
        lines.append(
            f"| {name} | {starts[name]:.1f} | {statistics.median(found):.2f} | {min(found):.2f} | "
            f"{max(found):.2f} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
