"""The precision of training: float32, or bfloat16 autocast over float32 weights.

Owns: which of them is the faster one on a device that is also right, by measuring it.
Refuses: anything about optimisers.
"""

from __future__ import annotations

import math
import time
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from starc.runtime.data import Data
from starc.runtime.device import memory_errors
from starc.runtime.loader import Generated

PRECISIONS = ("auto", "fp32", "bf16")

CLOSE = 0.02
"""How far bf16's first loss may be from float32's, relative to it: eight bits of mantissa give a
relative error of 2^-8 per product, which averages out over a batch."""

_FOUND: dict[tuple[object, ...], str] = {}


def autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """The context in which losses are computed."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()


def fastest_precision(
    module: Generated, data: Data, device: torch.device, batch: int, length: int
) -> str:
    """ "bf16" if a step under autocast is faster here than one in float32, and as good; or "fp32".

    As good: loss and gradients are finite, and the loss is close to float32's. Times whole steps of
    the model on a batch of the data, best of two, once per process for the same question. Raises
    StarError for too little memory.
    """
    key = (module.DIGEST, data.name, str(device), torch.get_num_threads(), batch, length)
    if key not in _FOUND:
        _FOUND[key] = _measure(module, data, device, batch, length)
    return _FOUND[key]


def _measure(module: Generated, data: Data, device: torch.device, batch: int, length: int) -> str:
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), memory_errors():
        torch.manual_seed(0)
        model = data.adapt(module.Model()).to(device)
        arrays = data.batch(1, batch=batch, length=length, seed=0)
        tokens, targets = (torch.from_numpy(array).to(device) for array in arrays)
        best = {"fp32": math.inf, "bf16": math.inf}
        losses = dict.fromkeys(best, math.nan)
        for turn in range(3):
            for precision in best:
                seconds, losses[precision] = _step(model, tokens, targets, device, precision)
                if turn > 0:  # the first turn pays for allocation and code generation
                    best[precision] = min(best[precision], seconds)
    # A comparison with NaN is false.
    close = abs(losses["bf16"] - losses["fp32"]) <= CLOSE * abs(losses["fp32"])
    return "bf16" if close and best["bf16"] < best["fp32"] else "fp32"


def _step(
    model: nn.Module, tokens: Tensor, targets: Tensor, device: torch.device, precision: str
) -> tuple[float, float]:
    """Seconds and loss of a step; the loss is NaN unless the gradients are finite too."""
    started = time.perf_counter()
    with autocast(device, precision):
        loss: Tensor = model.loss(tokens, targets)  # type: ignore[operator]
    loss.backward()  # type: ignore[no-untyped-call]
    value = float(loss.detach())  # this waits for the device
    seconds = time.perf_counter() - started
    norm = float(nn.utils.clip_grad_norm_(model.parameters(), math.inf))
    model.zero_grad(set_to_none=True)
    return seconds, value if math.isfinite(norm) else math.nan
