"""What a search has spent, and how many proposals it has room for.

Owns: that count, which follows from the proposals alone. Refuses: time, which differs from run to
run.
"""

from __future__ import annotations

import math

from starc.search.algorithms import Context
from starc.search.settings import Settings

_FRUITLESS = 50
"""So many populations in a row without anything to evaluate, and a search by evaluations ends."""


class Budget:
    """Of `generations` x population proposals, or of so many full `evaluations`.

    An evaluation on a lower rung is a share of a full one, less what lower rungs of the same
    program have cost. A program that was evaluated costs nothing again, nor does one that breaks a
    constraint without training.
    """

    def __init__(self, settings: Settings, context: Context) -> None:
        self._settings, self._context = settings, context
        self._paid: dict[str, float] = {}
        self._barren = 0
        self.spent = 0.0

    @property
    def planned(self) -> float:
        """All of it, in proposals or in full evaluations."""
        settings = self._settings
        if settings.generations is not None:
            return float(settings.generations * settings.population)
        return float(settings.evaluations or 0)

    @property
    def fruitless(self) -> bool:
        """Whether nothing new is found to be evaluated any more."""
        limited = self._settings.evaluations is not None
        return limited and self._barren >= _FRUITLESS * self._settings.population

    def charge(self, identity: str, rung: int, trained: bool) -> None:
        """Take a proposal from the budget; `trained` is false for one that is not."""
        share, known = self._context.share[rung], self._paid.get(identity, 0.0)
        if not trained or share <= known:
            self._barren += 1
            return
        self._paid[identity] = share
        self.spent += share - known
        self._barren = 0

    def room(self, n: int) -> int:
        """How many of `n` proposals it has room for."""
        if self._settings.generations is not None:
            return max(0, min(n, int(self.planned) - self._context.number))
        left = self.planned - self.spent
        return min(n, math.ceil(left)) if left > 1e-9 and not self.fruitless else 0
