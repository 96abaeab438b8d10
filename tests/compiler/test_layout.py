"""Statements stand where black would put them, and black is asked only where no rule is known."""

from __future__ import annotations

import random
from pathlib import Path

import black
import pytest
from hypothesis import given

from starc.compiler.driver import compile_program
from starc.compiler.emit import _formatted
from starc.compiler.layout import LINE_LENGTH, laid_out
from starc.compiler.options import Options
from starc.grammar.library import read_source
from starc.grammar.nodes import Operator
from starc.grammar.parser import parse
from starc.grammar.source import Source
from tests.strategies.programs import programs
from tests.test_examples import ARGUMENTS, LIBRARY
from tests.test_properties import fast, thorough

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.star"))
FAMILIES = sorted((ROOT / "examples" / "families").glob("*.star"))
MODE = black.Mode(line_length=LINE_LENGTH, target_versions={black.TargetVersion.PY311})

NAMES = "x y kernel_states batch_tokens chunk p_values inside head_dimension i gate stride".split()
FUNCTIONS = "tl.load f self.project torch.softmax x.unflatten".split()
INDICES = (":, None", "None, :", "0", "1:")
PARAMETERS = ("{}", "{}: Tensor", "{}: tl.constexpr", "{}: Tensor | None", "{}=3", "{}: int = 0")


class Statements:
    """Random statements, written as black writes them but for their lines."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def one(self) -> tuple[str, int]:
        """A statement of any length, and how deep it stands."""
        pick, draw = self.random.choice, self.random.random()
        deep, depth = pick((1, 2, 2, 3)), self.random.randrange(4)
        if draw < 0.45:
            target = pick(("x", "y_gradient", "self.weight", "a, b", f"x[{self.atom(1)}]"))
            return f"{target} {pick(('=', '=', '=', '+=', '*='))} {self.expression(deep)}", depth
        if draw < 0.6:
            return f"return {self.expression(deep)}", depth + 1
        if draw < 0.8:
            head = pick(("tl.store", "f", "self.kernel[(grid, batch)]"))
            return f"{head}({self.arguments(deep)})", depth
        if draw < 0.85:
            return f"return {self.expression(deep)}, {self.expression(deep)}", depth + 1
        count = self.random.randrange(1, 12)
        names = ", ".join(pick(PARAMETERS).format(f"p{i}_{pick(NAMES)}") for i in range(count))
        result = pick(("", " -> Tensor", " -> tuple[Tensor, Tensor]"))
        return f"def launch_of_something({names}){result}:\n    pass", 0

    def atom(self, deep: int) -> str:
        pick, draw = self.random.choice, self.random.random()
        if deep <= 0 or draw < 0.35:
            return str(pick(NAMES))
        if draw < 0.42:
            return str(self.random.randrange(2000))
        if draw < 0.45:
            return '"mean, over (tokens"'
        if draw < 0.7:
            return f"{pick(FUNCTIONS)}({self.arguments(deep - 1)})"
        if draw < 0.78:
            return f"{pick(NAMES)}[{pick(INDICES)}]"
        if draw < 0.88:
            return f"({self.binary(deep - 1)})"
        some = [self.simple(deep - 1) for _ in range(self.random.randrange(2, 4))]
        if draw < 0.93:
            return f"({', '.join(some)})"
        if draw < 0.96:
            return f"[{', '.join(some)}]"
        return f"[{self.simple(deep - 1)} for {pick(NAMES)} in {pick(NAMES)}.parts]"

    def value(self, deep: int) -> str:
        """What has no operator outside of brackets."""
        text = self.atom(deep)
        if text[0].isdigit() or text[0] == '"' or deep <= 0:
            return text
        for _ in range(self.random.choice((0, 0, 0, 1, 1, 2))):
            name, place = self.random.choice(NAMES), self.random.randrange(3)
            reshaped = f".reshape({self.arguments(deep - 1)})"
            trailers = (f".to({name}.dtype)", f".sum({place})", ".mT", reshaped, "[:, None]")
            text += self.random.choice(trailers)
        return text

    def binary(self, deep: int) -> str:
        operator = self.random.choice(("+", "*", "-", "@", "&", "<", "and", "or", "//"))
        parts = [self.value(deep) for _ in range(2 if operator == "<" else 3)]
        return f" {operator} ".join(parts)

    def simple(self, deep: int) -> str:
        return self.binary(deep) if self.random.random() < 0.4 else self.bare(deep)

    def bare(self, deep: int) -> str:
        """A value that is not a group in parentheses, which would be needless."""
        while (text := self.value(deep)).startswith("("):
            pass
        return text

    def expression(self, deep: int) -> str:
        draw = self.random.random()
        if deep <= 0 or draw < 0.85:
            return self.simple(deep)
        if draw < 0.9:
            return f"{self.value(deep)} if {self.random.choice(NAMES)} else {self.value(deep)}"
        if draw < 0.95:
            return f"lambda {self.random.choice(NAMES)}, z: {self.bare(deep)}"
        return self.random.choice(("-{}", "not {}")).format(self.random.choice(NAMES))

    def arguments(self, deep: int) -> str:
        found = [self.expression(deep) for _ in range(self.random.choice((1, 1, 2, 2, 3)))]
        if self.random.random() < 0.15:
            found.append("*" + self.random.choice(NAMES))
        if self.random.random() < 0.3:
            found.append(f"{self.random.choice(('mask', 'dim'))}={self.expression(deep)}")
        return ", ".join(found) + ("," if self.random.random() < 0.03 else "")


def refused(statement: str, columns: int) -> str:
    raise AssertionError(f"no rule divides {statement!r} within {columns} columns")


def placed(seed: int) -> str:
    """A random statement within what it may stand in."""
    statement, depth = Statements(seed).one()
    around = ["def f():", *["if x:"] * 3][:depth] if depth else []
    lines = [*around, *statement.split("\n")]
    inner = range(len(lines) - len(around))
    indents = [*range(len(around)), *(len(around) for _ in inner)]
    return "\n".join("    " * i + line for i, line in zip(indents, lines, strict=True))


def check_statements(seeds: range) -> None:
    long = 0
    for seed in seeds:
        text = placed(seed)
        long += len(max(text.split("\n"), key=len)) > LINE_LENGTH
        ours = laid_out(text, refused)
        assert ours + "\n" == black.format_str(ours, mode=MODE), text
    assert long > len(seeds) // 4


def test_random_statements_stand_as_black_has_them() -> None:
    check_statements(range(100))


@pytest.mark.slow
def test_many_random_statements_stand_as_black_has_them() -> None:
    check_statements(range(100, 3000))


def test_a_file_needs_no_black(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which takes longer to import than the compiler takes for a program."""
    monkeypatch.setattr("starc.compiler.emit._formatted", refused)
    for name in ("hybrid", "griffin"):
        compile_program(read_source(ROOT / "examples" / f"{name}.star"), Options())


def test_what_no_rule_divides_is_left_to_black() -> None:
    given: list[tuple[str, int]] = []

    def otherwise(statement: str, columns: int) -> str:
        given.append((statement, columns))
        return "if x:"

    header = f"if {' and '.join(['some_condition'] * 12)}:"
    assert laid_out(f"def f():\n    {header}\n        pass", otherwise) == (
        "def f():\n    if x:\n        pass"
    )
    assert given == [(header, LINE_LENGTH - 4)]


ROWS = ", ".join(f"rows_{i}" for i in range(20))


@pytest.mark.parametrize("head", ["if", "elif", "while", "def", "return", "except"])
def test_black_divides_what_is_left_to_it(head: str) -> None:
    text = _formatted(f"{head} f({ROWS})" + ("" if head == "return" else ":  # of all"), 60)
    assert text.startswith(f"{head} f(\n    rows_0,\n")
    assert text.endswith(",\n)" if head == "return" else "):  # of all")


@pytest.mark.parametrize(
    "text",
    [
        'x = """\n  a ( long, text\n  """\ny = 1',
        f"# a comment of {LINE_LENGTH} (columns and more{'.' * LINE_LENGTH}\nx = 1",
        "x = f(\n    a,  # why\n    b,\n)",
    ],
)
def test_what_stands_well_stays(text: str) -> None:
    assert laid_out(text, lambda statement, _: statement) == text


def check_file(text: str) -> None:
    assert black.format_str(text, mode=MODE) == text


@pytest.mark.slow
@pytest.mark.parametrize("path", EXAMPLES + FAMILIES, ids=lambda path: path.stem)
def test_an_example_is_what_black_would_write(path: Path) -> None:
    check_file(compile_program(read_source(path), Options()).text)


@pytest.mark.slow
@pytest.mark.parametrize("path", LIBRARY, ids=lambda path: path.stem)
def test_every_operator_of_the_library_is_what_black_would_write(path: Path) -> None:
    names = [d.name for d in parse(read_source(path)).declarations if isinstance(d, Operator)]
    uses = "\n".join(f"use std.{path.stem}.{name}" for name in names)
    units = "  ".join(f"{name}: {name}({ARGUMENTS.get(name, '')})" for name in names)
    text = f"{uses}\nmodel m {{ vocab = 53  width = 64  context = 48  backbone {{ {units} }} }}"
    check_file(compile_program(Source("<test>", text), Options()).text)


@fast(4)
@given(programs())
def test_a_random_program_is_what_black_would_write(text: str) -> None:
    check_file(compile_program(Source("<test>", text), Options()).text)


@pytest.mark.slow
@thorough(100)
@given(programs())
def test_random_programs_are_what_black_would_write(text: str) -> None:
    check_file(compile_program(Source("<test>", text), Options()).text)
