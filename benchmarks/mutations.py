"""Mutations per second, and what comes of every operation, in both modes.

    python benchmarks/mutations.py [--count 2000] [--out FILE]

Programs are fillings of examples/searches/star.star, 24 units. Every mutation is of the one before;
every tenth starts from the filling again. Times are those of the processor, verification included.
"""

from __future__ import annotations

import argparse
import random
import time
from pathlib import Path

from starc.compiler.options import Options
from starc.grammar.source import Source
from starc.search.mutate import Mutator, opened
from starc.search.repair import outcomes
from starc.search.site import Bounds

SPACE = Path(__file__).parents[1] / "examples" / "searches" / "star.star"


def main() -> None:
    """Print the table and the speeds."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--warm", type=int, default=200, help="mutations before the clock starts")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    source = Source(str(SPACE), SPACE.read_text(encoding="utf-8"))
    program, pool, verifier = opened(source, Options(), random.Random(0))
    mutators, speeds = [], []
    for constrained in (True, False):
        bounds = Bounds(units=32)
        rng = random.Random(0)
        mutator = Mutator(pool, verifier=verifier, bounds=bounds, constrained=constrained)
        current = program
        for step in range(given.warm + given.count):
            if step == given.warm:
                start = time.process_time()
            current = program if step % 10 == 0 else current
            current = mutator.mutate(current, rng).program
        speed = given.count / (time.process_time() - start)
        speeds.append(f"{'constrained' if constrained else 'unconstrained'}: {speed:.0f} a second")
        mutators.append(mutator)
    text = outcomes([mutator.repairs for mutator in mutators]) + "\n" + "; ".join(speeds) + "\n"
    print(text)
    if given.out:
        given.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
