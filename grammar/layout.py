"""Breaking text into lines of a given width.

Owns: the pieces that a printer composes (text, possible line breaks, indentation, groups, comments)
and the one pass that lays them out, after Wadler, "A prettier printer" (2003): a group stands on
one line if it fits, and otherwise all its own breaks are taken.
Refuses: what is printed.
"""

from __future__ import annotations

from dataclasses import dataclass, field

WIDTH = 100
INDENT = 4
_NOTE_MARK = "\0"  # stands between code and its comment until comments are aligned


@dataclass(frozen=True)
class Line:
    """A possible line break; `flat` is what stands there when it is not taken."""

    flat: str = " "


@dataclass(frozen=True)
class Hard:
    """A line break that is always taken; `blank` leaves an empty line."""

    blank: bool = False


@dataclass(frozen=True)
class IfBroken:
    """Text that is there only when the group around it is broken."""

    text: str


@dataclass(frozen=True)
class Note:
    """A comment at the end of a line. The next piece must be a break, and its group is broken."""

    text: str


@dataclass(frozen=True)
class Nest:
    """What is inside is indented one step further."""

    inside: Doc


@dataclass(frozen=True)
class Group:
    """Stands on one line if it fits and holds no hard break, and is broken otherwise."""

    inside: Doc
    broken: bool = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "broken", must_break(self.inside))


Doc = str | Line | Hard | IfBroken | Note | Nest | Group | list["Doc"]


def must_break(doc: Doc) -> bool:
    match doc:
        case Hard() | Note():
            return True
        case Nest(inside):
            return must_break(inside)
        case Group():
            return doc.broken
        case list():
            return any(map(must_break, doc))
    return False


def lay_out(doc: Doc, width: int = WIDTH) -> str:
    """The text of a document, no line longer than `width` where breaks allow it."""
    out: list[str] = []
    column = 0
    stack: list[tuple[int, bool, Doc]] = [(0, False, doc)]  # indentation, flat, what to print
    while stack:
        indent, flat, top = stack.pop()
        match top:
            case str():
                out.append(top)
                column += len(top)
            case list():
                stack.extend((indent, flat, part) for part in reversed(top))
            case Nest(inside):
                stack.append((indent + INDENT, flat, inside))
            case Group(inside):
                fits = not top.broken and (flat or _fits(stack, width - column, inside))
                stack.append((indent, fits, inside))
            case Line(between) if flat:
                out.append(between)
                column += len(between)
            case IfBroken(text):
                if not flat:
                    out.append(text)
                    column += len(text)
            case Note(text):
                out.append(f"{_NOTE_MARK}{text}")
            case Line() | Hard():
                blank = isinstance(top, Hard) and top.blank
                out.append("\n\n" if blank else "\n")
                out.append(" " * indent)
                column = indent
    return _align_notes("".join(out))


def _fits(rest: list[tuple[int, bool, Doc]], room: int, doc: Doc) -> bool:
    """Whether a document, flat, and what follows it up to the next break fit into some columns."""
    todo: list[tuple[bool, Doc]] = [(True, doc)]
    following = len(rest)
    while room >= 0:
        if not todo:
            if following == 0:
                return True
            following -= 1
            _, flat, doc = rest[following]
            todo.append((flat, doc))
            continue
        flat, doc = todo.pop()
        match doc:
            case str():
                room -= len(doc)
            case list():
                todo.extend((flat, part) for part in reversed(doc))
            case Nest(inside):
                todo.append((flat, inside))
            case Group(inside):
                todo.append((flat and not doc.broken, inside))
            case Line(between) if flat:
                room -= len(between)
            case IfBroken(text) if not flat:
                room -= len(text)
            case Line() | Hard() | Note():
                return True
    return False


def _align_notes(text: str) -> str:
    """Comments on consecutive lines begin in one column, two blanks behind the longest line."""
    lines = text.split("\n")
    start = 0
    while start < len(lines):
        end = start
        while end < len(lines) and _NOTE_MARK in lines[end]:
            end += 1
        column = max((line.index(_NOTE_MARK) for line in lines[start:end]), default=0) + 2
        for at in range(start, end):
            code, _, note = lines[at].partition(_NOTE_MARK)
            lines[at] = f"{code:<{column}}{note}"
        start = end + 1
    return "\n".join(line.rstrip() for line in lines)
