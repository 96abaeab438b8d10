"""What a search will cost, said before it begins.

Owns: counting, and timing one short training. Refuses: the search, and printing.
"""

from __future__ import annotations

import os
import random
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starc.grammar.errors import Diagnostic, StarError
from starc.search.engine import Engine, Job, Outcome
from starc.search.evaluators import Evaluator, evaluation_seed
from starc.search.local_engine import LocalEngine
from starc.search.objectives import Objective
from starc.search.preparing import Kit
from starc.search.variation import Program

DRAWS = 24
"""So many programs stand for all in what is estimated."""

_TRIES = 3
"""So many programs in a row that cannot be evaluated, and the search is refused."""

_PROBE_SECONDS = 600.0


@dataclass(frozen=True)
class Plan:
    """What a search will cost at most: duplicates and programs that break constraints cost nothing.

    `tokens` are read and `flops` done by all evaluations (None: nobody knows, or none). `seconds`
    is the time on so many workers as there are cores for, None where evaluations were not timed.
    `feasible` of `drawn` programs met the constraints that are known without training; `nearest`
    says of each constraint that none met how near the nearest was.
    """

    evaluations: float
    tokens: float | None
    flops: float | None
    seconds: float | None
    tokens_per_second: float | None
    drawn: int
    feasible: int
    nearest: tuple[str, ...]


def plan(kit: Kit, *, workers: int, engine: Engine | None = None) -> Plan:
    """Estimate what a search costs, by programs drawn from its space and a probe of one of them
    in a worker. Closes the engine.

    Raises StarError when programs cannot be evaluated at all.
    """
    settings, evaluator = kit.settings, kit.evaluator
    rng = random.Random(f"{settings.seed}:plan")
    drawn = [kit.variation.fresh(rng).program for _ in range(DRAWS)]
    met = [program for program in drawn if not kit.measure.infeasible(program.figures)]
    last = evaluator.rungs - 1
    count = float(settings.evaluations or settings.population * (settings.generations or 0))
    tokens = evaluator.tokens(last) * count or None
    stand_in = met or drawn
    length = getattr(evaluator, "length", None)
    work = _work(kit, stand_in, length) if length and tokens else None
    probed, found = _probe(evaluator, stand_in, settings.seed, engine or LocalEngine(1))
    seconds = found.get("seconds")
    if seconds is not None:
        share = statistics.fmean(work) / work[probed] if work else 1.0
        seconds *= count * share / max(1, min(workers, os.cpu_count() or 1))
    return Plan(
        evaluations=count,
        tokens=tokens,
        flops=statistics.fmean(work) * tokens if work and tokens else None,
        seconds=seconds,
        tokens_per_second=found.get("tokens_per_second"),
        drawn=len(drawn),
        feasible=len(met),
        nearest=() if met else tuple(_nearest(kit, drawn)),
    )


def _work(kit: Kit, programs: Sequence[Program], length: int) -> list[float]:
    """Operations of training, per token of a sequence of `length`."""
    found = []
    for program in programs:
        checked = kit.variation.verified(program.text)
        report = kit.variation.costs.report(checked.ir, length=length)
        found.append(report.flops_train / length)
    return found


def _probe(
    evaluator: Evaluator, programs: Sequence[Program], seed: int, engine: Engine
) -> tuple[int, dict[str, float]]:
    """What the evaluator says of the first program that it can say something of, and its place."""
    try:
        for place, program in enumerate(programs):
            outcome = _probed(evaluator, program, seed, engine)
            if outcome.status in ("done", "nan"):
                return place, dict(outcome.figures)
            if place + 1 >= min(_TRIES, len(programs)):
                break
    finally:
        engine.close()
    raise StarError(
        Diagnostic(
            "cannot-evaluate",
            f"the evaluator '{evaluator.name}' cannot evaluate a program of this space "
            f"({outcome.status}): {outcome.reason.rstrip('.')}.",
            hint="nothing was begun.",
        )
    )


def _probed(evaluator: Evaluator, program: Program, seed: int, engine: Engine) -> Outcome:
    with tempfile.TemporaryDirectory(prefix="starc-probe-") as folder:
        chosen = evaluation_seed(program.identity, seed)
        engine.submit(
            Job("probe", _Probe(evaluator), program.text, chosen, 0, Path(folder), _PROBE_SECONDS)
        )
        while True:
            for outcome in engine.wait(1.0):
                return outcome


@dataclass(frozen=True)
class _Probe:
    """An evaluator that says what another says before a search."""

    evaluator: Evaluator

    name = "probe"
    quality = Objective("quality")
    figures: tuple[str, ...] | None = None
    rungs = 1

    def tokens(self, rung: int) -> float:
        return 0.0

    def describe(self) -> dict[str, Any]:
        return {}

    def evaluate(self, text: str, *, seed: int, rung: int, folder: Path) -> dict[str, float]:
        return {"ready": 1.0, **self.evaluator.probe(text, seed=seed, folder=folder)}

    def probe(self, text: str, *, seed: int, folder: Path) -> dict[str, float]:
        return {}


def _nearest(kit: Kit, programs: Sequence[Program]) -> list[str]:
    """Of each constraint that no program meets, the figure of the nearest."""
    found = []
    for constraint in kit.measure.static:
        least = min(programs, key=lambda program: constraint.violation(program.figures))
        if constraint.violation(least.figures) > 0:
            found.append(f"{constraint}: the nearest has {least.figures[constraint.name]:,.6g}")
    return found
