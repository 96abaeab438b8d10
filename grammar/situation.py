"""Where in a program a wrong token stands.

Owns: what parsing knows at a token that cannot stand: the tokens around it, the open brackets, what
the innermost of them encloses, and which tokens could have stood there instead.
Refuses: what to say about it (mistakes.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from starc.grammar import tables
from starc.grammar.lexer import Tokens
from starc.grammar.source import Span

CLOSERS = {")": "(", "]": "[", "}": "{"}
OPENERS = {opener: closer for closer, opener in CLOSERS.items()}
DECLARATIONS = frozenset({"use", "operator", "model"})


@dataclass(frozen=True)
class Opener:
    """An open bracket: its token, and what it encloses.

    `place` is "parameters", "arguments", "mode" (of a parallel), "group", "hole", "index", or a body:
    "operator", "model", "layers".
    """

    index: int
    place: str


@dataclass(frozen=True)
class Situation:
    """A wrong token and its surroundings; `openers` from the outermost to the innermost."""

    tokens: Tokens
    index: int
    openers: tuple[Opener, ...]
    expected: frozenset[str]

    @property
    def place(self) -> str:
        """What the token stands in; "file" outside all brackets."""
        return self.openers[-1].place if self.openers else "file"

    @property
    def kind(self) -> str:
        return self.tokens.kinds[self.index]

    def near(self, distance: int) -> str:
        """The kind of a token before (-1, -2) or after (1, 2) this one; "" beyond the text."""
        at = self.index + distance
        return self.tokens.kinds[at] if 0 <= at < len(self.tokens.kinds) else ""

    def text(self, distance: int = 0) -> str:
        at = self.index + distance
        return self.tokens.text(at) if 0 <= at < len(self.tokens.kinds) else ""

    def span(self, distance: int = 0) -> Span:
        """The place of a token; the end of the text is shown behind its last token."""
        at = min(max(self.index + distance, 0), len(self.tokens.kinds) - 1)
        if self.tokens.kinds[at] == tables.END and at > 0:
            end = self.tokens.ends[at - 1]
            return Span(self.tokens.source, end, end)
        return self.tokens.span(at)

    def closer(self, opener: Opener) -> str:
        """The bracket that closes an open one."""
        return OPENERS[self.tokens.kinds[opener.index]]

    @property
    def leads_line(self) -> bool:
        """No other token stands before this one on its line."""
        return leads_line(self.tokens, self.index)

    def indent(self, index: int) -> int:
        """The column of the first token on the line of a token."""
        while not leads_line(self.tokens, index):
            index -= 1
        return self.tokens.source.position(self.tokens.starts[index])[1]

    def since(self, *words: str) -> int:
        """How far back the nearest of some words is, with only names and commas between; or 0."""
        for at in range(self.index - 1, -1, -1):
            if self.tokens.kinds[at] in words:
                return at - self.index
            if self.tokens.kinds[at] not in ("NAME", ",", "*"):
                break
        return 0


def situation(tokens: Tokens, index: int, begin: int, states: Sequence[int]) -> Situation:
    """The situation at a token, `begin` being the first token of the declaration it stands in."""
    return Situation(tokens, index, open_brackets(tokens, begin, index), accepted(states))


def leads_line(tokens: Tokens, index: int) -> bool:
    if index == 0:
        return True
    return "\n" in tokens.source.text[tokens.ends[index - 1] : tokens.starts[index]]


def open_brackets(tokens: Tokens, begin: int, end: int) -> tuple[Opener, ...]:
    """The brackets open before token `end`; a closing one that fits no open one is passed over."""
    kinds = tokens.kinds
    stack: list[Opener] = []
    for at in range(begin, end):
        kind = kinds[at]
        if kind in OPENERS:
            stack.append(Opener(at, _enclosed(kinds, at, begin)))
        elif kind in CLOSERS and any(kinds[o.index] == CLOSERS[kind] for o in stack):
            while kinds[stack.pop().index] != CLOSERS[kind]:
                pass
    return tuple(stack)


def _enclosed(kinds: list[str], at: int, begin: int) -> str:
    def before(distance: int) -> str:
        return kinds[at - distance] if at - distance >= begin else ""

    if kinds[at] == "(":
        if before(1) == "parallel":
            return "mode"
        if before(1) not in ("NAME", "repeat"):
            return "group"
        return "parameters" if before(2) == "operator" else "arguments"
    if kinds[at] == "[":
        return "hole" if "?" in (before(1), before(2)) else "index"
    if before(1) == "NAME" and before(2) == "model":
        return "model"
    for word in reversed(kinds[begin:at]):
        if word in ("operator", "model", "backbone", "repeat", "loop", "parallel", "{", "}"):
            return "operator" if word == "operator" else "layers"
    return "layers"


def accepted(states: Sequence[int]) -> frozenset[str]:
    """The terminals that could come next. A table's row may hold more: it merges contexts."""
    language = tables.load()
    row = language.actions[states[-1]]
    return frozenset(terminal for terminal in row if accepts(states, terminal))


def accepts(states: Sequence[int], terminal: str) -> bool:
    """Whether an automaton in these states would, after some reductions, shift a terminal."""
    language = tables.load()
    stack = list(states)
    while True:
        action = language.actions[stack[-1]].get(terminal)
        if action is None or action >= 0:
            return action is not None
        rule = language.rules[-1 - action]
        if rule.length:
            del stack[-rule.length :]
        stack.append(language.gotos[stack[-1]][rule.origin])
