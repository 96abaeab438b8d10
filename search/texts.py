"""Texts of programs that differ little from each other: every part is printed once.

A text says nothing but its tree, whatever source parts of it stand in: equal programs have equal
texts, and `parse` gives an equal program back.

Owns: joining printed parts. Refuses: printing them (grammar/printer.py).
"""

from __future__ import annotations

from functools import lru_cache

from starc.grammar import nodes
from starc.grammar.parser import parse
from starc.grammar.printer import format_program, print_layer
from starc.grammar.source import Source, Span
from starc.search.remembering import per_node
from starc.search.trees import PLACE, moved

_NOWHERE = Source("<search>", "")
_MARK = "        _()\n"
"""A unit on a line of its own."""


def text_of(program: nodes.Program) -> str:
    """The canonical text of a program, without comments."""
    parts: list[str] = []
    before: nodes.Declaration | None = None
    for declaration in program.declarations:
        if before and not (isinstance(before, nodes.Use) and isinstance(declaration, nodes.Use)):
            parts.append("\n")
        if isinstance(declaration, nodes.Model):
            parts.append(_model(declaration))
        else:
            parts.append(_printed(declaration))
        before = declaration
    return "".join(parts)


def tree_of(text: str, home: Source) -> nodes.Program:
    """The program of a text with all parts at one place of `home`: what it says and nothing else.

    Raises StarError for a text that cannot be parsed.
    """
    place = Span(home, 0, 0)
    declarations = parse(Source(home.name, text)).declarations
    return nodes.Program(tuple(moved(d, place) for d in declarations), home)


@per_node
def _printed(declaration: nodes.Declaration) -> str:
    return format_program(nodes.Program((declaration,), _NOWHERE))


def _model(model: nodes.Model) -> str:
    """A model, layer by layer: none of them shares a line with another."""
    if not model.backbone:
        return _printed(model)
    head, tail = _around(model.name, model.doc, model.settings)
    return "".join([head, *map(_layer, model.backbone), tail])


@lru_cache(maxsize=1024)
def _around(name: str, doc: str | None, settings: tuple[nodes.Setting, ...]) -> tuple[str, str]:
    """What stands before and behind the layers of a model."""
    mark = nodes.Unit(None, nodes.Call("_", (), name_span=PLACE, span=PLACE), span=PLACE)
    model = nodes.Model(name, settings, (mark,), doc, name_span=PLACE, span=PLACE)
    head, _, tail = format_program(nodes.Program((model,), _NOWHERE)).rpartition(_MARK)
    return head, tail


@per_node
def _layer(layer: nodes.Layer) -> str:
    return _line(layer)


@lru_cache(maxsize=8192)
def _line(layer: nodes.Layer) -> str:
    """A layer that says the same is printed the same."""
    return print_layer(layer, 2)
