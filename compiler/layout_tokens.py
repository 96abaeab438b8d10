"""Tokens of one statement, with what dividing it needs to know: pairs of brackets, ranks of breaks,
and where parentheses may be put.

Owns: reading a statement. Refuses: choosing where it is divided (layout_split).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

_TOKEN = re.compile(
    r"""(?P<gap>\s*)(?:
    (?P<string>[bBfFrRuU]{0,2}(?:\"\"\"(?s:.*?)\"\"\"|'''(?s:.*?)'''
        |"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'))
    |(?P<number>\d[\w.]*(?:(?<=[eE])[+-]\d+)?|\.\d\w*)
    |(?P<name>\w+)
    |(?P<open>[(\[{])|(?P<close>[)\]}])|(?P<comma>,)
    |(?P<op>\*\*=|//=|>>=|<<=|\.\.\.|->|:=|\*\*|//|>>|<<|[=!<>+\-*/%@&|^]=|[=<>+\-*/%@&|^~.:;])
    )""",
    re.X,
)
_KEYWORDS = frozenset(
    "and or not in is if else for lambda return yield await assert del raise from".split()
)
_ASSIGNMENTS = frozenset("= += -= *= /= //= %= @= &= |= ^= >>= <<= **=".split())

COMPREHENSION, COMMA, TERNARY, LOGIC, STRING, COMPARISON = 20, 18, 16, 14, 12, 10
DOT = 1
_ARITHMETIC = {"|": 9, "^": 8, "&": 7, "<<": 6, ">>": 6, "+": 5, "-": 5}
_ARITHMETIC |= {"*": 4, "/": 4, "//": 4, "%": 4, "@": 4, "**": 2}
_COMPARISONS = frozenset("< > == >= <= !=".split())


class CannotDivide(Exception):
    """The rules here do not say how."""


@dataclass(slots=True, eq=False)
class Token:
    """`gap` is what stands before it on a line. Parentheses that may be put around the value of an
    assignment or a `return` are tokens without text until they are. `before` and `after` are the
    ranks of breaks there, 0 for none."""

    kind: str
    text: str
    gap: str
    before: int = 0
    after: int = 0
    mate: Token | None = None
    literal: bool = False  # an opening bracket of a tuple, list, dict or group
    explodes: bool = False  # a closing bracket behind a comma that asks for one element a line


def tokens_of(text: str) -> tuple[list[Token], str]:
    """Those of a statement, and the comment behind it with the blanks ahead."""
    tokens: list[Token] = []
    at, comment = 0, ""
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None:
            comment = text[at:].rstrip()
            if "\n" in comment or (comment and not comment.lstrip().startswith("#")):
                raise CannotDivide
            break
        at = found.end()
        kind = str(found.lastgroup)
        shown = found[kind]
        if kind == "name" and shown in _KEYWORDS:
            kind = "keyword"
        gap = " " if found["gap"] else ""
        before = tokens[-1] if tokens else None
        if before is None or before.kind == "open" or kind in ("close", "comma") or shown == ".":
            gap = ""
        elif before.kind == "comma":
            gap = " "
        tokens.append(Token(kind, shown, gap))
    if not tokens:
        raise CannotDivide
    _match(tokens)
    _rank(tokens)
    return _with_invisible(tokens), comment


def _match(tokens: list[Token]) -> None:
    """Pairs of brackets, what they hold, and which trailing commas are there to stay."""
    opened: list[tuple[Token, int, int]] = []  # with its place and the commas directly in it
    for i, token in enumerate(tokens):
        previous = tokens[i - 1] if i else None
        if token.kind == "open":
            token.literal = previous is None or previous.kind not in ("name", "close", "string")
            opened.append((token, i, 0))
        elif token.kind == "comma" and opened:
            bracket, place, commas = opened[-1]
            opened[-1] = bracket, place, commas + 1
        elif token.kind == "close":
            if not opened:
                raise CannotDivide
            bracket, place, commas = opened.pop()
            token.mate, bracket.mate = bracket, token
            single = commas < 2 and (bracket.text, bracket.literal) in (("(", True), ("[", False))
            token.explodes = previous is not None and previous.kind == "comma" and not single
    if opened:
        raise CannotDivide


def _rank(tokens: list[Token]) -> None:
    """Ranks of breaks; none between the parameters of a lambda or the targets of a `for`."""
    depth = 0
    hidden: list[tuple[str, int]] = []  # what ends it, and how deep it stands
    comprehensions: set[int] = set()  # depths at which a `for` has been seen
    for i, token in enumerate(tokens):
        previous = tokens[i - 1] if i else None
        if token.kind == "close":
            comprehensions.discard(depth)
            depth -= 1
        if hidden and hidden[-1] == (token.text, depth):
            hidden.pop()
            continue
        if token.kind == "open":
            depth += 1
        if token.text == "lambda":
            hidden.append((":", depth))
        if token.kind == "keyword" and token.text == "for":
            hidden.append(("in", depth))
            comprehensions.add(depth)
            token.before = COMPREHENSION if previous else 0
        elif not any(at == depth for _, at in hidden):
            token.before = _before(token, previous, depth in comprehensions)
            token.after = COMMA if token.kind == "comma" else 0


def _before(token: Token, previous: Token | None, comprehension: bool) -> int:
    if previous is None:
        return 0
    text = token.text
    if token.kind == "op":
        value = previous.kind in ("name", "number", "string", "close") or previous.text == "..."
        if text == ".":
            return DOT if previous.kind == "close" else 0
        if text in _COMPARISONS:
            return COMPARISON
        return _ARITHMETIC.get(text, 0) if value else 0
    if token.kind == "string":
        return STRING if previous.kind == "string" else 0
    if token.kind != "keyword":
        return 0
    if text == "if":
        return COMPREHENSION if comprehension else TERNARY
    if text == "else":
        return TERNARY
    if text in ("and", "or"):
        return LOGIC
    if text == "is" or (text == "in" and previous.text != "not"):
        return COMPARISON
    if text == "not" and previous.text != "is" and previous.kind not in ("open", "comma", "op"):
        return COMPARISON if previous.kind != "keyword" else 0
    return 0


def _with_invisible(tokens: list[Token]) -> list[Token]:
    """With the parentheses that may be put around a value of the statement, and around `a if b
    else c` anywhere."""
    tokens = _with_conditions(tokens)
    starts = [i + 1 for i, t in flat(tokens) if t.kind == "op" and t.text in _ASSIGNMENTS]
    if tokens[0].text == "return":
        starts = [1]
    if tokens[0].text == "def" or not starts or starts[0] >= len(tokens):
        return tokens
    if len(starts) > 1:
        raise CannotDivide
    (start,) = starts
    target, value = tokens[:start], tokens[start:]
    if value[0].text == "(" and value[0].mate is value[-1]:
        ranks = ranks_of(value[1:-1]) if value[1:-1] else {0: COMMA}
        if max(ranks.values(), default=0) < COMMA and value[1].text != "yield":
            value[0].text = value[-1].text = ""
            return tokens
    if not value[0].text and value[0].mate is value[-1]:
        return tokens
    opening, closing = _pair(value[0].gap)
    value[0].gap = ""
    return [*target, opening, *value, closing]


def ranks_of(tokens: Sequence[Token]) -> dict[int, int]:
    """Breaks outside all brackets: rank by the place of the token that they follow."""
    ranks: dict[int, int] = {}
    depth = 0
    for i, token in enumerate(tokens):
        if token.kind == "close" and depth:
            depth -= 1
        if depth == 0:
            if i and token.before:
                ranks[i - 1] = token.before
            elif token.after:
                ranks[i] = token.after
        if token.kind == "open":
            depth += 1
    return ranks


def _pair(gap: str) -> tuple[Token, Token]:
    opening, closing = Token("open", "", gap), Token("close", "", "")
    opening.mate, closing.mate = closing, opening
    return opening, closing


def flat(tokens: Sequence[Token]) -> Iterator[tuple[int, Token]]:
    depth = 0
    for i, token in enumerate(tokens):
        depth -= token.kind == "close"
        if depth == 0:
            yield i, token
        depth += token.kind == "open"


def _with_conditions(tokens: list[Token]) -> list[Token]:
    if not any(t.before == TERNARY for t in tokens):
        return tokens
    result: list[Token] = []
    starts, conditional = [0], [False]  # of the elements that are open

    def end(by: str) -> None:
        start = starts[-1]
        behind = result[start - 1] if start else None
        grouped = behind is not None and behind.text == "(" and by == "close"
        if conditional[-1] and not grouped:
            opening, closing = _pair(result[start].gap)
            result[start].gap = ""
            result.insert(start, opening)
            result.append(closing)
        conditional[-1] = False

    for token in tokens:
        ends = token.kind in ("comma", "close") or token.before == COMPREHENSION
        if ends:
            end(token.kind)
        if token.kind == "close":
            starts.pop()
            conditional.pop()
        conditional[-1] |= token.before == TERNARY
        result.append(token)
        if token.kind == "open":
            starts.append(len(result))
            conditional.append(False)
        elif (
            token.kind == "comma"
            or token.text in (":", "=", "return", "in")
            or (token.text in _ASSIGNMENTS)
        ):
            starts[-1] = len(result)
    end("")
    return result
