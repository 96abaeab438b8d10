"""A search as it stands in its record: proposals joined with what came of them.

Owns: which attempt counts for a proposal, and the order of outcomes. Refuses: objectives and
violations (search/archive.py), statistics, and writing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from starc.search.algorithms import Individual
from starc.search.archive import INFEASIBLE, Measure, Result, asked
from starc.search.objectives import PENALTY, Constraint, Objective
from starc.search.settings import Settings
from starc.search.store import EvaluationRow, EventRow, ProgramRow, ProposalRow, RunRow, Store

RUNNING, WAITING = "running", "waiting"
"""Statuses of proposals that nothing came of yet; the others are those of archive.Result."""


@dataclass(frozen=True)
class Repairs:
    """What the making of a proposal took: kinds of repairs, and how many draws before it came to
    nothing, by operation and reason."""

    repairs: tuple[str, ...] = ()
    rejected: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Member:
    """A proposal with its program and what came of it, if anything has: `individual`.

    `order` says as how manieth of the run its evaluation ended, 0 for none. `cached` says that it
    was known from another search.
    """

    number: int
    program: ProgramRow
    parents: tuple[int, ...]
    operation: str
    level: str
    generation: int
    rung: int
    repairs: Repairs
    status: str
    individual: Individual | None
    seconds: float = 0.0
    cached: bool = False
    order: int = 0

    @property
    def feasible(self) -> bool:
        """Whether it has all its objectives and meets every constraint."""
        return self.individual is not None and self.individual.violation <= 0

    @property
    def evaluated(self) -> bool:
        """Whether it has all its objectives."""
        values = self.individual.objectives if self.individual else (PENALTY,)
        return self.status == "done" and PENALTY not in values

    @property
    def figures(self) -> Mapping[str, float]:
        """All that is known of it."""
        return self.individual.figures if self.individual else self.program.figures

    def value(self, objective: Objective) -> float | None:
        """An objective as people read it, not turned; None without one."""
        return self.figures.get(objective.name) if self.evaluated else None


@dataclass(frozen=True)
class Record:
    """A run as it stands: members by number, attempts and events in their order."""

    folder: Path
    run: RunRow
    settings: Settings
    objectives: tuple[Objective, ...]
    constraints: tuple[Constraint, ...]
    members: tuple[Member, ...]
    attempts: tuple[EvaluationRow, ...]
    events: tuple[EventRow, ...]

    @property
    def full_rung(self) -> int:
        """The largest budget that anything was proposed for."""
        return max((member.rung for member in self.members), default=0)

    @property
    def full(self) -> tuple[Member, ...]:
        """The members on that budget, which alone compare."""
        return tuple(member for member in self.members if member.rung == self.full_rung)


def read_record(folder: Path) -> Record:
    """The record of a run, also while it is being written; raises StarError."""
    with Store.read(folder) as store:
        return record_of(store, folder)


def record_of(store: Store, folder: Path) -> Record:
    """The record of an open store."""
    run = store.run()
    settings, measure = asked(run)
    attempts = store.evaluations()  # what is read later is newer, and knows all that these name
    proposals = store.proposals()
    programs = {row.id: row for row in store.programs()}
    return Record(
        folder,
        run,
        settings,
        measure.objectives,
        measure.constraints,
        joined(proposals, programs, attempts, measure, settings.retries),
        tuple(attempts),
        tuple(store.events()),
    )


def joined(
    proposals: Sequence[ProposalRow],
    programs: Mapping[int, ProgramRow],
    attempts: Sequence[EvaluationRow],
    measure: Measure,
    retries: int,
) -> tuple[Member, ...]:
    """Proposals with the last attempt at each; a crash that is to be tried again is none yet."""
    last = {(row.program, row.rung): row for row in attempts}
    members = []
    ended: list[tuple[float, int]] = []
    for proposal in proposals:
        program = programs[proposal.program]
        row = last.get((proposal.program, proposal.rung))
        result = _result(row, program, measure, retries)
        if row is not None and result is not None:
            ended.append((row.began + row.seconds, proposal.number))
        members.append(_member(proposal, program, row, result, measure))
    order = {number: place for place, (_, number) in enumerate(sorted(ended), 1)}
    return tuple(replace(member, order=order.get(member.number, 0)) for member in members)


def _result(
    row: EvaluationRow | None, program: ProgramRow, measure: Measure, retries: int
) -> Result | None:
    if row is None:
        return Result(INFEASIBLE) if measure.infeasible(program.figures) else None
    if row.status == RUNNING or (row.status == "crash" and row.attempt < retries):
        return None
    return Result(row.status, row.figures, row.reason)


def _member(
    proposal: ProposalRow,
    program: ProgramRow,
    row: EvaluationRow | None,
    result: Result | None,
    measure: Measure,
) -> Member:
    individual = None
    status = RUNNING if row is not None else WAITING
    if result is not None:
        status = result.status
        individual = measure.individual(
            proposal, program.text, program.identity, program.figures, result
        )
    made = proposal.repairs
    return Member(
        number=proposal.number,
        program=program,
        parents=proposal.parents,
        operation=proposal.operation,
        level=proposal.level,
        generation=proposal.generation,
        rung=proposal.rung,
        repairs=Repairs(tuple(made.get("repairs", ())), made.get("rejected", {})),
        status=status,
        individual=individual,
        seconds=0.0 if row is None else row.seconds,
        cached=row is not None and row.worker == "cache",
    )
