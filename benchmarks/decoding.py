"""Time per token and memory of the cache, by the length of what came before.

Run from the repository: `python benchmarks/decoding.py`. The table is printed and written to
benchmarks/results/decoding.md. Six layers of one mixer and one SwiGLU decode single tokens greedily
after prefixes of random tokens, which are read in pieces. Memory is what the tensors of the cache
hold for a sequence of that length, counted from the cache itself; recurrent programs and windows
should not feel the prefix at all.
"""

from __future__ import annotations

import argparse
import datetime
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from mixers import MIXERS, VOCAB, WIDTH, model_of
from torch import Tensor
from train_step import machine

RESULTS = Path(__file__).parent / "results" / "decoding.md"
PREFIXES = [1024, 4096, 16_384, 65_536]
LAYERS, PIECE = 6, 1024


@dataclass(frozen=True)
class Row:
    """Seconds per token and bytes of the cache by length of the prefix."""

    name: str
    seconds: dict[int, float]
    bytes: dict[int, float]


def tensors(value: Any) -> Iterator[Tensor]:
    """The tensors of a cache, however it is nested."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from tensors(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from tensors(inner)
    elif hasattr(value, "__dict__"):
        yield from tensors(vars(value))


@torch.no_grad()
def measure(name: str, prefixes: list[int], count: int, clock: Callable[[], float]) -> Row:
    found = Row(name, {}, {})
    model = model_of(name, max(prefixes) + count + 1, LAYERS).eval()
    generator = torch.Generator().manual_seed(1)
    for prefix in prefixes:
        cache = model.init_cache(1, prefix + count + 1)
        unique = {t.data_ptr(): t.untyped_storage().nbytes() for t in tensors(cache)}
        found.bytes[prefix] = sum(unique.values())
        tokens = torch.randint(VOCAB, (1, prefix), generator=generator)
        for piece in tokens.split(PIECE, dim=1):
            logits = model(piece, cache=cache)
        token = logits[:, -1:].argmax(-1)
        times = []
        for _ in range(count):
            start = clock()
            token = model(token, cache=cache)[:, -1:].argmax(-1)
            times.append(clock() - start)
        found.seconds[prefix] = median(times)
    return found


def table(rows: list[Row], of: str, unit: float) -> Iterator[str]:
    prefixes = sorted(getattr(rows[0], of))
    yield f"| mixer | {' | '.join(f'{n:,}' for n in prefixes)} | last / first |"
    yield "|---|" + "--:|" * (len(prefixes) + 1)
    for row in rows:
        values = getattr(row, of)
        shown = " | ".join(f"{values[n] * unit:.3g}" for n in prefixes)
        ratio = values[prefixes[-1]] / max(values[prefixes[0]], 1e-12)
        yield f"| {row.name} | {shown} | {ratio:.2f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--prefixes", nargs="+", type=int, default=PREFIXES)
    parser.add_argument("--mixers", nargs="+", default=list(MIXERS), choices=list(MIXERS))
    parser.add_argument("--count", type=int, default=64, help="tokens decoded after each prefix")
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
    for name in options.mixers:
        rows.append(measure(name, options.prefixes, options.count, clock))
        shown = ", ".join(f"{1e3 * seconds:.2f} ms" for seconds in rows[-1].seconds.values())
        print(f"{name}: {shown}", flush=True)
    lines = [
        "# Decoding by length of the prefix",
        "",
        f"{LAYERS} layers of one mixer and one SwiGLU, width {WIDTH}, float32, batch 1; medians of "
        f"{options.count} tokens.",
        "",
        "Milliseconds per token by prefix:",
        "",
        *table(rows, "seconds", 1e3),
        "",
        "Cache in megabytes by prefix:",
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
