"""Diagnostics as they are printed: carets under the right columns, whatever stands on the line."""

from __future__ import annotations

import pytest

from starc.grammar.errors import Diagnostic, StarError, render, suggest
from starc.grammar.source import Source, Span


def excerpt(text: str, start: int, end: int, label: str = "here") -> list[str]:
    span = Span(Source("f.star", text), start, end)
    head, *lines = render([Diagnostic("code", "Message.", span, label)]).splitlines()
    assert head == "error[code]: Message."
    return lines


@pytest.mark.parametrize(
    ("text", "start", "end", "lines"),
    [
        ("a = b\n", 4, 5, [" --> f.star:1:5", " 1 | a = b", "   |     ^ here"]),
        ("a\n" * 9 + "b = c", 18, 19, ["  --> f.star:10:1", " 10 | b = c", "    | ^ here"]),
        # tabs
        ("\tab\tc", 1, 3, [" --> f.star:1:2", " 1 |     ab  c", "   |     ^^ here"]),
        ("a\tb", 0, 3, [" --> f.star:1:1", " 1 | a   b", "   | ^^^^^ here"]),
        # several lines: the first one
        ("ab\ncd\nef", 1, 7, [" --> f.star:1:2", " 1 | ab", "   |  ^ here"]),
        ("ab  \ncd", 1, 7, [" --> f.star:1:2", " 1 | ab", "   |  ^ here"]),
        # the end of the text, with and without a newline, and no text at all
        ("ab", 2, 2, [" --> f.star:1:3", " 1 | ab", "   |   ^ here"]),
        ("ab\n", 3, 3, [" --> f.star:2:1", " 2 |", "   | ^ here"]),
        ("", 0, 0, [" --> f.star:1:1", " 1 |", "   | ^ here"]),
        ("ab", 10, 12, [" --> f.star:1:3", " 1 | ab", "   |   ^ here"]),
        # carriage returns
        ("a\r\nb\r\n", 0, 3, [" --> f.star:1:1", " 1 | a", "   | ^ here"]),
        # wide and combining characters
        ("日本 = 語", 3, 6, [" --> f.star:1:4", " 1 | 日本 = 語", "   |      ^^^^ here"]),
        ("e\u0301 x", 3, 4, [" --> f.star:1:4", " 1 | e\u0301 x", "   |   ^ here"]),
        # what a terminal would obey
        ("a\x1b[31mb", 1, 2, [" --> f.star:1:2", " 1 | a\ufffd[31mb", "   |  ^ here"]),
        ("a\ud800b", 2, 3, [" --> f.star:1:3", " 1 | a\ufffdb", "   |   ^ here"]),
        ("\ufeffab", 1, 2, [" --> f.star:1:2", " 1 | ab", "   | ^ here"]),
    ],
)
def test_excerpt(text: str, start: int, end: int, lines: list[str]) -> None:
    assert excerpt(text, start, end) == lines


def test_long_lines_are_cut_around_the_span() -> None:
    text = "x" * 5000 + "YY" + "z" * 5000
    place, line, marks = excerpt(text, 5000, 5002)
    assert place == " --> f.star:1:5001"
    assert len(line) < 250
    assert line[marks.index("^") : marks.rindex("^") + 1] == "YY"
    assert "..." in line[:10]
    assert line.endswith("...")
    _, line, marks = excerpt(text, 0, 9000)
    assert len(line) < 250
    assert len(marks) < 250


def test_related_places_and_hints_follow() -> None:
    source = Source("f.star", "a = b\nc = d\n")
    diagnostic = Diagnostic(
        "code",
        "Message.",
        Span(source, 0, 1),
        "one",
        "do this.",
        ((Span(source, 6, 7), "two"),),
        "warning",
    )
    assert render([diagnostic, Diagnostic("other", "No place.")]) == (
        "warning[code]: Message.\n"
        " --> f.star:1:1\n"
        " 1 | a = b\n"
        "   | ^ one\n"
        " --> f.star:2:1\n"
        " 2 | c = d\n"
        "   | ^ two\n"
        "hint: do this.\n"
        "\n"
        "error[other]: No place.\n"
    )


def test_errors_are_in_the_order_of_the_text() -> None:
    source = Source("f.star", "abc")
    later, sooner, nowhere = (
        Diagnostic("c", "later", Span(source, 2, 3)),
        Diagnostic("a", "sooner", Span(source, 0, 1)),
        Diagnostic("n", "nowhere"),
    )
    assert StarError([later, nowhere, sooner]).diagnostics == (nowhere, sooner, later)


def test_suggestions() -> None:
    assert suggest("rmsnrm", ["layernorm", "rmsnorm"]) == "did you mean 'rmsnorm'?"
    assert suggest("quux", ["layernorm", "rmsnorm"]) == ""
