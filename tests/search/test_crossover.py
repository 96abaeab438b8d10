"""Crossover: children verify and are made of their parents."""

from __future__ import annotations

import random

import pytest

from starc.compiler.driver import check_program
from starc.compiler.options import Options
from starc.grammar import nodes
from starc.grammar.parser import parse
from starc.grammar.printer import format_program
from starc.grammar.source import Source
from starc.search.crossover import KINDS, Crossing
from starc.search.trees import ties, units

FIRST = """
use std.attention.mha
use std.channel.swiglu
operator mix(kernel: int = 3) {
    C = x |> dense(width) |> conv(kernel)
    V = x |> dense(width)
    y = diagonal(C) @ V |> dense(width)
}
model m {
    vocab = 64  width = 64  context = 64
    backbone {
        a: mha(heads = 4)
        swiglu()
        mix()
        mha(heads = 4) reuses B, V from a
        mix(kernel = 5)
        mha(heads = 4) shares * with a
    }
}
"""

SECOND = """
use std.recurrent.mamba2
use std.linear.linear
operator mix(kernel: int = 3) {
    C = x |> dense(width) |> silu
    V = x |> dense(width)
    y = diagonal(C) @ V |> dense(width)
}
model n {
    vocab = 32  width = 64  context = 128
    backbone {
        a: mix()
        mamba2(state = 8, head = 16)
        mix() shares * with a
        linear(heads = 4)
        mix() shares * with a
    }
}
"""

CROSSING = Crossing()


def program(text: str) -> nodes.Program:
    return parse(Source("parent.star", text))


def calls(parent: nodes.Program) -> set[nodes.Node]:
    model = next(d for d in parent.declarations if isinstance(d, nodes.Model))
    return {unit.operator for unit in units(model.backbone)}


@pytest.mark.parametrize("cuts", [(0,), (3,), (1, 4), (2, 3, 5), (4, 6)])
def test_a_program_crossed_with_itself_at_equal_cuts_is_itself(cuts: tuple[int, ...]):
    parent = program(FIRST)
    child = CROSSING.join(parent, parent, cuts, cuts)
    assert child.repairs == ()
    assert format_program(child.program) == format_program(program(FIRST))


def test_runs_change_owners():
    child = CROSSING.join(program(FIRST), program(SECOND), (1, 4), (1, 2))
    assert [u.operator.function for u in units(child.checked.model.backbone)] == [
        "mha",
        "mamba2",
        "mix",
        "mha",
    ]
    assert child.checked.ir.vocab == 64


def test_operators_of_one_name_and_another_meaning_are_renamed():
    child = CROSSING.join(program(FIRST), program(SECOND), (3, 5), (0, 3))
    text = format_program(child.program)
    assert "operator mix(" in text
    assert "operator mix_2(" in text
    assert text.count("mix_2()") == 2
    check_program(Source("child.star", text), Options())


def test_labels_of_both_parents_keep_apart():
    child = CROSSING.join(program(FIRST), program(SECOND), (3, 5), (0, 3))
    backbone = child.checked.model.backbone
    named = {unit.label: unit for unit in units(backbone) if unit.label}
    for unit in units(backbone):
        for tie in ties(unit):
            target = named[tie.label]
            assert target.operator == unit.operator
    assert child.repairs == ()


def test_ties_of_children_are_sound_and_units_are_those_of_the_parents():
    first, second = program(FIRST), program(SECOND)
    crossing = Crossing(verifier=CROSSING.verifier, kinds=("backbone",))
    for seed in range(15):
        child = crossing.cross(first, second, random.Random(seed))
        functions = {"mha", "swiglu", "mamba2", "linear", "mix", "mix_2"}
        assert {u.operator.function for u in units(child.checked.model.backbone)} <= functions
        known = {c.arguments for c in calls(first) | calls(second)}
        assert {c.arguments for c in calls(child.program)} <= known
        check_program(Source("child.star", format_program(child.program)), Options())


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_crossover_gives_programs_that_verify(kind: str):
    crossing = Crossing(verifier=CROSSING.verifier, kinds=(kind,))
    texts = set()
    for seed in range(4):
        child = crossing.cross(program(FIRST), program(SECOND), random.Random(seed))
        text = format_program(child.program)
        check_program(Source("child.star", text), Options())
        assert child.checked.identity != crossing.verifier.check(program(FIRST)).identity
        texts.add(text)
    assert len(texts) > 1
    again = crossing.cross(program(FIRST), program(SECOND), random.Random(3))
    assert format_program(again.program) == text


def test_a_subtree_takes_the_place_of_one_of_equal_name_and_type():
    crossing = Crossing(verifier=CROSSING.verifier, kinds=("subtree",))
    texts = [
        format_program(crossing.cross(program(FIRST), program(SECOND), random.Random(s)).program)
        for s in range(6)
    ]
    assert any("C = x |> dense(width) |> silu" in text for text in texts)
    assert all("conv(kernel)" in text or "silu" in text for text in texts)
