"""A generated module with a cache beside itself without one: any pieces give the same logits.

Owns: how sequences are cut into pieces, and what a cache holds. Refuses: which programs are
compared.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import Tensor

from starc.compiler.cost import cost_report
from starc.runtime.reference import random_parameters
from tests.numerics.agreement import Compiled

BATCH = 3
TOLERANCE = 1e-9
"""Greatest error of a logit, relative to the largest: float64, sums in another order."""

PIECES = ((1, 1, 1, 2, 1, 33, 1, 64, 1, 1), (66, 1, 1, 3, 1, 1, 30), (0, 5, 17, 1))
"""Ways to read a sequence: what is left comes as one more piece."""


def tensors(cache: Any) -> Iterator[Tensor]:
    """What a cache keeps per sequence."""
    if isinstance(cache, Tensor):
        yield cache
    elif isinstance(cache, dict):
        for part in cache.values():
            yield from tensors(part)
    elif isinstance(cache, list):
        for part in cache:
            yield from tensors(part)
    elif not isinstance(cache, tuple):  # which is the same for every sequence
        yield cache.buffer


def check_decoding(compiled: Compiled, longest: int = 131, seed: int = 0) -> None:
    """Logits of any pieces are those of one forward pass, row by row; the cache has the size that
    the cost report promises."""
    length = min(longest, compiled.model.context)
    network = compiled.network(random_parameters(compiled.model, seed), torch.float64)
    network: Any = network.eval()
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(0, compiled.model.vocab, (BATCH, length), generator=generator)
    with torch.no_grad():
        whole = network(tokens)
        for pieces in PIECES:
            cache = network.init_cache(BATCH, length)
            edges = [0, *(n for n in accumulate(pieces) if 0 < n < length), length]
            read = [network(tokens[:, a:b], cache) for a, b in pairwise(edges)]
            error = (torch.cat(read, dim=1) - whole).abs().amax(dim=(0, 2))
            worst = float(error.max() / whole.abs().max())
            at = int(error.argmax())
            assert worst <= TOLERANCE, f"pieces {edges}: relative error {worst:.1e} at token {at}"
    report = cost_report(compiled.model, length=length, batch=BATCH, dtype="fp64")
    kept = list(tensors(network.init_cache(BATCH, length, dtype=torch.float32)))
    elements = sum(t.numel() for t in kept) // BATCH
    assert elements == report.state_elements, (elements, report.state_elements)
    assert all(t.shape[0] == BATCH for t in kept)
