"""How fast synthetic tasks are drawn, and what share of training they take.

Run from the repository: `python benchmarks/tasks.py`. The table is printed and written to
benchmarks/results/tasks.md. Seconds are of the processor, on one thread, so that other programs on
the machine count little; each figure is the best of `--rounds`.

- drawing: the whole training set, from nothing.
- batch: one batch of 128 out of it, shuffled and widened to int64.
- step: forward, backward and AdamW on such a batch, for two blocks of attention and SwiGLU at width
  128 (compression: with its auto-encoder). Long sequences are timed in a batch of at most 16,384
  tokens, which saves memory, and the time is multiplied to that of 128 sequences.
- share: of one epoch, the first, that drawing and batches take; of 200 epochs, MAD's protocol.
"""

from __future__ import annotations

import argparse
import datetime
import platform
import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from starc.compiler.driver import compile_program
from starc.compiler.options import Options
from starc.grammar.source import Source
from starc.runtime.loader import load
from starc.runtime.tasks import MAD, TASKS, Task, make_task

RESULTS = Path(__file__).parent / "results" / "tasks.md"
BATCH, EPOCHS = 128, 200
LONG = ("in-context-recall", "noisy-in-context-recall", "fuzzy-in-context-recall")
CASES: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in TASKS),
    *((name, {"length": 1_024}) for name in (*LONG, "selective-copying")),
]
PROGRAM = """\
use std.attention.mha
use std.channel.swiglu
model measured {{
    vocab = {vocab}  width = 128  context = {context}
    backbone {{ repeat 2 {{ mha(heads = 4)  swiglu() }} }}
}}
"""


def seconds(work: Callable[[int], object], rounds: int) -> float:
    """The least processor time of a call, which is given the number of its round."""
    best = float("inf")
    for number in range(rounds):
        began = time.process_time()
        work(number)
        best = min(best, time.process_time() - began)
    return best


def step_seconds(task: Task, rounds: int) -> float:
    text = PROGRAM.format(vocab=task.vocab, context=task.context)
    torch.manual_seed(0)
    model: Any = task.adapt(load(compile_program(Source("m.star", text), Options()).text).Model())
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    timed = max(1, min(BATCH, 16_384 // task.tokens))
    tokens, targets = map(torch.from_numpy, task.batch(1, batch=timed, seed=0))

    def step(_: int) -> None:
        optimizer.zero_grad()
        model.loss(tokens, targets).backward()
        optimizer.step()

    return seconds(step, rounds + 1) * BATCH / timed  # the first round pays for allocation


def measure(name: str, changes: dict[str, Any], rounds: int) -> dict[str, Any]:
    drawing = seconds(lambda number: make_task(name, seed=number, **changes).training, rounds)
    task = make_task(name, **changes)
    held = sum(array.nbytes for array in task.training)
    task.batch(1, batch=BATCH, seed=0)
    batch = seconds(lambda number: task.batch(number + 1, batch=BATCH, seed=0), 20)
    step = step_seconds(task, rounds)
    steps = task.examples / BATCH
    return {
        "task": name,
        "changes": changes,
        "examples": task.examples,
        "tokens": task.tokens,
        "drawing": drawing,
        "batch": batch,
        "step": step,
        "megabytes": held / 1e6,
        "share_first": (drawing + steps * batch) / (drawing + steps * (batch + step)),
        "share": (drawing / EPOCHS + steps * batch) / (drawing / EPOCHS + steps * (batch + step)),
    }


def row(found: dict[str, Any]) -> str:
    changes = ", ".join(f"{key} {value:,}" for key, value in found["changes"].items())
    rate = found["examples"] / found["drawing"]
    cells = (
        found["task"],
        changes or "baseline",
        f"{found['examples']:,}",
        f"{found['tokens']:,}",
        f"{found['drawing']:.3f}",
        f"{rate:,.0f}",
        f"{rate * found['tokens'] / 1e6:.1f}",
        f"{found['megabytes']:.1f}",
        f"{1e3 * found['batch']:.2f}",
        f"{1e3 * found['step']:,.0f}",
        f"{found['share_first']:.2%}",
        f"{found['share']:.3%}",
    )
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    head = (
        "| task | setting | examples | tokens each | drawing s | examples/s | million tokens/s "
        "| MB held | batch ms | step ms | share, first epoch | share, 200 epochs |\n"
        "|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|"
    )
    print(head)
    found = []
    for name, changes in CASES:
        found.append(measure(name, changes, rounds))
        print(row(found[-1]), flush=True)
    mad = [one for one in found if one["task"] in MAD and not one["changes"]]
    total = sum(one["drawing"] for one in mad)
    text = (
        "# Drawing synthetic tasks\n\n"
        "Processor seconds on one thread, the best of several rounds; the columns are described in "
        "benchmarks/tasks.py.\n\n"
        + "\n".join([head, *map(row, found)])
        + f"\n\nThe training sets of MAD's six baselines together: {total:.2f} s. The largest "
        f"share of a first epoch is {max(one['share_first'] for one in found):.2%}, of 200 epochs "
        f"{max(one['share'] for one in found):.3%}.\n\n"
        f"{datetime.date.today()}, {_processor()}, one thread, Python {platform.python_version()}, "
        f"torch {torch.__version__}.\n`python {shlex.join(sys.argv)}`\n"
    )
    RESULTS.write_text(text)
    print(f"wrote {RESULTS}")


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":")[1].strip()
    return platform.processor()


if __name__ == "__main__":
    main()
