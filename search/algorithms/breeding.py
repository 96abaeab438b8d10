"""What algorithms that breed have in common: how a proposal starts, and what children are.

Owns: the first population, and making a proposal of parents. Refuses: choosing them.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence

from starc.grammar.errors import Diagnostic, StarError
from starc.search.algorithms import Context, Individual, Proposal
from starc.search.mutate import LEVELS

OPTIONS = {"crossover": 0.9, "mutation": 0.1, "stages": ""}
"""Probabilities: that a child has two parents, and that a unit of it is mutated; the levels that
are searched one after the other, with generations for all but the last: backbone:10+operator."""


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
    """A child of one or two individuals that means something new, if that can be drawn.

    Backbones are crossed only where they may change.
    """
    level = stage(context, number)
    made = context.variation.child(
        [parent.text for parent in parents],
        rng,
        crossover=0.0 if level in ("operator", "featurizer") else crossover,
        mutation=mutation,
        known=context.identities,
        level=level,
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


def stages(text: str) -> list[tuple[str, int | None]]:
    """Levels with their generations, None for all that are left; raises StarError for others."""
    found: list[tuple[str, int | None]] = []
    for part in filter(None, text.split("+")):
        level, colon, count = part.partition(":")
        if level not in LEVELS or (colon and not count.isdecimal()):
            raise StarError(
                Diagnostic(
                    "bad-algorithm-option",
                    f"'{part}' is no stage.",
                    hint=f"write stages=backbone:10+operator; levels are {', '.join(LEVELS)}.",
                )
            )
        found.append((level, int(count) if colon else None))
    return found


def stage(context: Context, number: int) -> str | None:
    """The only level that a proposal may change, if the search is staged; behind the last stage it
    stays the last."""
    generation = number // context.population
    level = None
    for level, count in stages(context.options.get("stages", "")):
        if count is None or generation < count:
            return level
        generation -= count
    return level


def distinct(individuals: Iterable[Individual]) -> list[Individual]:
    """Of individuals that mean the same and were evaluated alike, the first."""
    found: dict[tuple[str, int], Individual] = {}
    for individual in individuals:
        found.setdefault((individual.identity, individual.rung), individual)
    return list(found.values())
