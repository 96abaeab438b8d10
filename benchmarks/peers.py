"""Compiled programs against transformers' models of the same weights: training, memory, decoding.

Run from the repository: `python benchmarks/peers.py`. The table is printed and written to
benchmarks/results/peers.md. Each program of examples/families gets the weights of the published
model through its map, so that both compute the same; that they do is checked first. Contenders take
turns within one process, so that all see the same machine; figures are medians.

- forward: logits, without gradients; step: logits, mean cross-entropy and the backward pass, each
  step from no gradients.
- memory: the most that tensors occupy during a training step, over the model at rest, gradients
  included; exact, from the profiler. Every contender has a process of its own for it.
- decoding: greedy tokens per second, batch 1, after a prefix, each model with its own cache. Both
  are called once per token with the token that they chose before.
- compiled: the same with the step of one token through torch.compile: the program's `compile_step`,
  and for transformers its forward over a StaticCache where the model takes one (else over the cache
  that it fills itself, which may not compile). Each is compiled before anything is timed.
- bound: the tokens per second that the products of one token with all matrices would leave if
  nothing else took time.
"""

from __future__ import annotations

import argparse
import datetime
import gc
import inspect
import json
import shlex
import subprocess
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import accumulate
from pathlib import Path
from statistics import median
from typing import Any

import torch
from families import FOLDER, Family, build, compiled
from torch import Tensor, nn
from torch.nn import functional as F
from train_step import machine

RESULTS = Path(__file__).parent / "results" / "peers.md"
BATCH, LENGTH, VOCAB, WIDTH, LAYERS = 2, 512, 1024, 256, 6
PREFIX, CONTEXT = 256, 1024

COMMON: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": WIDTH,
    "num_hidden_layers": LAYERS,
    "tie_word_embeddings": False,
    "pad_token_id": None,
}
ATTENTION = COMMON | {
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "intermediate_size": 688,
    "max_position_embeddings": CONTEXT,
}
SHAPES: dict[str, Family] = {
    "llama": Family("Llama", ATTENTION, "sdpa"),
    "mistral": Family("Mistral", ATTENTION | {"sliding_window": 128}, "sdpa"),
    "minicpm3": Family(
        "MiniCPM3",
        ATTENTION
        | {"q_lora_rank": 96, "kv_lora_rank": 64, "qk_nope_head_dim": 48, "qk_rope_head_dim": 16}
        | {"v_head_dim": 64, "dim_model_base": WIDTH, "tie_word_embeddings": True},
        "sdpa",
    ),
    "mamba2": Family(
        "Mamba2",
        COMMON
        | {"num_heads": 8, "head_dim": 64, "state_size": 64, "n_groups": 1, "chunk_size": 64},
    ),
    "lfm2": Family(
        "Lfm2",
        ATTENTION
        | {"layer_types": ["conv", "conv", "full_attention"] * 2, "num_key_value_heads": 2}
        | {"block_auto_adjust_ff_dim": False, "tie_word_embeddings": True},
        "sdpa",
    ),
    "qwen3_next": Family(
        "Qwen3Next",
        ATTENTION
        | {"full_attention_interval": 3}
        | {"linear_num_key_heads": 4, "linear_num_value_heads": 4, "linear_key_head_dim": 64}
        | {"linear_value_head_dim": 64, "head_dim": 64, "num_key_value_heads": 2}
        | {"mlp_only_layers": list(range(LAYERS))},
        "sdpa",
    ),
    "xlstm": Family(
        "xLSTM",
        COMMON | {"num_heads": 4, "num_blocks": LAYERS, "autocast_kernel_dtype": "float32"},
    ),
}


@dataclass(frozen=True)
class Speeds:
    """Tokens decoded per second; None where not measured."""

    eager: float | None
    compiled: float | None
    bound: float | None


@dataclass(frozen=True)
class Row:
    """Figures of one contender; times in ms, memory in MB (1e6 bytes)."""

    shape: str
    name: str
    parameters: int
    forward: float
    step: float
    memory: float
    decoding: Speeds


Decode = Callable[[Tensor, int], Callable[[], Tensor]]


@dataclass(frozen=True)
class Contender:
    """A model behind one interface. `decode(prefix, room)` gives a function that makes the next
    token, with a cache of `room` tokens, and `compiled` one whose steps are compiled."""

    model: nn.Module
    logits: Callable[[Tensor], Tensor]
    decode: Decode
    compiled: Decode


def published_contender(model: Any) -> Contender:
    def steps(prefix: Tensor, forward: Any, **first: Any) -> Callable[[], Tensor]:
        found = model(input_ids=prefix, use_cache=True, logits_to_keep=1, **first)
        key = "cache_params" if getattr(found, "cache_params", None) is not None else None
        key = key or "past_key_values"
        state = {"token": found.logits[:, -1:].argmax(-1), "cache": getattr(found, key)}

        def step() -> Tensor:
            step_found = forward(input_ids=state["token"], use_cache=True, **{key: state["cache"]})
            state["cache"] = getattr(step_found, key)
            state["token"] = step_found.logits[:, -1:].argmax(-1)
            return state["token"]

        return step

    def decode(prefix: Tensor, room: int) -> Callable[[], Tensor]:
        return steps(prefix, model)

    def compiled(prefix: Tensor, room: int) -> Callable[[], Tensor]:
        from transformers import StaticCache

        forward = torch.compile(model, fullgraph=model._can_compile_fullgraph)
        if "past_key_values" not in inspect.signature(model.forward).parameters:
            return steps(prefix, forward)  # whose states have one size anyway
        static = StaticCache(config=model.config, max_cache_len=room)
        return steps(prefix, forward, past_key_values=static)

    def logits(tokens: Tensor) -> Any:
        return model(input_ids=tokens, use_cache=False).logits

    return Contender(model, logits, decode, compiled)


def program_contender(model: Any) -> Contender:
    def steps(prefix: Tensor, room: int, forward: Any) -> Callable[[], Tensor]:
        cache = model.init_cache(prefix.shape[0], room)
        state = {"token": model(prefix, cache)[:, -1:].argmax(-1)}

        def step() -> Tensor:
            state["token"] = forward(state["token"], cache)[:, -1:].argmax(-1)
            return state["token"]

        return step

    def decode(prefix: Tensor, room: int) -> Callable[[], Tensor]:
        return steps(prefix, room, model)

    def compiled(prefix: Tensor, room: int) -> Callable[[], Tensor]:
        return steps(prefix, room, model.compile_step())

    return Contender(model, model, decode, compiled)


def contenders(shape: str) -> dict[str, Contender]:
    """transformers' model and the program with its weights."""
    torch.manual_seed(0)
    theirs = build(SHAPES[shape]).eval()
    ours, _ = compiled(shape, theirs)
    return {"transformers": published_contender(theirs), "starc": program_contender(ours)}


def tokens(batch: int = BATCH, length: int = LENGTH) -> Tensor:
    return torch.randint(VOCAB, (batch, length), generator=torch.Generator().manual_seed(1))


def train(contender: Contender, clock: Callable[[], float]) -> float:
    """Seconds of a training step."""
    contender.model.zero_grad(set_to_none=True)
    x = tokens(length=LENGTH + 1)
    start = clock()
    logits = contender.logits(x[:, :-1])
    loss = F.cross_entropy(logits.flatten(0, 1).float(), x[:, 1:].flatten())
    torch.autograd.backward(loss)
    return clock() - start


@torch.no_grad()
def forward(contender: Contender, clock: Callable[[], float]) -> float:
    x = tokens()
    start = clock()
    contender.logits(x)
    return clock() - start


def compare(
    shape: str,
    rounds: int,
    count: int,
    clock: Callable[[], float],
    with_memory: bool,
    compile: bool,
) -> Iterator[Row]:
    found = contenders(shape)
    both = [found["transformers"], found["starc"]]
    with torch.no_grad():
        expected, logits = (c.logits(tokens()) for c in both)
    difference = float((logits - expected).abs().max() / expected.abs().max())
    if difference > 1e-4:
        raise AssertionError(f"{shape}: the contenders differ by {difference:.1e}")
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in found}
    for i in range(rounds + 2):
        for name, contender in found.items():
            gc.collect()
            measured = forward(contender, clock), train(contender, clock)
            if i >= 2:  # the first rounds warm allocator and caches
                times[name].append(measured)
            contender.model.zero_grad(set_to_none=True)
    speeds = decoding(found, rounds, count, clock, compile)
    for name, contender in found.items():
        milliseconds = (1e3 * median(column) for column in zip(*times[name], strict=True))
        size = sum(p.numel() for p in contender.model.parameters())
        peak = memory(name, shape) if with_memory else float("nan")
        yield Row(shape, name, size, *milliseconds, peak, speeds[name])


@torch.no_grad()
def decoding(
    found: dict[str, Contender], rounds: int, count: int, clock: Callable[[], float], compile: bool
) -> dict[str, Speeds]:
    """Tokens per second by name: all take turns, a few tokens each time."""
    prefix, room = tokens(1, PREFIX), PREFIX + (rounds + 2) * count
    steps: dict[tuple[str, str], Callable[[], Any]] = {}
    for name, contender in found.items():
        steps[name, "eager"] = contender.decode(prefix, room)
        steps[name, "bound"] = products(contender.model)
        if compile:
            torch._dynamo.reset()
            try:
                step = contender.compiled(prefix, room)
                for _ in range(3):
                    step()
                steps[name, "compiled"] = step
            except Exception:  # PyTorch cannot compile it; the others are worth having
                traceback.print_exc(limit=2)
    times: dict[tuple[str, str], list[float]] = {key: [] for key in steps}
    for i in range(rounds + 1):
        for key, step in steps.items():
            start = clock()
            for _ in range(count):
                step()
            if i:
                times[key].append((clock() - start) / count)
    speeds = {key: 1 / median(seconds) for key, seconds in times.items()}
    kinds = ("eager", "compiled", "bound")
    return {name: Speeds(*(speeds.get((name, kind)) for kind in kinds)) for name in found}


def products(model: nn.Module) -> Callable[[], Any]:
    """The products of one token with every matrix of a model but a table that is only looked up."""
    tables = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    tables -= {id(m.weight) for m in model.modules() if isinstance(m, nn.Linear)}  # when tied
    matrices = [p for p in model.parameters() if p.dim() == 2 and id(p) not in tables]
    inputs = [torch.randn(1, matrix.shape[1]) for matrix in matrices]
    return lambda: [F.linear(x, matrix) for x, matrix in zip(inputs, matrices, strict=True)]


def memory(name: str, shape: str) -> float:
    """Megabytes of tensors that a training step adds, measured in a process of its own."""
    command = [sys.executable, __file__, "--memory-of", name, "--shapes", shape]
    run = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(run.stdout.splitlines()[-1])


def measure_memory(name: str, shape: str) -> float:
    contender = contenders(shape)[name]
    train(contender, time.perf_counter)
    contender.model.zero_grad(set_to_none=True)
    gc.collect()
    with torch.profiler.profile(profile_memory=True) as profile:
        train(contender, time.perf_counter)
    held = accumulate(
        event.nbytes()
        for event in sorted(profile.profiler.kineto_results.events(), key=lambda e: e.start_ns())
        if event.name() == "[memory]"
    )
    return max(held) / 1e6


# --- the record -----------------------------------------------------------------------------------


def table(rows: list[Row]) -> Iterator[str]:
    titles = "forward ms | step ms | memory MB | decoding tokens/s | compiled | bound"
    yield f"| shape | model | parameters | {titles} |"
    yield "|---|---|--:|--:|--:|--:|--:|--:|--:|"
    for r in rows:
        yield (
            f"| {r.shape} | {r.name} | {r.parameters:,} | {r.forward:.0f} | {r.step:.0f} "
            f"| {r.memory:.0f} | {shown(r.decoding.eager, 0)} | {shown(r.decoding.compiled, 0)} "
            f"| {shown(r.decoding.bound, 0)} |"
        )
    yield ""
    yield "How many times as fast, and how much of the memory, as transformers; the last two are"
    yield "the compiled step over transformers' eager one and over its compiled one:"
    yield ""
    yield "| shape | forward | step | memory | decoding | compiled / eager | compiled / compiled |"
    yield "|---|--:|--:|--:|--:|--:|--:|"
    for r in rows:
        if r.name == "transformers":
            continue
        of = next(x for x in rows if (x.shape, x.name) == (r.shape, "transformers"))
        ours, theirs = r.decoding, of.decoding
        yield (
            f"| {r.shape} | {of.forward / r.forward:.2f} | {of.step / r.step:.2f} "
            f"| {r.memory / of.memory:.2f} | {shown(ratio(ours.eager, theirs.eager))} "
            f"| {shown(ratio(ours.compiled, theirs.eager))} "
            f"| {shown(ratio(ours.compiled, theirs.compiled))} |"
        )


def ratio(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a / b


def shown(x: float | None, digits: int = 2) -> str:
    return "" if x is None else f"{x:.{digits}f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    known = [shape for shape in SHAPES if (FOLDER / f"{shape}.map").exists()]
    parser.add_argument("--shapes", nargs="+", default=known, choices=list(SHAPES))
    parser.add_argument("--rounds", type=int, default=15, help="steps of each contender")
    parser.add_argument("--count", type=int, default=16, help="tokens decoded in each round")
    parser.add_argument("--threads", type=int, help="threads of each; PyTorch's choice otherwise")
    parser.add_argument("--no-compile", action="store_true", help="leave compiled steps out")
    parser.add_argument("--no-memory", action="store_true", help="leave the memory out")
    parser.add_argument(
        "--cpu-time",
        action="store_true",
        help="count processor time: with --threads 1, for a machine that others use as well",
    )
    parser.add_argument("--out", type=Path, default=RESULTS, help="the record to write")
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.memory_of:
        print(measure_memory(options.memory_of, options.shapes[0]))
        return
    clock = time.process_time if options.cpu_time else time.perf_counter
    rows: list[Row] = []
    failed: list[str] = []
    for shape in options.shapes:
        try:
            found = list(
                compare(
                    shape,
                    options.rounds,
                    options.count,
                    clock,
                    with_memory=not options.no_memory,
                    compile=not options.no_compile,
                )
            )
        except Exception:  # the table of the others is worth having
            traceback.print_exc(limit=4)
            failed.append(shape)
            continue
        rows += found
        print(*table(found), sep="\n", flush=True)
    lines = [
        "# Peers",
        "",
        f"Batch {BATCH}, length {LENGTH}, width {WIDTH}, {LAYERS} layers, vocabulary {VOCAB:,}, "
        f"float32; decoding: batch 1 after {PREFIX} tokens. Both contenders of a shape have the "
        f"same weights. Medians of {options.rounds} interleaved rounds.",
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
    options.out.parent.mkdir(exist_ok=True)
    options.out.write_text("\n".join(lines))
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
