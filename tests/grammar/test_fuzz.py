"""Whatever the text, the answer is a tree or a StarError that can be printed."""

from __future__ import annotations

import random
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from starc.grammar.errors import StarError, render
from starc.grammar.lexer import scan
from starc.grammar.library import read_source
from starc.grammar.nodes import Program
from starc.grammar.parser import parse
from starc.grammar.printer import format_program
from starc.grammar.source import Source
from starc.grammar.tables import load

PROGRAMS = [
    p.read_text("utf-8") for p in sorted((Path(__file__).parent / "programs").glob("*.star"))
]
ODD = [
    "**",
    "==",
    "->",
    "|",
    ";",
    "'",
    '"',
    '"""',
    "0x1",
    "1e",
    ".5",
    "é",
    "\0",
    "\ud800",
    "\t",
    "#",
    "$",
]


def read(text: str) -> Program | StarError:
    try:
        return parse(Source("odd.star", text))
    except StarError as failure:
        return failure


def answer(text: str) -> None:
    found = read(text)
    if isinstance(found, StarError):
        assert found.diagnostics
        for diagnostic in found.diagnostics:
            assert diagnostic.span is not None
            assert 0 <= diagnostic.span.start <= diagnostic.span.end <= len(text)
            assert diagnostic.message.endswith(".")
        assert render(found.diagnostics).encode()
        return
    canonical = format_program(found)
    again = parse(Source("canonical.star", canonical))
    assert again == found
    assert [c.text for c in again.comments] == [c.text for c in found.comments]
    assert format_program(again) == canonical


@settings(max_examples=200, deadline=None)
@given(st.text())
def test_any_text(text: str) -> None:
    answer(text)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.sampled_from([*load().literals, "x", "f", "1", '"a"', "# c\n", "\n", *ODD]), max_size=40
    )
)
def test_any_tokens(words: list[str]) -> None:
    answer(" ".join(words))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32))
def test_mutated_programs(seed: int) -> None:
    """Tokens and characters deleted, doubled, replaced, inserted; two programs spliced."""
    draw = random.Random(seed)
    for _ in range(4):
        text = draw.choice(PROGRAMS)
        for _ in range(draw.randint(1, 4)):
            text = _mutated(text, draw)
        answer(text)


def _mutated(text: str, draw: random.Random) -> str:
    try:
        tokens = scan(Source("", text))
        at = draw.randrange(len(tokens.kinds))
        start, end = tokens.starts[at], tokens.ends[at]
    except StarError:
        start = draw.randrange(len(text) + 1)
        end = min(start + draw.randint(0, 5), len(text))
    other = draw.choice(PROGRAMS)
    cut = draw.randrange(len(other))
    match draw.randrange(6):
        case 0:
            return text[:start] + text[end:]
        case 1:
            return text[:end] + text[start:]
        case 2:
            return text[:start] + draw.choice([*load().literals, *ODD]) + " " + text[start:]
        case 3:
            return text[:start] + draw.choice([*load().literals, *ODD]) + text[end:]
        case 4:
            return text[:start] + other[cut:]
        case _:
            return text[:start] + other[cut : cut + draw.randrange(80)] + text[end:]


@settings(max_examples=100, deadline=None)
@given(st.binary())
def test_any_file(tmp_path_factory: object, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "bytes.star"  # type: ignore[attr-defined]
    path.write_bytes(data)
    try:
        text = read_source(path).text
    except StarError as failure:
        text = render(failure.diagnostics)
    answer(text)
