"""A search on real text beside architectures made by hand, retrained with one recipe.

Run from the repository: `python benchmarks/real_search.py`. Two tables are printed and written to
benchmarks/results/real_search.md. Programs of eight units from examples/searches/mixed.star are
searched by NSGA-II for few bits per byte (a short training on the source of Python's standard
library, scored on its validation part) and a small cache at 4,096 tokens, with no more parameters
than the largest program made by hand. Then the front and the programs made by hand are trained
longer, with several seeds, and scored on the test part, which no choice has seen.

Both stages keep what they have: the same command goes on.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from statistics import fmean, stdev

from mad_quick import heading

from starc.grammar.parser import parse
from starc.grammar.printer import format_program
from starc.grammar.source import Source
from starc.runtime.corpus import open_corpus
from starc.runtime.files import write_atomic
from starc.runtime.learner import evaluate
from starc.runtime.run import open_run, trained_model
from starc.search.algorithms import Individual
from starc.search.driver import Found, Progress, resume, search
from starc.search.lm import make
from starc.search.objectives import static_figures
from starc.search.settings import Settings
from starc.search.store import FILE
from starc.search.verifying import Verifier

ROOT = Path(__file__).parent.parent
SPACE = ROOT / "examples" / "searches" / "mixed.star"
RESULTS = Path(__file__).parent / "results" / "real_search.md"
OUT = ROOT / "runs" / "real-search"
SETTINGS = "vocab = 256   width = 64   context = 4096\n    residual = pre(rmsnorm)\n"
UNITS, CACHE_LENGTH, HELD_OUT = 8, 4096, 131_072

BY_HAND = {
    "transformer_pp": (
        "use std.attention.mha\nuse std.channel.swiglu\n",
        "repeat 4 { mha(heads = 4)  swiglu(hidden = 192) }",
    ),
    "grouped-query transformer": (
        "use std.attention.gqa\nuse std.channel.swiglu\n",
        "repeat 4 { gqa(heads = 4, groups = 1)  swiglu(hidden = 192) }",
    ),
    "striped hybrid": (
        "use std.attention.mha\nuse std.convolution.gconv\nuse std.channel.swiglu\n",
        "repeat 2 { gconv()  swiglu(hidden = 192)  mha(heads = 4)  swiglu(hidden = 192) }",
    ),
    "mamba2": (
        "use std.recurrent.mamba2\n",
        "repeat 8 { mamba2(state = 32, head = 32) }",
    ),
}
"""Eight units each, as their papers stripe them."""


@dataclass(frozen=True)
class Member:
    """A program to be retrained, with figures of search/objectives.py."""

    label: str
    text: str
    parameters: float
    cache: float


def by_hand() -> list[Member]:
    found = []
    for name, (uses, backbone) in BY_HAND.items():
        text = f"{uses}model m {{\n    {SETTINGS}    backbone {{ {backbone} }}\n}}\n"
        found.append(member(name, text))
    return found


def member(label: str, text: str) -> Member:
    program = parse(Source(label, text))
    figures = static_figures(Verifier().check(program), length=CACHE_LENGTH)
    if figures["units"] != UNITS:
        raise SystemExit(f"{label} has {figures['units']:.0f} units.")
    text = format_program(program)
    return Member(label, text, figures["parameters"], figures["cache_bytes"])


def searched(arguments: argparse.Namespace, hands: Sequence[Member]) -> Found:
    """The search, begun or gone on with."""
    settings = Settings(
        space=SPACE.read_text(),
        name=SPACE.name,
        population=arguments.population,
        evaluations=arguments.evaluations,
        steady=True,
        objectives=("quality", "cache_bytes"),
        constraints=(
            f"units >= {UNITS}",
            f"units <= {UNITS}",
            f"parameters <= {max(hand.parameters for hand in hands):.0f}",
        ),
        evaluator_options={"tokens": arguments.tokens},
        algorithm_options={"mutation": 0.5},
        seed=arguments.seed,
        seconds=600.0,
        length=CACHE_LENGTH,
        units=UNITS,
    )

    def observe(progress: Progress) -> None:
        if sys.stderr.isatty():
            print(f"\r{progress.told} of {arguments.evaluations}", end="", file=sys.stderr)

    out: Path = arguments.out / "search"
    if (out / FILE).exists():
        return resume(out, workers=arguments.jobs, observe=observe)
    return search(settings, out, workers=arguments.jobs, observe=observe)


def retrain(text: str, label: str, seed: int, tokens: int, out: Path) -> float:
    """Bits per byte on the test part after `tokens`; trained once, then read again."""
    folder = out / "retrained" / f"{tokens}" / label.replace(" ", "-") / f"seed={seed}"
    result = folder / "result.json"
    if result.exists() and json.loads(result.read_text())["text"] == text:
        return float(json.loads(result.read_text())["bits"])
    corpus = open_corpus("stdlib")
    make(tokens=tokens).evaluate(text, seed=seed, rung=0, folder=folder)
    model = trained_model(open_run(folder / "run"), data=corpus)
    score = evaluate(model, corpus, "test", length=128, limit=HELD_OUT // 128)
    bits: float = score.bits_per_byte(corpus.bytes_per_token)
    write_atomic(result, json.dumps({"bits": bits, "text": text}).encode())
    return bits


def retrained(members: Sequence[Member], arguments: argparse.Namespace) -> list[list[float]]:
    """Bits per byte of every member by seed."""
    found = [[0.0] * arguments.seeds for _ in members]
    with ProcessPoolExecutor(arguments.jobs, get_context("spawn")) as pool:
        futures = {
            pool.submit(retrain, m.text, m.label, seed, arguments.retrain, arguments.out): (i, seed)
            for seed in range(arguments.seeds)
            for i, m in enumerate(members)
        }
        for future in as_completed(futures):
            i, seed = futures[future]
            found[i][seed] = future.result()
            said = f"{members[i].label} seed {seed}: {found[i][seed]:.3f}"
            print(said, file=sys.stderr, flush=True)
    return found


def chosen(front: Sequence[Individual], most: int) -> list[Member]:
    """Of a front with more than `most` members, those at even distances along it."""
    steps = max(1, min(most, len(front)) - 1)
    places = sorted({round(k * (len(front) - 1) / steps) for k in range(steps + 1)})
    return [member(f"found {front[k].id}", front[k].text) for k in places]


def table(members: Sequence[Member], bits: Sequence[Sequence[float]]) -> list[str]:
    lines = [
        "| program | bits per byte on the test part | parameters | cache at 4,096 tokens, bytes |",
        "|---|--:|--:|--:|",
    ]
    for m, values in zip(members, bits, strict=True):
        spread = f" ± {stdev(values):.3f}" if len(values) > 1 else ""
        lines.append(
            f"| {m.label} | {fmean(values):.3f}{spread} | {m.parameters:,.0f} | {m.cache:,.0f} |"
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--evaluations", type=int, default=150)
    parser.add_argument("--population", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=256_000, help="of each evaluation")
    parser.add_argument("--retrain", type=int, default=1_228_800, help="tokens of each retraining")
    parser.add_argument("--seeds", type=int, default=3, help="of the retrainings")
    parser.add_argument("--seed", type=int, default=0, help="of the search")
    parser.add_argument("--members", type=int, default=5, help="of the front, retrained")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    hands = by_hand()
    found = searched(arguments, hands)
    members = [*hands, *chosen(found.front, arguments.members)]
    bits = retrained(members, arguments)
    trained = sum(1 for i in found.individuals if i.violation <= 0)
    lines = [
        *heading("A search on real text"),
        f"{len(found.individuals)} programs proposed, {trained} trained on {arguments.tokens:,} "
        f"bytes each; the front has {len(found.front)}. Retrained on {arguments.retrain:,} bytes "
        f"with {arguments.seeds} seeds; ± is the deviation over seeds.",
        "",
        *table(members, bits),
        "",
        "What was found:",
        *(f"\n```\n{m.text.strip()}\n```" for m in members[len(hands) :]),
    ]
    print("\n".join(lines))
    arguments.results.parent.mkdir(exist_ok=True)
    write_atomic(arguments.results, ("\n".join(lines) + "\n").encode())


if __name__ == "__main__":
    main()
