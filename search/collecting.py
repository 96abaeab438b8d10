"""Python's garbage collector while a search runs.

What a search remembers are trees, kept for long: the collector would walk through all of them again
and again, a sixth of the time of the driver, and find nothing.

Owns: how often it looks. Refuses: what is remembered (`verifying`, `remembering`).
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

_SELDOM = (100_000, 20, 50)


@contextmanager
def seldom_collected() -> Iterator[None]:
    """Inside, what was there before is left alone, and what is new is looked at seldom."""
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(*_SELDOM)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
