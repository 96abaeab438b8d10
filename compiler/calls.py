"""Calls of operators: matching arguments to parameters, showing the call where a body is at fault.

Owns: what units and stages have in common when they call an operator, and what every operator of a
model sees around it. Refuses: bodies (instance.py) and evaluating arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from starc.compiler.arguments import count_words, size_of
from starc.compiler.faults import error
from starc.compiler.numbers import Numeric
from starc.compiler.options import Limits
from starc.compiler.program import file_scope
from starc.grammar import nodes
from starc.grammar.errors import Diagnostic, StarError, suggest
from starc.grammar.source import Source, Span

_SMALLEST_INTEGER = -(2**31)


@dataclass(frozen=True)
class Surroundings:
    """What every operator of a model sees: numbers (width, layer, ...) and other operators.

    `operators` are those of the program in `source`; an operator of another file sees the operators
    of that file. `own` are the model's own numbers, for what is written in its backbone.
    """

    numbers: Mapping[str, Numeric]
    operators: Mapping[str, nodes.Operator]
    source: Source
    limits: Limits
    warn: Callable[[Diagnostic], None]
    own: Mapping[str, Numeric] = field(default_factory=dict)
    causal: bool = True

    def scope(self, node: nodes.Operator) -> Mapping[str, nodes.Operator]:
        """The operators that the body of `node` may call."""
        if node.span.source == self.source:
            return self.operators
        return file_scope(node.span.source, self.limits)


def match_arguments(
    arguments: Sequence[nodes.Argument], node: nodes.Operator, span: Span
) -> dict[str, nodes.Argument]:
    """The arguments of the call at `span` by the parameter that each is for."""
    declared = {p.name: p for p in node.parameters}
    given: dict[str, nodes.Argument] = {}
    for position, argument in enumerate(arguments):
        name = argument.name
        if name is None:
            if position >= len(node.parameters):
                raise error(
                    "wrong-argument",
                    f"'{node.name}' takes {count_words(len(declared))}, not {len(arguments)}.",
                    argument.span,
                    "one too many",
                    operator_signature(node),
                )
            name = node.parameters[position].name
        if name not in declared:
            raise error(
                "wrong-argument",
                f"'{node.name}' has no parameter '{name}'.",
                argument.span,
                "unknown",
                suggest(name, declared) or operator_signature(node),
            )
        if name in given:
            raise error(
                "wrong-argument",
                f"'{node.name}' is given '{name}' twice.",
                argument.span,
                hint=operator_signature(node),
            )
        given[name] = argument
    for parameter in node.parameters:
        if parameter.name not in given and parameter.default is None:
            raise error(
                "wrong-argument",
                f"'{node.name}' needs '{parameter.name}'.",
                span,
                f"'{parameter.name}' missing",
                operator_signature(node),
            )
    return given


def check_kind(
    number: Numeric, parameter: nodes.Parameter, node: nodes.Operator, span: Span
) -> None:
    """Refuse a fraction for a parameter declared `int`."""
    if parameter.kind == "int":
        size_of(number, f"'{parameter.name}' of '{node.name}'", span, smallest=_SMALLEST_INTEGER)


def operator_signature(node: nodes.Operator) -> str:
    """How an operator is called, for hints."""
    shown = [
        p.name
        + (f": {p.kind}" if p.kind else "")
        + (f" = {p.default.span.text}" if p.default else "")
        for p in node.parameters
    ]
    return f"{node.name}({', '.join(shown)})"


_VALUES = frozenset(
    "bad-number bad-size heads-not-divisible number-too-large shape-mismatch width-not-divisible "
    "wrong-output".split()
)
"""Faults of a body that depend on what it was called with."""


def in_call(
    failure: StarError, span: Span, node: nodes.Operator, always: bool = False
) -> StarError:
    """Faults of a body with the call that made it, where the body alone does not show why.

    `always` says that the body depends on the call even when it has no parameters.
    """
    place = (span, f"in this call of '{node.name}'")
    foreign = node.span.source is not span.source
    depends = bool(node.parameters) or always

    def explained(d: Diagnostic) -> Diagnostic:
        in_body = d.span is not None and d.span.source is node.span.source
        if in_body and (foreign or (depends and d.code in _VALUES)):
            return replace(d, related=(*d.related, place))
        return d

    return StarError(map(explained, failure.diagnostics))
