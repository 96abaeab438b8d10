"""Does quick MAD rank programs as text does? Rank correlations over programs of equal size.

Run from the repository: `python benchmarks/mad_vs_text.py`. The tables are printed and written to
benchmarks/results/mad_vs_text.md. Programs of examples/ are made equally large (within 5 percent,
without tables and read-out), judged by quick MAD, and trained for a fixed number of steps on the
source of Python's standard library, read as bytes. A task's score and the total are correlated with
the bits per byte on held-out files: Spearman's and Kendall's coefficients with bootstrap intervals
over programs, turned so that +1 means the same order. Seeds of both kinds of run are averaged.

Judgements are shared with benchmarks/mad_quick.py, and all runs are kept: the same command goes on.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from mad_quick import OUT, PARAMETERS, Sized, heading, judged, sized
from numpy.typing import NDArray
from scipy import stats

from starc.compiler.driver import compile_program
from starc.compiler.options import Options
from starc.compiler.resize import resize
from starc.mad.judging import default_workers
from starc.mad.results import Judgement, compared
from starc.runtime import run as runs
from starc.runtime.corpus import open_corpus
from starc.runtime.files import write_atomic
from starc.runtime.run import Settings
from starc.runtime.train import train

RESULTS = Path(__file__).parent / "results" / "mad_vs_text.md"

PROGRAMS = (
    "transformer_pp",
    "mamba2",
    "hyena",
    "striped_hyena",
    "gated_deltanet",
    "families/lfm2",
    "linear_attention",
    "gla",
    "retnet",
    "deltanet",
    "rwkv6",
    "s4d",
    "h3",
    "differential",
)
VOCAB, LENGTH, BATCH, STEPS, RATE = 256, 128, 16, 600, 2e-3
HELD_OUT = 65_536
RESAMPLES = 2_000

Row = NDArray[np.float64]


@dataclass(frozen=True)
class Correlation:
    """A coefficient and the 95 percent interval of its bootstrap."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:+.2f} [{self.low:+.2f}, {self.high:+.2f}]"


def read_text(program: Sized, seed: int, out: Path) -> float:
    """Bits per byte on held-out files after `STEPS` steps; trained once, then read again."""
    folder = out / "text" / program.label / f"seed={seed}"
    result = folder / "result.json"
    if result.exists():
        return float(json.loads(result.read_text())["bits"])
    torch.set_num_threads(1)
    corpus = open_corpus("stdlib")
    if runs.exists(folder):
        run = runs.open_run(folder)
    else:
        source = resize(program.source, Options(), vocab=VOCAB, context=LENGTH)
        run = runs.create(
            folder,
            program=source.text,
            module_text=compile_program(source, Options(format=False)).text,
            data_digest=corpus.digest,
            settings=Settings(
                data="stdlib",
                steps=STEPS,
                batch=BATCH,
                length=LENGTH,
                learning_rate=RATE,
                warmup=STEPS // 10,
                seed=seed,
                validate_every=STEPS,
                validation_tokens=HELD_OUT,
            ),
        )
    ended = train(run, corpus)
    if ended.status != "finished" or ended.score is None:
        raise SystemExit(f"{program.label} on text: {ended.status} {ended.reason}")
    bits = ended.score.bits_per_byte(corpus.bytes_per_token)
    content = {"bits": bits, "loss": ended.loss, "seconds": ended.seconds}
    write_atomic(result, json.dumps(content).encode())
    return bits


def read_all(programs: Sequence[Sized], seeds: int, out: Path, jobs: int) -> list[float]:
    """The mean over seeds of every program's bits per byte."""
    places = [(i, seed) for i in range(len(programs)) for seed in range(seeds)]
    bits: dict[tuple[int, int], float] = {}
    with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
        futures = {pool.submit(read_text, programs[i], s, out): (i, s) for i, s in places}
        for future in as_completed(futures):
            place = futures[future]
            bits[place] = future.result()
            label = programs[place[0]].label
            print(f"{label} seed {place[1]}: {bits[place]:.3f}", file=sys.stderr, flush=True)
    return [fmean(bits[i, seed] for seed in range(seeds)) for i in range(len(programs))]


def correlations(scores: Row, bits: Row, rng: np.random.Generator) -> tuple[Correlation, ...]:
    """Spearman's and Kendall's, of scores with less bits; NaN where all scores are the same."""
    found = []
    draws = rng.integers(len(bits), size=(RESAMPLES, len(bits)))
    for coefficient in (stats.spearmanr, stats.kendalltau):

        def measure(a: Row, b: Row, coefficient: object = coefficient) -> float:
            if np.ptp(a) == 0 or np.ptp(b) == 0:
                return math.nan
            return float(coefficient(a, -b).statistic)  # type: ignore[operator]

        resampled = [measure(scores[draw], bits[draw]) for draw in draws]
        known = [value for value in resampled if not math.isnan(value)] or [math.nan]
        low, high = np.percentile(known, (2.5, 97.5))
        found.append(Correlation(measure(scores, bits), float(low), float(high)))
    return tuple(found)


def programs_table(
    programs: Sequence[Sized], judgements: Sequence[Judgement], bits: Sequence[float]
) -> list[str]:
    tasks = compared(judgements)
    lines = [
        "| program | width | parameters | bits per byte | " + " | ".join(tasks) + " |",
        "| --- " * (len(tasks) + 4) + "|",
    ]
    order = sorted(range(len(programs)), key=lambda i: bits[i])
    for i in order:
        p, scores = programs[i], judgements[i].scores
        cells = [p.label, str(p.width), f"{p.parameters:,}", f"{bits[i]:.3f}"]
        cells += [f"{scores[task].mean:.3f}" for task in tasks]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def verdict(low: float, high: float) -> str:
    if math.isnan(low):
        return "all scores are the same"
    return "agrees" if low > 0 else "disagrees" if high < 0 else "none shown"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--programs", nargs="+", default=list(PROGRAMS), help="paths in examples/")
    parser.add_argument("--seeds", type=int, default=1, help="of MAD")
    parser.add_argument("--text-seeds", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=default_workers("cpu"))
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    programs = [sized(path) for path in arguments.programs]
    out, jobs = arguments.out, arguments.jobs
    bits = np.array(read_all(programs, arguments.text_seeds, out, jobs))
    judgements = [judged(program, range(arguments.seeds), out, jobs) for program in programs]
    rng = np.random.default_rng(0)
    lines = [
        *heading("Quick MAD against text"),
        f"{len(programs)} programs of {PARAMETERS:,} parameters ± 5 % in units. Text: the source "
        f"of Python's standard library as bytes, {STEPS} steps of {BATCH} x {LENGTH}, "
        f"{arguments.text_seeds} seed(s). MAD: token accuracy, {arguments.seeds} seed(s).",
        "",
        *programs_table(programs, judgements, bits),
        "",
        "Rank correlation of each score with bits per byte, +1 for the same order of programs; "
        f"in brackets the 95 % interval of {RESAMPLES:,} bootstrap samples of programs. Where it "
        "holds 0, these runs are no evidence that the task ranks programs as text does.",
        "",
        "| task | Spearman | Kendall | |",
        "| --- | --- | --- | --- |",
    ]
    for task in compared(judgements):
        scores = np.array([judgement.scores[task].mean for judgement in judgements])
        spearman, kendall = correlations(scores, bits, rng)
        lines.append(
            f"| {task} | {spearman} | {kendall} | {verdict(spearman.low, spearman.high)} |"
        )
    text = "\n".join((*lines, ""))
    arguments.results.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
