"""From reductions to nodes.

Owns: one method for each node that star.lark names, and the few rules of form that its productions
cannot say (one backbone, no argument twice, what may stand in a hole).
Refuses: the order of tokens (parser.py) and what names mean (the compiler's resolver).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from starc.grammar.errors import Diagnostic
from starc.grammar.lexer import Tokens
from starc.grammar.nodes import (
    Argument,
    Binary,
    Binding,
    Call,
    Expr,
    Hole,
    Layer,
    Loop,
    Member,
    Model,
    Modifier,
    Name,
    Negate,
    Number,
    Operator,
    Parallel,
    Parameter,
    Pipe,
    Repeat,
    Reuses,
    Setting,
    Shares,
    Unit,
    Use,
    With,
    clean_documentation,
)
from starc.grammar.source import Span

# What a reduction hands over: tokens by index, nodes, lists of nodes, None for a missing part.
Children = list[Any]
Build = Callable[[Children, Span], Any]


@dataclass(frozen=True)
class _Backbone:
    layers: tuple[Layer, ...]
    span: Span


class Builder:
    """Builds the nodes of one source; `faults` collects what it finds wrong on the way."""

    def __init__(self, tokens: Tokens) -> None:
        self.faults: list[Diagnostic] = []
        self._tokens = tokens
        self._text = tokens.text
        self._span = tokens.span

    def method(self, action: str) -> Build:
        """The builder of an action of the tables: `children, span -> value`."""
        build: Build = getattr(self, f"_on_{action}")
        return build

    def _fault(self, code: str, message: str, span: Span, **more: Any) -> None:
        self.faults.append(Diagnostic(code, message, span, **more))

    # --- lists -----------------------------------------------------------------------------------

    def _on_list(self, children: Children, span: Span) -> Children:
        return children

    _on_start = _on_parameters = _on_arguments = _on_body = _on_modifiers = _on_list

    # --- declarations ----------------------------------------------------------------------------

    def _on_use(self, children: Children, span: Span) -> Use:
        return Use(tuple(map(self._text, children)), span=span)

    def _on_operator(self, children: Children, span: Span) -> Operator:
        name, parameters, doc, *body = children
        parameters = parameters or []
        self._refuse_twice("parameter", parameters)
        return Operator(
            self._text(name),
            tuple(parameters),
            tuple(body),
            self._documentation(doc),
            name_span=self._span(name),
            span=span,
        )

    def _on_parameter(self, children: Children, span: Span) -> Parameter:
        name, kind, default = children
        return Parameter(
            self._text(name), None if kind is None else self._text(kind), default, span=span
        )

    def _on_binding(self, children: Children, span: Span) -> Binding:
        name, value = children
        return Binding(self._text(name), value, name_span=self._span(name), span=span)

    def _on_model(self, children: Children, span: Span) -> Model:
        name, doc, *items = children
        backbones = [item for item in items if isinstance(item, _Backbone)]
        title = self._span(name)
        for again in backbones[1:]:
            self._fault(
                "duplicate-backbone",
                f"model '{self._text(name)}' has two backbones.",
                Span(span.source, again.span.start, again.span.start + len("backbone")),
                label="this is the second",
                hint="write all units into one backbone, in their order.",
            )
        return Model(
            self._text(name),
            tuple(item for item in items if isinstance(item, Setting)),
            backbones[0].layers if backbones else (),
            self._documentation(doc),
            name_span=title,
            span=span,
        )

    def _on_setting(self, children: Children, span: Span) -> Setting:
        name, value = children
        return Setting(self._text(name), value, name_span=self._span(name), span=span)

    def _on_backbone(self, children: Children, span: Span) -> _Backbone:
        return _Backbone(tuple(children[0]), span)

    def _documentation(self, token: int | None) -> str | None:
        if token is None:
            return None
        text = self._text(token)
        return clean_documentation(text[3:-3] if text.startswith('"""') else text[1:-1])

    # --- backbone --------------------------------------------------------------------------------

    def _on_label(self, children: Children, span: Span) -> str:
        return self._text(children[0])

    def _on_unit(self, children: Children, span: Span) -> Unit:
        label, operator, modifiers = children
        if isinstance(operator, Hole):
            self._check_choices(operator, "unit", Call | Hole | Parallel)
        return Unit(label, operator, tuple(modifiers), span=span)

    def _on_repeat(self, children: Children, span: Span) -> Repeat:
        count, body = children
        return Repeat(count, tuple(body), span=span)

    def _on_loop(self, children: Children, span: Span) -> Loop:
        count, body = children
        return Loop(count, tuple(body), span=span)

    def _on_parallel(self, children: Children, span: Span) -> Parallel:
        label, mode, body, modifiers = children
        return Parallel(label, self._text(mode), tuple(body), tuple(modifiers), span=span)

    def _on_parallel_choice(self, children: Children, span: Span) -> Parallel:
        mode, body = children
        return Parallel(None, self._text(mode), tuple(body), span=span)

    def _on_shares(self, children: Children, span: Span) -> Modifier:
        names, excluded, label = children
        return Shares(names, self._text(label), excluded or (), span=span)

    def _on_shares_open(self, children: Children, span: Span) -> Modifier:
        return Shares((), None, span=span)

    def _on_reuses(self, children: Children, span: Span) -> Modifier:
        names, label = children
        return Reuses(names, self._text(label), span=span)

    def _on_reuses_open(self, children: Children, span: Span) -> Modifier:
        return Reuses((), None, span=span)

    def _on_with(self, children: Children, span: Span) -> Modifier:
        name, value = children
        return With(self._text(name), value, span=span)

    def _on_all_names(self, children: Children, span: Span) -> tuple[str, ...]:
        return ("*",)

    def _on_names(self, children: Children, span: Span) -> tuple[str, ...]:
        return tuple(map(self._text, children))

    # --- expressions -----------------------------------------------------------------------------

    def _on_pipe(self, children: Children, span: Span) -> Pipe:
        value, stage = children
        if isinstance(stage, Hole):
            self._check_choices(stage, "stage", Call | Name | Hole)
        return Pipe(value, stage, span=span)

    def _binary(self, operator: str, children: Children, span: Span) -> Binary:
        left, right = children
        return Binary(operator, left, right, span=span)

    def _on_add(self, children: Children, span: Span) -> Binary:
        return self._binary("+", children, span)

    def _on_subtract(self, children: Children, span: Span) -> Binary:
        return self._binary("-", children, span)

    def _on_multiply(self, children: Children, span: Span) -> Binary:
        return self._binary("*", children, span)

    def _on_divide(self, children: Children, span: Span) -> Binary:
        return self._binary("/", children, span)

    def _on_compose(self, children: Children, span: Span) -> Binary:
        return self._binary("@", children, span)

    def _on_negate(self, children: Children, span: Span) -> Negate:
        return Negate(children[0], span=span)

    def _on_group(self, children: Children, span: Span) -> Expr:
        value: Expr = children[0]
        return value

    def _on_number(self, children: Children, span: Span) -> Number:
        return Number(self._text(children[0]), span=span)

    def _on_name(self, children: Children, span: Span) -> Name:
        return Name(self._text(children[0]), span=span)

    def _on_member(self, children: Children, span: Span) -> Member:
        unit, name = children
        return Member(self._text(unit), self._text(name), span=span)

    def _on_call(self, children: Children, span: Span) -> Call:
        function, arguments = children
        arguments = arguments or []
        self._refuse_twice("argument", arguments)
        named: Argument | None = None
        for argument in arguments:
            if argument.name is not None:
                named = argument
            elif named is not None:
                self._fault(
                    "positional-after-named",
                    "an argument without a name follows one with a name.",
                    argument.span,
                    hint="name this one too, or move it to the front.",
                )
        return Call(
            self._text(function), tuple(arguments), name_span=self._span(function), span=span
        )

    def _on_positional(self, children: Children, span: Span) -> Argument:
        return Argument(None, children[0], span=span)

    def _on_named(self, children: Children, span: Span) -> Argument:
        name, value = children
        return Argument(self._text(name), value, span=span)

    def _on_choices(self, children: Children, span: Span) -> Hole:
        name, *choices = children
        return Hole(None if name is None else self._text(name), tuple(choices), span=span)

    def _on_range(self, children: Children, span: Span) -> Hole:
        name, low, high = children
        return Hole(None if name is None else self._text(name), (), low, high, span=span)

    def _on_value_hole(self, children: Children, span: Span) -> Hole:
        hole: Hole = children[0]
        for choice in hole.choices:
            if isinstance(choice, Parallel):
                self._fault(
                    "wrong-choice",
                    "a value cannot be a parallel of units.",
                    choice.span,
                    hint="parallel(...) { ... } may be a choice where a unit stands in a backbone.",
                )
        return hole

    # --- rules of form ---------------------------------------------------------------------------

    def _refuse_twice(self, what: str, items: list[Argument] | list[Parameter]) -> None:
        first: dict[str, Span] = {}
        for item in items:
            if item.name is None:
                continue
            if item.name in first:
                self._fault(
                    f"duplicate-{what}",
                    f"{what} '{item.name}' is given twice.",
                    item.span,
                    related=((first[item.name], "first here"),),
                )
            first.setdefault(item.name, item.span)

    def _check_choices(self, hole: Hole, place: str, allowed: Any) -> None:
        """Choices that stand for a unit or a stage must be such; a range never is."""
        form = "gqa(heads = 8), swiglu()" if place == "unit" else "silu, conv(4)"
        if not hole.choices:
            self._fault(
                "wrong-choice",
                f"a range of numbers stands where a {place} must.",
                hole.span,
                hint=f"list the choices: ?[{form}].",
            )
        for choice in hole.choices:
            if isinstance(choice, allowed):
                continue
            if isinstance(choice, Name):
                message, hint = f"'{choice.name}' is not a {place}.", f"write {choice.name}()."
            else:
                message, hint = f"this choice is not a {place}.", f"for example ?[{form}]."
            self._fault("wrong-choice", message, choice.span, hint=hint)
