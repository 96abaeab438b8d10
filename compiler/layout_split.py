"""One statement over several lines, divided where black divides it.

Owns: the choice of brackets and operators at which it is divided. The rules are those that black 26
follows in its stable style; tests hold the two against each other.
Refuses: comments within a statement, and headers such as `if` and `with` that do not fit
(`CannotDivide`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from starc.compiler.layout_tokens import (
    COMMA,
    DOT,
    CannotDivide,
    Token,
    flat,
    ranks_of,
    tokens_of,
)

INDENT = "    "

_HEADERS = frozenset("if elif for while with class assert del raise import from async".split())


@dataclass(slots=True)
class _Line:
    tokens: list[Token]
    depth: int
    inside: bool = False
    """Within brackets, so that it may be divided at operators."""
    definition: bool = False
    explode: bool = False
    _ranks: dict[int, int] | None = field(default=None)

    def text(self) -> str:
        first, *rest = self.tokens
        return INDENT * self.depth + first.text + "".join(t.gap + t.text for t in rest)

    def fits(self, columns: int) -> bool:
        text = self.text()
        return len(text) <= columns and "\n" not in text

    def ranks(self) -> dict[int, int]:
        if self._ranks is None:
            self._ranks = ranks_of(self.tokens)
        return self._ranks

    def asks_to_explode(self) -> bool:
        """Whether a pair of brackets on it holds a trailing comma that is there to stay."""
        return any(t.explodes and t.mate in self.tokens for t in self.tokens)


@dataclass(slots=True)
class _Parts:
    head: _Line
    body: _Line
    tail: _Line
    opening: Token
    closing: Token

    def lines(self) -> list[_Line]:
        return [line for line in (self.head, self.body, self.tail) if line.tokens]


def divided(text: str, depth: int, columns: int) -> list[str]:
    """The lines of a statement that starts `depth` indents deep, each within so many columns.

    Raises:
        CannotDivide: no rule here applies, or a line stays too long.
    """
    tokens, comment = tokens_of(text)
    first = tokens[0].text
    line = _Line(tokens, depth, definition=first == "def")
    if not (line.fits(columns) and not line.asks_to_explode()) and first in _HEADERS:
        raise CannotDivide
    lines = [line.text() for line in _Division(columns).of(line)]
    if comment:
        lines[-1] += comment
    if any(len(part) > columns for whole in lines for part in whole.split("\n")):
        raise CannotDivide
    if comment and len(lines) > 1:  # it moves along with what it stands behind
        raise CannotDivide
    return lines


# --- division -------------------------------------------------------------------------------------


class _Division:
    def __init__(self, columns: int) -> None:
        self.columns = columns

    def of(self, line: _Line, forced: bool = False) -> list[_Line]:
        """The line as it is where that fits, else divided. `forced`: optional parentheses are put
        where they may be."""
        if line.fits(self.columns) and not line.explode and not line.asks_to_explode():
            return [line]
        try:
            if line.definition:
                return self.all_of(line, self.at_parameters(line), forced)
            if line.inside:
                try:
                    return self.all_of(line, self.at_operators(line), forced)
                except CannotDivide:
                    pass
            return self.at_last_bracket(line, forced)
        except CannotDivide:
            return [line]

    def all_of(self, whole: _Line, lines: list[_Line], forced: bool) -> list[_Line]:
        text = whole.text()
        if any(line.text() == text for line in lines):
            raise CannotDivide
        return [part for line in lines for part in self.of(line, forced)]

    def at_last_bracket(self, line: _Line, forced: bool) -> list[_Line]:
        invisible = [t for t in line.tokens if t.kind == "close" and not t.text]
        outer = [t for _, t in flat(line.tokens) if t.kind == "close" and t in invisible]
        result = self.all_of(line, self.at_a_bracket(line, forced), forced)
        first_fits = result[0].fits(self.columns)
        if forced or not invisible or any(t.text for t in outer) or first_fits:
            return result
        if any("\n" in t.text for t in line.tokens):
            return result
        again = self.all_of(line, self.at_a_bracket(line, True), True)
        return again if all(part.fits(self.columns) for part in again) else result

    def at_parameters(self, line: _Line) -> list[_Line]:
        i = next((i for i, t in enumerate(line.tokens) if t.text == "("), None)
        if i is None:
            raise CannotDivide
        end = line.tokens.index(_mate(line.tokens[i]))
        return self.parts(line, i, end).lines()

    def parts(self, line: _Line, i: int, end: int) -> _Parts:
        """Divided behind the bracket at i and before its mate at `end`."""
        opening, closing = line.tokens[i], line.tokens[end]
        inner = line.tokens[i + 1 : end]
        if not inner and end == len(line.tokens) - 1:
            raise CannotDivide
        if line.definition and inner and not any(t.kind == "comma" for t in inner):
            inner = [*inner, Token("comma", ",", "", after=COMMA)]
        body = _Line(inner, line.depth + 1, inside=True)
        if inner and opening.text:
            last = len(inner) - 1
            trailing = inner[-1].kind == "comma"
            ranks = [rank for at, rank in body.ranks().items() if not (trailing and at == last)]
            commas = max(ranks, default=0) == COMMA
            body.explode = commas and (trailing or opening.literal)
        head = _Line(line.tokens[: i + 1], line.depth)
        tail = _Line(line.tokens[end:], line.depth)
        return _Parts(head, body, tail, opening, closing)

    def last_parts(self, line: _Line, omit: set[int]) -> _Parts:
        """Divided at the last pair of brackets that is not empty, nor among `omit`."""
        i = len(line.tokens) - 1
        while i >= 0:
            token = line.tokens[i]
            if token.kind == "close" and id(token) not in omit:
                opening = _mate(token)
                start = next((k for k in range(i) if line.tokens[k] is opening), None)
                if start is None:
                    raise CannotDivide
                if start == i - 1:  # empty
                    i -= 2
                    continue
                return self.parts(line, start, i)
            i -= 1
        raise CannotDivide

    def at_a_bracket(self, line: _Line, forced: bool) -> list[_Line]:
        first: list[_Line] | None = None
        for omit in self.trailers(line):
            if omit and self.head_is_too_long(line, omit):
                continue
            lines = self.with_parentheses(self.last_parts(line, omit), line, omit, forced)
            if first is None and not omit:
                first = lines
            if lines[0].fits(self.columns):
                return lines
        if first is not None:
            return first
        return self.with_parentheses(self.last_parts(line, set()), line, set(), forced)

    def head_is_too_long(self, line: _Line, omit: set[int]) -> bool:
        for token in reversed(line.tokens):
            if token.kind == "close" and id(token) not in omit:
                opening = _mate(token)
                if not opening.text or opening not in line.tokens:
                    return False
                before = line.tokens[: line.tokens.index(opening)]
                width = len(INDENT) * line.depth + sum(len(t.gap) + len(t.text) for t in before)
                return width > self.columns
        return False

    def trailers(self, line: _Line) -> Iterator[set[int]]:
        """Sets of closing brackets at which not to divide: those of more and more trailers."""
        omit: set[int] = set()
        if not line.asks_to_explode():
            yield omit
        length = len(INDENT) * line.depth
        opening: Token | None = None
        closing: Token | None = None
        inner: set[int] = set()
        for i in range(len(line.tokens) - 1, -1, -1):
            token = line.tokens[i]
            previous = line.tokens[i - 1] if i else None
            length += len(token.gap) + len(token.text)
            if length > self.columns or "\n" in token.text:
                return
            if opening is not None:
                if token is opening:
                    opening = None
                elif token.kind == "close":
                    if token.explodes:
                        return
                    inner.add(id(token))
            elif token.kind == "close":
                if previous is not None and previous.kind == "open":
                    inner.add(id(token))
                    continue
                if closing is not None:
                    omit = omit | {id(closing)} | inner
                    inner = set()
                    yield omit
                if token.explodes:
                    return
                if token.text:
                    opening, closing = token.mate, token

    def with_parentheses(
        self, parts: _Parts, line: _Line, omit: set[int], forced: bool
    ) -> list[_Line]:
        """The parts, or others where the parentheses of these need not be written."""
        if not forced and not parts.opening.text and self.may_omit(parts):
            without = {id(parts.closing), *omit}
            try:
                other = self.last_parts(line, without)
                if self.prefers(other, parts):
                    return self.with_parentheses(other, line, without, forced)
            except CannotDivide:
                if len(parts.body.tokens) < 2 and not parts.body.fits(self.columns):
                    raise
        parts.opening.text, parts.closing.text = (
            parts.opening.text or "(",
            parts.closing.text or ")",
        )
        return parts.lines()

    def prefers(self, other: _Parts, parts: _Parts) -> bool:
        head = parts.head.tokens
        if len(head) < 2 or head[-2].text != "=":
            return True
        if not any(t.kind in ("open", "close") for t in head[:-1]):
            return True
        if not parts.head.fits(self.columns - 1) or parts.head.asks_to_explode():
            return True
        behind = other.head.tokens
        for token in reversed(behind):
            if token.text == "=":
                break
            if token.kind == "close":
                return True
        return any(t.text == "=" for t in behind) and other.head.fits(self.columns)

    def may_omit(self, parts: _Parts) -> bool:
        """Whether what stands in optional parentheses is divided well without them."""
        line = parts.body
        ranks = line.ranks()
        if not ranks:
            return True
        highest = max(ranks.values())
        if sum(rank == highest for rank in ranks.values()) > 1:
            return False
        if highest == DOT:
            return True
        first, second, last = line.tokens[0], line.tokens[1], line.tokens[-1]
        opens = first.kind == "open" and second.kind != "close"
        if opens and self.divides_at_first(line, first):
            return True
        if last.kind == "close" and (last.text in (")", "}", "") or _mate(last).literal):
            if line.tokens[-2].kind == "open":
                return False
            return self.divides_at_last(line, last)
        return False

    def divides_at_first(self, line: _Line, first: Token) -> bool:
        remainder, length = False, len(INDENT) * line.depth
        for token in line.tokens:
            if token.kind == "close" and token.mate is first:
                remainder = True
            if remainder:
                length += len(token.gap) + len(token.text)
                if length > self.columns:
                    return False
                if token.kind == "open":
                    remainder = False
        return True

    def divides_at_last(self, line: _Line, last: Token) -> bool:
        length, others = len(INDENT) * line.depth, False
        for token in line.tokens:
            length += len(token.gap) + len(token.text)
            if token is last.mate:
                return others or length <= self.columns
            if token.kind == "open":
                others = True
        return False

    def at_operators(self, line: _Line) -> list[_Line]:
        last = len(line.tokens) - 1
        ranks = {at: rank for at, rank in line.ranks().items() if at != last}
        if not ranks:
            raise CannotDivide
        highest = max(ranks.values())
        if highest == DOT and sum(rank == DOT for rank in ranks.values()) == 1:
            raise CannotDivide
        lines: list[_Line] = []
        start = 0
        for i in [*(at for at, rank in ranks.items() if rank == highest), last]:
            if i >= start:
                lines.append(_Line(line.tokens[start : i + 1], line.depth, inside=True))
            start = i + 1
        if highest == COMMA and lines[-1].tokens[-1].kind != "comma":
            tokens = [*lines[-1].tokens, Token("comma", ",", "", after=COMMA)]
            lines[-1] = _Line(tokens, line.depth, inside=True)
        return lines


def _mate(token: Token) -> Token:
    if token.mate is None:
        raise CannotDivide
    return token.mate
