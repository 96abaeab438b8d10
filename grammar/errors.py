"""Diagnostics: what went wrong, where, and what to do about it.

Owns: the structured `Diagnostic`, the two exceptions of the whole project and the one renderer.
Refuses: deciding what is wrong (each stage does that) and printing (the command line does that).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches

from starc.grammar.source import Span


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
    lines = [f"{diagnostic.severity}[{diagnostic.code}]: {diagnostic.message}"]
    if diagnostic.span is not None:
        lines += _excerpt(diagnostic.span, diagnostic.label)
    for span, label in diagnostic.related:
        lines += _excerpt(span, label)
    if diagnostic.hint:
        lines.append(f"hint: {diagnostic.hint}")
    return "\n".join(lines)


def _excerpt(span: Span, label: str) -> list[str]:
    number, column = span.source.position(span.start)
    raw = span.source.line(number)
    text = raw.expandtabs(4)
    lead = len(raw[: column - 1].expandtabs(4))
    covered = span.source.text[span.start : span.end].split("\n", 1)[0]
    width = max(len(raw[: column - 1 + len(covered)].expandtabs(4)) - lead, 1)
    gutter = " " * len(str(number))
    marks = " " * lead + "^" * width + (f" {label}" if label else "")
    return [f"{gutter}--> {span}", f" {number} | {text}".rstrip(), f" {gutter} | {marks}"]
