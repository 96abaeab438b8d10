"""Training on in-context recall: the trainer's loop against a plain loop over transformers' Llama.

Run from the repository: `python benchmarks/task_training.py`. The table is printed and written to
benchmarks/results/task_training.md. Both are Transformer++ of the same shape, learn the same task
in the same precision with AdamW and clipping, and take turns within one process, so that both see
the same machine; figures are medians. What is timed is all of it: drawing the batch, the step, and
in the trainer's case everything it keeps of it but for writing checkpoints. The plain loop is what
one writes without thinking of speed: PyTorch's defaults throughout.
"""

from __future__ import annotations

import argparse
import datetime
import json
import logging
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from train_step import machine

from starc import compile_text
from starc.runtime.learner import SingleLearner
from starc.runtime.loader import load
from starc.runtime.precision import autocast, fastest_precision
from starc.runtime.run import Settings
from starc.runtime.tasks import Task, make_task
from starc.runtime.train import fit

RESULTS = Path(__file__).parent / "results" / "task_training.md"
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Shape:
    """A Transformer++ and its task: ids of an example before the shift, heads of 32 channels."""

    name: str
    width: int
    layers: int
    hidden: int
    batch: int
    length: int

    @property
    def task(self) -> Task:
        return make_task("in-context-recall", length=self.length)

    @property
    def program(self) -> str:
        return f"""
use std.attention.mha
use std.channel.swiglu
model bench {{
    vocab = 16   width = {self.width}   context = {self.length}
    embedding = untied   residual = pre(rmsnorm)
    backbone {{
        repeat {self.layers} {{ mha(heads = {self.width // 32}) swiglu(hidden = {self.hidden}) }}
    }}
}}
"""

    def settings(self, precision: str = "fp32") -> Settings:
        return Settings(
            self.task.name,
            steps=STEPS,
            batch=self.batch,
            length=self.task.tokens,
            learning_rate=1e-3,
            warmup=100,
            precision=precision,
            validate_every=STEPS + 1,
        )


STEPS = 20_000
SHAPES = (Shape("recall", 128, 4, 344, 128, 128), Shape("narrow", 64, 2, 192, 32, 64))

Loop = Callable[[], object]
"""Takes one step, and everything that belongs to it."""


def trainer(shape: Shape, precision: str) -> tuple[nn.Module, Loop]:
    torch.manual_seed(0)
    settings, task = shape.settings(precision), shape.task
    learner = SingleLearner(load(compile_text(shape.program).text).Model(), settings, CPU)
    taken = 0

    def step() -> None:
        nonlocal taken
        first = taken
        (result,) = fit(
            learner, task, settings, step=first, should_stop=lambda: taken > first, observe=note
        )
        assert result.step == taken == first + 1

    def note(progress: Any) -> None:
        nonlocal taken
        taken = progress.step

    return learner.model, step


def plain(shape: Shape, precision: str) -> tuple[nn.Module, Loop]:
    logging.disable(logging.WARNING)  # it tells of kernels that only a GPU has
    import transformers

    tf: Any = transformers
    torch.manual_seed(0)
    config = tf.LlamaConfig(
        vocab_size=16,
        hidden_size=shape.width,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.width // 32,
        intermediate_size=shape.hidden,
        max_position_embeddings=shape.length,
        tie_word_embeddings=False,
        use_cache=False,
    )
    model: Any = tf.LlamaForCausalLM._from_config(config, attn_implementation="sdpa")
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    tokens, targets = (torch.from_numpy(array.astype("int64")) for array in shape.task.training)
    data = torch.utils.data.TensorDataset(tokens, targets)
    batches = batches_of(torch.utils.data.DataLoader(data, shape.batch, shuffle=True))

    def step() -> float:
        x, y = next(batches)
        with autocast(CPU, precision):
            loss = F.cross_entropy(model(input_ids=x).logits.flatten(0, 1).float(), y.flatten())
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        return loss.item()

    return model, step


def batches_of(loader: Any) -> Iterator[Any]:
    while True:
        yield from loader


@dataclass(frozen=True)
class Row:
    """Figures of one contender: examples per second, and seconds of a step."""

    shape: str
    precision: str
    name: str
    parameters: int
    rate: float
    seconds: float


def compare(shape: Shape, precision: str, rounds: int, clock: Callable[[], float]) -> Iterator[Row]:
    contenders = {
        "plain loop over Llama": plain(shape, precision),
        "starc": trainer(shape, precision),
    }
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for i in range(rounds + 1):
        for name, (_, step) in contenders.items():
            start = clock()
            step()
            if i:  # the first round warms the allocator
                times[name].append(clock() - start)
    for name, (model, _) in contenders.items():
        seconds = median(times[name])
        size = sum(parameter.numel() for parameter in model.parameters())
        yield Row(shape.name, precision, name, size, shape.batch / seconds, seconds)


def table(rows: list[Row]) -> Iterator[str]:
    yield "| shape | precision | contender | parameters | ms a step | examples/s | times as fast |"
    yield "|---|---|---|--:|--:|--:|--:|"
    for r in rows:
        of = next(x for x in rows if (x.shape, x.precision) == (r.shape, r.precision))
        yield (
            f"| {r.shape} | {r.precision} | {r.name} | {r.parameters:,} | {1e3 * r.seconds:.1f} "
            f"| {r.rate:.1f} | {r.rate / of.rate:.2f} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=12, help="steps of each contender")
    parser.add_argument("--precisions", nargs="+", default=["fp32", "bf16"])
    parser.add_argument("--threads", type=int, help="threads; PyTorch's choice otherwise")
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
    rows: list[Row] = []
    chosen = []
    for shape in SHAPES:
        for precision in options.precisions:
            # As long for the small shape as for the large one.
            rounds = options.rounds * (1 if shape is SHAPES[0] else 16)
            rows += compare(shape, precision, rounds, clock)
        module = load(compile_text(shape.program).text)
        best = fastest_precision(module, shape.task, CPU, shape.batch, shape.task.tokens)
        chosen.append(f"{best} for {shape.name}")
    shapes = "; ".join(
        f"{s.name}: width {s.width}, {s.layers} layers of attention and SwiGLU, batch {s.batch}, "
        f"{s.task.tokens} tokens"
        for s in SHAPES
    )
    lines = [
        "# Training on a task",
        "",
        f"In-context recall. {shapes}. The program is in benchmarks/task_training.py; medians of "
        f"{options.rounds} interleaved steps, 16 times as many of the small shape"
        f"{'; processor time' if options.cpu_time else ''}. Grids: sweep.md.",
        "",
        *table(rows),
        "",
        f"The trainer's `--precision auto` measures both here and takes {', '.join(chosen)}.",
        "",
        f"{datetime.date.today()}, {machine()}.",
        f"`{shlex.join(['python', *sys.argv])}`",
        "",
        "```json",
        json.dumps([asdict(row) for row in rows], indent=1),
        "```",
        "",
    ]
    print("\n".join(lines[:-4]))
    options.out.parent.mkdir(exist_ok=True)
    options.out.write_text("\n".join(lines))


if __name__ == "__main__":
    main()
