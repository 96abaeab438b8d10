"""Arbitrary syntax trees: every construct of the grammar, with names that mean nothing.

    from tests.strategies.syntax import expressions, programs

A tree drawn here is one that some text parses to: the few rules of form are kept (no argument
twice, named arguments last, units and stages where the grammar wants them), and nothing else is.
"""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from starc.grammar import nodes
from starc.grammar.nodes import clean_documentation
from starc.grammar.source import Source, Span
from starc.grammar.tables import load

NOWHERE = Span(Source("<drawn>", ""), 0, 0)
WORDS = frozenset(text for text in load().literals if text[0].isalpha())

_letters = "abcxyzABCV_"
names = st.one_of(
    st.sampled_from(["x", "y", "C", "B", "V", "width", "heads", "a0", "true", "repeat_", "_"]),
    st.builds(str.__add__, st.sampled_from(_letters), st.text(_letters + "019", max_size=8)),
).filter(lambda name: name not in WORDS)
numbers = st.sampled_from(
    ["0", "1", "007", "50_304", "1.5", "0.000_1", "1e-5", "2E+10", "6.02_2e23", "123456789"]
)
functions = st.one_of(names, st.just("repeat"))
_words = st.text("abz .,-'\"\\{}#|>é语", max_size=30)
documentation = st.one_of(st.none(), st.lists(_words, min_size=1, max_size=4).map("\n".join)).map(
    lambda text: text if text is None or '"""' in text else clean_documentation(text)
)
documentation = documentation.filter(lambda text: text is None or '"""' not in text)


def _distinct(draw: DrawFn, limit: int) -> list[str]:
    return draw(st.lists(names, max_size=limit, unique=True))


@st.composite
def calls(draw: DrawFn, inner: SearchStrategy[nodes.Expr]) -> nodes.Call:
    positional = [nodes.Argument(None, value, span=NOWHERE) for value in draw(_few(inner, 0))]
    named = [nodes.Argument(name, draw(inner), span=NOWHERE) for name in _distinct(draw, 2)]
    function = draw(functions)
    return nodes.Call(function, (*positional, *named), name_span=NOWHERE, span=NOWHERE)


def _few(items: SearchStrategy[nodes.Expr], least: int) -> SearchStrategy[list[nodes.Expr]]:
    return st.lists(items, min_size=least, max_size=3)


@st.composite
def choice_holes(draw: DrawFn, choices: SearchStrategy[nodes.Expr]) -> nodes.Hole:
    name = draw(st.one_of(st.none(), names))
    return nodes.Hole(name, tuple(draw(_few(choices, 1))), span=NOWHERE)


@st.composite
def range_holes(draw: DrawFn, bounds: SearchStrategy[nodes.Expr]) -> nodes.Hole:
    name = draw(st.one_of(st.none(), names))
    return nodes.Hole(name, (), draw(bounds), draw(bounds), span=NOWHERE)


def _name(name: str) -> nodes.Name:
    return nodes.Name(name, span=NOWHERE)


@st.composite
def _larger(draw: DrawFn, inner: SearchStrategy[nodes.Expr]) -> nodes.Expr:
    match draw(st.sampled_from(["call", "pipe", "binary", "binary", "negate", "hole", "range"])):
        case "call":
            return draw(calls(inner))
        case "pipe":
            stage = st.one_of(names.map(_name), calls(inner))
            stages = st.one_of(stage, choice_holes(stage))
            return nodes.Pipe(draw(inner), draw(stages), span=NOWHERE)
        case "binary":
            operator = draw(st.sampled_from("+-*/@"))
            return nodes.Binary(operator, draw(inner), draw(inner), span=NOWHERE)
        case "negate":
            return nodes.Negate(draw(inner), span=NOWHERE)
        case "hole":
            return draw(choice_holes(inner))
        case _:
            return draw(range_holes(inner))


expressions: SearchStrategy[nodes.Expr] = st.recursive(
    st.one_of(
        numbers.map(lambda text: nodes.Number(text, span=NOWHERE)),
        names.map(_name),
        st.builds(lambda unit, name: nodes.Member(unit, name, span=NOWHERE), names, names),
    ),
    _larger,
    max_leaves=10,
)


@st.composite
def operators(draw: DrawFn) -> nodes.Operator:
    parameters = tuple(
        nodes.Parameter(
            name,
            draw(st.one_of(st.none(), names)),
            draw(st.one_of(st.none(), expressions)),
            span=NOWHERE,
        )
        for name in _distinct(draw, 4)
    )
    body = tuple(
        nodes.Binding(name, draw(expressions), name_span=NOWHERE, span=NOWHERE)
        for name in draw(st.lists(names, max_size=4))
    )
    doc = draw(documentation)
    return nodes.Operator(draw(names), parameters, body, doc, name_span=NOWHERE, span=NOWHERE)


@st.composite
def modifiers(draw: DrawFn) -> nodes.Modifier:
    kind = draw(st.sampled_from([nodes.Shares, nodes.Reuses, nodes.With]))
    if kind is nodes.With:
        value = st.one_of(names.map(_name), calls(expressions), choice_holes(expressions))
        return nodes.With(draw(names), draw(value), span=NOWHERE)
    if draw(st.booleans()):
        return kind((), None, span=NOWHERE)
    tied = draw(st.one_of(st.just(["*"]), st.lists(names, min_size=1, max_size=3)))
    if kind is nodes.Reuses and tied == ["*"]:
        tied = ["V"] if draw(st.booleans()) else tied
    return kind(tuple(tied), draw(names), span=NOWHERE)


@st.composite
def layers(draw: DrawFn, depth: int = 2) -> nodes.Layer:
    kinds = ["unit", "unit", "hole"] + (["repeat", "loop", "parallel"] if depth else [])
    kind = draw(st.sampled_from(kinds))
    label = draw(st.one_of(st.none(), names))
    tied = tuple(draw(st.lists(modifiers(), max_size=2)))
    # `repeat` opens a block where a unit stands.
    call = calls(expressions).filter(lambda call: call.function != "repeat")
    if kind == "unit":
        return nodes.Unit(label, draw(call), tied, span=NOWHERE)
    if kind == "hole":
        options: SearchStrategy[nodes.Expr | nodes.Parallel] = st.one_of(
            calls(expressions), choice_holes(expressions)
        )
        if depth:
            options = st.one_of(options, _parallels(depth - 1))
        choices = tuple(draw(st.lists(options, min_size=1, max_size=3)))
        hole = nodes.Hole(draw(st.one_of(st.none(), names)), choices, span=NOWHERE)
        return nodes.Unit(label, hole, tied, span=NOWHERE)
    body = tuple(draw(st.lists(layers(depth - 1), max_size=3)))
    if kind == "repeat":
        return nodes.Repeat(draw(expressions), body, span=NOWHERE)
    if kind == "loop":
        return nodes.Loop(draw(expressions), body, span=NOWHERE)
    return nodes.Parallel(label, draw(names), body, tied, span=NOWHERE)


@st.composite
def _parallels(draw: DrawFn, depth: int) -> nodes.Parallel:
    body = tuple(draw(st.lists(layers(depth), max_size=2)))
    return nodes.Parallel(None, draw(names), body, span=NOWHERE)


@st.composite
def models(draw: DrawFn) -> nodes.Model:
    settings = tuple(
        nodes.Setting(name, draw(expressions), name_span=NOWHERE, span=NOWHERE)
        for name in draw(st.lists(names, max_size=4))
    )
    backbone = tuple(draw(st.lists(layers(), max_size=4)))
    doc = draw(documentation)
    return nodes.Model(draw(names), settings, backbone, doc, name_span=NOWHERE, span=NOWHERE)


uses = st.lists(names, min_size=1, max_size=4).map(
    lambda path: nodes.Use(tuple(path), span=NOWHERE)
)
programs: SearchStrategy[nodes.Program] = st.lists(
    st.one_of(uses, operators(), models()), max_size=4
).map(lambda declarations: nodes.Program(tuple(declarations), NOWHERE.source))
