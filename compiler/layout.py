"""How the statements and empty lines of rendered Python stand: as black would place them.

Templates write a statement on one line, however long, or over several lines; here it takes one
line where it fits, and is divided at its brackets where it does not. A comma behind the last
element keeps one element a line.

Owns: statements and empty lines. Refuses: blanks within a line, quotes and needless parentheses,
which templates write as black wants them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from starc.compiler.layout_split import INDENT, divided
from starc.compiler.layout_tokens import CannotDivide

LINE_LENGTH = 100

_TRAILING_COMMA = re.compile(r",\s*[)\]}]")
_PART = re.compile(r"\"\"\"|'''|\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*'|#.*|[()\[\]{}]")
_PARENTHESES = re.compile(r"(?:=|return) \(.*\)$")
_BLOCK = re.compile(r"@|def |class |async def ")


def laid_out(text: str, otherwise: Callable[[str, int], str]) -> str:
    """The text with its statements within LINE_LENGTH columns.

    `otherwise(statement, columns)` formats one that no rule here divides; it gets it flush left.
    """
    lines: list[str] = []
    for statement in _statements(text):
        lines += _placed(statement, otherwise) if _needs_placing(statement) else statement
    return "\n".join(_spaced(lines))


def _statements(text: str) -> Iterator[list[str]]:
    """The lines of each statement; one line is most often one, and an empty one always."""
    pending: list[str] = []
    depth, quote = 0, ""
    for line in text.split("\n"):
        if not pending and not _opens(line):
            yield [line.rstrip()]
            continue
        pending.append(line)
        at = 0
        while at < len(line):
            if quote:
                end = line.find(quote, at)
                if end < 0:
                    break
                at, quote = end + 3, ""
                continue
            found = _PART.search(line, at)
            if found is None:
                break
            part, at = found[0], found.end()
            if part in ('"""', "'''"):
                quote = part
            elif part in "([{":
                depth += 1
            elif part in ")]}":
                depth -= 1
        if depth <= 0 and not quote:
            yield pending
            pending, depth = [], 0
    if pending:
        yield pending


def _opens(line: str) -> bool:
    """Whether more than this line may belong to its statement: cheap, and true too often."""
    if '"""' in line or "'''" in line:
        return True
    return any(line.count(a) != line.count(b) for a, b in ("()", "[]", "{}"))


def _needs_placing(statement: list[str]) -> bool:
    first = statement[0].lstrip()
    if first.startswith(("#", '"""', 'r"""')):
        return False
    if len(statement) > 1:
        return True
    return bool(
        len(statement[0]) > LINE_LENGTH
        or _TRAILING_COMMA.search(first)
        or _PARENTHESES.search(first)
    )


def _placed(statement: list[str], otherwise: Callable[[str, int], str]) -> list[str]:
    text = "\n".join(statement)
    bare = text.lstrip(" ")
    depth, odd = divmod(len(text) - len(bare), len(INDENT))
    try:
        if odd or "\\\n" in text:
            raise CannotDivide
        return divided(bare, depth, LINE_LENGTH)
    except CannotDivide:
        margin = INDENT * depth
        flush = "\n".join(line.removeprefix(margin) for line in statement)
        shown = otherwise(flush, LINE_LENGTH - len(margin))
        return [margin + line if line else line for line in shown.split("\n")]


def _spaced(lines: list[str]) -> Iterator[str]:
    """Two empty lines around what stands flush left and has a body, at most one elsewhere."""
    empty, previous = 0, ""
    for line in lines:
        if not line:
            empty += 1
            continue
        indented = line[0] == " "
        if previous:
            attached = previous.startswith(("@", "#")) and not empty
            if not indented and _BLOCK.match(line) and not attached:
                empty = 2
            yield from [""] * min(empty, 1 if indented else 2)
        yield line
        empty, previous = 0, line
