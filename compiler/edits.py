"""A program of one model as text that is edited in place, so that comments and spelling stay.

Owns: replacing places of a text, and the numbers of a model's expressions. Refuses: choosing what
to write.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

from starc.compiler.builder import Builder
from starc.compiler.expressions import Expressions
from starc.compiler.numbers import Numeric
from starc.compiler.options import Options
from starc.compiler.program import Linked, choose_model, link, parse_limited
from starc.compiler.results import Poisoned
from starc.compiler.settings import Settings, resolve_settings
from starc.grammar import nodes
from starc.grammar.errors import Diagnostic, StarError
from starc.grammar.printer import format_program
from starc.grammar.source import Source, Span

Edits = dict[tuple[int, int], str]
"""Replacements by the place, in characters, of what they stand for."""


class Program:
    """A program of one model, with what its settings come to."""

    def __init__(self, source: Source, options: Options) -> None:
        self.options = options
        self.linked: Linked = link(parse_limited(source, options.limits), options.limits)
        self.source = source
        self.model = choose_model(self.linked, options)
        self.settings = _settings(self.model)

    def scope(self) -> dict[str, Numeric]:
        return {**self.settings.own, **self.settings.numbers()}

    def whole(self, expr: nodes.Expr, other: Mapping[str, Fraction]) -> int | None:
        """The whole number of an expression of the model, given other values of settings."""
        return whole_number(expr, {**self.scope(), **other})


def _settings(model: nodes.Model) -> Settings:
    failures: list[Diagnostic] = []
    settings = resolve_settings(model, lambda failure: failures.extend(failure.diagnostics))
    if failures:
        raise StarError(failures)
    return settings


def number_of(expr: nodes.Expr, scope: Mapping[str, Numeric]) -> Numeric | None:
    """The number of an expression; None where it is none in this scope."""
    try:
        return Expressions(Builder(), scope, dict, {}).number(expr, "a size")
    except (StarError, Poisoned):
        return None


def whole_number(expr: nodes.Expr, scope: Mapping[str, Numeric]) -> int | None:
    """The whole number, at least 0, of an expression; None where it is none."""
    number = number_of(expr, scope)
    if not isinstance(number, Fraction) or number.denominator != 1 or number < 0:
        return None
    return int(number)


def edited(source: Source, edits: Edits) -> Source:
    """The text with all edits made; they do not overlap."""
    text, end = [], len(source.text)
    for (start, stop), new in sorted(edits.items(), reverse=True):
        text += [source.text[stop:end], new]
        end = start
    return Source(source.name, "".join([source.text[:end], *reversed(text)]))


def where(span: Span) -> tuple[int, int]:
    """A span as the key of an edit."""
    return span.start, span.end


def formatted(source: Source, options: Options) -> Source:
    """The program in canonical form."""
    return Source(source.name, format_program(parse_limited(source, options.limits)))


def alone(source: Source, options: Options) -> Source:
    """The program with the chosen model alone, overrides written into it."""
    linked = link(parse_limited(source, options.limits), options.limits)
    model = choose_model(linked, options)
    edits: Edits = {where(m.span): "" for m in linked.models if m.name != model.name}
    written = next(m for m in linked.models if m.name == model.name)
    values = {s.name: s.value for s in written.settings}
    for setting in model.settings:
        if setting.name not in values:
            start = written.settings[0].span.start
            edits[start, start] = edits.get((start, start), "") + f"{setting.span.text} "
        elif values[setting.name].span != setting.value.span:
            edits[where(values[setting.name].span)] = setting.value.span.text
    return edited(source, edits)
