"""The tables that are kept are the ones the grammar gives, whatever the hash seed."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.resources import files

import pytest
from lark.exceptions import GrammarError

from starc.grammar.tables import generate, load

FOLDER = files("starc.grammar")
GRAMMAR = FOLDER.joinpath("star.lark").read_text(encoding="utf-8")
KEPT = FOLDER.joinpath("star.json").read_text(encoding="utf-8")


def test_tables_are_those_of_the_grammar() -> None:
    assert generate(GRAMMAR) == KEPT, "run python -m starc.grammar.tables"


def test_tables_do_not_depend_on_hashes() -> None:
    script = (
        "import sys; from starc.grammar.tables import generate; "
        "print(generate(sys.stdin.read()), end='')"
    )
    made = subprocess.run(
        [sys.executable, "-c", script],
        input=GRAMMAR,
        env={**os.environ, "PYTHONHASHSEED": "12345"},
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    assert made.stdout == KEPT


def test_a_grammar_with_conflicts_is_refused() -> None:
    ambiguous = GRAMMAR.replace('| sum "+" product', '| sum "+" sum')
    assert ambiguous != GRAMMAR
    with pytest.raises(GrammarError):
        generate(ambiguous)


def test_every_transition_leads_to_a_state() -> None:
    language = load()
    states = range(len(language.actions))
    for row in language.actions:
        for step in row.values():
            assert step - 1 in states if step > 0 else -1 - step in range(-1, len(language.rules))
    assert all(state in states for row in language.gotos for state in row.values())


def test_reading_a_program_imports_no_parser_generator() -> None:
    script = (
        "import sys; from starc.grammar.parser import parse; "
        "from starc.grammar.source import Source; "
        "parse(Source('', 'use a.b')); sys.exit('lark' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
