"""Synthetic tasks: the six of MAD, and others that ask for recall and for structure.

Owns: which tasks there are, making one by name, and their difficulty settings.
Refuses: training on them.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from starc.grammar.errors import Diagnostic, StarError, suggest
from starc.runtime.tasks.fuzzy import FuzzyInContextRecall
from starc.runtime.tasks.memory import Compression, Memorization, SelectiveCopying
from starc.runtime.tasks.mqar import MultiQueryRecall
from starc.runtime.tasks.picture import picture
from starc.runtime.tasks.rank import RankRecall
from starc.runtime.tasks.recall import InContextRecall, LengthExtrapolation, NoisyInContextRecall
from starc.runtime.tasks.task import Task
from starc.runtime.tasks.tree import TreeGrammar

__all__ = ["MAD", "TASKS", "Task", "make_task", "picture", "settings"]

MAD: dict[str, type[Task]] = {
    kind.NAME: kind
    for kind in (
        InContextRecall,
        NoisyInContextRecall,
        FuzzyInContextRecall,
        Memorization,
        Compression,
        SelectiveCopying,
    )
}
"""The six tasks of MAD (arXiv 2403.17844), 66 settings in all."""

TASKS: dict[str, type[Task]] = MAD | {
    kind.NAME: kind for kind in (MultiQueryRecall, LengthExtrapolation, RankRecall, TreeGrammar)
}
"""All tasks, by name."""


def make_task(
    name: str,
    *,
    vocab: int | None = None,
    length: int | None = None,
    examples: int | None = None,
    seed: int = 0,
    **other: Any,
) -> Task:
    """The task called `name`; what is not given is as in its baseline.

    `other` are settings that only some tasks have, and `held_out_examples`. Raises StarError for a
    task or a setting that there is not, and for values of which no task can be made.
    """
    kind = _kind(name)
    given = {"vocab": vocab, "length": length, "examples": examples}
    other |= {setting: value for setting, value in given.items() if value is not None}
    known = {field.name for field in fields(kind)}
    for setting in other:
        if setting not in known:
            raise StarError(
                Diagnostic(
                    "unknown-task-setting",
                    f"the task '{name}' has no setting '{setting}'.",
                    hint=suggest(setting, known) or f"it has {', '.join(sorted(known))}.",
                )
            )
    return kind(seed=seed, **other)


def settings(name: str) -> tuple[dict[str, Any], ...]:
    """The difficulty settings of a task, as what `make_task` is given: the baseline, {}, first.

    Each of the others changes one thing of the baseline (mqar: its length and its pairs). Raises
    StarError for a task that there is not.
    """
    kind = _kind(name)
    varied = ({key: value} for key, values in kind.VARIATIONS.items() for value in values)
    return ({}, *varied, *kind.HARDER)


def _kind(name: str) -> type[Task]:
    if name not in TASKS:
        hint = suggest(name, TASKS) or f"there are {', '.join(TASKS)}."
        raise StarError(Diagnostic("unknown-task", f"there is no task '{name}'.", hint=hint))
    return TASKS[name]
