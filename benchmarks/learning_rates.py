"""Whether the best learning rate stays put when a model gets wider.

Run from the repository: `python benchmarks/learning_rates.py`. Trains a transformer and a
recurrence of four units on the source of Python's standard library, read as bytes, at three widths
and five learning rates, with the rules of runtime/optim.py and with one rate for everything. The
held-out losses are printed and written to benchmarks/results/learning_rates.md.
"""

from __future__ import annotations

import datetime
import platform
from pathlib import Path

import numpy as np
import torch

from starc.compiler.driver import compile_program
from starc.compiler.options import Options
from starc.compiler.resize import resize
from starc.grammar.library import read_source
from starc.runtime.corpus import open_corpus
from starc.runtime.data import Data
from starc.runtime.learner import SingleLearner
from starc.runtime.loader import load
from starc.runtime.optim import BASE_WIDTH
from starc.runtime.run import Settings
from starc.runtime.train import fit

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results" / "learning_rates.md"
PROGRAMS = {"transformer_pp": 2, "mamba2": 4}
"""Programs, and how often their repeat is gone through: four units each."""

WIDTHS = (32, 64, 128)
RATES = tuple(1e-3 * 3**i for i in range(5))
STEPS, BATCH, LENGTH = 80, 8, 32


def train(name: str, width: int, rate: float, base_width: int, data: Data) -> float:
    """The held-out loss in nats per byte after the last step."""
    source = read_source(ROOT / "examples" / f"{name}.star")
    sized = resize(source, Options(), width=width, repeat=PROGRAMS[name], vocab=256, context=LENGTH)
    module = load(compile_program(sized, Options(format=False)).text)
    torch.manual_seed(0)
    settings = Settings(
        data="stdlib",
        steps=STEPS,
        batch=BATCH,
        length=LENGTH,
        learning_rate=rate,
        warmup=8,
        base_width=base_width,
        validate_every=STEPS,
        validation_tokens=256 * LENGTH,
    )
    learner = SingleLearner(module.Model(), settings, torch.device("cpu"))
    (result,) = fit(learner, data, settings)
    return result.score.loss if result.score else float("nan")


def best(losses: list[float]) -> float:
    """The rate at the lowest point of the parabola through the best loss and its neighbours."""
    i = int(np.nanargmin(losses))
    if not 0 < i < len(losses) - 1 or not np.isfinite(losses[i - 1 : i + 2]).all():
        return RATES[i]
    a, b, _ = np.polyfit(np.log(RATES[i - 1 : i + 2]), losses[i - 1 : i + 2], 2)
    return float(np.exp(-b / (2 * a)))


def main() -> None:
    torch.set_num_threads(1)
    data = open_corpus("stdlib")
    rows, moved = [], []
    for name in PROGRAMS:
        for label, base in (("rules", BASE_WIDTH), ("one rate", 0)):
            found = []
            for width in WIDTHS:
                losses = [train(name, width, rate, base, data) for rate in RATES]
                found.append(best(losses))
                cells = [f"{loss:.3f}" for loss in losses]
                rows.append(
                    f"| {name} | {label} | {width} | {' | '.join(cells)} | {found[-1]:.2g} |"
                )
                print(rows[-1], flush=True)
            moved.append(
                f"- {name}, {label}: best at width {WIDTHS[-1]} over best at {WIDTHS[0]}: "
                f"{found[-1] / found[0]:.2f}"
            )
            print(moved[-1], flush=True)
    heads = " | ".join(f"{rate:g}" for rate in RATES)
    text = [
        "# The best learning rate at several widths",
        "",
        f"{datetime.date.today().isoformat()}, torch {torch.__version__}, {platform.machine()}, "
        f"one thread, one seed. Held-out loss in nats per byte after {STEPS} steps of {BATCH} x "
        f"{LENGTH} bytes of stdlib, four units, by the learning rate of a run; `best` is the "
        "lowest point of a parabola.",
        "",
        f"| program | rates | width | {heads} | best |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
        *rows,
        "",
        *moved,
        "",
    ]
    RESULTS.write_text("\n".join(text))


if __name__ == "__main__":
    main()
