"""What is said about every fault beyond syntax, word for word.

The cases stand in tests/invalid/resolve/*.txt: a title, a program, and what is printed about it.

    === misspelt stage
    operator f() { y = x |> dence(width) }
    ---
    error[unknown-name]: ...

`python -m tests.compiler.test_diagnostics` writes what is printed now into the files; read the
difference.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import starc.compiler
from starc.compiler.driver import check_program, resolve_source, run_passes
from starc.compiler.options import Limits, Options
from starc.grammar.errors import StarError, render
from starc.grammar.source import Source

CASES = Path(__file__).parents[1] / "invalid" / "resolve"
COMPILER = Path(starc.compiler.__path__[0])
DOCS = Path(__file__).parents[2] / "docs"
_TITLE = re.compile(r"^=== ", flags=re.MULTILINE)
_CODE = re.compile(r"^(?:error|warning)\[([a-z-]+)\]", flags=re.MULTILINE)


def cases() -> Iterator[tuple[str, str, str]]:
    """(file: title, program, expected text) of every case."""
    for path in sorted(CASES.glob("*.txt")):
        for block in _TITLE.split(path.read_text(encoding="utf-8"))[1:]:
            title, _, rest = block.partition("\n")
            program, _, expected = rest.partition("\n---\n")
            yield f"{path.stem}: {title}", program + "\n", expected.rstrip("\n") + "\n"


def rendered(program: str, options: Options | None = None) -> str:
    try:
        model, warnings = resolve_source(Source("program.star", program), options or Options())
        run_passes(model)
    except StarError as failure:
        return render(failure.diagnostics)
    return render(warnings) if warnings else "nothing is wrong\n"


@pytest.mark.parametrize(
    ("program", "expected"), [pytest.param(p, e, id=title) for title, p, e in cases()]
)
def test_message(program: str, expected: str) -> None:
    assert rendered(program) == expected


def test_every_code_of_the_resolver_has_a_case() -> None:
    told = {code for _, _, expected in cases() for code in _CODE.findall(expected)}
    modules = (
        "arguments calls driver experts expressions faults holes instance program resolve results "
        "settings sharing types catalog/entry catalog/mixers catalog/routing catalog/stages "
        "passes/share"
    )
    text = "".join((COMPILER / f"{m}.py").read_text(encoding="utf-8") for m in modules.split())
    called = r'(?:\berror|Diagnostic|Problem)\(\s*"([a-z]+(?:-[a-z]+)*)",'
    codes = set(re.findall(called, text))
    assert len(codes) > 25
    # Faults of what stands around the program: other files, and the command line (below).
    assert codes - told == {
        "calls-too-deep",
        "no-such-model",
        "operator-too-large",
        "use-not-found",
    }


def test_operators_in_operators_end() -> None:
    """Neither deep nor wide: 2^20 copies are refused before they are made."""
    calls = [f"operator op{i}() {{ y = x |> op{i + 1} |> op{i + 1} }}" for i in range(20)]
    text = "\n".join([*calls, "operator op20() { y = x |> silu }"])
    text += "\nmodel m { vocab = 8  width = 8  context = 8  backbone { op0() } }\n"
    assert rendered(text).startswith(
        "error[operator-too-large]: operator 'op0' has more than 10,000 values"
    )
    small = Options(limits=Limits(depth=3))
    assert "hint: raise the limit with --max-depth." in rendered(text, small)
    assert rendered(text, small).startswith("error[calls-too-deep]: operators call operators more")


MODEL = "model {} {{ vocab = 8  width = 8  context = 8  backbone {{ id() }} }}\n"
PROGRAM = "operator id() { y = x }\n" + MODEL.format("small") + MODEL.format("large")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (
            Options(model="smal"),
            "error[no-such-model]: program.star has no model 'smal'.\n"
            "hint: did you mean 'small'?\n",
        ),
        (
            Options(model="large", overrides=(("width", "16 } model b { width = 3"),)),
            "error[wrong-argument]: '--set width=16 } model b { width = 3' is not one setting.\n"
            "hint: for example --set width=128\n",
        ),
        (
            Options(model="large", overrides=(("widht", "16"),)),
            "error[unknown-name]: a model has no setting 'widht'.\n"
            " --> --set widht:1:13\n"
            " 1 | model set { widht = 16 }\n"
            "   |             ^^^^^ unknown\n"
            "hint: did you mean 'width'?\n",
        ),
        (
            Options(model="large", overrides=(("width", "8"), ("width", "12.5"))),
            "error[bad-size]: 'width' must be a whole number, not 25 / 2.\n"
            " --> --set width:1:21\n"
            " 1 | model set { width = 12.5 }\n"
            "   |                     ^^^^ this is 25 / 2\n"
            "hint: multiple(a, of) rounds up to a multiple.\n",
        ),
        (
            Options(model="small", limits=Limits(parameters=64)),
            "error[too-many-parameters]: model 'small' has 144 parameters; the limit is 64.\n"
            " --> program.star:2:7\n"
            " 2 | model small { vocab = 8  width = 8  context = 8  backbone { id() } }\n"
            "   |       ^^^^^\n"
            "hint: raise the limit with --max-parameters.\n",
        ),
        (
            Options(model="small", limits=Limits(units=0)),
            "error[too-many-units]: the backbone unrolls to more than 0 units.\n"
            " --> program.star:2:61\n"
            " 2 | model small { vocab = 8  width = 8  context = 8  backbone { id() } }\n"
            "   |                                                             ^^^^\n"
            "hint: raise the limit with --max-units.\n",
        ),
    ],
)
def test_options(options: Options, expected: str) -> None:
    assert rendered(PROGRAM, options) == expected


def test_check_looks_at_every_model_and_accepts_libraries() -> None:
    library = "operator id() { y = x |> silu }\n"
    good, bad = MODEL.format("good"), MODEL.format("bad").replace("id()", "od()")
    worse = MODEL.format("worse").replace("context = 8", "context = 0")
    assert check_program(Source("program.star", library), Options()) == ()
    assert (
        check_program(Source("program.star", library + good + good.replace("good", "b")), Options())
        == ()
    )
    with pytest.raises(StarError) as refused:
        check_program(Source("program.star", library + bad + good + worse), Options())
    assert [d.code for d in refused.value.diagnostics] == ["unknown-name", "bad-size"]
    with pytest.raises(StarError, match="declares no model"):
        check_program(Source("program.star", ""), Options())


def test_operator_that_a_file_does_not_have() -> None:
    assert rendered("use std.channel.swigly") == (
        "error[use-not-found]: '<std>/channel.star' has no operator 'swigly'.\n"
        " --> program.star:1:1\n"
        " 1 | use std.channel.swigly\n"
        "   | ^^^^^^^^^^^^^^^^^^^^^^ not there\n"
        "hint: did you mean 'swiglu'?\n"
    )


def test_faults_are_not_repeated_without_end() -> None:
    units = "\n".join(f"u{i}: nothing{i}()" for i in range(200))
    text = f"model m {{ vocab = 8  width = 8  context = 8  backbone {{ {units} }} }}"
    assert rendered(text).count("error[") == 50


def regenerate() -> None:
    for path in sorted(CASES.glob("*.txt")):
        head, *blocks = _TITLE.split(path.read_text(encoding="utf-8"))
        for at, block in enumerate(blocks):
            title, _, rest = block.partition("\n")
            program = rest.partition("\n---\n")[0].rstrip("\n")
            blocks[at] = f"{title}\n{program}\n---\n{rendered(program + chr(10))}\n"
        text = head + "".join(f"=== {b}" for b in blocks)
        path.write_text(text.rstrip("\n") + "\n", encoding="utf-8")


if __name__ == "__main__":
    regenerate()
