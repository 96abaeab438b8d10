"""From tokens to the syntax tree, by the tables made from star.lark.

Owns: running the LALR(1) automaton, the limits on size and nesting, and carrying on after an
error, so that one run reports as many faults as it can.
Refuses: what nodes look like (builder.py) and what an error says (mistakes.py). Nothing here
recurses, so no input exhausts Python's stack; the limit on nesting is for those who walk the tree.
"""

from __future__ import annotations

from typing import Any

from starc.grammar import tables
from starc.grammar.builder import Builder
from starc.grammar.errors import Diagnostic, StarError
from starc.grammar.lexer import Tokens, scan
from starc.grammar.mistakes import explain
from starc.grammar.nodes import Program
from starc.grammar.situation import (
    BODIES,
    CLOSERS,
    DECLARATIONS,
    OPENERS,
    Opener,
    accepts,
    leads_line,
    open_brackets,
    situation,
)
from starc.grammar.source import Source, Span

MAX_CHARACTERS = 1_000_000
MAX_NESTING = 100
MAX_FAULTS = 20

# The reductions that put one node under another; all others pass values on.
_DEEPER = frozenset(
    "pipe add subtract multiply divide compose negate call choices range "
    "unit repeat loop parallel parallel_choice".split()
)
# Where parsing can go on after an error: states in which one of these may begin.
_ITEMS = ("binding", "setting", "layer")


def parse(
    source: Source, *, max_characters: int = MAX_CHARACTERS, max_nesting: int = MAX_NESTING
) -> Program:
    """The syntax tree of a source.

    `max_nesting` bounds the depth of the tree, in which a chain of n operators is n deep. Any text
    whatever gives a tree or a StarError, which holds every fault found, at most MAX_FAULTS.
    """
    if len(source.text) > max_characters:
        raise StarError(
            Diagnostic(
                "program-too-large",
                f"the program has {len(source.text):,} characters.",
                Span(source, 0, 0),
                hint=f"the limit is {max_characters:,}; it can be raised.",
            )
        )
    tokens = scan(source)
    declarations = _Parser(tokens, max_nesting).run()
    return Program(tuple(declarations), source, tokens.comments)


class _Parser:
    """One run of the automaton: a stack of states, and beside it what stands for each state."""

    def __init__(self, tokens: Tokens, max_nesting: int) -> None:
        self.tokens = tokens
        self.tables = tables.load()
        self.max_nesting = max_nesting
        self.builder = Builder(tokens)
        self.faults: list[Diagnostic] = []
        self.states = [0]
        self.values: list[Any] = []  # a token's index, a node, or a list of nodes
        self.starts: list[int] = []  # where the text of each value begins
        self.ends: list[int] = []  # and where it ends
        self.depths: list[int] = []
        self._resumed = 0  # everything before this token has been tried

    def run(self) -> list[Any]:
        """The declarations. Raises StarError with all faults at the end of the text."""
        index: int | None = self._advance(0)
        while index is not None and len(self.faults) < MAX_FAULTS:
            fault = explain(situation(self.tokens, index, self.states, self.values))
            self.faults.append(fault)
            index = self._resume(index, fault.code == "unclosed-bracket")
            if index is not None:
                index = self._advance(index)
        if faults := self.faults + self.builder.faults:
            raise StarError(faults)
        declarations: list[Any] = self.values[-1]
        return declarations

    def _finished(self) -> int:
        """1 when the finished declarations are a value on the stack, 0 when there are none yet."""
        return 1 if self.values and isinstance(self.values[0], list) else 0

    def _advance(self, index: int) -> int | None:
        """Shift and reduce from a token on, to the end of the text (None) or to a wrong token."""
        kinds, token_starts, token_ends = self.tokens.kinds, self.tokens.starts, self.tokens.ends
        actions, gotos, rules = self.tables.actions, self.tables.gotos, self.tables.rules
        states, values, depths = self.states, self.values, self.depths
        starts, ends = self.starts, self.ends
        names = {rule.action for rule in rules} - {"pass"}
        build = {name: self.builder.method(name) for name in names}
        while True:
            action = actions[states[-1]].get(kinds[index])
            if action is None:
                return index
            if action > 0:
                states.append(action - 1)
                values.append(index)
                starts.append(token_starts[index])
                ends.append(token_ends[index])
                depths.append(0)
                index += 1
                continue
            if action == tables.ACCEPT:
                return None
            rule = rules[-1 - action]
            if rule.action == "pass":
                states[-1] = gotos[states[-2]][rule.origin]
                continue
            size = rule.length
            if size:
                parts = values[-size:]
                start, end, depth = starts[-size], ends[-1], max(depths[-size:])
                for stack in (states, values, starts, ends, depths):
                    del stack[-size:]
            else:
                parts = []
                start = end = ends[-1] if ends else 0
                depth = 0
            if rule.action in _DEEPER:
                depth += 1
                if depth > self.max_nesting:
                    self._refuse_depth(start, end)
            value = build[rule.action](_children(rule, parts), Span(self.tokens.source, start, end))
            states.append(gotos[states[-1]][rule.origin])
            values.append(value)
            starts.append(start)
            ends.append(end)
            depths.append(depth)

    def _refuse_depth(self, start: int, end: int) -> None:
        raise StarError(
            Diagnostic(
                "nesting-too-deep",
                f"the program nests more than {self.max_nesting} deep.",
                Span(self.tokens.source, start, end),
                label="too deep from here",
                hint="a chain of n operators is n deep: give parts of it names of their own.",
            )
        )

    def _resume(self, wrong: int, unclosed: bool) -> int | None:
        """Cut the stack back to what the text around a wrong token can go on with.

        That is a line that begins an item of an open body, or the end of that body, in no bracket
        opened since; or else the next declaration. Returns the token to go on from, or None.
        """
        kinds = self.tokens.kinds
        openers = open_brackets(self.tokens, self.states, self.values)
        if unclosed:  # taken as closed before the wrong token, which may begin the next item
            while openers and openers[-1].place not in BODIES:
                openers.pop()
        brackets = [kinds[opener.index] for opener in openers]
        bodies = self._bodies(openers)
        # The name before a wrong '=' may begin a binding. What was tried is not tried again.
        binds = kinds[wrong] == "=" and openers and openers[-1].place in ("operator", "model")
        first = wrong - 1 if binds else wrong
        first = first if first >= self._resumed else wrong + 1
        for index in range(first, len(kinds) - 1):
            kind = kinds[index]
            if kind in DECLARATIONS and self._at_margin(index):
                self._cut(self._finished())
                self._resumed = index + 1
                return index
            size = bodies.get(len(brackets))
            if size is not None and self._begins_item(index):
                if accepts(self.states[: size + 1], kind):
                    self._cut(size)
                    self._resumed = index + 1
                    return index
            if index < wrong:
                continue
            if kind in OPENERS:
                brackets.append(kind)
            elif kind in CLOSERS:
                if not brackets or brackets.pop() != CLOSERS[kind]:
                    bodies = {}  # from here on only a declaration is a safe place
                bodies = {n: size for n, size in bodies.items() if n <= len(brackets)}
        return None

    def _bodies(self, openers: list[Opener]) -> dict[int, int]:
        """For each number of open brackets, the values on the stack up to the last item in them."""
        bodies: dict[int, int] = {}
        for number, opener in enumerate(openers, start=1):
            if opener.place in BODIES:
                items = opener.below + 1
                while items < len(self.values) and self._at_item(self.states[items + 1]):
                    items += 1
                bodies[number] = items
        return bodies

    def _at_item(self, state: int) -> bool:
        return any(item in self.tables.gotos[state] for item in _ITEMS)

    def _begins_item(self, index: int) -> bool:
        """Whether a token looks like the beginning of an item of a body, or is a `}`."""
        kind = self.tokens.kinds[index]
        if kind == "}":
            return True
        if not leads_line(self.tokens, index):
            return False
        return kind != "NAME" or self.tokens.kinds[index + 1] in ("=", "(", ":")

    def _at_margin(self, index: int) -> bool:
        start = self.tokens.starts[index]
        return start == 0 or self.tokens.source.text[start - 1] == "\n"

    def _cut(self, size: int) -> None:
        del self.states[size + 1 :]
        for stack in (self.values, self.starts, self.ends, self.depths):
            del stack[size:]


def _children(rule: tables.Rule, parts: list[Any]) -> list[Any]:
    """The children that a rule selects; a list that grows by one grows in place."""
    chosen = rule.children
    if rule.action == "list" and chosen[0] == -1:
        children: list[Any] = parts[0]
        chosen = chosen[1:]
    else:
        children = []
    for child in chosen:
        if child is None:
            children.append(None)
        elif child < 0:
            children.extend(parts[-1 - child])
        else:
            children.append(parts[child])
    return children
