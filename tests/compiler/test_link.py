"""What `use` brings into scope."""

from __future__ import annotations

from importlib.resources import files

import pytest

from starc.compiler.options import Limits
from starc.compiler.program import link, parse_limited
from starc.grammar import nodes
from starc.grammar.source import Source

LIMITS = Limits()
STANDARD = {
    (entry.name.removesuffix(".star"), operator.name): operator
    for entry in files("starc.grammar.std").iterdir()
    if entry.name.endswith(".star")
    for operator in parse_limited(
        Source(f"<std>/{entry.name}", entry.read_text("utf-8")), LIMITS
    ).declarations
    if isinstance(operator, nodes.Operator)
}


@pytest.mark.parametrize("name", STANDARD, ids=".".join)
def test_an_operator_is_the_same_read_alone(name: tuple[str, str]) -> None:
    """Only the operator that is used is parsed; its places are those in the whole file."""
    program = parse_limited(Source("p.star", f"use std.{name[0]}.{name[1]}"), LIMITS)
    found = link(program, LIMITS).operators[name[1]]
    assert found == STANDARD[name]
    assert str(found.body[-1].span) == str(STANDARD[name].body[-1].span)
    assert found.body[-1].span.text == STANDARD[name].body[-1].span.text
