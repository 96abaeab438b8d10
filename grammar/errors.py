"""Diagnostics: what went wrong, where, and what to do about it.

Owns: the structured `Diagnostic`, the two exceptions of the whole project and the one renderer.
Refuses: deciding what is wrong (each stage does that) and printing (the command line does that).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from unicodedata import combining, east_asian_width

from starc.grammar.source import Span

TAB = 4
MAX_EXCERPT = 100  # characters shown before, under and after the marks of a very long line

# Control characters, lone surrogates, and marks that break or reorder lines on screen. A newline
# may stand in a message; an excerpt never has one.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


@dataclass(frozen=True)
class Diagnostic:
    """One finding. `code` is a stable slug; `span` is the smallest text that shows the fault."""

    code: str
    message: str
    span: Span | None = None
    label: str = ""
    hint: str = ""
    related: tuple[tuple[Span, str], ...] = ()
    severity: str = "error"


class StarError(Exception):
    """What a user did wrong: one or more diagnostics of one stage, in the order of the text."""

    def __init__(self, diagnostics: Diagnostic | Iterable[Diagnostic]) -> None:
        items = [diagnostics] if isinstance(diagnostics, Diagnostic) else list(diagnostics)
        self.diagnostics: tuple[Diagnostic, ...] = tuple(sorted(items, key=_order))
        super().__init__("\n".join(d.message for d in self.diagnostics))


class InternalError(Exception):
    """A broken invariant of starc itself: never the user's fault."""


def _order(diagnostic: Diagnostic) -> tuple[str, int]:
    if diagnostic.span is None:
        return "", -1
    return diagnostic.span.source.name, diagnostic.span.start


def suggest(name: str, known: Iterable[str]) -> str:
    """A "did you mean" sentence for a misspelt name, or the empty string."""
    close = get_close_matches(name, sorted(set(known)), n=1, cutoff=0.6)
    return f"did you mean '{close[0]}'?" if close else ""


def render(diagnostics: Iterable[Diagnostic]) -> str:
    """Diagnostics as plain text, with an excerpt and carets under the span, as users see them."""
    return "\n\n".join(_render(d) for d in diagnostics) + "\n"


def _render(diagnostic: Diagnostic) -> str:
    lines = [f"{diagnostic.severity}[{diagnostic.code}]: {_visible(diagnostic.message)}"]
    if diagnostic.span is not None:
        lines += _excerpt(diagnostic.span, diagnostic.label)
    for span, label in diagnostic.related:
        lines += _excerpt(span, label)
    if diagnostic.hint:
        lines.append(f"hint: {_visible(diagnostic.hint)}")
    return "\n".join(lines)


def _excerpt(span: Span, label: str) -> list[str]:
    """The line on which a span begins, with carets under what the span covers of that line."""
    number, column = span.source.position(span.start)
    raw = span.source.line(number)
    covered = span.source.text[span.start : span.end].split("\n", 1)[0].rstrip()
    before, after = raw[: column - 1], raw[column - 1 + len(covered) :]
    marked = raw[column - 1 : column - 1 + len(covered)]
    # A line of any length is cut to what surrounds the span.
    if len(before) > MAX_EXCERPT // 2 and len(raw) > MAX_EXCERPT:
        before = "..." + before[-MAX_EXCERPT // 2 :]
    if len(marked) > MAX_EXCERPT:
        marked, after = marked[:MAX_EXCERPT], "..."
    elif len(after) > MAX_EXCERPT:
        after = after[:MAX_EXCERPT] + "..."
    before = _shown(before, 0)
    lead = _columns(before)
    marked = _shown(marked, lead)
    text = before + marked + _shown(after, lead + _columns(marked))
    marks = " " * lead + "^" * max(_columns(marked), 1) + (f" {_visible(label)}" if label else "")
    gutter = " " * len(str(number))
    return [
        f"{gutter}--> {_visible(str(span))}",
        f" {number} | {text}".rstrip(),
        f" {gutter} | {marks}",
    ]


def _visible(text: str) -> str:
    """Text with a mark for every character that a terminal would obey instead of showing."""
    return _UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", text.replace("\ufeff", ""))


def _shown(text: str, column: int) -> str:
    """A part of a line that begins at a column, with blanks for its tabs."""
    first, *rest = _visible(text).split("\t")
    for part in rest:
        reached = column + _columns(first)
        first += " " * (TAB - reached % TAB) + part
    return first


def _columns(text: str) -> int:
    """How many terminal columns a text takes: two for wide characters, none for combining ones."""
    if text.isascii():
        return len(text)
    return sum(0 if combining(c) else 2 if east_asian_width(c) in "WF" else 1 for c in text)
