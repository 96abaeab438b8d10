"""What came of judging programs: scores of tasks with their spread over seeds, and comparisons.

    OUT/NAME/results.json   a judgement
    OUT/NAME/program.star   the program as it was given
    OUT/NAME/runs/...       every run

A task's score for a seed is the mean over its settings of the best of the grid, chosen by the
profile's split; the MAD score is the mean over tasks, where all six are there. The spread over
seeds is their standard deviation; a difference is beyond it where the ranges of the two do not
overlap, which takes two seeds of each at least.

Owns: these sums, and the files. Refuses: making runs, and tables.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from starc import __version__
from starc.grammar.errors import Diagnostic, StarError
from starc.mad.profiles import Profile, Spec, Variation
from starc.mad.runs import Record, record_of
from starc.runtime.files import write_atomic

RESULTS = "results.json"
TOTAL = "MAD"
"""Where all tasks are averaged, the name that stands with theirs."""


@dataclass(frozen=True)
class Spread:
    """Scores of the same thing for several seeds, in the order of the seeds."""

    scores: tuple[float, ...]

    @property
    def mean(self) -> float:
        return statistics.fmean(self.scores)

    @property
    def deviation(self) -> float | None:
        """The standard deviation; None for a single seed."""
        return statistics.stdev(self.scores) if len(self.scores) > 1 else None

    def beyond(self, other: Spread) -> bool:
        """Whether all of these scores are above all of the other's, two of each at least."""
        return min(len(self.scores), len(other.scores)) > 1 and min(self.scores) > max(other.scores)


@dataclass(frozen=True)
class Judgement:
    """A program judged by a protocol, perhaps in part: of `planned` runs there are `records`.

    `text` is the program as it was given, `digest` that of the program at the protocol's size.
    """

    name: str
    text: str
    digest: str
    profile: str
    protocol: Mapping[str, Any]
    tasks: tuple[str, ...]
    seeds: tuple[int, ...]
    planned: int
    records: tuple[Record, ...]
    state: int | None = None

    @property
    def complete(self) -> bool:
        return len(self.records) == self.planned

    @property
    def seconds(self) -> float:
        """The time of all runs together, in seconds of one worker."""
        return sum(record.seconds for record in self.records)

    @property
    def data_share(self) -> float:
        """The share of that time that data took, drawing the sets of examples included."""
        return sum(r.data_seconds for r in self.records) / self.seconds if self.seconds else 0.0

    @property
    def parameters(self) -> int:
        """Of the smallest model trained: they differ by vocabulary alone."""
        return min((record.parameters for record in self.records), default=0)

    @cached_property
    def best(self) -> dict[Spec, Record]:
        """The run that the protocol chooses, of every setting and seed whose grid is complete.

        Of equally good runs it takes the first of the grid.
        """
        grid = len(self.protocol["learning_rates"]) * len(self.protocol["weight_decays"])
        split, metric = self.protocol["selection"], self.protocol["metric"]
        points: dict[Spec, list[Record]] = {}
        for record in self.records:
            points.setdefault(record.spec.anywhere, []).append(record)
        return {
            place: max(records, key=lambda record: getattr(getattr(record, split), metric))
            for place, records in points.items()
            if len(records) == grid
        }

    @cached_property
    def scores(self) -> dict[str, Spread]:
        """Task to scores, of seeds that have all settings; `TOTAL` where all six tasks have one."""
        found: dict[str, dict[int, float]] = {}
        for task in self.tasks:
            settings = self._settings(task)
            for seed in self.seeds:
                places = [Spec(task, setting, 0.0, 0.0, seed) for setting in settings]
                if all(place in self.best for place in places):
                    values = [self.score(self.best[place]) for place in places]
                    found.setdefault(task, {})[seed] = statistics.fmean(values)
        spreads = {task: Spread(tuple(scores.values())) for task, scores in found.items()}
        every = len(self.protocol["tasks"])
        whole = [s for s in self.seeds if sum(s in scores for scores in found.values()) == every]
        if whole:
            totals = (statistics.fmean(f[seed] for f in found.values()) for seed in whole)
            spreads[TOTAL] = Spread(tuple(totals))
        return spreads

    def score(self, record: Record) -> float:
        """The figure of a run that counts."""
        return float(getattr(record.test, self.protocol["metric"]))

    def _settings(self, task: str) -> list[Variation]:
        (plan,) = (plan for plan in self.protocol["tasks"] if plan["task"] == task)
        return [tuple(variation.items()) for variation in plan["variations"]]

    def to_json(self) -> dict[str, Any]:
        """Everything, fit for JSON."""
        scores = {
            name: {"mean": s.mean, "deviation": s.deviation, "seeds": list(s.scores)}
            for name, s in self.scores.items()
        }
        return {
            "name": self.name,
            "profile": self.profile,
            "complete": self.complete,
            "scores": scores,
            "tasks": list(self.tasks),
            "seeds": list(self.seeds),
            "state": self.state,
            "parameters": self.parameters,
            "seconds": round(self.seconds, 3),
            "data_share": round(self.data_share, 6),
            "digest": self.digest,
            "starc": __version__,
            "torch": torch.__version__,
            "protocol": dict(self.protocol),
            "planned": self.planned,
            "records": [record.to_json() for record in self.records],
            "program": self.text,
        }


def protocol_of(profile: Profile) -> dict[str, Any]:
    """A profile as JSON has it."""
    content = asdict(profile)
    content["tasks"] = [
        {"task": p.task, "steps": p.steps, "variations": [dict(v) for v in p.variations]}
        for p in profile.tasks
    ]
    described: dict[str, Any] = json.loads(json.dumps(content))
    return described


def write_judgement(folder: Path, judgement: Judgement) -> None:
    """Put a judgement into its folder, whole or not at all; raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / "program.star", judgement.text.encode())
    content = json.dumps(judgement.to_json(), indent=1) + "\n"
    write_atomic(folder / RESULTS, content.encode())


def read_judgement(folder: Path) -> Judgement:
    """The judgement in a folder; raises StarError when there is none or it is damaged."""
    path = folder / RESULTS
    try:
        content = json.loads(path.read_text())
        return Judgement(
            name=content["name"],
            text=content["program"],
            digest=content["digest"],
            profile=content["profile"],
            protocol=content["protocol"],
            tasks=tuple(content["tasks"]),
            seeds=tuple(content["seeds"]),
            planned=content["planned"],
            records=tuple(record_of(record) for record in content["records"]),
            state=content["state"],
        )
    except FileNotFoundError as error:
        raise _error(
            "no-results",
            f"there are no results in '{folder}'.",
            "make some with 'starc mad FILE --out DIR'.",
        ) from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise _error("cannot-read", f"cannot read '{path}': {reason}.") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _error("results-damaged", f"'{path}' is damaged: {error}.") from error


def read_judgements(folder: Path) -> list[Judgement]:
    """All judgements in a folder of `starc mad`, or the one in a program's own folder."""
    if (folder / RESULTS).exists():
        return [read_judgement(folder)]
    inside = sorted(path.parent for path in folder.glob(f"*/{RESULTS}"))
    return [read_judgement(path) for path in inside] or [read_judgement(folder)]


def check_comparable(judgements: Sequence[Judgement]) -> None:
    """Raise StarError unless all were judged by the same protocol."""
    first = judgements[0]
    for other in judgements[1:]:
        if other.protocol != first.protocol:
            raise _error(
                "results-differ",
                f"'{first.name}' was judged by the profile '{first.profile}', '{other.name}' by "
                f"{'another' if other.profile != first.profile else 'another version of it'}.",
                "judge both by the same one.",
            )


def orderings(judgements: Sequence[Judgement]) -> dict[str, list[tuple[str, str]]]:
    """For each task the pairs (better, worse) of programs that differ beyond the spread."""
    found: dict[str, list[tuple[str, str]]] = {}
    for task in compared(judgements):
        pairs = [(a, b) for a in judgements for b in judgements if a is not b]
        found[task] = [
            (a.name, b.name)
            for a, b in pairs
            if task in a.scores and task in b.scores and a.scores[task].beyond(b.scores[task])
        ]
    return found


def compared(judgements: Iterable[Judgement]) -> list[str]:
    """The tasks that any of them has a score of, in the protocol's order, and `TOTAL` last."""
    judgements = list(judgements)
    names = [plan["task"] for plan in judgements[0].protocol["tasks"]]
    return [n for n in (*names, TOTAL) if any(n in j.scores for j in judgements)]


def _error(code: str, message: str, hint: str = "") -> StarError:
    return StarError(Diagnostic(code, message, hint=hint))
