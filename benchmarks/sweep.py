"""A 6-point grid of learning rates and weight decays: ways to train it, against a plain loop.

Run from the repository: `python benchmarks/sweep.py`. The table is printed and written to
benchmarks/results/sweep.md. In-context recall, Transformer++; the plain loop trains one
transformers Llama of the same size after the other. Contenders take turns; figures are their best:
seconds per step and point, that is, the time of a step over the points that it trains. Processor
time is that of all threads; it is the figure to read when others use the machine.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from train_step import machine

from starc import compile_text
from starc.runtime.run import Run, Settings, create
from starc.runtime.sweep import Point
from starc.runtime.tasks import Task, make_task
from starc.runtime.ways import Trial
from starc.runtime.workers import Workers

RESULTS = Path(__file__).parent / "results" / "sweep.md"
GRID = [Point(rate, decay) for rate in (1e-4, 5e-4, 1e-3) for decay in (0.0, 0.1)]
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Shape:
    name: str
    width: int
    layers: int
    hidden: int
    batch: int
    length: int


SHAPES = (
    Shape("recall", 128, 4, 344, 128, 128),
    Shape("narrow", 64, 2, 192, 32, 64),
    Shape("tiny", 32, 2, 96, 8, 32),
)


def program(shape: Shape) -> str:
    heads = max(1, shape.width // 32)
    return f"""
use std.attention.mha
use std.channel.swiglu
model grid {{
    vocab = 16  width = {shape.width}  context = {shape.length}
    residual = pre(rmsnorm)
    backbone {{ repeat {shape.layers} {{ mha(heads = {heads})  swiglu(hidden = {shape.hidden}) }} }}
}}
"""


def runs_of(shape: Shape, data: Task, folder: Path) -> list[Run]:
    text = program(shape)
    common = Settings(data.name, 1000, shape.batch, shape.length - 1, 1e-3, 100)
    module = compile_text(text).text
    return [
        create(
            folder / point.folder,
            program=text,
            module_text=module,
            data_digest=data.digest,
            settings=point.settings(common),
        )
        for point in GRID
    ]


def llama_step(shape: Shape, data: Task) -> Callable[[], None]:
    """A step as one would write it."""
    import transformers

    model: Any = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=16,
            hidden_size=shape.width,
            num_hidden_layers=shape.layers,
            num_attention_heads=max(1, shape.width // 32),
            intermediate_size=shape.hidden,
            max_position_embeddings=shape.length,
            tie_word_embeddings=False,
            pad_token_id=None,
        )
    )
    arrays = data.batch(1, batch=shape.batch, length=0, seed=0)
    tokens, targets = (torch.from_numpy(array.copy()) for array in arrays)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

    def step() -> None:
        optimizer.zero_grad()
        logits = model(input_ids=tokens, use_cache=False).logits
        F.cross_entropy(logits.flatten(0, 1), targets.flatten()).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return step


def timed(step: Callable[[], None], steps: int = 2) -> tuple[float, float]:
    """Seconds of the clock and of the processor, best of some steps."""
    wall, processor = math.inf, math.inf
    for _ in range(steps):
        began = time.perf_counter(), time.process_time()
        step()
        wall = min(wall, time.perf_counter() - began[0])
        processor = min(processor, time.process_time() - began[1])
    return wall, processor


def measure(shape: Shape, rounds: int, workers: Workers) -> dict[str, tuple[float, float]]:
    """By contender, seconds and processor seconds per step and point."""
    data = make_task("in-context-recall", vocab=16, length=shape.length)
    found: dict[str, tuple[float, float]] = {}

    def note(name: str, wall: float, processor: float) -> None:
        old = found.get(name, (math.inf, math.inf))
        found[name] = (min(old[0], wall), min(old[1], processor))

    with tempfile.TemporaryDirectory() as folder:
        runs = runs_of(shape, data, Path(folder))
        plain = llama_step(shape, data)
        plain()
        alone, stack = Trial(runs[:1], data, CPU), Trial(runs, data, CPU)
        share = -(-len(GRID) // len(workers))
        for _ in range(rounds):
            note("transformers, one after another", *timed(plain))
            note("one after another", *alone.time())
            note("6 stacked", *stack.time())
            for count in (1, share):
                folders = [run.folder for run in runs[:count]]
                both = workers.answers("starc.runtime.ways:time_steps", folders, data)
                wall = max(w for w, _ in both) / len(workers)
                inside = "one after another" if count == 1 else f"{count} stacked"
                name = f"{inside} in each of {len(workers)} processes"
                note(name, wall, max(p for _, p in both))
    return found


def table(found: dict[str, dict[str, tuple[float, float]]]) -> str:
    lines = [
        "| shape | way | ms per step and point | examples/s | times transformers "
        "| processor ms | times transformers |",
        "|---|---|--:|--:|--:|--:|--:|",
    ]
    for shape in SHAPES:
        if shape.name not in found:
            continue
        rows = found[shape.name]
        wall, processor = rows["transformers, one after another"]
        for name, (w, p) in rows.items():
            figures = f"{w * 1e3:.1f} | {shape.batch / w:.0f} | {wall / w:.2f}"
            lines.append(
                f"| {shape.name} | {name} | {figures} | {p * 1e3:.1f} | {processor / p:.2f} |"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--shapes", nargs="*", default=[shape.name for shape in SHAPES])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--processes", type=int, default=torch.get_num_threads())
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    found: dict[str, dict[str, tuple[float, float]]] = {}
    with Workers(given.processes, 1) as workers:
        for shape in SHAPES:
            if shape.name in given.shapes:
                found[shape.name] = measure(shape, given.rounds, workers)
                print(table({shape.name: found[shape.name]}), flush=True)
    sizes = "; ".join(
        f"{s.name}: width {s.width}, {s.layers} layers, batch {s.batch}, length {s.length}"
        for s in SHAPES
    )
    text = (
        "# Sweeps\n\nLearning rates 1e-4, 5e-4, 1e-3 by weight decays 0, 0.1 on in-context recall, "
        f"float32. {sizes}. A worker process has one thread.\n\n{table(found)}\n\n"
        f"{datetime.date.today()}, {machine()}; {given.threads} threads in the one process.\n"
        f"`python benchmarks/sweep.py --rounds {given.rounds} --threads {given.threads} "
        f"--processes {given.processes}`\n\n```json\n{json.dumps(found, indent=1)}\n```\n"
    )
    RESULTS.write_text(text)


if __name__ == "__main__":
    main()
