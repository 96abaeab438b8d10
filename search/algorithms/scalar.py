"""Several objectives as one number, for algorithms that need a best.

Owns: the weighted sum. Refuses: what is done with it.
"""

from __future__ import annotations

from collections.abc import Iterable

from starc.grammar.errors import Diagnostic, StarError
from starc.search.algorithms import Individual


class WeightedSum:
    """Objectives scaled to 0 .. 1 over all feasible individuals that were seen, and summed.

    `weights` is a text such as "2:1", one for each objective, or empty for equal ones; raises
    StarError for another.
    """

    def __init__(self, weights: str, objectives: int) -> None:
        try:
            self.weights = [float(part) for part in weights.split(":")] if weights else []
        except ValueError:
            self.weights = [-1.0]
        self.weights = self.weights or [1.0] * objectives
        if len(self.weights) != objectives or min(self.weights) < 0 or not sum(self.weights) > 0:
            raise StarError(
                Diagnostic(
                    "bad-algorithm-option",
                    f"'{weights}' are no weights of {objectives} objectives.",
                    hint="write weights=2:1, numbers that are not negative.",
                )
            )
        self.low: list[float] = []
        self.high: list[float] = []

    def see(self, individuals: Iterable[Individual]) -> None:
        """Widen the scales."""
        for individual in individuals:
            if individual.violation > 0:
                continue
            values = individual.objectives
            self.low = [min(p) for p in zip(self.low or values, values, strict=True)]
            self.high = [max(p) for p in zip(self.high or values, values, strict=True)]

    def key(self, individual: Individual) -> tuple[float, float, int]:
        """Smaller is better: the violation, then the sum, then the age."""
        if individual.violation > 0 or not self.low:
            return individual.violation, 0.0, individual.id
        total = 0.0
        for weight, value, low, high in zip(
            self.weights, individual.objectives, self.low, self.high, strict=True
        ):
            total += weight * (value - low) / (high - low) if high > low else 0.0
        return 0.0, total, individual.id
