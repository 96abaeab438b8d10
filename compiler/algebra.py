"""Arithmetic on mixers and structured transitions, as the resolver meets it in expressions.

    A1 @ A2, alpha @ A, A @ alpha     products; the right factor meets the state first
    s * A, A * s, A / 2, -A           s a number, or a feature with one channel per head

Owns: which operators join transitions, diagnostics about them, and which part of a mixer looks
ahead. Refuses: types (the catalog).
"""

from __future__ import annotations

from collections.abc import Sequence

from starc.compiler.faults import error
from starc.compiler.ir import Value
from starc.compiler.numbers import Numeric
from starc.compiler.types import Constant, Feature, Mixer, Transition, Type, describe
from starc.grammar import nodes
from starc.grammar.errors import Diagnostic, StarError
from starc.grammar.source import Span


def check_product(
    expr: nodes.Binary, left: Type | None, right: Type | None, divisor: Numeric | None
) -> Numeric | None:
    """Whether `left operator right`, one of them a transition, is a product; None if as written.

    A type is None for a number. `divisor` is the right side if that is a number; for a quotient its
    inverse, which stands in its place, is given. Raises StarError where there is no product.
    """
    operator = expr.operator
    if operator == "@":
        return None
    if operator in "+-":
        raise error(
            "wrong-type",
            f"'{operator}' does not combine transitions.",
            expr.span,
            hint="transitions know A1 @ A2 and s * A; diag(w) + a b' is dplr(w, a, b).",
        )
    if operator == "/" and right is not None:
        raise error(
            "wrong-type",
            "a transition is divided by numbers only.",
            expr.span,
            hint="multiply by the inverse: (1 / s) * A.",
        )
    if operator == "/":
        if not divisor:
            raise error("bad-number", "division by zero.", expr.right.span)
        return 1 / divisor
    factor = right if isinstance(left, Transition) else left
    if isinstance(factor, Transition):
        raise error(
            "wrong-type",
            "'*' does not combine two transitions.",
            expr.span,
            hint="their product is A1 @ A2; the right one meets the state first.",
        )
    if isinstance(factor, Feature | Constant) and factor.channels > 1:
        raise error(
            "wrong-type",
            f"'*' takes a transition and one number per head, not a {describe(factor)}.",
            expr.span,
            f"{factor.channels} channels",
            "a diagonal is joined with @, since its side matters: alpha @ A or A @ alpha.",
        )
    return None


def check_causal(values: Sequence[Value], id: int, what: str, span: Span) -> None:
    """A causal model may not look ahead: name the mixer that does."""
    mixer = values[id].type
    assert isinstance(mixer, Mixer)
    if mixer.causal:
        return
    value = values[_looks_ahead(values, id)]
    related = (
        ((value.span, f"'{value.op}' sees all tokens"),)
        if value.span and value.span != span
        else ()
    )
    raise StarError(
        Diagnostic(
            "causality",
            f"{what} reads a mixer that sees later tokens: '{value.op}' is not masked.",
            span,
            "token i may only use tokens j <= i",
            f"put '|> causal' before {what}.",
            related,
        )
    )


def _looks_ahead(values: Sequence[Value], id: int) -> int:
    """The value that makes a mixer look ahead: all mixers that it is made of are causal."""
    while True:
        for i in values[id].inputs:
            type_ = values[i].type
            if isinstance(type_, Mixer) and not type_.causal:
                id = i
                break
        else:
            return id
