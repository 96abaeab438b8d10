"""The documentation says what is: its programs compile, its tables are complete.

Programs in docs/*.md stand in fences of these kinds:

    ```star           a whole program; without a model, one operator
    ```star body      bindings of an operator; y = x is added when y is not bound
    ```star space     refused for its holes, and has fillings
    ```star invalid   refused with the text of the fence after it
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from pathlib import Path
from textwrap import indent

import pytest

from starc.compiler import catalog, numbers
from starc.compiler.arguments import signature
from starc.compiler.catalog.entry import Role
from starc.compiler.driver import compile_program
from starc.compiler.options import Limits, Options
from starc.compiler.settings import SETTINGS
from starc.grammar.errors import StarError, render
from starc.grammar.source import Source
from starc.search.sampling import draw
from starc.search.space import open_space

ROOT = Path(__file__).parents[1]
LANGUAGE = (ROOT / "docs" / "language.md").read_text(encoding="utf-8")
DIAGNOSTICS = (ROOT / "docs" / "diagnostics.md").read_text(encoding="utf-8")
FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)
PLAIN = Options(format=False)
MODEL = "model m {{ vocab = 64  width = 64  context = 64  backbone {{ {}() }} }}\n"


def fences(kind: str) -> list[object]:
    found = []
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        text = path.read_text(encoding="utf-8")
        for fence in FENCE.finditer(text):
            if fence[1] == kind:
                line = text.count("\n", 0, fence.start()) + 1
                found.append(pytest.param(fence[2], id=f"{path.name}:{line}"))
    return found


def compile_text(text: str) -> None:
    artifact = compile_program(Source("program.star", text), PLAIN)
    compile(artifact.text, "program.py", "exec")
    assert not artifact.warnings, render(artifact.warnings)


@pytest.mark.parametrize("text", fences("star"))
def test_program(text: str) -> None:
    if not re.search(r"^model ", text, flags=re.MULTILINE):
        (operator,) = re.findall(r"^operator (\w+)", text, flags=re.MULTILINE)
        text += MODEL.format(operator)
    compile_text(text)


@pytest.mark.parametrize("text", fences("star body"))
def test_body(text: str) -> None:
    if not re.search(r"^y +=", text, flags=re.MULTILINE):
        text += "y = x\n"
    text = f"operator example() {{\n{indent(text, '    ')}}}\n" + MODEL.format("example")
    artifact = compile_program(Source("program.star", text), PLAIN)
    compile(artifact.text, "program.py", "exec")


@pytest.mark.parametrize("text", fences("star space"))
def test_space(text: str) -> None:
    with pytest.raises(StarError) as refused:
        compile_text(text)
    assert {d.code for d in refused.value.diagnostics} == {"hole-left"}
    assert draw(open_space(Source("space.star", text), Options()), random.Random(0)).text


def test_invalid() -> None:
    kinds = [(found[1], found[2]) for found in FENCE.finditer(LANGUAGE)]
    at = [i for i, (kind, _) in enumerate(kinds) if kind == "star invalid"]
    assert at
    for i in at:
        with pytest.raises(StarError) as refused:
            compile_text(kinds[i][1])
        assert kinds[i + 1] == ("text", render(refused.value.diagnostics))


def test_the_page_shows_every_kind_of_fence() -> None:
    kinds = [found[1] for found in FENCE.finditer(LANGUAGE)]
    assert set(kinds) == {"star", "star body", "star space", "star invalid", "text", "python"}
    assert kinds.count("star body") >= 8


def test_every_operation_is_documented_with_its_arguments() -> None:
    entries = [e for e in catalog.ENTRIES.values() if e.role is not Role.INTERNAL]
    missing = [signature(e) for e in entries if f"`{signature(e)}`" not in LANGUAGE]
    assert missing == []


def test_every_number_function_and_setting_is_documented() -> None:
    missing = [n for n in numbers.FUNCTIONS if not re.search(rf"`{n}\(a", LANGUAGE)]
    missing += [s for s in SETTINGS if f"`{s}`" not in LANGUAGE]
    assert missing == []


def test_limits_are_those_of_the_compiler() -> None:
    limits = Limits()
    assert f"{limits.characters:,} characters" in LANGUAGE
    assert f"{limits.nesting} levels" in LANGUAGE
    assert f"{limits.units:,} units" in LANGUAGE
    assert limits.parameters == 10**12
    assert "10^12 parameters" in LANGUAGE


def test_the_example_of_diagnostics_is_printed() -> None:
    (example,) = [fence[2] for fence in FENCE.finditer(DIAGNOSTICS)]
    assert any(example in text for text in texts("names.txt", "tests/invalid"))


LISTED = re.findall(r"^\| `([a-z0-9-]+)` \|", DIAGNOSTICS, flags=re.MULTILINE)
WRITTEN = re.compile(r'(?:\(|\bs, |: \(?\s*)\s*"([a-z]+(?:-[a-z]+)+)",')
RENDERED = re.compile(r"^(?:error|warning)\[([a-z-]+)\]", flags=re.MULTILINE)


def texts(pattern: str, *folders: str) -> Iterator[str]:
    for folder in folders:
        for path in sorted((ROOT / folder).rglob(pattern)):
            yield path.read_text(encoding="utf-8")


def test_every_code_is_listed() -> None:
    assert len(LISTED) == len(set(LISTED))
    codes = {c for text in texts("*.py", "grammar", "compiler") for c in WRITTEN.findall(text)}
    codes |= {c for text in texts("*.txt", "tests/invalid") for c in RENDERED.findall(text)}
    assert codes - set(LISTED) == set()


def test_no_code_is_listed_that_nothing_reports() -> None:
    told = {c for text in texts("*.txt", "tests/invalid") for c in RENDERED.findall(text)}
    text = "".join(texts("*.py", "grammar", "compiler", "runtime", "search", "starc"))
    assert [c for c in LISTED if c not in told and f'"{c}"' not in text] == []
