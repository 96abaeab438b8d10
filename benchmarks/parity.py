"""How closely compiled programs reproduce models that others published.

Run from the repository: `python benchmarks/parity.py`. For every family transformers builds a small
model; all its parameters get noise, it is saved, and its checkpoint goes through the family's map
into the compiled program of examples/families. Then both see the same tokens, in float32. The table
is printed and written to benchmarks/results/parity.md.

- forward: the largest difference of two logits, of the whole sequence at once, over the largest
  logit of the published model.
- decoding: the same, where both models see a prefix first and then one token after the other, each
  with its own cache. The compiled one gets its prefix in two pieces and a few more tokens at once.
- from float64: where that is more than the target, how far each of the two is from what the
  compiled program gives in float64. (Some published models compute parts in float32 whatever
  their dtype.)
"""

from __future__ import annotations

import argparse
import datetime
import platform
import shlex
import sys
import time
import traceback
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from families import FAMILIES, VOCAB, compiled, published
from torch import Tensor

RESULTS = Path(__file__).parent / "results" / "parity.md"
TARGET = 1e-5
BATCH, LENGTH, PREFIX = 2, 97, 64
PIECES = (61, 9)


@dataclass(frozen=True)
class Row:
    """Differences of a family, relative to the largest logit; None where not compared."""

    name: str
    architecture: str
    parameters: int
    largest: float
    forward: float
    decoding: float | None
    from_float64: tuple[float, float] | None = None
    """Theirs and ours, where they differ by more than the target."""


def compare(name: str) -> Row:
    theirs = published(name)
    ours, _ = compiled(name, theirs)
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(VOCAB, (BATCH, LENGTH), generator=generator)
    with torch.no_grad():
        expected = theirs(input_ids=tokens, use_cache=False).logits
        logits = ours(tokens)
        largest = float(expected.abs().max())
        decoding = None
        if FAMILIES[name].cache and hasattr(ours, "init_cache"):
            theirs_stepwise = steps_of(theirs, tokens)
            decoding = difference(steps(ours, tokens), theirs_stepwise) / largest
    size = sum(p.numel() for p in ours.parameters())
    family = FAMILIES[name]
    architecture = family.architecture + family.model
    forward = difference(logits, expected) / largest
    distances = None
    if max(forward, decoding or 0.0) > TARGET:
        with torch.no_grad():
            exact = ours.double()(tokens)
        theirs_off, ours_off = (difference(x.double(), exact) for x in (expected, logits))
        distances = theirs_off / largest, ours_off / largest
    return Row(name, architecture, size, largest, forward, decoding, distances)


def difference(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max())


def steps(model: Any, tokens: Tensor) -> Tensor:
    """Logits of a compiled model: two pieces, then token by token."""
    cache = model.init_cache(tokens.shape[0], tokens.shape[1])
    sizes = [*PIECES, *[1] * (LENGTH - sum(PIECES))]
    return torch.cat([model(piece, cache=cache) for piece in tokens.split(sizes, dim=1)], dim=1)


def steps_of(model: Any, tokens: Tensor) -> Tensor:
    """The same of a model of transformers. Some families need their positions to be given."""
    found = model(input_ids=tokens[:, :PREFIX], use_cache=True)
    cache = "cache_params" if getattr(found, "cache_params", None) is not None else None
    cache = cache or "past_key_values"
    pieces = [found.logits]
    for i in range(PREFIX, LENGTH):
        more: dict[str, Any] = {cache: getattr(found, cache), "use_cache": True}
        if cache == "past_key_values":
            more["position_ids"] = torch.full((tokens.shape[0], 1), i)
        found = model(input_ids=tokens[:, i : i + 1], **more)
        pieces.append(found.logits)
    return torch.cat(pieces, dim=1)


def table(rows: list[Row]) -> Iterator[str]:
    yield (
        "| family | architecture | parameters | largest logit | forward | decoding "
        "| theirs, ours from float64 |"
    )
    yield "|---|---|--:|--:|--:|--:|--:|"
    for r in rows:
        decoding = "" if r.decoding is None else f"{r.decoding:.1e}"
        distances = ", ".join(f"{x:.1e}" for x in r.from_float64 or ())
        yield (
            f"| {r.name} | {r.architecture} | {r.parameters:,} | {r.largest:.2f} "
            f"| {r.forward:.1e} | {decoding} | {distances} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("families", nargs="*", help="default: all")
    parser.add_argument("--out", type=Path, help="the record to write; default: only when all ran")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    names = options.families or list(FAMILIES)
    rows, failed = [], []
    for name in names:
        start = time.perf_counter()
        try:
            row = compare(name)
        except Exception:  # the table of the others is worth having
            traceback.print_exc(limit=4)
            failed.append(name)
            continue
        rows.append(row)
        decoding = "" if row.decoding is None else f", decoding {row.decoding:.1e}"
        seconds = time.perf_counter() - start
        print(f"{name}: forward {row.forward:.1e}{decoding} ({seconds:.1f} s)", flush=True)
    beyond = [
        r.name for r in rows if max(r.forward, r.decoding or 0.0) > FAMILIES[r.name].tolerance
    ]
    if failed or beyond:
        print(f"failed: {', '.join(failed) or 'none'}; too far: {', '.join(beyond) or 'none'}")
    out = options.out or (None if options.families else RESULTS)
    if out is not None:
        text = "\n".join(
            [
                "# Parity with published models",
                "",
                "Largest difference of logits over the largest logit, in float32: the whole "
                f"sequence of {LENGTH} tokens at once, and a prefix of {PREFIX} followed by single "
                f"tokens, each model with its own cache. Target: {TARGET:.0e}. Small random models "
                "with noise on every parameter; programs and maps are in examples/families.",
                "",
                *table(rows),
                "",
                f"{datetime.date.today()}, {platform.machine()}, Python "
                f"{platform.python_version()}, torch {torch.__version__}, transformers "
                f"{version('transformers')}.",
                f"`{shlex.join(['python', *sys.argv])}`",
                "",
            ]
        )
        out.parent.mkdir(exist_ok=True)
        out.write_text(text)
    sys.exit(bool(failed or beyond))


if __name__ == "__main__":
    main()
