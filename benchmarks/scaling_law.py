"""Scaling laws of two programs at toy budgets: `starc scale` as a script, with a table of results.

Run from the repository: `python benchmarks/scaling_law.py`. The table is printed and written to
benchmarks/results/scaling_law.md; a call that was stopped goes on where it was. Toy budgets
prove that the machinery works, from plan to fit. They prove no law: models this small are mostly
embedding, see a few million bytes, and their optimum is set by warm-up and depth as much as by
size.
"""

from __future__ import annotations

import argparse
import datetime
import json
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from train_step import machine

from starc.compiler.options import Options
from starc.grammar.library import read_source
from starc.runtime.corpus import open_corpus
from starc.runtime.scaling_law import Estimate, PowerLaw, ScalingLaw
from starc.scaling import Choices, Outcome, fits, run_plan
from starc.scaling_plan import Request, parse_budgets, plan_family, spelt

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "scaling_law.md"
PROGRAMS = ["transformer_pp", "striped_hyena"]


def number(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def interval(found: Estimate) -> str:
    if found.low != found.low:
        return number(found.value)
    return f"{number(found.value)} ({number(found.low)} to {number(found.high)})"


def exponent(law: PowerLaw | None) -> str:
    return interval(law.exponent) if law else "none"


def trainings(outcomes: Sequence[Outcome]) -> Iterator[str]:
    yield "| program | budget | width | units | parameters | tokens | steps | nats per byte | s |"
    yield "|---|--:|--:|--:|--:|--:|--:|--:|--:|"
    for o in outcomes:
        t = o.training
        loss = f"{o.loss:.4f}" if o.status == "finished" else o.status
        yield (
            f"| {t.size.model} | {spelt(t.budget)} | {t.size.width} | {t.size.units} "
            f"| {t.size.parameters:,} | {t.tokens:,} | {t.steps:,} | {loss} | {o.seconds:.0f} |"
        )


def optima(laws: dict[str, ScalingLaw]) -> Iterator[str]:
    yield "| program | budget | sizes | optimal parameters | tokens | loss | state |"
    yield "|---|--:|--:|---|---|---|---|"
    for name, law in laws.items():
        for o in law.optima:
            cells = [interval(e) for e in (o.size, o.tokens, o.loss, o.state)]
            if not o.found:
                cells = ["no minimum within reach of the sizes", "", "", ""]
            yield f"| {name} | {spelt(o.flops)} | {o.sizes} | {' | '.join(cells)} |"


def exponents(laws: dict[str, ScalingLaw]) -> Iterator[str]:
    yield "| program | size | tokens | loss | loss against state | noise of the loss |"
    yield "|---|---|---|---|---|---|"
    for name, law in laws.items():
        cells = [exponent(x) for x in (law.size, law.tokens, law.loss, law.state_loss)]
        yield f"| {name} | {' | '.join(cells)} | {number(law.noise)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--budgets", default="1e10,2e10,4e10,8e10")
    parser.add_argument("--sizes", type=int, default=4)
    parser.add_argument("--span", type=float, default=8.0)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--data", default="stdlib")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "scaling_law")
    arguments = parser.parse_args()

    data = open_corpus(arguments.data)
    request = Request(
        parse_budgets(arguments.budgets),
        arguments.sizes,
        arguments.span,
        vocab=data.vocab,
        length=arguments.length,
    )
    plan = [
        training
        for name in PROGRAMS
        for training in plan_family(
            read_source(ROOT / "examples" / f"{name}.star"), Options(), request
        )
    ]
    outcomes = run_plan(
        plan, data, arguments.out, Choices(precision="fp32", validation_tokens=32_768)
    )
    outcomes.sort(key=lambda o: PROGRAMS.index(o.training.size.model))
    laws = fits(outcomes)
    seconds = sum(o.seconds for o in outcomes)
    missing = sum(not o.found for law in laws.values() for o in law.optima)
    given = [a for i, a in enumerate(sys.argv) if i and "--out" not in sys.argv[i - 1 : i + 1]]
    lines = [
        "# Scaling laws at toy budgets",
        "",
        "".join((__doc__ or "").partition("Toy budgets")[1:]).replace("\n", " ").strip(),
        "",
        f"Trained on `{arguments.data}` as bytes, {arguments.length} tokens a sequence, float32; "
        f"{len(outcomes)} trainings in {seconds / 60:.0f} minutes on a shared machine. "
        "Losses are of the same held-out text, intervals of 95 %, exponents of y = a C^b.",
        "",
        f"{missing} of {sum(len(law.optima) for law in laws.values())} budgets of a program have "
        "no minimum within reach of the sizes, and count in no law.",
        "",
        *exponents(laws),
        "",
        *optima(laws),
        "",
        *trainings(outcomes),
        "",
        f"{datetime.date.today()}, {machine()}.",
        f"`python benchmarks/scaling_law.py{''.join(' ' + shlex.quote(a) for a in given)}`",
        "",
        "```json",
        json.dumps([o.as_dict() for o in outcomes]),
        "```",
    ]
    text = "\n".join(lines) + "\n"
    RESULTS.write_text(text, encoding="utf-8")
    print(text.partition("```json")[0])


if __name__ == "__main__":
    main()
