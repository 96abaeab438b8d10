"""Objectives and constraints: names, signs, units, and what is refused."""

from __future__ import annotations

import math

import pytest

from starc.compiler.cost import cost_report
from starc.grammar.errors import StarError
from starc.grammar.parser import parse
from starc.grammar.source import Source
from starc.search.objectives import (
    DEVICES,
    FAILED,
    PENALTY,
    Constraint,
    Objective,
    check_constraints,
    check_names,
    parse_constraint,
    parse_objectives,
    static_figures,
    violation,
)
from starc.search.verifying import Verifier

PROGRAM = """
use std.attention.gqa
model m { vocab = 64  width = 32  context = 64  residual = pre(rmsnorm)
    backbone { gqa(heads = 4, groups = 2)  gqa(heads = 4, groups = 2) } }
"""


def test_objectives_have_signs_and_units():
    quality = Objective("quality", -1, "accuracy")
    found = parse_objectives("quality, cache_bytes,max:units", quality)
    assert found == (quality, Objective("cache_bytes", 1, "bytes"), Objective("units", -1, ""))
    assert [str(o) for o in found] == ["max:quality", "cache_bytes", "max:units"]
    assert found[0].value({"quality": 0.25}) == -0.25
    assert found[0].value({}) == found[0].value({"quality": math.nan}) == PENALTY


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "bad-objective"),
        ("quality,,units", "bad-objective"),
        ("low:quality", "bad-objective"),
        ("quality,quality", "bad-objective"),
        ("roofline_decode@abacus", "unknown-objective"),
        ("roofline_decode", "unknown-objective"),
        ("units@h100", "unknown-objective"),
    ],
)
def test_wrong_objectives_are_refused(text: str, code: str):
    with pytest.raises(StarError) as caught:
        parse_objectives(text)
    assert caught.value.diagnostics[0].code == code


def test_unknown_figures_are_refused_where_they_are_known():
    check_names(["anything"], None)
    check_names(["quality", "units", "roofline_decode@h100"], ["quality"])
    with pytest.raises(StarError) as caught:
        check_names(["cache_byte"], ["quality"])
    assert caught.value.diagnostics[0].hint == "did you mean 'cache_bytes'?"


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("parameters <= 90M", Constraint("parameters", "<=", 90e6)),
        ("cache_bytes>=1_000", Constraint("cache_bytes", ">=", 1e3)),
        ("quality <= 2.5", Constraint("quality", "<=", 2.5)),
        ("flops_train <= 1.5T", Constraint("flops_train", "<=", 1.5e12)),
    ],
)
def test_constraints(text: str, made: Constraint):
    assert parse_constraint(text) == made
    assert parse_constraint(str(made)) == made


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("parameters < 3", "bad-constraint"),
        ("<= 3", "bad-constraint"),
        ("parameters <= many", "bad-constraint"),
        ("parameters <= 1e999", "bad-constraint"),
        ("parameters <= -1", "impossible-constraint"),
        ("roofline_decode@z80 <= 1", "unknown-objective"),
    ],
)
def test_wrong_constraints_are_refused(text: str, code: str):
    with pytest.raises(StarError) as caught:
        parse_constraint(text)
    assert caught.value.diagnostics[0].code == code


def test_constraints_that_contradict_each_other_are_refused():
    low, high = parse_constraint("units >= 5"), parse_constraint("units <= 4")
    with pytest.raises(StarError, match="no program meets both 'units >= 5' and 'units <= 4'"):
        check_constraints([high, low])
    check_constraints([low, parse_constraint("units <= 5")])


def test_violations_are_relative_and_summed():
    constraints = [parse_constraint("parameters <= 100"), parse_constraint("units >= 4")]
    assert violation(constraints, {"parameters": 100, "units": 4}) == 0
    assert violation(constraints, {"parameters": 150, "units": 3}) == pytest.approx(0.75)
    assert violation(constraints, {"parameters": 150}) == pytest.approx(FAILED + 0.5)


def test_static_figures_are_those_of_the_cost_report():
    checked = Verifier().check(parse(Source("p", PROGRAM)))
    report = cost_report(checked.ir, length=32)
    found = static_figures(checked, length=32)
    assert found["parameters"] == report.parameters
    assert found["cache_bytes"] == report.cache_bytes
    assert found["units"] == 2
    peak, bandwidth = DEVICES["h100"]
    moved = 2 * report.active_parameters + report.cache_bytes
    assert found["roofline_decode@h100"] == pytest.approx(
        max(report.flops_decode / peak, moved / bandwidth)
    )
