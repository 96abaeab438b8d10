"""What came of proposals: from rows of the store, or of a running search, to individuals.

Owns: which figures count, penalties and violations of a program that failed or was never trained.
Refuses: the store's tables, and which of them are best (front.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from starc.search.algorithms import Individual
from starc.search.objectives import (
    FAILED,
    PENALTY,
    Constraint,
    Objective,
    parse_constraint,
    parse_objectives,
    violation,
)
from starc.search.settings import Settings
from starc.search.store import ProposalRow, RunRow, Store

INFEASIBLE = "infeasible"
"""The status of a program that breaks a constraint which is known without training."""


@dataclass(frozen=True)
class Result:
    """What came of an evaluation: `status` is one of engine.STATUSES, or INFEASIBLE."""

    status: str
    figures: Mapping[str, float] = field(default_factory=dict)
    reason: str = ""


@dataclass(frozen=True)
class Measure:
    """Turns figures into objectives and violations."""

    objectives: tuple[Objective, ...]
    constraints: tuple[Constraint, ...]

    @property
    def static(self) -> tuple[Constraint, ...]:
        """Constraints that are checked before training."""
        return tuple(constraint for constraint in self.constraints if constraint.static)

    def infeasible(self, figures: Mapping[str, float]) -> bool:
        """Whether a program breaks one of those."""
        return violation(self.static, figures) > 0

    def individual(
        self, row: ProposalRow, text: str, identity: str, known: Mapping[str, float], result: Result
    ) -> Individual:
        """A proposal with what came of it; `known` are the figures that need no training."""
        figures = {**result.figures, **known}
        values = tuple(objective.value(figures) for objective in self.objectives)
        if result.status == INFEASIBLE:
            missed = violation(self.static, figures)
        elif result.status != "done":
            missed = FAILED + violation(self.static, figures)
        else:
            missed = violation(self.constraints, figures) + FAILED * (PENALTY in values)
        return Individual(
            id=row.number,
            text=text,
            identity=identity,
            figures=figures,
            objectives=values,
            violation=missed,
            rung=row.rung,
            generation=row.generation,
            parents=row.parents,
            status=result.status,
        )


def asked(run: RunRow) -> tuple[Settings, Measure]:
    """What a recorded run was asked for."""
    settings = Settings.of_json(run.settings)
    quality = Objective("quality", *run.settings["quality"])
    objectives = parse_objectives(",".join(settings.objectives), quality)
    return settings, Measure(objectives, tuple(map(parse_constraint, settings.constraints)))


def individuals(store: Store) -> list[Individual]:
    """All proposals of a recorded run that something came of, by number.

    One whose evaluation has not ended, or crashed and is to be tried again, is not among them.
    """
    settings, measure = asked(store.run())
    programs = {row.id: row for row in store.programs()}
    results = ended(store, settings.retries)
    found = []
    for row in store.proposals():
        program = programs[row.program]
        result = results.get((row.program, row.rung))
        if result is None and measure.infeasible(program.figures):
            result = Result(INFEASIBLE)
        if result is not None:
            found.append(
                measure.individual(row, program.text, program.identity, program.figures, result)
            )
    return found


def ended(store: Store, retries: int) -> dict[tuple[int, int], Result]:
    """What came of evaluations, by program and rung; those to be tried again are left out."""
    found: dict[tuple[int, int], Result] = {}
    for row in store.evaluations():
        if row.status != "running" and not (row.status == "crash" and row.attempt < retries):
            found[row.program, row.rung] = Result(row.status, row.figures, row.reason)
    return found


def feasible(population: Sequence[Individual]) -> list[Individual]:
    """Those that meet all constraints and were evaluated."""
    return [individual for individual in population if individual.violation <= 0]
