"""Where a model runs.

Owns: naming devices, and what is said when one has too little memory.
Refuses: choosing a precision.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from starc.grammar.errors import Diagnostic, StarError


def pick_device(name: str) -> torch.device:
    """The device called `name`; "auto" is a GPU if there is one. StarError if it cannot be used."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        if device.type == "meta":
            raise RuntimeError("it computes nothing")
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise StarError(
            Diagnostic(
                "no-device",
                f"the device '{name}' cannot be used: {reason}.",
                hint="--device cpu always works.",
            )
        ) from error
    return device


@contextmanager
def memory_errors() -> Iterator[None]:
    """Turn what torch raises for want of memory into a diagnostic."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        # Only the GPU allocators have an exception of their own; the CPU's raises a plain
        # RuntimeError.
        text = str(error)
        if isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate" in text:
            raise StarError(
                Diagnostic(
                    "out-of-memory",
                    "the device has too little memory for a training step.",
                    hint="give a smaller --batch or --length, or more --accumulate.",
                )
            ) from error
        raise
