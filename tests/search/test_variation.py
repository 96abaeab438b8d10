"""Programs of a search: texts that stand for what was checked, and children that are new."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from starc.compiler.cost import cost_report
from starc.compiler.driver import identity, resolve_source
from starc.compiler.options import Options
from starc.grammar.source import Source
from starc.search.evaluators import evaluation_seed, evaluator_digest, make_evaluator
from starc.search.settings import parse_named, parse_option
from starc.search.variation import Variation, alone
from tests.search.searches import PROGRAM, SPACE

ROOT = Path(__file__).parents[2]


def test_a_text_means_what_was_checked():
    variation = Variation(Source("space.star", SPACE))
    parents = [variation.fresh(random.Random(n)).program for n in range(4)]
    assert [Variation(Source("s", SPACE)).check(p.text) for p in parents] == parents
    for n in range(15):
        rng = random.Random(n)
        chosen = [parent.text for parent in rng.sample(parents, 2)]
        made = variation.child(chosen, rng, crossover=0.7, mutation=0.3)
        fresh = Variation(Source("space.star", SPACE))
        assert fresh.check(made.program.text) == made.program
        model, _ = resolve_source(Source("p", made.program.text), Options())
        assert made.program.figures["parameters"] == cost_report(model).parameters
        parents.append(made.program)


def test_the_same_generator_makes_the_same_child_whatever_was_made_before():
    used, new = Variation(Source("s", SPACE)), Variation(Source("s", SPACE))
    for n in range(30):
        used.fresh(random.Random(n))
    parents = [used.fresh(random.Random(n)).program.text for n in (100, 101)]
    for n in range(10):
        made = [
            one.child(parents, random.Random(n), crossover=0.5, mutation=0.5) for one in (used, new)
        ]
        assert made[0] == made[1]


def test_a_child_means_something_new():
    variation = Variation(Source("p", PROGRAM))
    known = {variation.check(PROGRAM).identity}
    for n in range(20):
        child = variation.child([PROGRAM], random.Random(n), crossover=0, mutation=0, known=known)
        assert child.program.identity not in known
        known.add(child.program.identity)


def test_programs_are_made_to_stand_alone(tmp_path: Path):
    (tmp_path / "mine.star").write_text("operator mine() { V = x |> dense(width)  y = V }\n")
    text = PROGRAM.replace("use std.convolution.gconv", "use mine.mine").replace(
        "gconv(kernel = 3)", "mine()"
    )
    text = text.replace("gconv(kernel = 4)", "mine()")
    source = Source(str(tmp_path / "program.star"), text)
    whole = alone(source, Options())
    assert "use mine" not in whole
    assert identity(resolve_source(Source("elsewhere", whole), Options())[0]) == identity(
        resolve_source(source, Options())[0]
    )
    assert alone(Source("p", PROGRAM), Options()) == PROGRAM


def test_evaluations_are_named_by_all_that_decides_them():
    one, other = (make_evaluator("static", {"rungs": n}) for n in (1, 2))
    assert evaluator_digest(one) != evaluator_digest(other)
    assert evaluator_digest(one) == evaluator_digest(make_evaluator("static", {"seconds": 3}))
    assert evaluation_seed("a", 0) == evaluation_seed("a", 0)
    assert evaluation_seed("a", 0) != evaluation_seed("a", 1) != evaluation_seed("b", 1)
    assert 0 <= evaluation_seed("a", 0) < 2**31


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True),
        ("12", 12),
        ("200_000", 200_000),
        ("1.5M", 1_500_000),
        ("0.25", 0.25),
        ("8e-4", 8e-4),
        ("2:1", "2:1"),
        ("stdlib", "stdlib"),
        ("M", "M"),
        ("4G", 4 * 10**9),
    ],
)
def test_options_are_numbers_where_they_look_like_some(text: str, value: object):
    found = parse_option(text)
    assert (found, type(found)) == (value, type(value))
    assert parse_named(f"name,option={text}") == ("name", {"option": value})
