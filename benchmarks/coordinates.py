"""Whether learning rates and initial values follow the width and the depth of a model.

Run from the repository: `python benchmarks/coordinates.py [NAME...]`. Every program of examples/ is
made at several widths and depths, with 64 tokens and a context of 64; AdamW takes four steps on one
text, and the mean absolute change of every unit's output, of the stream and of the logits is
compared between sizes. An exponent of 0 says that it is the same at all; the table is printed and
written to benchmarks/results/coordinates.md.

- units: the exponent against the width, 32 to 256, that is furthest from 0 among all units.
- stream, logits: theirs. `plain` is the same with one learning rate for everything.
- depth: against the number of units that a token passes, repeats gone through 1, 2 and 4 times.
"""

from __future__ import annotations

import argparse
import datetime
import platform
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch

from starc.coordinates import REPEATS, WIDTHS, by_depth, by_width
from starc.grammar.errors import StarError
from starc.grammar.library import read_source
from starc.runtime.coordinates import FALL, GROWTH, LOGITS, STREAM, Exponents, exponents

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results" / "coordinates.md"
RATE = 2e-3
ENDS = (STREAM, LOGITS)


@dataclass(frozen=True)
class Row:
    name: str
    rules: Exponents
    plain: Exponents
    depth: Exponents | None
    plain_depth: Exponents | None

    def outside(self) -> list[str]:
        """Places where the rules do not hold."""
        found = [f"{name} {value:+.2f}" for name, value in self.rules.outside().items()]
        if self.depth:
            outside = self.depth.outside()
            found += [f"{n} {outside[n]:+.2f} by depth" for n in ENDS if n in outside]
        return found


def measure(name: str) -> Row:
    torch.set_num_threads(1)
    source = read_source(ROOT / "examples" / f"{name}.star")
    widths, depths = by_width(source), by_depth(source)
    one = len(depths) == 1
    return Row(
        name,
        exponents(widths),
        exponents(widths, base_width=0, seeds=1),
        None if one else exponents(depths),
        None if one else exponents(depths, base_width=0, seeds=1),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Check the rules of width and depth.")
    parser.add_argument("names", nargs="*", help="programs of examples/; all if none is given")
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args()
    names = arguments.names or sorted(p.stem for p in (ROOT / "examples").glob("*.star"))
    rows = []
    with ProcessPoolExecutor(arguments.jobs) as pool:
        for name, future in [(name, pool.submit(measure, name)) for name in names]:
            try:
                rows.append(future.result())
                print(line(rows[-1]), flush=True)
            except StarError as error:
                print(f"{name}: {error}", file=sys.stderr)
    if not arguments.names:
        RESULTS.write_text(report(rows))


def line(row: Row) -> str:
    ends = [f"{run.values[end]:+.2f}" for end in ENDS for run in (row.rules, row.plain)]
    depth = ["", "", "", ""]
    if row.depth and row.plain_depth:
        depth = [f"{r.values[e]:+.2f}" for e in ENDS for r in (row.depth, row.plain_depth)]
    cells = [row.name, units(row.rules), *ends, *depth, ", ".join(row.outside())]
    return f"| {' | '.join(cells)} |"


def units(run: Exponents) -> str:
    """The exponent of the unit that is furthest from 0."""
    found = [value for name, value in run.values.items() if name not in ENDS]
    return f"{max(found, key=abs):+.2f}" if found else ""


def report(rows: list[Row]) -> str:
    quantities = sum(len(row.rules.values) for row in rows)
    outside = sum(len(row.rules.outside()) for row in rows)
    inside = sum(not row.outside() for row in rows)
    when = datetime.date.today().isoformat()
    return "\n".join(
        [
            "# Coordinate check",
            "",
            f"{when}, torch {torch.__version__}, {platform.machine()}, one thread. Exponents of "
            f"the mean absolute change of activations after 4 steps of AdamW at {RATE:g}, against "
            f"the width ({', '.join(map(str, WIDTHS))}) and the depth (repeats "
            f"{', '.join(map(str, REPEATS))} times, width 64); `plain` has one learning rate for "
            f"all parameters. Right is 0, and right enough -{GROWTH} to {GROWTH}, for logits "
            f"{FALL} to {GROWTH}. What is outside stands last; docs/scaling_rules.md says why.",
            "",
            f"Of {quantities} places of {len(rows)} programs, {quantities - outside} are inside "
            f"over width; {inside} programs are inside everywhere, depth included.",
            "",
            "| program | units | stream | plain | logits | plain "
            "| stream by depth | plain | logits by depth | plain | outside |",
            "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
            *map(line, rows),
            "",
        ]
    )


if __name__ == "__main__":
    main()
