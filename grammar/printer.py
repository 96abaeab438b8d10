"""From the syntax tree to canonical text: what `starc fmt` writes.

Owns: the one way to write a tree. Comments, single blank lines and which units share a line are
taken from the source that the tree was read from. A tree that no one wrote prints just as well, and
one with parts from elsewhere too: places not in the source, or out of order, are passed over.
Refuses: breaking lines (layout.py) and finding places in the source (places.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from starc.grammar.errors import InternalError
from starc.grammar.layout import (
    INDENT,
    WIDTH,
    Doc,
    Group,
    Hard,
    IfBroken,
    Line,
    Nest,
    Note,
    lay_out,
    must_break,
)
from starc.grammar.nodes import (
    Argument,
    Binary,
    Binding,
    Call,
    Comment,
    Declaration,
    Expr,
    Hole,
    Layer,
    Loop,
    Member,
    Model,
    Modifier,
    Name,
    Negate,
    Node,
    Number,
    Operator,
    Parallel,
    Parameter,
    Pipe,
    Program,
    Repeat,
    Reuses,
    Setting,
    Shares,
    Text,
    Unit,
    Use,
    With,
    clean_documentation,
)
from starc.grammar.places import Places

_PIPE, _SUM, _PRODUCT, _MIX, _UNARY, _ATOM = range(6)
_LEVELS = {"+": _SUM, "-": _SUM, "*": _PRODUCT, "/": _PRODUCT, "@": _MIX}


def format_program(program: Program) -> str:
    """The canonical text of a program, comments included; `parse` gives an equal tree back."""
    printer = _Printer(Places(program.source), program.comments)
    return lay_out(printer.program(program.declarations))


def print_layer(layer: Layer, depth: int) -> str:
    """The lines of a layer that stands `depth` brackets deep, without comments."""
    doc: Doc = [Hard(), _Printer(Places(None), (), depth).layer(layer)]
    for _ in range(depth):
        doc = Nest(doc)
    return lay_out(doc).removeprefix("\n") + "\n"


def print_expr(expr: Expr) -> str:
    """An expression on one line, without comments, as diagnostics quote it."""
    return lay_out(_Printer(Places(None), ()).expression(expr), width=10**9)


@dataclass(frozen=True)
class _Entry:
    """What stands on lines of its own. Printing it takes the comments inside it off the queue."""

    print: Callable[[], Doc]
    start: int | None
    end: int | None
    gap: str = ""  # between it and the next of its kind, where the source has both on one line
    spaced: bool = False  # an empty line stands before and behind it
    name: str = ""  # what a binding or setting binds: their `=` are aligned
    padding: list[Doc] = field(default_factory=list)  # filled when the lines around are known


class _Printer:
    """Walks a tree in the order of the text and puts each comment before what followed it."""

    def __init__(self, places: Places, comments: Sequence[Comment], depth: int = 0) -> None:
        self.places = places
        self._comments = comments
        self._taken = 0
        self._depth = depth

    # --- comments and lines ----------------------------------------------------------------------

    def _take(self, before: int | None) -> Sequence[Comment]:
        """The comments not printed yet that stand before an offset."""
        first = last = self._taken
        if before is not None:
            while last < len(self._comments) and self._comments[last].span.start < before:
                last += 1
        self._taken = last
        return self._comments[first:last]

    def _notes(self, before: int | None) -> list[Doc]:
        """The comments before an offset, within something that is printed; a break must follow."""
        notes: list[Doc] = []
        for comment in self._take(before):
            if comment.own_line or notes:
                notes += [Hard(), _comment(comment)]
            else:
                notes.append(Note(_comment(comment)))
        return notes

    def _lines(self, entries: Sequence[_Entry], close: int | None, inside: bool) -> Doc:
        """Entries and the comments around them, up to the bracket at `close`, on lines."""
        lines = _Lines(self.places, WIDTH - INDENT * self._depth, inside)
        for entry in entries:
            for comment in self._take(entry.start):
                lines.comment(comment)
            lines.entry(entry, entry.print())
        for comment in self._take(close):
            lines.comment(comment)
        return lines.finished()

    def _body(self, entries: Sequence[_Entry], opener: int | None) -> Doc:
        """A body in braces. Written on one line, it stays on one if it fits."""
        close = self.places.closer(opener)
        self._depth += 1
        if self.places.newlines(opener, close) == 0:
            parts: list[Doc] = []
            for entry in entries:
                parts += [Line("  ") if parts else Line(), entry.print()]
            body: Doc = Group(["{", Nest(parts), Line() if parts else "", "}"])
        else:
            lines = self._lines(entries, close, inside=True)
            body = ["{", Nest(lines), Hard(), "}"] if lines else "{}"
        self._depth -= 1
        return body

    def _list(self, opener: str, entries: Sequence[_Entry], closer: str, close: int | None) -> Doc:
        """Things between brackets with commas, on one line or each on its own."""
        parts: list[Doc] = []
        for entry in entries:
            parts += (
                [",", *self._notes(entry.start), Line()]
                if parts
                else [*self._notes(entry.start), Line("")]
            )
            parts.append(entry.print())
        if parts:
            parts.append(IfBroken(","))
        parts += self._notes(close)
        return Group([opener, Nest(parts), Line(""), closer]) if parts else opener + closer

    def _entry(self, node: Node, doc: Callable[[], Doc], **more: Any) -> _Entry:
        return _Entry(doc, self.places.start(node), self.places.end(node), **more)

    # --- declarations ----------------------------------------------------------------------------

    def program(self, declarations: Sequence[Declaration]) -> Doc:
        entries = [
            self._entry(d, partial(self._declaration, d), spaced=not isinstance(d, Use))
            for d in declarations
        ]
        end = max((comment.span.end for comment in self._comments), default=0)
        lines = self._lines(entries, end, inside=False)
        return [lines, Hard()] if lines else ""

    def _declaration(self, declaration: Declaration) -> Doc:
        match declaration:
            case Use(path):
                return "use " + ".".join(path)
            case Operator():
                return self._operator(declaration)
            case Model():
                return self._model(declaration)

    def _operator(self, operator: Operator) -> Doc:
        name_end = self.places.end(operator) and operator.name_span.end
        close = self.places.closer(self.places.token("(", name_end))
        parameters = [self._entry(p, partial(self._parameter, p)) for p in operator.parameters]
        head = self._list(f"operator {operator.name}(", parameters, ")", close)
        opener = self.places.token("{", close)
        entries = self._documentation(operator.doc, opener)
        for binding in operator.body:
            entries.append(self._bound(binding, gap=""))
        self._depth += 1
        lines = self._lines(entries, self.places.closer(opener), inside=True)
        self._depth -= 1
        return [head, " {", Nest(lines), Hard(), "}"]

    def _parameter(self, parameter: Parameter) -> Doc:
        kind = f": {parameter.kind}" if parameter.kind else ""
        if parameter.default is None:
            return parameter.name + kind
        return [f"{parameter.name}{kind} = ", self.expression(parameter.default)]

    def _bound(self, node: Binding | Setting, gap: str) -> _Entry:
        padding: list[Doc] = []

        def doc() -> Doc:
            return [node.name, padding, " = ", self.expression(node.value)]

        return self._entry(node, doc, gap=gap, name=node.name, padding=padding)

    def _model(self, model: Model) -> Doc:
        name_end = self.places.end(model) and model.name_span.end
        opener = self.places.token("{", name_end)
        close = self.places.closer(opener)
        entries = self._documentation(model.doc, opener)
        for setting in model.settings:
            entries.append(self._bound(setting, gap="   "))
        backbone = self.places.token("backbone", opener, close)
        if model.backbone or backbone is not None:
            brace = self.places.token("{", backbone)
            end = self.places.closer(brace)
            layers = list(map(self._layer, model.backbone))
            entry = _Entry(
                lambda: ["backbone ", self._body(layers, brace)], backbone, end and end + 1
            )
            before = [e.start is None or backbone is None or e.start < backbone for e in entries]
            entries.insert(before.index(False) if False in before else len(entries), entry)
        self._depth += 1
        lines = self._lines(entries, close, inside=True)
        self._depth -= 1
        return [f"model {model.name} {{", Nest(lines), Hard(), "}"]

    def _documentation(self, text: str | None, opener: int | None) -> list[_Entry]:
        if text is None:
            return []
        start = self.places.token("STRING", opener)
        return [_Entry(lambda: _quoted(text), start, self.places.token_end(start))]

    # --- backbone --------------------------------------------------------------------------------

    def layer(self, layer: Layer) -> Doc:
        """A layer, on the lines that it needs."""
        return self._layer(layer).print()

    def _layer(self, layer: Layer) -> _Entry:
        match layer:
            case Unit():
                return self._entry(layer, partial(self._unit, layer), gap="  ")
            case Repeat() | Loop():
                return self._entry(layer, partial(self._block, layer))
            case Parallel():
                return self._entry(layer, partial(self._parallel, layer))

    def _unit(self, unit: Unit) -> Doc:
        label = f"{unit.label}: " if unit.label is not None else ""
        return [label, self.expression(unit.operator), self._modifiers(unit.modifiers)]

    def _block(self, block: Repeat | Loop) -> Doc:
        word = "repeat" if isinstance(block, Repeat) else "loop"
        count = self.expression(block.count)
        opener = self.places.token("{", self.places.end(block.count))
        return [f"{word} ", count, " ", self._body(list(map(self._layer, block.body)), opener)]

    def _parallel(self, parallel: Parallel) -> Doc:
        label = f"{parallel.label}: " if parallel.label is not None else ""
        opener = self.places.token("{", self.places.start(parallel))
        body = self._body(list(map(self._layer, parallel.body)), opener)
        head = f"{label}parallel({parallel.mode}) "
        return [head, body, self._modifiers(parallel.modifiers)]

    def _modifiers(self, modifiers: Sequence[Modifier]) -> Doc:
        parts: list[Doc] = []
        for modifier in modifiers:
            parts += [*self._notes(self.places.start(modifier)), Line()]
            match modifier:
                case Shares(_, None):
                    parts.append("shares ?")
                case Shares(names, label, excluded):
                    kept = f" except {', '.join(excluded)}" if excluded else ""
                    parts.append(f"shares {', '.join(names)}{kept} with {label}")
                case Reuses(names, label):
                    parts.append(f"reuses {', '.join(names)} from {label}" if label else "reuses ?")
                case With(name, value):
                    parts += [f"with {name} = ", self.expression(value)]
        return Group(Nest(parts))

    # --- expressions -----------------------------------------------------------------------------

    def expression(self, expr: Expr, level: int = _PIPE) -> Doc:
        """An expression, in parentheses where it binds looser than `level`."""
        if _level(expr) < level:
            return Group(["(", Nest([Line(""), *self._chain(expr)]), Line(""), ")"])
        match expr:
            case Pipe() | Binary():
                first, *rest = self._chain(expr)
                return Group([first, Nest(rest)])
            case Negate(value):
                return ["-", self.expression(value, _UNARY)]
            case Number(text) | Name(text):
                return text
            case Member(unit, name):
                return f"{unit}.{name}"
            case Call(function, arguments):
                entries = [self._entry(a, partial(self._argument, a)) for a in arguments]
                end = self.places.end(expr)
                return self._list(f"{function}(", entries, ")", end and end - 1)
            case Hole():
                return self._hole(expr)
            case Text(value):
                return _quoted(value)

    def _chain(self, expr: Expr) -> list[Doc]:
        """Operands of one level, a break before each operator but the first operand."""
        level = _level(expr)
        links: list[tuple[str, Expr]] = []
        while _level(expr) == level:
            match expr:
                case Pipe(value, stage):
                    links.append(("|>", stage))
                    expr = value
                case Binary(operator, left, right):
                    links.append((operator, right))
                    expr = left
                case _:
                    break
        parts = [self.expression(expr, level)]
        if isinstance(expr, Number) and links[-1][0] == "/":
            if isinstance(divisor := links[-1][1], Number):  # an exact rational: 8/3 * width
                parts = [f"{expr.text}/{divisor.text}"]
                links.pop()
        for operator, operand in reversed(links):
            parts += [*self._notes(self.places.start(operand)), Line(), f"{operator} "]
            parts.append(self.expression(operand, level + 1))
        return parts

    def _argument(self, argument: Argument) -> Doc:
        value = self.expression(argument.value)
        return value if argument.name is None else [f"{argument.name} = ", value]

    def _hole(self, hole: Hole) -> Doc:
        opener = f"?{hole.name or ''}["
        if hole.low is not None and hole.high is not None:
            return [opener, self.expression(hole.low), " .. ", self.expression(hole.high), "]"]
        entries = [self._entry(choice, partial(self._choice, choice)) for choice in hole.choices]
        end = self.places.end(hole)
        return self._list(opener, entries, "]", end and end - 1)

    def _choice(self, choice: Expr | Parallel) -> Doc:
        if not isinstance(choice, Parallel):
            return self.expression(choice)
        opener = self.places.token("{", self.places.start(choice))
        close = self.places.closer(opener)
        layers = list(map(self._layer, choice.body))
        if opener is not None and self.places.newlines(opener, close) != 0:
            return [f"parallel({choice.mode}) ", self._body(layers, opener)]
        parts: list[Doc] = []
        for layer in layers:
            parts += [Line("  ") if parts else Line(), layer.print()]
        body = Group(["{", Nest(parts), Line() if parts else "", "}"])
        return [f"parallel({choice.mode}) ", body]


class _Lines:
    """Entries and comments put on lines one by one."""

    def __init__(self, places: Places, width: int, inside: bool) -> None:
        self._places = places
        self._width = width
        self._docs: list[Doc] = []
        self._begun = inside  # a bracket, an entry or a comment stands before what comes next
        self._code = inside  # ... and it is not a comment
        self._end: int | None = None  # where in the source that ends
        self._last: _Entry | None = None  # the last entry, if nothing but its own note followed
        self._text: str | None = None  # the current line, if entries can still join it
        self._run: list[_Entry] = []  # entries on consecutive lines whose `=` are aligned

    def comment(self, comment: Comment) -> None:
        if self._code and not comment.own_line:
            self._docs.append(Note(_comment(comment)))
        else:
            self._break(comment.span.start, spaced=False)
            self._docs.append(_comment(comment))
            self._last = None
        self._code = False
        self._text = None
        self._end = comment.span.end if self._end is None else max(self._end, comment.span.end)

    def entry(self, entry: _Entry, doc: Doc) -> None:
        text = _flat(doc) if entry.gap else None
        if not self._joins(entry, text):
            spaced = entry.spaced and (self._last is not None or self._code)
            blank = self._break(entry.start, spaced)
            self._text = text
            if blank or not entry.name or self._last is None or not self._last.name:
                self._align()
            if entry.name:
                self._run.append(entry)
            self._docs.append(doc)
        elif self._text is not None and text is not None:
            if self._run and self._run[-1] is self._last:  # no longer alone on its line
                self._run.pop()
            self._align()
            self._text += entry.gap + text
            self._docs += [entry.gap, doc]
        self._begun = self._code = True
        self._last, self._end = entry, entry.end

    def _joins(self, entry: _Entry, text: str | None) -> bool:
        """Whether an entry goes on the line of the last one, as it does in the source."""
        return (
            text is not None
            and self._text is not None
            and self._last is not None
            and self._last.gap == entry.gap
            and self._places.newlines(self._end, entry.start) == 0
            and len(self._text) + len(entry.gap) + len(text) <= self._width
        )

    def _break(self, start: int | None, spaced: bool) -> bool:
        """End the line, with an empty one where the source has one or the neighbours ask for it."""
        if not self._begun:
            self._begun = True
            return False
        blank = spaced or (self._last is not None and self._last.spaced)
        if self._end is not None:
            blank = blank or (self._places.newlines(self._end, start) or 0) > 1
        self._docs.append(Hard(blank))
        return blank

    def _align(self) -> None:
        width = max((len(entry.name) for entry in self._run), default=0)
        for entry in self._run:
            entry.padding.append(" " * (width - len(entry.name)))
        self._run = []

    def finished(self) -> list[Doc]:
        self._align()
        return self._docs


def _level(expr: Expr) -> int:
    match expr:
        case Pipe():
            return _PIPE
        case Binary(operator):
            return _LEVELS[operator]
        case Negate():
            return _UNARY
    return _ATOM


def _flat(doc: Doc) -> str | None:
    """A document on one line, or None if it needs more."""
    text = lay_out(Group(doc), width=10**9)
    return None if "\n" in text or must_break(doc) else text


def _comment(comment: Comment) -> str:
    return f"# {comment.text}".rstrip()


def _quoted(text: str) -> Doc:
    """Documentation between quotes, so that reading it again gives the same text."""
    if '"""' in text:
        raise InternalError("documentation that holds three quotes cannot be written")
    if '"' not in text and "\n" not in text:
        return f'"{text}"'
    lines: list[Doc] = []
    for line in text.split("\n"):
        lines += [Hard(), line]
    if clean_documentation(text) == text:
        lines[0] = ""
    return ['"""', *lines, Hard(), '"""']
