"""A search as a study in Optuna's journal format, for optuna-dashboard.

    starc report RUN --optuna-journal study.log && optuna-dashboard study.log

Proposals are trials of the same numbers, in their order; parameters are what programs are made of.

Owns: that translation. Refuses: searching with Optuna, and importing it unless it is asked for (it
is the extra `optuna`).
"""

from __future__ import annotations

import tempfile
import warnings
from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starc.grammar.errors import Diagnostic, StarError
from starc.report.genes import Anatomy, anatomies
from starc.report.record import RUNNING, WAITING, Member, Record
from starc.search.store import EvaluationRow

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

_MOST_TEXT = 2_000
"""Characters of an attribute: Optuna's storages have such a limit."""


def check_optuna() -> None:
    """Raise StarError when Optuna is not installed."""
    try:
        import optuna  # noqa: F401
    except ImportError as error:
        raise StarError(
            Diagnostic(
                "missing-extra",
                "a journal for optuna-dashboard needs optuna, which is not installed.",
                hint="pip install 'starc[optuna]'; the page of --html needs nothing more.",
            )
        ) from error


def render_journal(record: Record) -> bytes:
    """The journal of a search. A search that goes on is written anew, with what is new."""
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    known = anatomies(record.members)
    classes = sorted({place for found in known.values() for place in found.motif.places})
    attempts = {(row.program, row.rung): row for row in record.attempts}
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # it tells standard error of every study
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "journal.log"
            study = optuna.create_study(
                storage=JournalStorage(JournalFileBackend(str(path))),
                study_name=record.folder.resolve().name,
                directions=["minimize" if o.sign > 0 else "maximize" for o in record.objectives],
            )
            with warnings.catch_warnings():  # names of objectives are an experiment of Optuna's
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                study.set_metric_names([objective.name for objective in record.objectives])
            for name in ("algorithm", "evaluator", "seed"):
                study.set_user_attr(name, getattr(record.settings, name))
            study.set_user_attr("command", record.run.command[:_MOST_TEXT])
            for member in record.members:
                row = attempts.get((member.program.id, member.rung))
                study.add_trial(_trial(member, record, row, known, classes))
            return path.read_bytes()
    finally:
        optuna.logging.set_verbosity(before)


def _trial(
    member: Member,
    record: Record,
    row: EvaluationRow | None,
    known: Mapping[int, Anatomy],
    classes: list[str],
) -> FrozenTrial:
    from optuna.distributions import IntDistribution
    from optuna.trial import TrialState, create_trial

    states = {"done": TrialState.COMPLETE, RUNNING: TrialState.RUNNING, WAITING: TrialState.WAITING}
    state = states.get(member.status, TrialState.FAIL)
    values = [member.value(objective) for objective in record.objectives]
    if state is TrialState.COMPLETE and (None in values or member.rung < record.full_rung):
        state = TrialState.PRUNED  # on a lower budget, or without an objective
    params: dict[str, Any] = {}
    if member.program.id in known:
        anatomy = known[member.program.id]
        counts = Counter(anatomy.motif.places)
        params = {name: counts[name] for name in classes}
        params |= {"units": len(anatomy.motif.places), "width": anatomy.width}
    attributes: dict[str, Any] = {
        "parents": list(member.parents),
        "operation": member.operation,
        "level": member.level,
        "generation": member.generation,
        "rung": member.rung,
        "status": member.status,
        "reason": ("" if row is None else row.reason)[:_MOST_TEXT],
        "program": member.program.text[:_MOST_TEXT],
        "identity": member.program.identity,
        **member.figures,
    }
    trial = create_trial(
        state=state,
        values=values if state is TrialState.COMPLETE else None,  # type: ignore[arg-type]
        params=params,
        distributions={name: IntDistribution(0, 2**31) for name in params},
        user_attrs=attributes,
    )
    if row is not None:
        trial.datetime_start = datetime.fromtimestamp(row.began)
        if state.is_finished():
            trial.datetime_complete = datetime.fromtimestamp(row.began + row.seconds)
    return trial
