"""Where the parts of a tree stood in the text they were read from.

Owns: offsets of nodes and brackets, and the blank space between them, for the printer.
Refuses: guessing. What is not in the source has no place, and every answer may be None.
"""

from __future__ import annotations

from bisect import bisect_left

from starc.grammar.errors import StarError
from starc.grammar.lexer import Tokens, scan
from starc.grammar.nodes import Node
from starc.grammar.source import Source

_CLOSERS = {"(": ")", "[": "]", "{": "}"}


class Places:
    """The places of one source; of none if there is no source, or its text is no program's."""

    def __init__(self, source: Source | None) -> None:
        self._tokens: Tokens | None = None
        if source is not None:
            try:
                self._tokens = scan(source)
            except StarError:  # a source made up for a tree that no one wrote
                return
            self._closers = _match(self._tokens)

    def start(self, node: Node) -> int | None:
        """The offset of a node's first character."""
        if self._tokens is None or node.span.source is not self._tokens.source:
            return None
        return node.span.start

    def end(self, node: Node) -> int | None:
        """The offset behind a node's last character."""
        return None if self.start(node) is None else node.span.end

    def token(self, kind: str, begin: int | None, end: int | None = None) -> int | None:
        """The offset of the first token of a kind at or behind an offset, before another one."""
        if self._tokens is None or begin is None:
            return None
        tokens = self._tokens
        for index in range(bisect_left(tokens.starts, begin), len(tokens.kinds)):
            if end is not None and tokens.starts[index] >= end:
                break
            if tokens.kinds[index] == kind:
                return tokens.starts[index]
        return None

    def token_end(self, start: int | None) -> int | None:
        """The offset behind the token at an offset."""
        if self._tokens is None or start is None:
            return None
        return self._tokens.ends[bisect_left(self._tokens.starts, start)]

    def closer(self, opener: int | None) -> int | None:
        """The offset of the bracket that closes the one at an offset."""
        return None if opener is None else self._closers.get(opener)

    def newlines(self, begin: int | None, end: int | None) -> int | None:
        """How many newlines stand between two offsets; None if they are not in this order."""
        if self._tokens is None or begin is None or end is None or begin > end:
            return None
        return self._tokens.source.text.count("\n", begin, end)


def _match(tokens: Tokens) -> dict[int, int]:
    """The offset of the closing bracket for that of each opening one."""
    closers: dict[int, int] = {}
    stack: list[int] = []
    for kind, start in zip(tokens.kinds, tokens.starts, strict=True):
        if kind in _CLOSERS:
            stack.append(start)
        elif kind in _CLOSERS.values() and stack:
            closers[stack.pop()] = start
    return closers
