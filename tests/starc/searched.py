"""A small finished search, made through the store's own interface: no driver, no training."""

from __future__ import annotations

import random
from pathlib import Path

from starc.compiler.options import Options
from starc.grammar.library import read_source
from starc.grammar.source import Source
from starc.search.evaluators import Static, evaluation_seed, evaluator_digest
from starc.search.settings import Settings
from starc.search.store import ProposalRow, Store
from starc.search.variation import Made, Variation

ROOT = Path(__file__).parents[2]

HOSTILE = "</script><img src=x onerror=alert(1)><b>&amp;"
"""A text that is markup to whoever does not escape it."""

GIVEN = f"""
use std.convolution.gconv
use std.attention.gqa
operator channels() {{
    "{HOSTILE}"
    y = x |> dense(2 * width) |> silu |> dense(width)
}}
model given {{
    vocab = 256  width = 96  context = 256  residual = pre(rmsnorm)
    backbone {{ repeat 2 {{ gconv()  channels() }}  gqa(heads = 4, groups = 2)  channels() }}
}}
"""


def make_search(folder: Path, *, count: int = 36, population: int = 8, seed: int = 0) -> Path:
    """A run of random programs and children of random parents, judged by the static evaluator; one
    in nine evaluations fails, the last proposal is still running."""
    rng = random.Random(seed)
    space = read_source(str(ROOT / "examples/searches/tiny.star"))
    given = Source("given.star", GIVEN)
    variation = Variation(space, Options(), seeds=[given])
    evaluator = Static()
    digest = evaluator_digest(evaluator)
    made: list[Made] = []
    settings = Settings(
        space=space.text,
        name="tiny.star",
        population=population,
        evaluations=count,
        objectives=("quality", "cache_bytes", "parameters"),
        evaluator="static",
        seed=seed,
        seed_programs=(("given.star", GIVEN),),
    )
    with Store.create(
        folder,
        settings={**settings.to_json(), "quality": [1, "made up"]},
        versions={"starc": "0.1.0", "python": "3.11"},
        device="cpu",
        data_digest="",
        command=f"starc search tiny.star --evaluator static --out '{HOSTILE}'",
    ) as store:
        with store.transaction():
            store.add_event("began", "nsga2 with seed 0")
        for number in range(count):
            parents: tuple[int, ...] = ()
            if number == 0:
                one = Made(variation.seeds[0], "seed")
            elif number < population:
                one = variation.fresh(rng)
            else:
                parents = tuple(rng.sample(range(number), 2))
                texts = [made[parent].program.text for parent in parents]
                one = variation.child(texts, rng, crossover=0.5, mutation=0.1)
            made.append(one)
            program = one.program
            with store.transaction():
                id = store.add_program(
                    program.identity, program.text, program.units, program.figures
                )
                store.add_proposal(
                    ProposalRow(
                        number,
                        id,
                        parents,
                        one.operation,
                        one.level,
                        number // population,
                        0,
                        one.repairs,
                    )
                )
                work = evaluation_seed(program.identity, seed)
                row = store.begin_evaluation(id, digest, seed=work, rung=0, attempt=0)
            if number == count - 1:
                continue
            with store.transaction():
                if number % 9 == 8:
                    reason = f"the loss is nan after {number} steps of {HOSTILE}"
                    store.end_evaluation(row, "nan", reason=reason, seconds=0.5, worker="1")
                else:
                    figures = evaluator.evaluate(program.text, seed=work, rung=0, folder=folder)
                    store.end_evaluation(row, "done", figures=figures, seconds=1.0, worker="1")
        with store.transaction():
            store.add_event("finished", f"{count} of {count} proposals told")
    return folder
