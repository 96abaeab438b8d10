"""What a training step of compiled programs takes, against transformers' models of the same shape.

Run from the repository: `python benchmarks/train_step.py`. The table is printed and written to
benchmarks/results/train_step.md. Contenders take turns within one process, so that all see the same
machine; figures are medians. Each gets the same tokens, computes the same loss (mean cross-entropy,
in float32) and starts every step without gradients.

- forward: logits and loss, with everything kept that the backward pass needs; step: and backward.
- products: the share of the step that its matrix products would take alone. Every product of one
  step, fused attention included, is recorded with its operands and run again as often as the step.
- memory: the most that tensors occupy during a step, over the model at rest, gradients included;
  exact, from the profiler. resident: how far three steps raise the process, as the kernel counts it
  (VmHWM), which adds what the allocator cannot reuse and varies from run to run. Each contender has
  a process of its own for both.
"""

from __future__ import annotations

import argparse
import datetime
import gc
import json
import logging
import os
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from itertools import accumulate
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from starc.compiler.driver import compile_program
from starc.compiler.options import Options
from starc.grammar.source import Source
from starc.runtime.loader import load

RESULTS = Path(__file__).parent / "results" / "train_step.md"

SETTINGS = "width = 256   context = 512   embedding = untied   residual = pre(rmsnorm)"
PROGRAMS = {
    "llama": f"""\
use std.attention.mha
use std.channel.swiglu
model bench {{
    vocab = 1024   {SETTINGS}
    backbone {{ repeat 6 {{ mha(heads = 4) swiglu(hidden = 688) }} }}
}}
""",
    "mamba2": f"""\
use std.recurrent.mamba2
model bench {{
    vocab = 1024   {SETTINGS}
    backbone {{ repeat 6 {{ mamba2(state = 64, head = 64) }} }}
}}
""",
}
BATCH, LENGTH, VOCAB = 2, 512, 1024
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}

Loss = Callable[[Tensor, Tensor], Tensor]
"""Tokens and targets, (batch, length) each, to the mean cross-entropy."""


# --- contenders -----------------------------------------------------------------------------------


def compiled(shape: str) -> tuple[nn.Module, Loss]:
    """The starc program of a shape."""
    return generated(compile_program(Source("bench.star", PROGRAMS[shape]), Options()).text)


def generated(module: Path | str) -> tuple[nn.Module, Loss]:
    model: Any = load(module).Model()
    return model, model.loss


def reference(shape: str) -> tuple[nn.Module, Loss]:
    """transformers' model of the same shape, randomly initialised."""
    logging.disable(logging.WARNING)  # it tells of kernels that only a GPU has
    import transformers

    tf: Any = transformers

    common: dict[str, Any] = {
        "vocab_size": VOCAB,
        "hidden_size": 256,
        "num_hidden_layers": 6,
        "tie_word_embeddings": False,
        "use_cache": False,
    }
    model: Any
    if shape == "llama":
        config = tf.LlamaConfig(
            **common, intermediate_size=688, num_attention_heads=4, max_position_embeddings=LENGTH
        )
        model = tf.LlamaForCausalLM._from_config(config, attn_implementation="sdpa")
    else:
        model = tf.Mamba2ForCausalLM(
            tf.Mamba2Config(
                **common, num_heads=8, head_dim=64, state_size=64, n_groups=1, chunk_size=64
            )
        )

    def loss(tokens: Tensor, targets: Tensor) -> Tensor:
        logits = model(input_ids=tokens, use_cache=False).logits
        return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())

    return model, loss


def build(name: str, shape: str) -> tuple[nn.Module, Loss]:
    """`starc`, `transformers`, or the path of a generated module."""
    torch.manual_seed(0)
    if name == "starc":
        return compiled(shape)
    return reference(shape) if name == "transformers" else generated(Path(name))


def batch() -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    tokens = torch.randint(VOCAB, (BATCH, LENGTH + 1))
    return tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()


def precision(dtype: str) -> AbstractContextManager[Any]:
    return torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16")


Clock = Callable[[], float]


def step(model: nn.Module, loss: Loss, dtype: str, clock: Clock) -> tuple[float, float]:
    """One training step from no gradients: seconds until the loss, and until the gradients."""
    model.zero_grad(set_to_none=True)
    tokens, targets = batch()
    start = clock()
    with precision(dtype):
        value = loss(tokens, targets)
    forward = clock() - start
    value.backward()  # type: ignore[no-untyped-call]
    return forward, clock() - start


# --- matrix products alone ------------------------------------------------------------------------

PRODUCTS = {"mm", "addmm", "bmm", "baddbmm", "addmv", "mv", "convolution", "convolution_backward"}


class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Keeps every matrix product that runs under it, with its operands."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: list[tuple[Any, tuple[Any, ...], dict[str, Any]]] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        name = func.overloadpacket.__name__.rstrip("_")
        if name in PRODUCTS or "scaled_dot_product" in name:
            self.calls.append((func, args, kwargs or {}))
        return func(*args, **(kwargs or {}))


def products(model: nn.Module, loss: Loss, dtype: str) -> Callable[[], object]:
    """Runs the products of one step again, on the operands that it had."""
    with Recorder() as recorder:
        step(model, loss, dtype, time.perf_counter)

    def replay() -> None:
        with torch.no_grad():
            for func, args, kwargs in recorder.calls:
                func(*args, **kwargs)

    return replay


# --- measuring ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """Figures of one contender; times in ms, memory in MB (1e6 bytes)."""

    shape: str
    dtype: str
    name: str
    parameters: int
    forward: float
    step: float
    products: float
    memory: float
    resident: float


def compare(shape: str, dtype: str, names: list[str], rounds: int, clock: Clock) -> Iterator[Row]:
    contenders = {name: build(name, shape) for name in names}
    replays = {name: products(*contender, dtype) for name, contender in contenders.items()}
    times: dict[str, list[tuple[float, float, float]]] = {name: [] for name in names}
    for i in range(rounds + 2):
        for name, (model, loss) in contenders.items():
            gc.collect()
            forward, whole = step(model, loss, dtype, clock)
            start = clock()
            replays[name]()
            alone = clock() - start
            if i >= 2:  # the first rounds warm allocator and caches
                times[name].append((forward, whole, alone))
    for name, (model, _) in contenders.items():
        forward, whole, alone = (1e3 * median(column) for column in zip(*times[name], strict=True))
        size = sum(p.numel() for p in model.parameters())
        peaks = memory(name, shape, dtype)
        yield Row(shape, dtype, name, size, forward, whole, alone / whole, *peaks)


def memory(name: str, shape: str, dtype: str) -> tuple[float, float]:
    """Megabytes that training steps add, in tensors and in the process, measured in its own."""
    command = [sys.executable, __file__, "--memory-of", name, "--shapes", shape, "--dtypes", dtype]
    run = subprocess.run(command, check=True, capture_output=True, text=True)
    tensors, process = run.stdout.splitlines()[-1].split()
    return float(tensors), float(process)


def measure_memory(name: str, shape: str, dtype: str) -> tuple[float, float]:
    model, loss = build(name, shape)
    with torch.no_grad(), precision(dtype):
        loss(*(x[:, :64] for x in batch()))  # libraries set up what they keep for ever
    gc.collect()
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew from here
    for _ in range(3):
        step(model, loss, dtype, time.perf_counter)
    process = resident("VmHWM") - before
    model.zero_grad(set_to_none=True)
    with torch.profiler.profile(profile_memory=True) as profile:
        step(model, loss, dtype, time.perf_counter)
    held = accumulate(
        event.nbytes()
        for event in sorted(profile.profiler.kineto_results.events(), key=lambda e: e.start_ns())
        if event.name() == "[memory]"
    )
    return max(held) / 1e6, process / 1e6


def resident(field: str) -> int:
    """A figure of /proc/self/status in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(field + ":"))


# --- the record -----------------------------------------------------------------------------------


def machine() -> str:
    """The processor, its matrix features, and the versions that figures depend on."""
    from importlib.metadata import version

    processor, flags = platform.machine(), set()
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                processor = value.strip()
            elif key.strip() == "flags":
                flags = set(value.split())
    bf16 = flags & {"avx512_bf16", "amx_bf16"}
    return (
        f"{os.cpu_count()} x {processor} ({', '.join(sorted(bf16)) or 'no bfloat16 units'}), "
        f"{torch.get_num_threads()} threads, Python {platform.python_version()}, "
        f"torch {torch.__version__}, transformers {version('transformers')}"
    )


def table(rows: list[Row]) -> Iterator[str]:
    titles = "forward ms | step ms | products | memory MB | resident MB"
    yield f"| shape | dtype | model | parameters | {titles} |"
    yield "|---|---|---|--:|--:|--:|--:|--:|--:|"
    for r in rows:
        yield (
            f"| {r.shape} | {r.dtype} | {Path(r.name).name} | {r.parameters:,} | {r.forward:.0f} "
            f"| {r.step:.0f} | {r.products:.0%} | {r.memory:.0f} | {r.resident:.0f} |"
        )
    yield ""
    yield "How many times as fast, and how much of the memory, as transformers:"
    yield ""
    yield "| shape | dtype | model | forward | step | memory |"
    yield "|---|---|---|--:|--:|--:|"
    for r in rows:
        of = next(x for x in rows if (x.shape, x.dtype, x.name) == (*_key(r), "transformers"))
        if r is not of:
            yield (
                f"| {r.shape} | {r.dtype} | {Path(r.name).name} | {of.forward / r.forward:.2f} "
                f"| {of.step / r.step:.2f} | {r.memory / of.memory:.2f} |"
            )


def _key(row: Row) -> tuple[str, str]:
    return row.shape, row.dtype


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--shapes", nargs="+", default=list(PROGRAMS), choices=list(PROGRAMS))
    parser.add_argument("--dtypes", nargs="+", default=list(DTYPES), choices=list(DTYPES))
    parser.add_argument("--rounds", type=int, default=15, help="steps of each contender")
    parser.add_argument("--threads", type=int, help="threads of each; PyTorch's choice otherwise")
    parser.add_argument(
        "--cpu-time",
        action="store_true",
        help="count processor time: with --threads 1, for a machine that others use as well",
    )
    parser.add_argument(
        "--ours",
        action="append",
        default=[],
        metavar="SHAPE=FILE",
        help="a generated module that takes part too, such as llama=llama.py",
    )
    parser.add_argument("--out", type=Path, default=RESULTS, help="the record to write")
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    clock = time.process_time if options.cpu_time else time.perf_counter
    if options.memory_of:
        print(*measure_memory(options.memory_of, options.shapes[0], options.dtypes[0]))
        return
    more = [text.partition("=")[::2] for text in options.ours]
    rows: list[Row] = []
    for shape in options.shapes:
        names = ["transformers", "starc", *(path for of, path in more if of == shape)]
        for dtype in options.dtypes:
            rows += compare(shape, dtype, names, options.rounds, clock)
    lines = [
        "# Training step",
        "",
        f"Batch {BATCH}, length {LENGTH}, width 256, 6 layers, vocabulary {VOCAB:,}; the programs "
        "are in benchmarks/train_step.py; medians of "
        f"{options.rounds} interleaved rounds. bfloat16 is autocast over float32 weights.",
        "",
        *table(rows),
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
