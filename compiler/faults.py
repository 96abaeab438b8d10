"""Diagnostics of the resolver: how a fault of the user becomes a StarError, and where it points.

Owns: the few ways in which all resolver modules report, and finding a word inside a larger place.
Refuses: deciding that something is wrong.
"""

from __future__ import annotations

import re
from functools import lru_cache

from starc.compiler.types import Problem
from starc.grammar import nodes
from starc.grammar.errors import Diagnostic, StarError
from starc.grammar.source import Span

HOLE_HINT = "'starc sample' prints a random filling; 'starc search' looks for the best."
_COMMENT = re.compile(r"#[^\n]*")


def fail(problem: Problem, span: Span) -> StarError:
    """A broken type rule, at the place that broke it."""
    return StarError(Diagnostic(problem.code, problem.message, span, problem.label, problem.hint))


def error(code: str, message: str, span: Span, label: str = "", hint: str = "") -> StarError:
    return StarError(Diagnostic(code, message, span, label, hint))


def duplicate(
    message: str, span: Span, first: Span | None, hint: str = "choose another name."
) -> StarError:
    """Something that is given twice; `first` is where it was given before."""
    related = ((first, "first here"),) if first is not None else ()
    label = "again here" if related else ""
    return StarError(Diagnostic("duplicate", message, span, label, hint, related))


def hole_error(hole: nodes.Hole) -> StarError:
    return error(
        "hole-left",
        "a hole is left: this program is a search space, not an architecture.",
        hole.span,
        "undecided",
        HOLE_HINT,
    )


@lru_cache(maxsize=4096)
def word_span(span: Span, word: str) -> Span:
    """Where a name stands inside a place whose node has no finer one, or that place."""
    blank = _COMMENT.sub(lambda found: " " * len(found[0]), span.text)
    found = re.search(rf"(?<!\w){re.escape(word)}(?!\w)", blank)
    if found is None:
        return span
    return Span(span.source, span.start + found.start(), span.start + found.end())
