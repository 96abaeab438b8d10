"""Do zero-cost proxies rank programs as training does? Rank correlations over two sets of programs.

    python benchmarks/proxies.py [--trained FOLDER] [--table 150]

The first set are programs of examples/ of equal size, trained on text by benchmarks/mad_vs_text.py,
whose folder of runs is read; the second are programs of data/tabulated.csv, four units of width 32
that differ in what the units are. Each proxy is the mean of three seeds. Spearman's and Kendall's
coefficients with the 95 % interval of bootstrapped programs, turned so that +1 means that the
larger proxy goes with fewer bits per byte; parameters and a random number stand beside them.
Written to benchmarks/results/proxies.md.
"""

from __future__ import annotations

import argparse
import datetime
import json
import random
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from mad_vs_text import correlations
from tabulated import SPACE, rows

from starc.compiler.options import Options
from starc.grammar.library import read_source
from starc.grammar.source import Source
from starc.runtime.corpus import open_corpus
from starc.search.fillings import decided
from starc.search.proxies import NAMES, of_program
from starc.search.space import open_space
from starc.search.variation import Variation

TRAINED = Path(__file__).parents[1] / "runs" / "mad-benchmarks" / "text"
RESULTS = Path(__file__).parent / "results" / "proxies.md"
SEEDS, BATCHES, BATCH, LENGTH = 3, 4, 8, 64
SCORES = (*NAMES, "parameters", "random")


def scores(text: str) -> dict[str, float]:
    """Every score of a program."""
    data = open_corpus("stdlib")
    each = [
        of_program(text, data, batches=BATCHES, batch=BATCH, length=LENGTH, seed=seed)
        for seed in range(SEEDS)
    ]
    found = {name: fmean(one[name] for one in each) for name in NAMES}
    program = Variation(Source("<program>", text)).check(text)
    chance = random.Random(program.identity).random()
    return {**found, "parameters": program.figures["parameters"], "random": chance}


def trained(folder: Path) -> dict[str, tuple[str, float]]:
    """Programs that were trained, by name: their text and bits per byte, the mean of seeds."""
    found = {}
    for place in sorted(folder.glob("*")):
        results = sorted(place.glob("seed=*/result.json"))
        if results:
            bits = fmean(json.loads(result.read_text())["bits"] for result in results)
            found[place.name] = results[0].with_name("program.star").read_text(), bits
    return found


def tabulated(count: int) -> dict[str, tuple[str, float]]:
    space = open_space(read_source(SPACE), Options())
    known = list(rows().items())[:count]
    return {
        "".join(map(str, decisions)): (decided(space, decisions).text, row["bits_per_byte"])
        for decisions, row in known
    }


def section(title: str, programs: dict[str, tuple[str, float]], listed: bool) -> list[str]:
    """The table of coefficients, and that of programs."""
    found = {}
    for name, (text, bits) in programs.items():
        found[name] = scores(text)
        print(name, f"{bits:.3f}", found[name], flush=True)
    bits = np.array([bits for _, bits in programs.values()])
    rng = np.random.default_rng(0)
    lines = [f"## {title}", "", f"{len(programs)} programs.", ""]
    lines += ["| score | Spearman | Kendall |", "| --- | --- | --- |"]
    for score in SCORES:
        column = np.array([found[name][score] for name in programs])
        spearman, kendall = correlations(column, bits, rng)
        lines.append(f"| {score} | {spearman} | {kendall} |")
    if listed:
        lines += ["", f"| program | bits per byte | {' | '.join(SCORES[:-1])} |"]
        lines += ["| --- " * (len(SCORES) + 1) + "|"]
        for name in sorted(programs, key=lambda name: programs[name][1]):
            cells = [f"{found[name][score]:,.4g}" for score in SCORES[:-1]]
            lines.append(f"| {name} | {programs[name][1]:.3f} | {' | '.join(cells)} |")
    return [*lines, ""]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--trained", type=Path, default=TRAINED)
    parser.add_argument("--table", type=int, default=150, help="programs of the table")
    given = parser.parse_args()
    torch.set_num_threads(1)
    examples = trained(given.trained)
    if not examples:
        raise SystemExit(f"nothing was trained in {given.trained}: run mad_vs_text.py first.")
    lines = [
        "# Zero-cost proxies against training",
        "",
        f"{datetime.date.today().isoformat()}, torch {torch.__version__}, one thread. Proxies: "
        f"{BATCHES} batches of {BATCH} x {LENGTH} bytes of stdlib, mean of {SEEDS} seeds. "
        "Rank correlations with bits per byte on held-out text, +1 where the larger score always "
        "goes with fewer bits; in brackets the 95 % interval of 2,000 bootstrap samples of "
        "programs. Where it holds 0, nothing is shown.",
        "",
        *section("Examples of equal size, after 600 steps", examples, True),
        *section("Programs of the tabulated space", tabulated(given.table), False),
    ]
    RESULTS.write_text("\n".join(lines))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
