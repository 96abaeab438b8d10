"""Programs become the trees they say, with their places; limits hold; faults are told at once."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest

from starc.grammar import nodes
from starc.grammar.errors import StarError, render
from starc.grammar.nodes import Binary, Call, Hole, Member, Name, Negate, Number, Parallel, Pipe
from starc.grammar.parser import MAX_NESTING, parse
from starc.grammar.source import Source, Span

PROGRAMS = Path(__file__).parent / "programs"
NOWHERE = Span(Source("", ""), 0, 0)


def program(text: str, **limits: int) -> nodes.Program:
    return parse(Source("program.star", text), **limits)


def expression(text: str) -> nodes.Expr:
    (operator,) = program(f"operator f() {{ y = {text} }}").declarations
    assert isinstance(operator, nodes.Operator)
    return operator.body[0].value


def backbone(text: str) -> tuple[nodes.Layer, ...]:
    (model,) = program(f"model m {{ backbone {{ {text} }} }}").declarations
    assert isinstance(model, nodes.Model)
    return model.backbone


def faults(text: str, **limits: int) -> tuple[str, ...]:
    with pytest.raises(StarError) as caught:
        program(text, **limits)
    assert render(caught.value.diagnostics)
    return tuple(d.code for d in caught.value.diagnostics)


def name(text: str) -> Name:
    return Name(text, span=NOWHERE)


def call(function: str, *arguments: nodes.Argument) -> Call:
    return Call(function, arguments, name_span=NOWHERE, span=NOWHERE)


def argument(value: nodes.Expr, name: str | None = None) -> nodes.Argument:
    return nodes.Argument(name, value, span=NOWHERE)


def binary(left: nodes.Expr, operator: str, right: nodes.Expr) -> Binary:
    return Binary(operator, left, right, span=NOWHERE)


def pipe(value: nodes.Expr, stage: Call | Name | Hole) -> Pipe:
    return Pipe(value, stage, span=NOWHERE)


a, b, c, d = map(name, "abcd")
one, two = Number("1", span=NOWHERE), Number("2", span=NOWHERE)


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("a + b - c", binary(binary(a, "+", b), "-", c)),
        ("a / b * c", binary(binary(a, "/", b), "*", c)),
        ("a @ b @ c", binary(binary(a, "@", b), "@", c)),
        ("a + b * c @ d", binary(a, "+", binary(b, "*", binary(c, "@", d)))),
        ("a - (b - c)", binary(a, "-", binary(b, "-", c))),
        ("-a @ b", binary(Negate(a, span=NOWHERE), "@", b)),
        ("--a", Negate(Negate(a, span=NOWHERE), span=NOWHERE)),
        ("a + b |> c |> d", pipe(pipe(binary(a, "+", b), c), d)),
        ("a * (b |> c)", binary(a, "*", pipe(b, c))),
        ("a |> repeat(b)", pipe(a, call("repeat", argument(b)))),
        ("((a))", a),
        ("a.b", Member("a", "b", span=NOWHERE)),
        ("a()", call("a")),
        ("a(b |> c, d = 1,)", call("a", argument(pipe(b, c)), argument(one, "d"))),
        (
            "a(b(), c = d(1))",
            call("a", argument(call("b")), argument(call("d", argument(one)), "c")),
        ),
        ("?[1, a]", Hole(None, (one, a), span=NOWHERE)),
        ("?n[1 .. 2]", Hole("n", (), one, two, span=NOWHERE)),
        ("?[1..2]", Hole(None, (), one, two, span=NOWHERE)),
        ("a |> ?[b, c(1)]", pipe(a, Hole(None, (b, call("c", argument(one))), span=NOWHERE))),
    ],
)
def test_expressions(text: str, tree: nodes.Expr) -> None:
    assert expression(text) == tree


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("8/3", None),
        ("50_304", Fraction(50304)),
        ("1.5e-3", Fraction(3, 2000)),
        ("0.1", Fraction(1, 10)),
        ("2E+3", Fraction(2000)),
    ],
)
def test_numbers_are_exact(text: str, value: Fraction | None) -> None:
    read = expression(text)
    if value is None:
        assert isinstance(read, Binary)
    else:
        assert isinstance(read, Number)
        assert read.value == value


def test_backbone() -> None:
    u, v = (nodes.Unit(None, call(f), span=NOWHERE) for f in "uv")
    assert backbone("u() v()") == (u, v)
    assert backbone("repeat 2 { u() } loop ?[1 .. 2] { v() }") == (
        nodes.Repeat(two, (u,), span=NOWHERE),
        nodes.Loop(Hole(None, (), one, two, span=NOWHERE), (v,), span=NOWHERE),
    )
    assert backbone("p: parallel(sum) { u() v() } with residual = none") == (
        Parallel(
            "p", "sum", (u, v), (nodes.With("residual", name("none"), span=NOWHERE),), span=NOWHERE
        ),
    )
    assert backbone(
        "a0: u() shares * with b shares C, B with c reuses V from d shares ? reuses ?"
    ) == (
        nodes.Unit(
            "a0",
            call("u"),
            (
                nodes.Shares(("*",), "b", span=NOWHERE),
                nodes.Shares(("C", "B"), "c", span=NOWHERE),
                nodes.Reuses(("V",), "d", span=NOWHERE),
                nodes.Shares((), None, span=NOWHERE),
                nodes.Reuses((), None, span=NOWHERE),
            ),
            span=NOWHERE,
        ),
    )
    choice = Parallel(None, "difference", (u, u), span=NOWHERE)
    assert backbone("h: ?w[u(), parallel(difference) { u() u() }] shares ?") == (
        nodes.Unit(
            "h",
            Hole("w", (call("u"), choice), span=NOWHERE),
            (nodes.Shares((), None, span=NOWHERE),),
            span=NOWHERE,
        ),
    )
    assert backbone("experts(u(), n = 8)") == (
        nodes.Unit(
            None,
            call("experts", argument(call("u")), argument(Number("8", span=NOWHERE), "n")),
            span=NOWHERE,
        ),
    )


def test_declarations() -> None:
    use, operator, model = program(
        "use std.a.b operator f(heads: int, mix: real = 0.5, other = 1, last) "
        '{ "What it is." C = x } model m { """A\n  model.""" width = 1 backbone { } depth = 2 }'
    ).declarations
    assert use == nodes.Use(("std", "a", "b"), span=NOWHERE)
    assert isinstance(operator, nodes.Operator)
    assert operator.doc == "What it is."
    assert [(p.name, p.kind, p.default is None) for p in operator.parameters] == [
        ("heads", "int", True),
        ("mix", "real", False),
        ("other", None, False),
        ("last", None, True),
    ]
    assert isinstance(model, nodes.Model)
    assert model.doc == "A\nmodel."
    assert [setting.name for setting in model.settings] == ["width", "depth"]


def test_places() -> None:
    text = "operator f(a: int = 2) {\n    C = (a + b) |> conv(4, bias = true)  # note\n}\n"
    (operator,) = program(text).declarations
    assert isinstance(operator, nodes.Operator)
    (binding,) = operator.body
    assert operator.span.text == text.strip()
    assert operator.name_span.text == "f"
    assert operator.parameters[0].span.text == "a: int = 2"
    assert binding.span.text == "C = (a + b) |> conv(4, bias = true)"
    assert binding.name_span.text == "C"
    value = binding.value
    assert isinstance(value, Pipe)
    assert value.span.text == "(a + b) |> conv(4, bias = true)"
    assert value.value.span.text == "a + b"
    stage = value.stage
    assert isinstance(stage, Call)
    assert (stage.span.text, stage.name_span.text) == ("conv(4, bias = true)", "conv")
    assert [argument.span.text for argument in stage.arguments] == ["4", "bias = true"]
    assert str(stage.span) == "program.star:2:20"


def test_units_end_where_their_modifiers_do() -> None:
    units = backbone("a0: u() shares ?   v()")
    assert [unit.span.text for unit in units] == ["a0: u() shares ?", "v()"]


def test_comments() -> None:
    found = program("# one\nuse a.b # two\n  #three  \n#\n").comments
    assert [(c.text, c.own_line) for c in found] == [
        ("one", True),
        ("two", False),
        ("three", True),
        ("", True),
    ]


@pytest.mark.parametrize("path", sorted(PROGRAMS.glob("*.star")), ids=lambda path: path.stem)
def test_layout_means_nothing(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    expected = program(text)
    assert program(text.replace("\n", "\r\n")) == expected
    assert program("\ufeff" + text) == expected
    assert program(text.replace(" ", "\t")).declarations[0] == expected.declarations[0]


@pytest.mark.parametrize("text", ["", "\n", "# only this", "\ufeff", " \t\r\n"])
def test_nothing_is_a_program(text: str) -> None:
    assert program(text).declarations == ()


# --- limits ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "1" + " + 1" * 40_000,
        "x" + " |> f" * 40_000,
        "-" * 40_000 + "1",
        "(-" * 20_000 + "1" + ")" * 20_000,
        "f(" * 40_000 + ")" * 40_000,
        "?[" * 40_000 + "1" + "]" * 40_000,
        "a @ (" * 20_000 + "1" + ")" * 20_000,
    ],
)
def test_deep_expressions_are_refused(text: str) -> None:
    assert faults(f"operator f() {{ y = {text} }}") == ("nesting-too-deep",)


def test_deep_backbones_are_refused() -> None:
    deep = "repeat 2 { " * 5000 + "u()" + " }" * 5000
    assert faults(f"model m {{ backbone {{ {deep} }} }}") == ("nesting-too-deep",)


@pytest.mark.parametrize("bracket", ["(", "f(", "?[", "{", ")", "]", "}", "operator f() { y = ("])
def test_brackets_that_are_never_closed(bracket: str) -> None:
    assert faults(f"operator f() {{ y = {bracket * 20_000}")
    assert faults(bracket * 20_000)


def test_parentheses_alone_are_not_deep() -> None:
    assert expression("(" * 20_000 + "a" + ")" * 20_000) == a


def test_nesting_up_to_the_limit_is_allowed() -> None:
    expression("1" + " + 1" * MAX_NESTING)
    assert faults("operator f() { y = 1" + " + 1" * (MAX_NESTING + 1) + " }") == (
        "nesting-too-deep",
    )
    program("operator f() { y = 1 + 1 + 1 }", max_nesting=2)
    assert faults("operator f() { y = 1 + 1 + 1 }", max_nesting=1) == ("nesting-too-deep",)


def test_size() -> None:
    program("use a.b", max_characters=7)
    assert faults("use a.b ", max_characters=7) == ("program-too-large",)


def test_long_programs_are_read_in_linear_time() -> None:
    body = "C = x |> dense(width)\n" * 5000
    (operator,) = program(f"operator f() {{\n{body}}}").declarations
    assert isinstance(operator, nodes.Operator)
    assert len(operator.body) == 5000


def test_no_more_faults_than_anyone_reads() -> None:
    assert len(faults("operator f { }\n" * 1000)) == 20
    assert len(faults("; " * 1000)) == 20
