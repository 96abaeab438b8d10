"""Search algorithms on a space of which every program was trained once.

    python benchmarks/tabulated.py build [--limit 100]
    python benchmarks/tabulated.py compare [--seeds 20] [--budget 150]

`build` trains the 625 fillings of data/tabulated.star, about two seconds each on one core, and
appends them to data/tabulated.csv: held-out bits per byte after a third of the steps and after all,
bytes of cache. What is there is not trained again. `compare` runs the algorithms of `starc search`,
and Optuna's NSGA-II, on that table in place of training, and writes results/tabulated.md. A program
that was evaluated costs nothing again, and a third of the steps a third of an evaluation. Proposals
are fillings: mutation decides one hole anew, crossover is that of two points on the decisions.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import itertools
import math
import platform
import random
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from starc.compiler.cost import CostModel
from starc.compiler.driver import compile_program
from starc.compiler.options import Options
from starc.grammar.library import read_source
from starc.grammar.source import Source
from starc.search.algorithms import Context, Individual, make_algorithm
from starc.search.fillings import decided, drawn
from starc.search.objectives import parse_objectives
from starc.search.space import open_space
from starc.search.variation import REDRAWS, Made, Program, Variation
from starc.search.verifying import Checked, Verifier

if TYPE_CHECKING:
    from starc.runtime.corpus import Corpus

DATA = Path(__file__).parent / "data"
SPACE = DATA / "tabulated.star"
TABLE = DATA / "tabulated.csv"
RESULTS = Path(__file__).parent / "results" / "tabulated.md"
COLUMNS = ("decisions", "early", "bits_per_byte", "cache_bytes", "seconds")
STEPS, EARLY, BATCH, LENGTH, RATE = 150, 50, 8, 64, 1e-2
POSITIONS, OPTIONS = 4, 5
POPULATION = 16

Decisions = tuple[int, ...]


def rows() -> dict[Decisions, dict[str, float]]:
    """What is known so far."""
    if not TABLE.exists():
        return {}
    with TABLE.open(newline="") as file:
        return {
            tuple(map(int, row["decisions"])): {name: float(row[name]) for name in COLUMNS[1:]}
            for row in csv.DictReader(file)
        }


def every() -> list[Decisions]:
    return list(itertools.product(range(OPTIONS), repeat=POSITIONS))


# --- the table ----------------------------------------------------------------------------------


def build(limit: int | None) -> None:
    """Train what the table lacks, in the order of a fixed shuffle."""
    known = rows()
    if not known:
        TABLE.write_text(",".join(COLUMNS) + "\n")
    space = open_space(read_source(SPACE), Options())
    order = every()
    random.Random(0).shuffle(order)
    left = [decisions for decisions in order if decisions not in known][:limit]
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
    """Held-out bits per byte early and late, the cache in bytes, and the seconds it took."""
    import torch

    from starc.runtime.learner import SingleLearner
    from starc.runtime.loader import load
    from starc.runtime.run import Settings
    from starc.runtime.train import Progress, fit

    torch.set_num_threads(1)
    began = time.process_time()
    source = Source("tabulated.star", text)
    module = load(compile_program(source, Options(format=False)).text)
    settings = Settings(
        data="stdlib",
        steps=STEPS,
        batch=BATCH,
        length=LENGTH,
        learning_rate=RATE,
        warmup=8,
        base_width=32,
        validate_every=EARLY,
        validation_tokens=128 * LENGTH,
    )
    scores: dict[int, float] = {}

    def judged(progress: Progress) -> None:
        score = progress.courses[0].score
        if progress.judged and score is not None:
            scores[progress.step] = score.bits_per_byte(_text().bytes_per_token)

    torch.manual_seed(0)
    learner = SingleLearner(module.Model(), settings, torch.device("cpu"))
    fit(learner, _text(), settings, observe=judged)
    report = CostModel().report(Variation(source).verified(text).ir, length=LENGTH, dtype="bf16")
    seconds = time.process_time() - began
    return [
        f"{scores[EARLY]:.4f}",
        f"{scores[STEPS]:.4f}",
        str(report.cache_bytes),
        f"{seconds:.2f}",
    ]


# --- the comparison -----------------------------------------------------------------------------


class Fillings(Variation):
    """Programs of the table only."""

    def __init__(self) -> None:
        self.space = open_space(read_source(SPACE), Options())
        self.holes, self.origin, self.seeds = self.space.holes, None, ()
        self.name, self.length, self.dtype = "tabulated.star", LENGTH, "bf16"
        self.verifier, self.costs = Verifier(), CostModel()
        self._of: dict[str, tuple[Decisions, Program, Checked]] = {}
        self._texts: dict[Decisions, str] = {}
        for decisions in every():
            checked = self.verifier.check(decided(self.space, decisions).program)
            program = self.program(checked)
            self._of[program.text] = decisions, program, checked
            self._texts[decisions] = program.text

    def decisions(self, text: str) -> Decisions:
        return self._of[text][0]

    def check(self, text: str) -> Program:
        return self._of[text][1]

    def verified(self, text: str) -> Checked:
        return self._of[text][2]

    def of(self, decisions: Decisions, operation: str) -> Made:
        made = self.check(self._texts[decisions])
        return Made(made, operation, "", {"repairs": [], "rejected": {}})

    def fresh(self, rng: random.Random) -> Made:
        return self.of(drawn(self.space, rng).decisions, "draw")

    def child(
        self,
        parents: Sequence[str],
        rng: random.Random,
        *,
        crossover: float,
        mutation: float,
        known: Collection[str] = (),
        level: str | None = None,
    ) -> Made:
        """As that of other searches, on decisions."""
        found, names = list(self.decisions(parents[0])), []
        if len(parents) > 1 and parents[0] != parents[1] and rng.random() < crossover:
            other = self.decisions(parents[1])
            a, b = sorted(rng.sample(range(len(found) + 1), 2))
            found[a:b] = other[a:b]
            names.append("crossover")
        times = sum(rng.random() < mutation for _ in found)
        left = max(times, not names)
        for _ in range(left + REDRAWS):
            if left <= 0 and self.of(tuple(found), "").program.identity not in known:
                break
            place = rng.randrange(len(found))
            found[place] = (found[place] + rng.randrange(1, OPTIONS)) % OPTIONS
            names.append("decide anew")
            left -= 1
        return self.of(tuple(found), " + ".join(names))


@dataclass
class Table:
    """The figures, and the hypervolume of a set of programs: bits per byte and the logarithm of
    1 + cache / 64 bytes, both from 0 (the best of the table) to 1 (the worst), against 1.1."""

    figures: dict[Decisions, dict[str, float]]

    def __post_init__(self) -> None:
        raw = np.array([self._raw(figures) for figures in self.figures.values()])
        low, high = raw.min(axis=0), raw.max(axis=0)
        self.points = {
            decisions: (np.array(self._raw(figures)) - low) / (high - low)
            for decisions, figures in self.figures.items()
        }
        self.whole = self.volume(list(self.points))

    @staticmethod
    def _raw(figures: dict[str, float]) -> tuple[float, float]:
        return figures["bits_per_byte"], float(np.log1p(figures["cache_bytes"] / 64))

    def volume(self, found: list[Decisions]) -> float:
        area, ceiling = 0.0, 1.1
        for x, y in sorted(tuple(self.points[decisions]) for decisions in found):
            if y < ceiling:
                area += (1.1 - x) * (ceiling - y)
                ceiling = float(y)
        return float(area)


Steps = Iterator[tuple[float, Decisions | None]]
"""What each proposal cost, and the program that it evaluated in full."""


def ours(name: str, options: dict[str, Any]) -> Callable[[Fillings, Table, int, float], Steps]:
    def run(variation: Fillings, table: Table, seed: int, budget: float) -> Steps:
        context = Context(
            variation,
            parse_objectives("quality,cache_bytes"),
            POPULATION,
            seed,
            evaluations=budget,
            share=(EARLY / STEPS, 1.0) if name in ("halving", "dehb") else (1.0,),
            options=options,
        )
        algorithm = make_algorithm(name, context)
        paid: dict[str, float] = {}
        while made := algorithm.ask(POPULATION):
            told = []
            for proposal in made:
                program, rung = proposal.program, proposal.rung
                decisions = variation.decisions(program.text)
                figures = table.figures[decisions]
                last = rung == context.last_rung
                quality = figures["bits_per_byte" if last else "early"]
                context.identities.setdefault(program.identity, proposal.number)
                told.append(
                    Individual(
                        proposal.number,
                        program.text,
                        program.identity,
                        program.figures,
                        (quality, figures["cache_bytes"]),
                        0.0,
                        rung,
                        proposal.generation,
                        proposal.parents,
                    )
                )
                before = paid.get(program.identity, 0.0)
                paid[program.identity] = max(before, context.share[rung])
                yield paid[program.identity] - before, decisions if last else None
            context.individuals.update((one.id, one) for one in told)
            algorithm.tell(told)

    return run


def optuna(variation: Fillings, table: Table, seed: int, budget: float) -> Steps:
    import optuna as library

    library.logging.set_verbosity(library.logging.ERROR)
    sampler = library.samplers.NSGAIISampler(population_size=POPULATION, seed=seed)
    study = library.create_study(directions=["minimize"] * 2, sampler=sampler)
    seen: set[Decisions] = set()
    while True:
        trial = study.ask()
        options = list(range(OPTIONS))
        found = [trial.suggest_categorical(f"unit {k}", options) for k in range(POSITIONS)]
        decisions = tuple(map(int, found))
        figures = table.figures[decisions]
        study.tell(trial, [figures["bits_per_byte"], figures["cache_bytes"]])
        yield float(decisions not in seen), decisions
        seen.add(decisions)


RUNS: dict[str, Callable[[Fillings, Table, int, float], Steps]] = {
    "random": ours("random", {}),
    "evolution": ours("evolution", {}),
    "ga": ours("ga", {}),
    "nsga2": ours("nsga2", {}),
    "Optuna's NSGA-II": optuna,
    "halving": ours("halving", {}),
    "dehb": ours("dehb", {}),
    "surrogate": ours("surrogate", {}),
}


def curve(steps: Steps, table: Table, budget: int) -> NDArray[np.float64]:
    """The share of the whole table's hypervolume after 1, 2, ... full evaluations."""
    found: list[Decisions] = []
    volumes, spent, barren = np.zeros(budget), 0.0, 0
    for cost, decisions in steps:
        spent, barren = spent + cost, 0 if cost else barren + 1
        if spent > budget + 1e-9 or barren > 100 * POPULATION:
            break
        if decisions is not None:
            found.append(decisions)
            volumes[math.ceil(spent - 1e-9) - 1 :] = table.volume(found) / table.whole
    return volumes


def compare(seeds: int, budget: int) -> None:
    figures = rows()
    if len(figures) < OPTIONS**POSITIONS:
        raise SystemExit(f"the table has {len(figures)} of 625 programs: run build first.")
    table, variation = Table(figures), Fillings()
    curves = {}
    for name, run in RUNS.items():
        began = time.process_time()
        each = [curve(run(variation, table, seed, budget), table, budget) for seed in range(seeds)]
        curves[name] = np.array(each)
        print(f"{name}: {time.process_time() - began:.1f} s", flush=True)
    marks = [mark for mark in (16, 32, 50, 75, 100, 150, 200, 300) if mark <= budget]
    goal = float(np.median(curves["random"][:, -1]))
    seconds = sum(row["seconds"] for row in figures.values())
    lines = [
        "# Search algorithms on a tabulated space",
        "",
        f"{datetime.date.today().isoformat()}, {platform.machine()}, numpy {np.__version__}; "
        f"`python benchmarks/tabulated.py compare --seeds {seeds} --budget {budget}`.",
        "",
        f"All {len(figures)} fillings of `data/tabulated.star` were trained once: {STEPS} steps of "
        f"{BATCH} x {LENGTH} bytes of stdlib at width 32, {seconds:,.0f} seconds of one core. "
        "Objectives: held-out bits per byte, and the cache. Figures are shares of the hypervolume "
        "of the whole table (bits per byte and log(1 + cache / 64 bytes), both scaled to 0 .. 1), "
        f"median (quartiles) of {seeds} seeds, by full evaluations; population {POPULATION}. "
        "`halving` and `dehb` may evaluate on a third of the steps. The last column is the median "
        f"of the evaluations until what random search had after {budget}, with how many of the "
        "seeds came to that.",
        "",
        f"| algorithm | {' | '.join(map(str, marks))} | evaluations to random's last |",
        "|---|" + "---|" * (len(marks) + 1),
    ]
    for name, found in curves.items():
        cells = []
        for mark in marks:
            low, middle, high = np.quantile(found[:, mark - 1], (0.25, 0.5, 0.75))
            cells.append(f"{middle:.4f} ({low:.4f} to {high:.4f})")
        reached = found >= goal - 1e-12
        first = np.where(reached.any(axis=1), reached.argmax(axis=1) + 1, budget + 1)
        middle = float(np.median(first))
        said = f"{middle:g}" if middle <= budget else f"more than {budget}"
        cells.append(f"{said} ({int(reached.any(axis=1).sum())} of {seeds})")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    text = "\n".join(lines) + "\n"
    print(text)
    RESULTS.write_text(text)


def main() -> None:
    """Build or compare."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    commands = parser.add_subparsers(dest="command", required=True)
    building = commands.add_parser("build")
    building.add_argument("--limit", type=int)
    comparing = commands.add_parser("compare")
    comparing.add_argument("--seeds", type=int, default=20)
    comparing.add_argument("--budget", type=int, default=150)
    given = parser.parse_args()
    if given.command == "build":
        build(given.limit)
    else:
        compare(given.seeds, given.budget)


if __name__ == "__main__":
    main()
