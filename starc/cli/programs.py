"""Checking and formatting many programs at a time.

Owns: going on after a program with errors, and diagnostics as JSON.
Refuses: printing anything but formatted programs and their differences.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from difflib import unified_diff
from typing import Any

from starc.cli import files
from starc.compiler.options import Options
from starc.grammar.errors import Diagnostic, StarError
from starc.grammar.library import read_source
from starc.grammar.source import Span


def check_programs(programs: Sequence[str], options: Options) -> list[Diagnostic]:
    """Errors and warnings of all programs, in their order."""
    from starc.compiler.driver import check_program

    found: list[Diagnostic] = []
    for program in programs:
        try:
            found += check_program(read_source(program), options)
        except StarError as error:
            found += error.diagnostics
    return found


def format_programs(
    programs: Sequence[str], *, write: bool, show_diff: bool
) -> tuple[int, list[Diagnostic]]:
    """Format programs in place if `write`; how many were not canonical, and what failed.

    A program from standard input is written to standard output.
    """
    from starc.grammar.parser import parse
    from starc.grammar.printer import format_program

    changed = 0
    failures: list[Diagnostic] = []
    for program in programs:
        try:
            source = read_source(program)
            text = format_program(parse(source))
            differs = text != source.text
            changed += differs
            if show_diff:
                sys.stdout.writelines(_differences(source.name, source.text, text))
            if write and (differs or program == files.STANDARD):
                files.write_text(program, text)
        except StarError as error:
            failures += error.diagnostics
    return changed, failures


def as_dict(diagnostic: Diagnostic) -> dict[str, Any]:
    """A diagnostic for JSON: lines and columns are counted from 1, the end is exclusive."""
    return {
        "severity": diagnostic.severity,
        "code": diagnostic.code,
        "message": diagnostic.message,
        "label": diagnostic.label,
        "hint": diagnostic.hint,
        "place": None if diagnostic.span is None else _place(diagnostic.span),
        "related": [{"label": label, "place": _place(span)} for span, label in diagnostic.related],
    }


def _place(span: Span) -> dict[str, Any]:
    line, column = span.source.position(span.start)
    end_line, end_column = span.source.position(span.end)
    return {
        "file": span.source.name,
        "line": line,
        "column": column,
        "end_line": end_line,
        "end_column": end_column,
    }


def _differences(name: str, before: str, after: str) -> list[str]:
    lines = unified_diff(
        before.splitlines(keepends=True),
        after.splitlines(keepends=True),
        name,
        f"{name} (formatted)",
    )
    return [
        line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines
    ]
