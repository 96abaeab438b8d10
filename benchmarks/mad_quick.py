"""Six programs of equal size judged by the quick profile of MAD, and which differences are real.

Run from the repository: `python benchmarks/mad_quick.py`. The table is printed and written to
benchmarks/results/mad_quick.md. Programs are made equally large first (within 5 percent, without
tables and read-out), so the profile's width is not theirs. All runs are kept in --out; the same
command goes on where it was stopped, and makes no run twice. Orderings name the pairs of programs
of which every seed of one is above every seed of the other.
"""

from __future__ import annotations

import argparse
import datetime
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from train_step import machine

from starc.compiler.fitting import fit_parameters
from starc.compiler.options import Options
from starc.grammar.library import read_source
from starc.grammar.source import Source
from starc.mad.judging import Done, default_workers, judge
from starc.mad.profiles import QUICK
from starc.mad.results import Judgement, compared, orderings

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results" / "mad_quick.md"
OUT = ROOT / "runs" / "mad-benchmarks"

PROGRAMS = (
    "transformer_pp",
    "mamba2",
    "hyena",
    "striped_hyena",
    "gated_deltanet",
    "families/lfm2",
)
PARAMETERS = 103_000
"""Of all units together."""

PROFILE = replace(QUICK, name="quick-equal", width=0, units=0)


@dataclass(frozen=True)
class Sized:
    """A program of examples/ at the common size; `label` is its file's name."""

    label: str
    source: Source
    width: int
    parameters: int


def sized(path: str) -> Sized:
    """A program at the common number of parameters, with the fewest units that hold its motif."""
    found = fit_parameters(
        read_source(ROOT / "examples" / f"{path}.star"),
        Options(),
        parameters=PARAMETERS,
        units=QUICK.units,
        embedding=False,
        tolerance=0.05,
    )
    label = path.replace("/", "-")
    if abs(found.parameters / PARAMETERS - 1) > 0.05:
        raise SystemExit(f"{label} has {found.parameters:,} parameters at the nearest width.")
    return Sized(label, found.source, found.width, found.parameters)


def judged(program: Sized, seeds: Sequence[int], out: Path, workers: int) -> Judgement:
    """The judgement of a program under its label, of which finished runs are not made again."""

    def observe(done: Done) -> None:
        record = done.record
        print(
            f"{program.label} [{done.made}/{done.planned}] {record.spec.setting} seed "
            f"{record.spec.seed}: {record.test.accuracy:.3f} ({record.seconds:.0f} s)",
            file=sys.stderr,
            flush=True,
        )

    found = judge(
        program.source,
        profile=PROFILE,
        seeds=seeds,
        folder=out / program.label,
        workers=workers,
        observe=observe,
    )
    return replace(found, name=program.label)


def heading(title: str) -> list[str]:
    command = shlex.join(("python", *sys.argv))
    return [f"# {title}", "", f"{datetime.date.today()}, `{command}`", "", machine(), ""]


def table(programs: Sequence[Sized], judgements: Sequence[Judgement]) -> list[str]:
    """Mean and standard deviation over seeds, a row for each program."""
    tasks = compared(judgements)
    lines = [
        "| program | width | parameters | " + " | ".join(tasks) + " | seconds a seed |",
        "| --- " * (len(tasks) + 4) + "|",
    ]
    for program, judgement in zip(programs, judgements, strict=True):
        cells = [program.label, str(program.width), f"{program.parameters:,}"]
        for task in tasks:
            spread = judgement.scores[task]
            deviation = "" if spread.deviation is None else f" ± {spread.deviation:.3f}"
            cells.append(f"{spread.mean:.3f}{deviation}")
        cells.append(f"{judgement.seconds / len(judgement.seeds):.0f}")
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def ordering_lines(judgements: Sequence[Judgement]) -> list[str]:
    lines = []
    for task, pairs in orderings(judgements).items():
        beaten: dict[str, list[str]] = {}
        for better, worse in pairs:
            beaten.setdefault(better, []).append(worse)
        said = "; ".join(f"{better} > {', '.join(worse)}" for better, worse in beaten.items())
        lines.append(f"- {task}: {said or 'none'}")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--programs", nargs="+", default=list(PROGRAMS), help="paths in examples/")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=default_workers("cpu"))
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    programs = [sized(path) for path in arguments.programs]
    judgements = [
        judged(p, range(arguments.seeds), arguments.out, arguments.jobs) for p in programs
    ]
    text = [
        *heading("Quick MAD"),
        f"Programs of {PARAMETERS:,} parameters ± 5 % in units, {arguments.seeds} seeds; means ± "
        "standard deviations of token accuracy. Seconds are those of one process.",
        "",
        *table(programs, judgements),
        "",
        "Beyond the spread of the seeds (every seed of one above every seed of the other):",
        "",
        *ordering_lines(judgements),
    ]
    shares = [judgement.data_share for judgement in judgements]
    text += ["", f"Making data took {max(shares):.1%} of the time at most.", ""]
    arguments.results.write_text("\n".join(text))
    print("\n".join(text))


if __name__ == "__main__":
    main()
