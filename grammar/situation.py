"""Where in a program a wrong token stands.

Owns: what parsing knows at a token that cannot stand: the tokens around it, the open brackets, what
the innermost of them encloses, and which tokens could have stood there instead.
Refuses: what to say about it (mistakes.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from starc.grammar import tables
from starc.grammar.errors import Diagnostic
from starc.grammar.lexer import Tokens
from starc.grammar.source import Span

CLOSERS = {")": "(", "]": "[", "}": "{"}
OPENERS = {opener: closer for closer, opener in CLOSERS.items()}
DECLARATIONS = frozenset({"use", "operator", "model"})
BLOCKS = frozenset({"repeat", "loop", "parallel"})
MODIFIERS = frozenset({"shares", "reuses", "with"})
KEYWORDS = DECLARATIONS | BLOCKS | MODIFIERS | {"backbone", "from", "except"}
BODIES = frozenset({"operator", "model", "layers"})


# What a bracket encloses, by what may be built in the state behind it; the first that applies.
_PLACES = {
    "binding": "operator",
    "setting": "model",
    "layer": "layers",
    "parameters": "parameters",
    "arguments": "arguments",
    "choice": "hole",
    "expr": "group",
}


@dataclass(frozen=True)
class Opener:
    """An open bracket: its token, what it encloses, and how many values stand before it.

    `place` is a body ("operator", "model", "layers"), or "parameters", "arguments", "hole", "group"
    (a value in parentheses) or "mode" (of a parallel).
    """

    index: int
    place: str
    below: int


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

    def say(
        self, code: str, message: str, hint: str = "", *, at: int = 0, label: str = ""
    ) -> Diagnostic:
        """A diagnostic at this token, or at one a distance away."""
        return Diagnostic(code, message, self.span(at), label, hint)

    def closer(self, opener: Opener) -> str:
        """The bracket that closes an open one."""
        return OPENERS[self.tokens.kinds[opener.index]]

    @property
    def leads_line(self) -> bool:
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


def situation(
    tokens: Tokens, index: int, states: Sequence[int], values: Sequence[object]
) -> Situation:
    """The situation at a token that the automaton cannot shift or reduce on."""
    return Situation(tokens, index, tuple(open_brackets(tokens, states, values)), accepted(states))


def leads_line(tokens: Tokens, index: int) -> bool:
    """No other token stands before this one on its line."""
    if index == 0:
        return True
    return "\n" in tokens.source.text[tokens.ends[index - 1] : tokens.starts[index]]


def open_brackets(tokens: Tokens, states: Sequence[int], values: Sequence[object]) -> list[Opener]:
    """The brackets open on the automaton's stack, where a value that is an int is a token."""
    gotos = tables.load().gotos
    stack: list[Opener] = []
    for below, value in enumerate(values):
        if not isinstance(value, int):
            continue
        if tokens.kinds[value] in OPENERS:
            row = gotos[states[below + 1]]
            place = next((place for built, place in _PLACES.items() if built in row), "mode")
            stack.append(Opener(value, place, below))
        elif tokens.kinds[value] in CLOSERS:
            stack.pop()
    return stack


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
