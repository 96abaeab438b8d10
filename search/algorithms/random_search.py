"""Random search: fresh programs, whatever came of those before. The baseline of every other.

Owns: nothing but drawing. Refuses: learning.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from starc.search.algorithms import Context, Individual, Proposal
from starc.search.algorithms.breeding import first


class RandomSearch:
    """See the module."""

    OPTIONS: Mapping[str, Any] = {}

    def __init__(self, context: Context) -> None:
        self.context = context

    def ask(self, n: int) -> list[Proposal]:
        """Programs to start from, then fresh ones."""
        size = self.context.population
        return [first(self.context, generation=self.context.number // size) for _ in range(n)]

    def tell(self, individuals: Sequence[Individual]) -> None: ...

    def state(self) -> dict[str, Any]:
        return {}

    def restore(self, state: Mapping[str, Any]) -> None: ...
