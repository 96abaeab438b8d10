"""How time and memory of a training step grow with the length of the sequence.

Run from the repository: `python benchmarks/scaling.py`. The table is printed and written to
benchmarks/results/scaling.md. A model of two units, one mixer and one SwiGLU, sees one sequence.
Exponents are slopes of log time, or log memory, over log length, fitted over the longer half of
the lengths; at short ones what does not grow with length is most of the cost. Memory is the most
that tensors occupy during a step over the model at rest, exact, from the profiler.
"""

from __future__ import annotations

import argparse
import datetime
import gc
import math
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from statistics import linear_regression, median
from typing import Any

import torch
from mixers import VOCAB, WIDTH, model_of
from torch import Tensor
from train_step import machine

RESULTS = Path(__file__).parent / "results" / "scaling.md"
LENGTHS = [256, 512, 1024, 2048, 4096, 8192]
COMPARED = ["attention", "banded attention, 128 tokens", "mamba2", "gated convolution"]


@dataclass(frozen=True)
class Growth:
    """Seconds and bytes of a training step by length."""

    name: str
    seconds: dict[int, float]
    bytes: dict[int, float]


def step(model: Any, tokens: Tensor, clock: Callable[[], float]) -> float:
    model.zero_grad(set_to_none=True)
    start = clock()
    model.loss(tokens[:, :-1], tokens[:, 1:]).backward()
    return clock() - start


def peak(model: Any, tokens: Tensor) -> int:
    model.zero_grad(set_to_none=True)
    gc.collect()
    with torch.profiler.profile(profile_memory=True) as profile:
        step(model, tokens, time.perf_counter)
    events = sorted(profile.profiler.kineto_results.events(), key=lambda e: e.start_ns())
    return max(accumulate(e.nbytes() for e in events if e.name() == "[memory]"))


def measure(name: str, lengths: list[int], rounds: int, clock: Callable[[], float]) -> Growth:
    model = model_of(name, max(lengths), 1)
    generator = torch.Generator().manual_seed(1)
    found = Growth(name, {}, {})
    for length in lengths:
        tokens = torch.randint(VOCAB, (1, length + 1), generator=generator)
        times = [step(model, tokens, clock) for _ in range(rounds + 1)]
        found.seconds[length] = median(times[1:])
        found.bytes[length] = peak(model, tokens)
    return found


def exponent(values: dict[int, float]) -> float:
    """The slope of log value over log length, over the longer half of the lengths."""
    chosen = sorted(values)[len(values) // 2 - 1 :]
    points = [math.log(length) for length in chosen]
    return linear_regression(points, [math.log(values[length]) for length in chosen]).slope


def table(rows: list[Growth], of: str, unit: float) -> Iterator[str]:
    lengths = sorted(getattr(rows[0], of))
    yield f"| mixer | {' | '.join(f'{n:,}' for n in lengths)} | exponent |"
    yield "|---|" + "--:|" * (len(lengths) + 1)
    for row in rows:
        values = getattr(row, of)
        shown = " | ".join(f"{values[n] * unit:.3g}" for n in lengths)
        yield f"| {row.name} | {shown} | {exponent(values):.2f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--lengths", nargs="+", type=int, default=LENGTHS)
    parser.add_argument("--rounds", type=int, default=5, help="steps at each length")
    parser.add_argument("--threads", type=int, help="PyTorch's choice otherwise")
    parser.add_argument(
        "--cpu-time",
        action="store_true",
        help="count processor time: with --threads 1, for a machine that others use as well",
    )
    parser.add_argument("--out", type=Path, default=RESULTS, help="the record to write")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    clock = time.process_time if options.cpu_time else time.perf_counter
    rows = []
    for name in COMPARED:
        rows.append(measure(name, options.lengths, options.rounds, clock))
        shown = f"time {exponent(rows[-1].seconds):.2f}, memory {exponent(rows[-1].bytes):.2f}"
        print(f"{name}: exponents {shown}", flush=True)
    lines = [
        "# Growth with length",
        "",
        f"A training step of one sequence through one mixer and one SwiGLU, width {WIDTH}, "
        f"float32. Exponents are fitted over the longer half of the lengths. Medians of "
        f"{options.rounds}.",
        "",
        "Milliseconds by length:",
        "",
        *table(rows, "seconds", 1e3),
        "",
        "Megabytes of tensors, over the model at rest:",
        "",
        *table(rows, "bytes", 1e-6),
        "",
        f"{datetime.date.today()}, {machine()}.",
        f"`{shlex.join(['python', *sys.argv])}`",
        "",
    ]
    print("\n".join(lines))
    options.out.parent.mkdir(exist_ok=True)
    options.out.write_text("\n".join(lines))


if __name__ == "__main__":
    main()
