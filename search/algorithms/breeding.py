"""What algorithms that breed have in common: how a proposal starts, and what children are.

Owns: the first population, and making a proposal of parents. Refuses: choosing them.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence

from starc.search.algorithms import Context, Individual, Proposal

OPTIONS = {"crossover": 0.9, "mutation": 0.1}
"""Probabilities: that a child has two parents, and that a unit of it is mutated."""


def first(context: Context, *, generation: int = 0, rung: int | None = None) -> Proposal:
    """A proposal without parents: the programs to start from, then fresh ones.

    A fresh one that was proposed before is drawn again a few times.
    """
    number, rng = context.next()
    rung = context.last_rung if rung is None else rung
    variation = context.variation
    starts = list(variation.seeds)
    if variation.origin is not None:
        starts.insert(0, variation.origin)
    if number < len(starts):
        context.identities.setdefault(starts[number].identity, number)
        return Proposal(number, starts[number], (), "seed", "", generation, rung)
    for _ in range(10):
        made = variation.fresh(rng)
        if made.program.identity not in context.identities:
            break
    context.identities.setdefault(made.program.identity, number)
    return Proposal(
        number, made.program, (), made.operation, made.level, generation, rung, made.repairs
    )


def bred(
    context: Context,
    number: int,
    rng: random.Random,
    parents: Sequence[Individual],
    *,
    generation: int,
    crossover: float,
    mutation: float,
    rung: int | None = None,
) -> Proposal:
    """A child of one or two individuals that means something new, if that can be drawn."""
    made = context.variation.child(
        [parent.text for parent in parents],
        rng,
        crossover=crossover,
        mutation=mutation,
        known=context.identities,
    )
    context.identities.setdefault(made.program.identity, number)
    return Proposal(
        number,
        made.program,
        tuple(dict.fromkeys(parent.id for parent in parents)),
        made.operation,
        made.level,
        generation,
        context.last_rung if rung is None else rung,
        made.repairs,
    )


def distinct(individuals: Iterable[Individual]) -> list[Individual]:
    """Of individuals that mean the same and were evaluated alike, the first."""
    found: dict[tuple[str, int], Individual] = {}
    for individual in individuals:
        found.setdefault((individual.identity, individual.rung), individual)
    return list(found.values())
