"""From settings to the parts of a search.

Owns: making them, and refusing settings before anything else is made. Refuses: carrying out.
"""

from __future__ import annotations

from dataclasses import dataclass

from starc.compiler.options import Options
from starc.grammar.source import Source
from starc.search.algorithms import Context, make_algorithm
from starc.search.archive import Measure
from starc.search.evaluators import Evaluator, make_evaluator
from starc.search.latency import timed
from starc.search.objectives import (
    check_constraints,
    check_names,
    parse_constraint,
    parse_objectives,
)
from starc.search.settings import Settings
from starc.search.variation import Variation


@dataclass(frozen=True)
class Kit:
    """What settings say, made: the parts of a search that the store does not hold."""

    settings: Settings
    variation: Variation
    evaluator: Evaluator
    measure: Measure


def prepare(settings: Settings) -> Kit:
    """Check settings and make what they ask for; raises StarError for whatever is wrong."""
    settings.checked()
    evaluator = make_evaluator(settings.evaluator, settings.evaluator_options)
    measure = Measure(
        parse_objectives(",".join(settings.objectives), evaluator.quality),
        tuple(map(parse_constraint, settings.constraints)),
    )
    check_constraints(measure.constraints)
    names = [objective.name for objective in measure.objectives]
    names += [constraint.name for constraint in measure.constraints]
    check_names(names, evaluator.figures)
    evaluator = timed(evaluator, names, settings.length)
    variation = Variation(
        Source(settings.name, settings.space),
        Options(model=settings.model, overrides=settings.overrides),
        seeds=[Source(name, text) for name, text in settings.seed_programs],
        length=settings.length,
        dtype=settings.dtype,
        units=settings.units,
        constrained=settings.constrained,
        points=settings.points,
    )
    kit = Kit(settings, variation, evaluator, measure)
    make_algorithm(settings.algorithm, context_of(kit))  # options that it refuses are said now
    return kit


def context_of(kit: Kit) -> Context:
    """The beginning of a search, as an algorithm sees it."""
    settings, rungs = kit.settings, kit.evaluator.rungs
    full = kit.evaluator.tokens(rungs - 1)
    share = [kit.evaluator.tokens(rung) / full if full else 1.0 for rung in range(rungs)]
    return Context(
        kit.variation,
        kit.measure.objectives,
        settings.population,
        settings.seed,
        generations=settings.generations,
        evaluations=settings.evaluations,
        share=tuple(share),
        steady=settings.steady,
        options=settings.algorithm_options,
    )
