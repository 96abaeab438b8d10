"""Decode latency: measured where asked for, with any evaluator, and nowhere else."""

from __future__ import annotations

from pathlib import Path

import pytest

from starc.grammar.errors import StarError
from starc.search.driver import resume, search
from starc.search.evaluators import evaluator_digest, make_evaluator
from starc.search.latency import Timed, decode_latency, timed
from starc.search.objectives import parse_objectives
from starc.search.plan import plan
from starc.search.preparing import prepare
from starc.search.settings import Settings

HEAD = "use std.attention.mha\nuse std.recurrent.mamba2\nuse std.channel.swiglu\n"


def program(backbone: str, *, causal: str = "", context: int = 64) -> str:
    return (
        f"{HEAD}model m {{ vocab = 64 width = 16 context = {context} {causal} "
        f"residual = pre(rmsnorm) backbone {{ {backbone} }} }}"
    )


def test_more_units_take_longer():
    one = decode_latency(program("mha(heads = 2)"), length=32)
    eight = decode_latency(program("repeat 8 { mha(heads = 2) }"), length=32)
    assert 0 < one < eight


@pytest.mark.parametrize("length", [1, 2, 25, None])
def test_every_length_has_a_latency(length):
    assert decode_latency(program("mha(heads = 2)", context=30), length=length) > 0


def test_what_does_not_decode_says_so():
    with pytest.raises(StarError) as raised:
        decode_latency(program("mha(heads = 2)", causal="causal = false"), length=8)
    assert raised.value.diagnostics[0].code == "cannot-decode"


def test_only_those_who_ask_are_timed():
    plain = make_evaluator("static", {})
    assert timed(plain, ["quality", "cache_bytes"], 8) is plain
    one, other = (timed(plain, ["decode_latency"], length) for length in (8, 9))
    assert evaluator_digest(one) != evaluator_digest(other) != evaluator_digest(plain)
    assert one.figures == ("quality", "roughness", "decode_latency")
    assert parse_objectives("decode_latency")[0].unit == "s"


def test_its_figures_are_the_others_and_the_time(tmp_path: Path):
    plain = make_evaluator("static", {})
    text = program("mha(heads = 2)")
    known = plain.evaluate(text, seed=3, rung=0, folder=tmp_path)
    found = Timed(plain, 16).evaluate(text, seed=3, rung=0, folder=tmp_path)
    assert isinstance(known, dict)
    assert {**known, "decode_latency": found["decode_latency"]} == found


def test_a_search_has_it_as_objective_and_constraint(tmp_path: Path):
    settings = Settings(
        space=program("repeat 2 { ?[mha(heads = 2), mamba2(state = 4, head = 16)] }"),
        evaluator="static",
        population=2,
        evaluations=4,
        algorithm="random",
        objectives=("quality", "decode_latency"),
        constraints=("decode_latency <= 60",),
        length=16,
    )
    assert plan(prepare(settings), workers=1).seconds
    found = search(settings, tmp_path / "run", workers=1)
    assert found.front
    assert all(0 < one.figures["decode_latency"] < 60 for one in found.individuals)
    again = resume(tmp_path / "run", workers=1)
    assert [one.figures for one in again.individuals] == [one.figures for one in found.individuals]
