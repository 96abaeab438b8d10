"""What is said about every slip of syntax, word for word.

The cases stand in tests/invalid/syntax/*.txt: a title, a program, and all that is printed about it.

    === argument named with a colon
    operator f() { y = x |> dense(n: 4) }
    ---
    error[missing-equals]: ...

`python -m tests.grammar.test_syntax_errors` writes what is printed now into the files: read the
difference before it is committed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import starc.grammar
from starc.grammar.errors import StarError, render
from starc.grammar.parser import parse
from starc.grammar.source import Source

CASES = Path(__file__).parents[1] / "invalid" / "syntax"
GRAMMAR = Path(starc.grammar.__path__[0])


def cases() -> Iterator[tuple[str, str, str]]:
    """(file: title, program, expected text) of every case."""
    for path in sorted(CASES.glob("*.txt")):
        for block in re.split(r"^=== ", path.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
            title, _, rest = block.partition("\n")
            program, _, expected = rest.partition("\n---\n")
            yield f"{path.stem}: {title}", program + "\n", expected.rstrip("\n") + "\n"


def rendered(program: str) -> str:
    try:
        parse(Source("program.star", program))
    except StarError as failure:
        return render(failure.diagnostics)
    return "nothing is wrong\n"


@pytest.mark.parametrize(
    ("program", "expected"), [pytest.param(p, e, id=title) for title, p, e in cases()]
)
def test_message(program: str, expected: str) -> None:
    assert rendered(program) == expected


def test_every_code_of_the_front_end_has_a_case() -> None:
    written = "".join(expected for _, _, expected in cases())
    told = set(re.findall(r"^error\[([a-z-]+)\]", written, flags=re.MULTILINE))
    modules = ("lexer", "mistakes", "mistakes_backbone", "builder")
    text = "".join((GRAMMAR / f"{name}.py").read_text(encoding="utf-8") for name in modules)
    codes = set(re.findall(r'\(\s*"([a-z]+(?:-[a-z]+)+)",', text))
    assert len(codes) > 30
    # Characters that no text file shows well are tested in test_lexer.py.
    assert codes - told <= {"bad-character"}


def regenerate() -> None:
    for path in sorted(CASES.glob("*.txt")):
        text = path.read_text(encoding="utf-8")
        head, *blocks = re.split(r"^=== ", text, flags=re.MULTILINE)
        for at, block in enumerate(blocks):
            title, _, rest = block.partition("\n")
            program = rest.partition("\n---\n")[0].rstrip("\n")
            blocks[at] = f"{title}\n{program}\n---\n{rendered(program + chr(10))}\n"
        path.write_text(head + "".join(f"=== {b}" for b in blocks).rstrip("\n") + "\n", "utf-8")


if __name__ == "__main__":
    regenerate()
