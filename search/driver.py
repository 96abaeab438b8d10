"""The driver: asks an algorithm, has programs evaluated, tells what came of them.

    found = search(Settings(space=text, generations=10), Path("runs/first"), workers=2)
    found.front                     # individuals, best first objective first

The order of asking and telling depends on nothing but the settings and the results. By generations,
all proposals of a batch are told together. Steady, results are told one by one in the order of the
proposals, and another is asked for when `window` of them are not told yet: workers never wait for a
batch, and still a search finds the same with any number of them.

Whatever happens is in the store before anything follows from it, so that a search that was killed
goes on from there: `resume`.

Owns: that order, retries, and stopping. Refuses: choosing programs (algorithms), evaluating
(engines), what costs what (budget.py), and the terminal.
"""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from starc.grammar.errors import Diagnostic, StarError
from starc.search.algorithms import Algorithm, Individual, Proposal, make_algorithm
from starc.search.archive import INFEASIBLE, Result, asked, ended, individuals
from starc.search.budget import Budget
from starc.search.cache import SharedCache
from starc.search.collecting import seldom_collected
from starc.search.engine import Engine, Job, Outcome
from starc.search.evaluators import evaluation_seed, evaluator_digest
from starc.search.front import front
from starc.search.local_engine import LocalEngine
from starc.search.preparing import Kit, context_of, prepare
from starc.search.run_folder import data_digest, device, held, versions
from starc.search.settings import Settings, extended
from starc.search.store import ProgramRow, ProposalRow, StateRow, Store

WORK = "work"
"""The folder of a run where programs are trained; removed when the search has ended."""

_WAIT = 0.25
"""Seconds between two looks at whether to stop."""


@dataclass(frozen=True)
class Progress:
    """Where a search is. `spent` of `planned` is in full evaluations, of `population` x
    `generations` where the budget is generations; `statuses` counts finished evaluations. `notes`
    are what the algorithm has said since the last time."""

    proposals: int
    told: int
    generation: int
    spent: float
    planned: float
    running: int
    statuses: Mapping[str, int]
    best: tuple[float, ...]
    seconds: float
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Found:
    """What a search came to: `status` is "finished", "interrupted", or "fruitless" when nothing
    meets the constraints any more."""

    status: Literal["finished", "interrupted", "fruitless"]
    front: list[Individual]
    individuals: list[Individual]


def search(
    settings: Settings,
    out: Path,
    *,
    workers: int = 1,
    engine: Engine | None = None,
    cache: Path | None = None,
    command: str = "",
    observe: Callable[[Progress], None] = lambda progress: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Found:
    """Search, from the first proposal until the budget is spent or `should_stop()`.

    `out` must hold no search yet. `engine` is closed in the end; without one, `workers` processes
    of this machine evaluate. `cache` is a file of evaluations that searches share. `command` is
    remembered, and `observe` called several times a second.

    Raises StarError for wrong settings, before anything is made, and OSError.
    """
    kit = prepare(settings)
    shared = None if cache is None else SharedCache(cache)
    quality = kit.evaluator.quality
    store = Store.create(
        out,
        settings={**settings.to_json(), "quality": [quality.sign, quality.unit]},
        versions=versions(),
        device=device(kit.evaluator),
        data_digest=data_digest(kit.evaluator),
        command=command,
    )
    with store, held(out):
        driver = _Driver(kit, store, out, engine or LocalEngine(workers), shared, observe)
        driver.note("began", f"{settings.algorithm} with seed {settings.seed}")
        with seldom_collected():
            return driver.run(should_stop)


def resume(
    out: Path,
    *,
    budget: Mapping[str, int | None] | None = None,
    workers: int = 1,
    engine: Engine | None = None,
    cache: Path | None = None,
    observe: Callable[[Progress], None] = lambda progress: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Found:
    """Go on with the search in `out`, as if it had never been cut.

    `budget` may say more `generations` or `evaluations` than it began with. Raises StarError when
    there is none, when it is damaged, and when a driver works on it.
    """
    with Store.write(out) as store, held(out):
        settings, _ = asked(store.run())
        longer = extended(settings, budget or {})
        kit = prepare(longer)
        if data_digest(kit.evaluator) != store.run().data_digest:
            raise StarError(
                Diagnostic(
                    "data-changed",
                    f"the data is not what the search in '{out}' began with.",
                    hint="bring the old data back, or begin another search.",
                )
            )
        shared = None if cache is None else SharedCache(cache)
        driver = _Driver(kit, store, out, engine or LocalEngine(workers), shared, observe)
        with store.transaction():
            if longer != settings:
                store.change_settings({**store.run().settings, **longer.to_json()})
            cut = store.forget_running()
        driver.restore()
        driver.note("resumed", f"{cut} evaluations were cut")
        with seldom_collected():
            return driver.run(should_stop)


@dataclass(frozen=True)
class _Running:
    """A job that an engine has: the row of the evaluation, and whose it is."""

    row: int
    program: ProgramRow
    rung: int
    attempt: int


class _Driver:
    """A search under way: `told` proposals have been told, `open` are the others by number.

    `results` are final, by program and rung; `running` are jobs by key.
    """

    def __init__(
        self,
        kit: Kit,
        store: Store,
        out: Path,
        engine: Engine,
        cache: SharedCache | None,
        observe: Callable[[Progress], None],
    ) -> None:
        self.kit, self.store, self.out, self.engine = kit, store, out, engine
        self.settings, self.measure, self.observe = kit.settings, kit.measure, observe
        self.digest = evaluator_digest(kit.evaluator)
        self.cache = cache
        self.context = context_of(kit)
        self.algorithm: Algorithm = make_algorithm(self.settings.algorithm, self.context)
        self.programs: dict[int, ProgramRow] = {}
        self.told = self.generation = 0
        self.open: dict[int, ProposalRow] = {}
        self.results: dict[tuple[int, int], Result] = {}
        self.statuses: Counter[str] = Counter()
        self.attempts: Counter[tuple[int, int]] = Counter()
        self.running: dict[str, _Running] = {}
        self.budget = Budget(self.settings, self.context)
        self.best: tuple[float, ...] = ()
        self.said: list[str] = []
        self.began = time.monotonic()

    # --- the loop --------------------------------------------------------------------------------

    def run(self, should_stop: Callable[[], bool]) -> Found:
        """Until there is nothing to ask and nothing open, or `should_stop()`."""
        stopped = False
        try:
            with self.store.transaction():
                jobs = self._begin(self._wanted(self.open.values()))
            self._submit(jobs)
            while not (stopped := should_stop()):
                moved = self._advance()
                if not moved and not self.open:
                    break
                if self.running:
                    self._take(self.engine.wait(0.0 if moved else _WAIT))
                self.observe(self._progress())
        finally:
            self.engine.close()
            if self.cache:
                self.cache.close()
            with self.store.transaction():
                self.store.forget_running()
        self.running.clear()
        self.observe(self._progress())
        status: Literal["finished", "interrupted", "fruitless"] = "finished"
        if stopped:
            status = "interrupted"
        else:
            status = "fruitless" if self.budget.fruitless else "finished"
            shutil.rmtree(self.out / WORK, ignore_errors=True)
        self.note(status, f"{self.told} of {self.context.number} proposals told")
        everything = individuals(self.store)
        return Found(status, front(everything), everything)

    def _advance(self) -> bool:
        """Tell what can be told, ask for what there is room for, and record both; False when
        results must be waited for."""
        ready = self._ready()
        if ready:
            told = [self._individual(row) for row in ready]
            self.context.individuals.update((one.id, one) for one in told)
            self.algorithm.tell(told)
            for line in getattr(self.algorithm, "notes", list)():
                self.note("algorithm", line)
                self.said.append(line)
            self.told = told[-1].id + 1
            for one in told:
                del self.open[one.id]
                self._improve(one)
        made = self._ask()
        if ready or made:
            self._record(made)
        return bool(ready or made)

    def _ready(self) -> list[ProposalRow]:
        """What can be told now."""
        rows = [self.open[number] for number in sorted(self.open)]
        if self.settings.steady:
            rows = rows[:1]
        return rows if all(self._result(row) for row in rows) else []

    def _ask(self) -> list[Proposal]:
        """As many proposals as there is room for."""
        if not self.settings.steady:
            room = 0 if self.open else self.budget.room(self.settings.population)
            return self._entered(self.algorithm.ask(room)) if room else []
        made: list[Proposal] = []
        window = self.settings.window or self.settings.population
        while len(self.open) + len(made) < window and self.budget.room(1):
            new = self._entered(self.algorithm.ask(1))
            if not new:
                break
            made += new
        return made

    def _entered(self, made: list[Proposal]) -> list[Proposal]:
        """Proposals, noted with what they cost."""
        for proposal in made:
            identity = proposal.program.identity
            self.context.identities.setdefault(identity, proposal.number)
            trained = not self.measure.infeasible(proposal.program.figures)
            self.budget.charge(identity, proposal.rung, trained)
        return made

    # --- evaluations -----------------------------------------------------------------------------

    def _record(self, made: Sequence[Proposal]) -> None:
        """Write proposals with the state that they followed from, and have them evaluated."""
        rows = []
        with self.store.transaction():
            for proposal in made:
                row = self._row(proposal)
                self.store.add_proposal(row)
                rows.append(row)
            self.open.update((row.number, row) for row in rows)
            self.generation = max([self.generation, *(row.generation for row in rows)])
            self.store.add_state(StateRow(self.told, self.generation, self.algorithm.state()))
            jobs = self._begin(self._wanted(rows))
        self._submit(jobs)

    def _row(self, proposal: Proposal) -> ProposalRow:
        program = proposal.program
        id = self.store.add_program(program.identity, program.text, program.units, program.figures)
        if id not in self.programs:  # equal programs in other words are one, in the first's words
            self.programs[id] = ProgramRow(
                id, program.identity, program.text, program.units, program.figures
            )
        return ProposalRow(
            proposal.number,
            id,
            proposal.parents,
            proposal.operation,
            proposal.level,
            proposal.generation,
            proposal.rung,
            proposal.repairs,
        )

    def _wanted(self, rows: Iterable[ProposalRow]) -> list[tuple[int, int]]:
        """What is to be evaluated: what nothing is known of and nobody works on."""
        busy = {(job.program.id, job.rung) for job in self.running.values()}
        wanted = {(row.program, row.rung): None for row in rows if not self._result(row)}
        return [key for key in wanted if key not in busy]

    def _begin(self, keys: Sequence[tuple[int, int]]) -> list[Job]:
        """Note in a transaction that evaluations begin; the jobs, but of those in the cache."""
        jobs = []
        for key in keys:
            program, rung = self.programs[key[0]], key[1]
            seed = evaluation_seed(program.identity, self.settings.seed)
            attempt = self.attempts[key]
            row = self.store.begin_evaluation(
                program.id, self.digest, seed=seed, rung=rung, attempt=attempt
            )
            known = self.cache and self.cache.get(program.identity, self.digest, seed, rung)
            if known:
                self.store.end_evaluation(row, "done", figures=known, worker="cache")
                self._ended(key, Result("done", known))
                continue
            self.running[str(row)] = _Running(row, program, rung, attempt)
            jobs.append(
                Job(
                    str(row),
                    self.kit.evaluator,
                    program.text,
                    seed,
                    rung,
                    self._folder(program),
                    self.settings.seconds,
                    self.settings.memory,
                )
            )
        return jobs

    def _ended(self, key: tuple[int, int], result: Result) -> None:
        """Keep what came of an evaluation."""
        self.results[key] = result
        self.statuses[result.status] += 1

    def _submit(self, jobs: Sequence[Job]) -> None:
        """Hand jobs to the engine, once what they are is on the disk."""
        for job in jobs:
            self.engine.submit(job)

    def _take(self, outcomes: Sequence[Outcome]) -> None:
        """Write what came of jobs; have those tried again whose worker crashed."""
        again: list[tuple[int, int]] = []
        final: list[tuple[Outcome, _Running]] = []
        if not outcomes:
            return
        with self.store.transaction():
            for outcome in outcomes:
                job = self.running.pop(outcome.key)
                key = job.program.id, job.rung
                self.store.end_evaluation(
                    job.row,
                    outcome.status,
                    reason=outcome.reason,
                    figures=outcome.figures,
                    seconds=outcome.seconds,
                    worker=outcome.worker,
                )
                if outcome.status == "crash" and job.attempt < self.settings.retries:
                    self.attempts[key] += 1
                    again.append(key)
                    self.store.add_event("retried", f"program {key[0]}: {outcome.reason}")
                    continue
                self._ended(key, Result(outcome.status, outcome.figures, outcome.reason))
                final.append((outcome, job))
            jobs = self._begin(again)
        for outcome, job in final:
            self._settle(outcome, job)
        self._submit(jobs)

    def _settle(self, outcome: Outcome, job: _Running) -> None:
        """What a final outcome is followed by."""
        if job.rung == self.context.last_rung:  # no higher rung goes on from what is there
            shutil.rmtree(self._folder(job.program), ignore_errors=True)
        if self.cache and outcome.status == "done":
            seed = evaluation_seed(job.program.identity, self.settings.seed)
            self.cache.put(
                job.program.identity,
                self.digest,
                seed,
                job.rung,
                outcome.figures,
                outcome.seconds,
            )

    def _folder(self, program: ProgramRow) -> Path:
        return self.out / WORK / program.identity[:32]

    def _result(self, row: ProposalRow) -> Result | None:
        """What came of a proposal, if it is known."""
        known = self.results.get((row.program, row.rung))
        if known is None and self.measure.infeasible(self.programs[row.program].figures):
            return Result(INFEASIBLE)
        return known

    def _individual(self, row: ProposalRow) -> Individual:
        program, result = self.programs[row.program], self._result(row)
        assert result is not None
        return self.measure.individual(row, program.text, program.identity, program.figures, result)

    # --- where it is -----------------------------------------------------------------------------

    def restore(self) -> None:
        """Take up the search where the store says that it was."""
        self.programs = {row.id: row for row in self.store.programs()}
        self.results = ended(self.store, self.settings.retries)
        self.statuses = Counter(result.status for result in self.results.values())
        for evaluation in self.store.evaluations():
            self.attempts[evaluation.program, evaluation.rung] += evaluation.status == "crash"
        state = self.store.last_state()
        self.told = state.number if state else 0
        self.generation = state.generation if state else 0
        for row in self.store.proposals():
            program = self.programs[row.program]
            trained = not self.measure.infeasible(program.figures)
            self.context.identities.setdefault(program.identity, row.number)
            self.context.number = row.number + 1
            self.budget.charge(program.identity, row.rung, trained)
            if row.number < self.told:
                self.context.individuals[row.number] = one = self._individual(row)
                self._improve(one)
            else:
                self.open[row.number] = row
        if state:
            self.algorithm.restore(state.state)

    def note(self, kind: str, text: str) -> None:
        """Remember an event."""
        with self.store.transaction():
            self.store.add_event(kind, text)

    def _improve(self, one: Individual) -> None:
        """Keep the best of every objective, on the full budget."""
        if one.violation <= 0 and one.rung == self.context.last_rung:
            values = one.objectives
            self.best = tuple(min(pair) for pair in zip(self.best or values, values, strict=True))

    def _progress(self) -> Progress:
        said, self.said = self.said, []
        return Progress(
            proposals=self.context.number,
            told=self.told,
            generation=self.generation,
            spent=self.budget.spent if self.settings.evaluations else float(self.told),
            planned=self.budget.planned,
            running=len(self.running),
            statuses=Counter(self.statuses),
            best=self.best,
            seconds=time.monotonic() - self.began,
            notes=tuple(said),
        )
