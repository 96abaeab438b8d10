"""The syntax tree of a `.star` program: frozen, names unresolved, every node with its place.

    Program  = (Use | Operator | Model)*
    Use      = path                                        # use std.attention.gqa
    Operator = name, parameters, doc, body: Binding*       # operator gqa(heads: int) { ... }
    Model    = name, doc, settings: Setting*, backbone: Layer*
    Layer    = Unit | Repeat | Loop | Parallel
    Expr     = Number | Text | Name | Member | Call | Pipe | Binary | Negate | Hole

Equality, hash and repr ignore `span`, so trees compare by what they say.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from inspect import cleandoc

from starc.grammar.source import Source, Span


@dataclass(frozen=True)
class Node:
    """Base of all nodes; `span` never takes part in comparison."""

    span: Span = field(compare=False, repr=False, kw_only=True)


# --- expressions -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Number(Node):
    """An exact number; `text` is its spelling (`50_304`)."""

    text: str

    @property
    def value(self) -> Fraction:
        return Fraction(self.text.replace("_", ""))


@dataclass(frozen=True)
class Text(Node):
    """A string: allowed as documentation only."""

    value: str


@dataclass(frozen=True)
class Name(Node):
    name: str


@dataclass(frozen=True)
class Member(Node):
    """`a0.V`: a feature of an earlier unit."""

    unit: str
    name: str


@dataclass(frozen=True)
class Argument(Node):
    """One argument of a call; positional when `name` is None."""

    name: str | None
    value: Expr


@dataclass(frozen=True)
class Call(Node):
    function: str
    arguments: tuple[Argument, ...]
    name_span: Span = field(compare=False, repr=False, kw_only=True)


@dataclass(frozen=True)
class Pipe(Node):
    """`value |> stage`; the stage is a Call, a Name (no arguments) or a Hole."""

    value: Expr
    stage: Call | Name | Hole


@dataclass(frozen=True)
class Binary(Node):
    """`left operator right` with operator one of `+ - * / @`."""

    operator: str
    left: Expr
    right: Expr


@dataclass(frozen=True)
class Negate(Node):
    value: Expr


@dataclass(frozen=True)
class Hole(Node):
    """`?[a, b]`, `?name[a, b]`, `?[low .. high]`. A range has `choices == ()` and both bounds."""

    name: str | None
    choices: tuple[Expr | Parallel, ...]
    low: Expr | None = None
    high: Expr | None = None


Expr = Number | Text | Name | Member | Call | Pipe | Binary | Negate | Hole


# --- operators ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Parameter(Node):
    """`heads: int = 8`; `kind` is None when not written."""

    name: str
    kind: str | None
    default: Expr | None


@dataclass(frozen=True)
class Binding(Node):
    """`C = x |> dense(width)`."""

    name: str
    value: Expr
    name_span: Span = field(compare=False, repr=False, kw_only=True)


@dataclass(frozen=True)
class Operator(Node):
    name: str
    parameters: tuple[Parameter, ...]
    body: tuple[Binding, ...]
    doc: str | None = None
    name_span: Span = field(compare=False, repr=False, kw_only=True)


# --- backbone ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Shares(Node):
    """`shares NAMES except EXCLUDED with LABEL` ties weights; ("*",) names all; label None is
    `shares ?`."""

    names: tuple[str, ...]
    label: str | None
    excluded: tuple[str, ...] = ()


@dataclass(frozen=True)
class Reuses(Node):
    """`reuses NAMES from LABEL` takes values; label None is `reuses ?`."""

    names: tuple[str, ...]
    label: str | None


@dataclass(frozen=True)
class With(Node):
    """`with residual = sandwich(rmsnorm)`."""

    name: str
    value: Expr


Modifier = Shares | Reuses | With


@dataclass(frozen=True)
class Unit(Node):
    """`label: op(args) modifiers`; the operator is a Call, or a Hole whose choices are calls."""

    label: str | None
    operator: Call | Hole
    modifiers: tuple[Modifier, ...] = ()


@dataclass(frozen=True)
class Repeat(Node):
    """n copies with their own weights."""

    count: Expr
    body: tuple[Layer, ...]


@dataclass(frozen=True)
class Loop(Node):
    """n applications of the same weights."""

    count: Expr
    body: tuple[Layer, ...]


@dataclass(frozen=True)
class Parallel(Node):
    """Branches on the same input, combined by `mode` (sum, mean, difference, gated)."""

    label: str | None
    mode: str
    body: tuple[Layer, ...]
    modifiers: tuple[Modifier, ...] = ()


Layer = Unit | Repeat | Loop | Parallel


# --- program -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Setting(Node):
    """`width = 768` in a model."""

    name: str
    value: Expr
    name_span: Span = field(compare=False, repr=False, kw_only=True)


@dataclass(frozen=True)
class Model(Node):
    name: str
    settings: tuple[Setting, ...]
    backbone: tuple[Layer, ...]
    doc: str | None = None
    name_span: Span = field(compare=False, repr=False, kw_only=True)


@dataclass(frozen=True)
class Use(Node):
    """`use std.attention.gqa`: the operator named last, of the file named before it."""

    path: tuple[str, ...]


Declaration = Use | Operator | Model


@dataclass(frozen=True)
class Comment(Node):
    """`# text`: `text` without mark and blanks around it, `own_line` if no code precedes it."""

    text: str
    own_line: bool


@dataclass(frozen=True)
class Program:
    """A whole file, declarations in the order written."""

    declarations: tuple[Declaration, ...]
    source: Source = field(compare=False, repr=False)
    comments: tuple[Comment, ...] = field(compare=False, repr=False, default=())


def clean_documentation(text: str) -> str:
    """Documentation as a program holds it, without the indentation it was written with."""
    return "\n".join(line.rstrip() for line in cleandoc(text).split("\n")).strip("\n")
