"""Texts that are no programs are refused with a place, and in time."""

from __future__ import annotations

import pytest

from starc.grammar.errors import Diagnostic, StarError, render
from starc.grammar.lexer import scan
from starc.grammar.source import Source


def fault(text: str) -> Diagnostic:
    with pytest.raises(StarError) as caught:
        scan(Source("text.star", text))
    first, *_ = caught.value.diagnostics
    render(caught.value.diagnostics).encode()
    return first


def kinds(text: str) -> list[str]:
    return scan(Source("text.star", text)).kinds[:-1]


@pytest.mark.parametrize(
    ("text", "position", "words"),
    [
        ("use a\0b", (1, 6), "U+0000 (NULL)"),
        ("# note \x1b[31m", (1, 8), "U+001B (ESCAPE)"),
        ("use a.b\rimport os", (1, 8), "U+000D (CARRIAGE RETURN)"),
        ("# \ud800", (1, 3), "U+D800"),
        ("\n# \u202e", (2, 3), "U+202E (RIGHT-TO-LEFT OVERRIDE)"),
        ("use a.b\ufeff", (1, 8), "U+FEFF"),
        ('"\u2028"', (1, 2), "U+2028 (LINE SEPARATOR)"),
        ("a\x85b", (1, 2), "U+0085"),
        ("a\fb", (1, 2), "U+000C (FORM FEED)"),
    ],
)
def test_characters_that_may_stand_nowhere(
    text: str, position: tuple[int, int], words: str
) -> None:
    found = fault(text)
    assert found.code == "bad-character"
    assert words in found.message
    assert found.span is not None
    assert found.span.source.position(found.span.start) == position
    assert found.hint


def test_a_binary_file_is_recognised() -> None:
    assert "binary" in fault("\x7fELF\x02\x01\0\0").hint or "remove it" in fault("\x7fELF").hint
    assert "binary" in fault("PK\0\0\0").hint


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1..16", ["NUMBER", "..", "NUMBER"]),
        ("1.5 .. 2", ["NUMBER", "..", "NUMBER"]),
        ("a0.V", ["NAME", ".", "NAME"]),
        ("x|>f", ["NAME", "|>", "NAME"]),
        ("--1e-5", ["-", "-", "NUMBER"]),
        ("2-1", ["NUMBER", "-", "NUMBER"]),
        ("a@b*c/d+e", ["NAME", "@", "NAME", "*", "NAME", "/", "NAME", "+", "NAME"]),
        ("repeat repeats", ["repeat", "NAME"]),
        ("true false", ["NAME", "NAME"]),
        ('"" "a" """b "c" d"""', ["STRING", "STRING", "STRING"]),
        ('"# no comment" # "comment', ["STRING"]),
        ("\ufeffuse", ["use"]),
        ("?n[", ["?", "NAME", "["]),
    ],
)
def test_tokens(text: str, expected: list[str]) -> None:
    assert kinds(text) == expected


@pytest.mark.parametrize(
    "number",
    ["1_", "1__0", "_1.", "1.", ".5", "1e", "1e+", "0x10", "1.2.3", "1._5", "1e5.5", "3x", "1.5e"],
)
def test_what_is_no_number(number: str) -> None:
    code = "bad-number"
    if number == "_1.":
        assert kinds(number) == ["NAME", "."]
        return
    assert fault(f"a = {number} ").code == code


@pytest.mark.parametrize(
    "number", ["1e999999999", "1e-999999999", "9" * 100_000, "1e" + "9" * 5000, "0." + "1" * 50]
)
def test_numbers_that_would_fill_the_memory(number: str) -> None:
    assert fault(f"a = {number}").code == "number-too-large"


def test_faults_do_not_hide_each_other() -> None:
    with pytest.raises(StarError) as caught:
        scan(Source("text.star", "a ; b ** c\n d == e é 'x'"))
    assert [d.code for d in caught.value.diagnostics] == [
        "no-semicolon",
        "no-power",
        "no-comparison",
        "unknown-character",
        "unknown-character",
    ]
    assert all(d.span is not None and d.hint for d in caught.value.diagnostics)


def test_comments_end_before_a_carriage_return() -> None:
    (comment,) = scan(Source("text.star", "# note  \r\nuse")).comments
    assert comment.text == "note"
