"""Mutations: what comes out verifies, differs, and is the same for the same seed."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from starc.compiler.driver import check_program, identity, resolve_source
from starc.compiler.options import Options
from starc.grammar import nodes
from starc.grammar.errors import StarError
from starc.grammar.parser import parse
from starc.grammar.printer import format_program
from starc.grammar.source import Source
from starc.search.mutate import OPERATIONS, Mutator, mutate, opened
from starc.search.pool import Pool, pool_of_program
from starc.search.repair import DROPPED, MOVED, NUMBER, Rejected, outcomes
from starc.search.site import Bounds, Site
from starc.search.space import relabel
from starc.search.trees import Workshop, expression, places, size, ties, units
from starc.search.verifying import Verifier
from tests.strategies.programs import programs

ROOT = Path(__file__).parents[2]

PROGRAM = """
use std.attention.gqa
use std.channel.swiglu
use std.convolution.gconv
use std.star.sa2
use std.star.rec2
use std.recurrent.rglru
model m {
    vocab = 64  width = 64  context = 64  residual = pre(rmsnorm)
    backbone {
        a: gqa(heads = 4, groups = 2)
        swiglu()
        repeat 2 { gconv(kernel = 3) sa2() }
        parallel(sum) { gqa(heads = 8, groups = 2) rec2() }
        gqa(heads = 4, groups = 2) reuses B, V from a shares * with a
        swiglu()
        swiglu()
        rglru()
    }
}
"""


def source(text: str) -> Source:
    return Source("program.star", text)


VERIFIER = Verifier()
POOL = pool_of_program(VERIFIER.check(parse(source(PROGRAM))), VERIFIER)


def digest(text: str) -> str:
    return identity(resolve_source(source(text), Options())[0])


def sound(before: nodes.Program, after: nodes.Program, verifier: Verifier) -> None:
    """A mutation is what its text says, verifies by the whole compiler, and differs."""
    text = format_program(after)
    check_program(source(text), Options())
    assert digest(text) != digest(format_program(before))
    old, new = verifier.check(before).ir, verifier.check(after).ir
    assert (new.vocab, new.width, new.context) == (old.vocab, old.width, old.context)


def only(name: str, **options: bool) -> Mutator:
    """A mutator that has one operation."""
    return Mutator(operations=[o for o in OPERATIONS if o.name == name], **options)


@pytest.mark.parametrize("operation", [o.name for o in OPERATIONS])
@pytest.mark.parametrize("constrained", [True, False])
def test_every_operation_changes_a_program_for_another_that_verifies(
    operation: str, constrained: bool
):
    program = parse(source(PROGRAM))
    mutator = only(operation, constrained=constrained)
    mutator.verifier = VERIFIER
    mutator.pool = POOL
    change = mutator.mutate(program, random.Random(1))
    assert change.name == operation
    assert not (constrained and change.repairs)
    sound(program, change.program, VERIFIER)


def test_walks_stay_sound_and_bounded():
    for constrained in (True, False):
        rng = random.Random(5)
        mutator = Mutator(POOL, verifier=VERIFIER, bounds=Bounds(units=14), constrained=constrained)
        program = parse(source(PROGRAM))
        for step in range(40):
            change = mutator.mutate(program, rng)
            if step % 8 == 0:
                sound(program, change.program, VERIFIER)
            program = change.program
            assert change.checked.units <= 14
            backbone = change.checked.model.backbone
            named = {tie.label for unit in units(backbone) for tie in ties(unit)}
            labels = {unit.label for unit in units(backbone) if unit.label}
            assert labels == named


@settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
@given(programs())
def test_random_programs_can_be_mutated(text: str):
    program = parse(source(text))
    verifier = Verifier()
    for constrained in (True, False):
        mutator = Mutator(POOL, verifier=verifier, constrained=constrained)
        sound(program, mutator.mutate(program, random.Random(0)).program, verifier)


EXAMPLES = sorted((ROOT / "examples").glob("*.star"))


@pytest.mark.slow
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_every_example_can_be_mutated(path: Path):
    rng = random.Random(0)
    program, pool, verifier = opened(Source(str(path), path.read_text()), Options(), rng)
    for constrained in (True, False):
        mutator = Mutator(pool, verifier=verifier, constrained=constrained)
        for _ in range(6):
            change = mutator.mutate(program, rng)
            sound(program, change.program, verifier)


@pytest.mark.parametrize("name", ["tiny", "star"])
def test_fillings_of_spaces_get_units_of_the_space_only(name: str):
    path = ROOT / "examples" / "searches" / f"{name}.star"
    space = Source(str(path), path.read_text())
    program, pool, verifier = opened(space, Options(), random.Random(2))
    mutator = Mutator(pool, verifier=verifier)
    known = {call.function for call in calls(program)} | set(pool.operators)
    for seed in range(4):
        change = mutator.mutate(program, random.Random(seed), level="backbone")
        sound(program, change.program, verifier)
        assert {call.function for call in calls(change.program)} <= known


def calls(program: nodes.Program) -> list[nodes.Call]:
    model = next(d for d in program.declarations if isinstance(d, nodes.Model))
    return [u.operator for u in units(model.backbone) if isinstance(u.operator, nodes.Call)]


def test_the_same_seed_gives_the_same_program():
    program = parse(source(PROGRAM))
    texts = [format_program(mutate(program, random.Random(9)).program) for _ in range(2)]
    assert texts[0] == texts[1]
    mutator = Mutator(POOL, verifier=VERIFIER)
    others = [mutator.mutate(program, random.Random(seed)).checked.identity for seed in range(12)]
    assert len(set(others)) > 8


def test_labels_are_renamed_in_the_order_of_the_text():
    text = " ".join(f"{label}: swiglu()" for label in "qwertyuiop")
    program = parse(source(f"use std.channel.swiglu model m {{ backbone {{ {text} }} }}"))
    model = next(d for d in program.declarations if isinstance(d, nodes.Model))
    counts = iter(range(10))
    renamed = relabel(model.backbone, lambda label: f"u{next(counts)}")
    assert [u.label for u in units(renamed)] == [f"u{n}" for n in range(10)]


TIED = """
use std.attention.mha
use std.channel.swiglu
model m {{
    vocab = 64  width = 64  context = 64
    backbone {{ {} }}
}}
"""


def drafted(body: str, change: str) -> tuple[list[str], str]:
    """The repairs and the text after a draft in which the backbone is another."""
    from starc.search.repair import Draft, mend
    from starc.search.trees import Workshop

    before = VERIFIER.check(parse(source(TIED.format(body))))
    after = parse(source(TIED.format(change)))
    model = next(d for d in after.declarations if isinstance(d, nodes.Model))
    shop = Workshop.of(before.program, before.operators, VERIFIER.limits)
    checked, repairs = mend(Draft(shop, model), before, VERIFIER, most=64, repair=True)
    return repairs, format_program(checked.program)


def test_a_tie_moves_to_another_unit_with_the_same_call():
    before = "a: mha(heads = 4) mha(heads = 4) mha(heads = 4) shares * with a"
    repairs, text = drafted(before, "mha(heads = 4) mha(heads = 4) shares * with a")
    assert repairs == [MOVED]
    assert "u1: mha(heads = 4)" in text
    assert "shares * with u1" in text


def test_a_tie_to_nothing_is_dropped_and_others_stay():
    before = "a: mha(heads = 4) b: swiglu() mha(heads = 4) shares * with a swiglu() shares * with b"
    after = "b: swiglu() mha(heads = 4) shares * with a swiglu() shares * with b"
    repairs, text = drafted(before, after)
    assert repairs == [DROPPED]
    assert "shares * with b" in text
    assert "with a" not in text


def test_features_that_do_not_fit_are_not_taken():
    before = "a: mha(heads = 4) mha(heads = 4) reuses B from a"
    repairs, text = drafted(before, "a: mha(heads = 4) mha(heads = 8) reuses B from a")
    assert repairs == [DROPPED]
    assert "reuses" not in text


def test_a_count_of_heads_becomes_the_nearest_that_divides():
    repairs, text = drafted("mha(heads = 4)", "mha(heads = 5)")
    assert repairs == [NUMBER]
    assert "mha(heads = 4)" in text


def test_nothing_is_no_program():
    with pytest.raises(Rejected):
        drafted("mha(heads = 4)", "")


def test_unused_operators_and_labels_go():
    _, text = drafted("a: mha(heads = 4) swiglu()", "a: mha(heads = 4)")
    assert "swiglu" not in text
    assert "a:" not in text


def test_outcomes_are_counted():
    mutator = Mutator(POOL, verifier=VERIFIER, constrained=False)
    rng, program = random.Random(4), parse(source(PROGRAM))
    done = [mutator.mutate(program, rng) for _ in range(30)]
    draws = sum(1 + len(change.rejected) for change in done)
    counted = sum(n for key, n in mutator.repairs.counts.items() if key[3].startswith("rejected"))
    assert sum(mutator.repairs.results.values()) == 30
    assert counted + 30 == draws
    table = outcomes([mutator.repairs])
    assert all(f"| unconstrained | {change.level} | {change.name} |" in table for change in done)


def test_programs_with_holes_are_refused():
    program = parse(source(TIED.format("mha(heads = ?[2, 4])")))
    with pytest.raises(StarError) as refused:
        mutate(program, random.Random(0))
    assert refused.value.diagnostics[0].code == "hole-left"


def test_a_program_that_cannot_change_is_told():
    program = parse(source(TIED.format("mha(heads = 4)")))
    with pytest.raises(StarError) as refused:
        only("untie").mutate(program, random.Random(0))
    assert refused.value.diagnostics[0].code == "no-valid-mutation"


@pytest.mark.parametrize(
    ("operation", "body", "wanted"),
    [
        ("duplicate", "mha(heads = 4)", "mha(heads = 4) mha(heads = 4)"),
        ("unroll", "repeat 2 { swiglu() }", "swiglu() swiglu()"),
        ("roll", "swiglu() swiglu()", "repeat 2 { swiglu() }"),
        ("untie", "a: swiglu() swiglu() shares * with a", "swiglu() swiglu()"),
        ("share", "swiglu() swiglu()", "u1: swiglu() swiglu() shares * with u1"),
        ("swap", "mha(heads = 4) swiglu()", "swiglu() mha(heads = 4)"),
        ("delete", "mha(heads = 4) repeat 2 { swiglu() }", "mha(heads = 4)"),
    ],
)
def test_pinned_mutations(operation: str, body: str, wanted: str):
    program = parse(source(TIED.format(body)))
    found = set()
    for seed in range(6):
        mutator = only(operation)
        mutator.verifier, mutator.pool = VERIFIER, Pool((), {}, {})
        change = mutator.mutate(program, random.Random(seed))
        found.add(change.checked.model.backbone)
    backbone = next(
        d for d in parse(source(TIED.format(wanted))).declarations if isinstance(d, nodes.Model)
    ).backbone
    assert backbone in found


def test_a_repeated_body_has_one_size():
    checked = VERIFIER.check(parse(source(PROGRAM)))
    assert size(checked.model.backbone) == checked.units == 12
    assert len(list(places(checked.model.backbone))) == 12
    assert Site(checked, POOL, Bounds(), random.Random(0), VERIFIER).units


def test_an_operator_that_says_what_another_does_is_not_declared_again():
    text = PROGRAM.replace(
        "model m", "operator a() { y = x |> dense(width) }\noperator b() { y = x |> silu }\nmodel m"
    ).replace("backbone {", "backbone { a() b()", 1)
    program = parse(source(text))
    a, b = (node for node in program.declarations if isinstance(node, nodes.Operator))
    shop = Workshop.of(program, {"a": a, "b": b}, Options().limits)
    assert shop.variant(a, b.body) == "b"
    assert shop.variant(a, [replace(a.body[0], value=expression("x |> gelu"))]) == "a_2"
    assert shop.variant(b, [replace(a.body[0], value=expression("x |> gelu"))]) == "a_2"
