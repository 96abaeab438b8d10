"""docs/zoo.md has a row for every program that ships, which names the papers that it names."""

from __future__ import annotations

import re
from itertools import takewhile
from pathlib import Path

import pytest

from starc.grammar.library import read_source
from starc.grammar.nodes import Operator
from starc.grammar.parser import parse

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
LIBRARY = ROOT / "grammar" / "std"
ROWS = re.findall(
    r"^\| `([\w./]+)` \| (.+?) \| .+ \|$", (ROOT / "docs" / "zoo.md").read_text(), re.MULTILINE
)
PAPER = re.compile(r"\b\d{4}\.\d{5}\b")


def programs() -> dict[str, str]:
    """What each program says of itself: an example's first comment, an operator's documentation."""
    found = {}
    for path in EXAMPLES.glob("**/*.star"):
        if path.parent.name != "families":
            name = path.relative_to(EXAMPLES).with_suffix("").as_posix()
            lines = path.read_text().splitlines()
            found[name] = "\n".join(takewhile(lambda line: line.startswith("#"), lines))
    for path in LIBRARY.glob("*.star"):
        for operator in parse(read_source(path)).declarations:
            if isinstance(operator, Operator):
                found[f"std.{path.stem}.{operator.name}"] = operator.doc or ""
    return found


PROGRAMS = programs()


def test_every_program_has_one_row() -> None:
    assert sorted(name for name, _ in ROWS) == sorted(PROGRAMS)


@pytest.mark.parametrize(("name", "reference"), ROWS)
def test_a_row_names_the_papers_of_its_program(name: str, reference: str) -> None:
    assert set(PAPER.findall(PROGRAMS[name])) <= set(PAPER.findall(reference))
