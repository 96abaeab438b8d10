"""How the text of a generated file is put together: black would not change a letter of it."""

from __future__ import annotations

from pathlib import Path

import black
import pytest

from starc import templates
from starc.compiler.driver import compile_program
from starc.compiler.layout import LINE_LENGTH
from starc.compiler.options import Options
from starc.compiler.support import NAMES
from starc.grammar.library import read_source
from starc.templates import render

MODE = black.Mode(line_length=LINE_LENGTH, target_versions={black.TargetVersion.PY311})
EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.star"))
SHARED = sorted(
    f"kernel/{path.name}"
    for path in (Path(templates.__file__).parent / "kernel").glob("*.py.j2")
    if path.read_text().startswith("{# context: none")
)


def formatted(text: str) -> str:
    return black.format_str(text, mode=MODE)


@pytest.mark.parametrize("name", sorted(NAMES))
def test_support_functions_stand_formatted(name: str) -> None:
    """They are put into files as they are, which saves half of the time of compiling."""
    text = render(f"function/{name}.py.j2", name=name).strip("\n") + "\n"
    assert text == formatted(text)


@pytest.mark.parametrize("causal", [True, False])
def test_the_main_function_stands_formatted(causal: bool) -> None:
    text = render("main.py.j2", causal=causal).strip("\n") + "\n"
    assert text == formatted(text)


@pytest.mark.parametrize("template", ["kernel/header.py.j2", *SHARED])
def test_fixed_parts_stand_formatted(template: str) -> None:
    text = render(template).strip("\n") + "\n"
    assert text == formatted(text)


@pytest.mark.parametrize("example", ["hybrid.star", "griffin.star"])
def test_a_file_is_what_black_would_write(example: str) -> None:
    """Also where its pieces meet."""
    (path,) = [path for path in EXAMPLES if path.name == example]
    text = compile_program(read_source(path), Options()).text
    assert text == formatted(text)


def test_without_formatting_it_is_the_same_program() -> None:
    source = read_source(EXAMPLES[0])
    plain = compile_program(source, Options(format=False)).text
    assert formatted(plain) == compile_program(source, Options()).text
