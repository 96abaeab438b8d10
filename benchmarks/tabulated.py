"""Search algorithms on a space of which every program was trained once.

    python benchmarks/tabulated.py build [--limit 100]
    python benchmarks/tabulated.py compare [--seeds 20] [--budget 300]

`build` trains the 625 fillings of data/tabulated.star, a second or two each on one core, and
appends them to data/tabulated.csv; what is there is not trained again. `compare` runs the
algorithms of `starc search`, and Optuna's NSGA-II sampler, on that table instead of training.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import time
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from starc.compiler.driver import compile_program
from starc.compiler.options import Options
from starc.grammar.library import read_source
from starc.grammar.source import Source
from starc.search.fillings import decided
from starc.search.space import Space, open_space

if TYPE_CHECKING:
    from starc.runtime.corpus import Corpus

DATA = Path(__file__).parent / "data"
SPACE = DATA / "tabulated.star"
TABLE = DATA / "tabulated.csv"
COLUMNS = ("decisions", "bits_per_byte", "cache_bytes", "parameters", "seconds")
STEPS, BATCH, LENGTH, RATE = 150, 8, 64, 1e-2
POSITIONS, OPTIONS = 4, 5


def the_space() -> Space:
    return open_space(read_source(SPACE), Options())


def build(limit: int | None) -> None:
    """Train what the table lacks, in the order of a fixed shuffle."""
    import random

    known = set()
    if TABLE.exists():
        with TABLE.open(newline="") as file:
            known = {row["decisions"] for row in csv.DictReader(file)}
    else:
        TABLE.write_text(",".join(COLUMNS) + "\n")
    space = the_space()
    every = list(itertools.product(range(OPTIONS), repeat=POSITIONS))
    random.Random(0).shuffle(every)
    left = [d for d in every if "".join(map(str, d)) not in known][:limit]
    for number, decisions in enumerate(left):
        row = ["".join(map(str, decisions)), *_trained(decided(space, decisions).text)]
        with TABLE.open("a") as file:
            file.write(",".join(row) + "\n")
        print(f"{number + 1} of {len(left)}: {' '.join(row)}", flush=True)


@cache
def _text() -> Corpus:
    from starc.runtime.corpus import open_corpus

    return open_corpus("stdlib")


def _trained(text: str) -> list[str]:
    """Held-out bits per byte, cache and parameters of a program, and the seconds it took."""
    import torch

    from starc.compiler.cost import cost_report
    from starc.compiler.driver import resolve_source, run_passes
    from starc.runtime.learner import SingleLearner
    from starc.runtime.loader import load
    from starc.runtime.run import Settings
    from starc.runtime.train import fit

    torch.set_num_threads(1)
    began = time.process_time()
    source = Source("tabulated.star", text)
    module = load(compile_program(source, Options(format=False)).text)
    model, _ = resolve_source(source, Options())
    cost = cost_report(run_passes(model), length=LENGTH, batch=1, dtype="bf16")
    settings = Settings(
        data="stdlib",
        steps=STEPS,
        batch=BATCH,
        length=LENGTH,
        learning_rate=RATE,
        warmup=8,
        base_width=32,
        validate_every=STEPS,
        validation_tokens=128 * LENGTH,
    )
    data = _text()
    torch.manual_seed(0)
    learner = SingleLearner(module.Model(), settings, torch.device("cpu"))
    (result,) = fit(learner, data, settings)
    assert result.score is not None
    bits = result.score.bits_per_byte(data.bytes_per_token)
    seconds = time.process_time() - began
    return [f"{bits:.4f}", str(cost.cache_bytes), str(cost.parameters), f"{seconds:.2f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    commands = parser.add_subparsers(dest="command", required=True)
    building = commands.add_parser("build")
    building.add_argument("--limit", type=int)
    given = parser.parse_args()
    build(given.limit)


if __name__ == "__main__":
    main()
