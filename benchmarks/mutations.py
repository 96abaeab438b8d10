"""Mutations per second, and what comes of every operation, in both modes.

    python benchmarks/mutations.py [--count 2000] [--out FILE]

Programs are fillings of examples/searches/star.star, 24 units. Every mutation is of the one before;
every tenth starts from the filling again. Times are those of the processor, verification included.
A processor that others share is slower by its own clock, too: so a loop of additions is timed
between the mutations, and its best time says how fast the processor can be.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import time
from datetime import date
from pathlib import Path

from starc.compiler.options import Options
from starc.grammar.source import Source
from starc.search.collecting import seldom_collected
from starc.search.mutate import Mutator, opened
from starc.search.repair import outcomes
from starc.search.site import Bounds

ADDITIONS = 100_000
SPACE = Path(__file__).parents[1] / "examples" / "searches" / "star.star"


def additions() -> float:
    """Seconds of the processor that the loop of additions takes."""
    start, total = time.process_time(), 0
    for i in range(ADDITIONS):
        total += i
    return time.process_time() - start


def main() -> None:
    """Print the table and the speeds."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--warm", type=int, default=200, help="mutations before the clock starts")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    source = Source(str(SPACE), SPACE.read_text(encoding="utf-8"))
    program, pool, verifier = opened(source, Options(), random.Random(0))
    mutators, speeds, loops = [], [], []
    for constrained in (True, False):
        bounds = Bounds(units=32)
        rng = random.Random(0)
        mutator = Mutator(pool, verifier=verifier, bounds=bounds, constrained=constrained)
        current, used = program, 0.0
        for step in range(given.warm + given.count):
            current = program if step % 10 == 0 else current
            start = time.process_time()
            current = mutator.mutate(current, rng).program
            if step >= given.warm:
                used += time.process_time() - start
            if step % 10 == 0:
                loops.append(additions())
        name = "constrained" if constrained else "unconstrained"
        speeds.append(f"{name}: {given.count / used:.0f} a second")
        mutators.append(mutator)
    mean, best = sum(loops) / len(loops), min(loops)
    speeds.append(
        f"a loop of {ADDITIONS:,} additions took {1e3 * mean:.1f} ms in the mean, {1e3 * best:.1f} "
        f"at best, load {os.getloadavg()[0]:.1f}"
    )
    where = (
        f"# Mutations\n\n{date.today()}, {platform.machine()} with {os.cpu_count()} cores. "
        f"`python benchmarks/mutations.py --count {given.count} --warm {given.warm}`, seconds of "
        "the processor:\n\n"
    )
    table = outcomes([mutator.repairs for mutator in mutators])
    text = where + "".join(f"- {speed}\n" for speed in speeds) + "\n" + table
    print(text)
    if given.out:
        given.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    with seldom_collected():  # as in a search
        main()
