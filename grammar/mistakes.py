"""What to say about a token that cannot stand where it stands."""

from __future__ import annotations

from starc.grammar import tables
from starc.grammar.errors import Diagnostic
from starc.grammar.lexer import Tokens


def explain(tokens: Tokens, index: int, states: list[int]) -> Diagnostic:
    """The diagnostic for a wrong token, given the states of the automaton before it."""
    if tokens.kinds[index] == tables.END:
        return Diagnostic("syntax", "the text ends in the middle.", tokens.span(index))
    return Diagnostic("syntax", f"unexpected '{tokens.text(index)}'.", tokens.span(index))
