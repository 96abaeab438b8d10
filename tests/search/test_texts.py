"""Texts that are printed part by part are those of the printer."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from starc.compiler.options import Options
from starc.grammar import nodes
from starc.grammar.parser import parse
from starc.grammar.printer import format_program
from starc.grammar.source import Source
from starc.search.mutate import mutate
from starc.search.space import open_space
from starc.search.texts import text_of, tree_of

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.star"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_a_text_is_what_the_printer_writes(path: Path):
    program = parse(Source(str(path), path.read_text(encoding="utf-8")))
    agree(program)


def test_a_text_of_a_changed_program_is_what_the_printer_writes():
    path = ROOT / "examples" / "star.star"
    space = open_space(Source(str(path), path.read_text(encoding="utf-8")), Options())
    program = nodes.Program((*space.others, space.model), space.source)
    for seed in range(4):
        program = mutate(program, random.Random(seed)).program
        agree(program)


def agree(program: nodes.Program) -> None:
    """The text does not depend on the places of the tree, and gives it back."""
    text = text_of(program)
    plain = nodes.Program(program.declarations, Source("nowhere", ""))
    assert text == format_program(plain) == text_of(tree_of(text, program.source))
    assert tree_of(text, program.source) == program
