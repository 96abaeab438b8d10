"""The compiler from end to end: text in, artifact out.

Owns: the order of the stages. Refuses: the work of any of them, files and the terminal.
"""

from __future__ import annotations

from dataclasses import dataclass

from starc.compiler.ir import Model
from starc.compiler.options import Options
from starc.compiler.program import choose_model, link, parse_limited
from starc.compiler.resolve import resolve_model
from starc.grammar.errors import Diagnostic
from starc.grammar.source import Source


@dataclass(frozen=True)
class Artifact:
    """A generated Python file: `text`, the name of its model, the digest of what it means."""

    model_name: str
    text: str
    digest: str
    warnings: tuple[Diagnostic, ...]


def resolve_source(source: Source, options: Options) -> tuple[Model, tuple[Diagnostic, ...]]:
    """Parse, link and resolve: the model's IR before any pass, and warnings about it."""
    linked = link(parse_limited(source, options.limits), options.limits)
    model, warnings = resolve_model(choose_model(linked, options), linked.operators, options.limits)
    own = tuple(w for w in warnings if w.span is None or w.span.source == source)
    return model, own
