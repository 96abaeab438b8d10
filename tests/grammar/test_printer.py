"""Printing and reading again give the same tree, and printing twice the same text."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from starc.grammar import nodes
from starc.grammar.layout import WIDTH
from starc.grammar.lexer import scan
from starc.grammar.parser import MAX_NESTING, parse
from starc.grammar.printer import format_program, print_expr
from starc.grammar.source import Source
from tests.strategies.syntax import expressions, programs

PROGRAMS = Path(__file__).parent / "programs"
ROOMY = {"max_nesting": 1000}
slow_draws = settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def read(text: str) -> nodes.Program:
    return parse(Source("drawn.star", text), **ROOMY)


def check(text: str) -> str:
    """The canonical form of a text, after all that must hold of it was found to hold."""
    program = read(text)
    once = format_program(program)
    again = read(once)
    assert again == program
    assert [c.text for c in again.comments] == [c.text for c in program.comments]
    assert format_program(again) == once
    assert all(line == line.rstrip() for line in once.split("\n"))
    return once


@slow_draws
@given(programs)
def test_trees_survive_printing(program: nodes.Program) -> None:
    text = format_program(program)
    assert read(text) == program
    check(text)


@settings(max_examples=200, deadline=None)
@given(expressions)
def test_expressions_survive_printing_on_one_line(expr: nodes.Expr) -> None:
    text = print_expr(expr)
    assert "\n" not in text
    (operator,) = read(f"operator f() {{ y = {text} }}").declarations
    assert isinstance(operator, nodes.Operator)
    assert operator.body[0].value == expr


@st.composite
def spoiled(draw: DrawFn) -> str:
    """A program with its blanks changed and comments put between its tokens."""
    text = format_program(draw(programs))
    tokens = scan(Source("drawn.star", text))
    pieces: list[str] = []
    between = st.sampled_from(
        [" ", " ", " ", "\n", "\n\n", "\n\n\n", "\t", " # c%d\n", "\n# c%d\n", "\n\n# c%d\n\n  #\n"]
    )
    for index in range(len(tokens.kinds)):
        gap = draw(between)
        pieces.append(gap % index if "%d" in gap else gap)
        pieces.append(tokens.text(index))
    return "".join(pieces)


@slow_draws
@given(spoiled())
def test_comments_and_blanks_survive_anywhere(text: str) -> None:
    check(text)
    check(text.replace("\n", "\r\n"))


@slow_draws
@given(spoiled(), spoiled(), st.randoms(use_true_random=False))
def test_trees_made_of_parts_of_others_print(one: str, other: str, random: object) -> None:
    """As a search makes them: shuffled, joined, with places in other sources."""
    first, second = read(one), read(other)
    mixed = [*first.declarations, *second.declarations]
    random.shuffle(mixed)  # type: ignore[attr-defined]
    program = replace(first, declarations=tuple(mixed))
    again = read(format_program(program))
    assert again == program
    assert sorted(c.text for c in again.comments) == sorted(c.text for c in first.comments)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("f(", ")"),
        ("-(", ")"),
        ("?[", "]"),
        ("(1 + ", ") |> f"),
        ("f(n = ", " |> g)"),
        ("a - (", ")"),
    ],
)
def test_trees_as_deep_as_allowed_print(before: str, after: str) -> None:
    depth = MAX_NESTING // 2
    text = f"operator f() {{ y = {before * depth}1{after * depth} }}"
    program = parse(Source("deep.star", text))
    assert parse(Source("again.star", format_program(program))) == program
    assert hash(program) == hash(parse(Source("again.star", text)))


@pytest.mark.parametrize("path", sorted(PROGRAMS.glob("*.star")), ids=lambda path: path.stem)
def test_programs_written_well_stay_as_they_are(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert check(text) == text
    assert max(map(len, text.split("\n"))) <= WIDTH


@pytest.mark.parametrize("path", sorted(PROGRAMS.glob("*.star")), ids=lambda path: path.stem)
def test_programs_written_anyhow_become_those_written_well(path: Path) -> None:
    unformatted = path.parents[1] / "unformatted" / path.name
    assert check(unformatted.read_text(encoding="utf-8")) == path.read_text(encoding="utf-8")
