"""Generated files, compared with the texts under tests/golden as a reader would see them.

STARC_REGENERATE=1 rewrites them; read the difference before committing.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import black
import pytest

from starc.compiler.driver import compile_program
from starc.compiler.options import Options
from starc.grammar.source import Source

GOLDEN = Path(__file__).parent / "golden"
PROGRAMS = sorted(GOLDEN.glob("*.star"))


def generated(program: Path) -> str:
    return compile_program(Source(program.name, program.read_text()), Options()).text


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda p: p.stem)
def test_text(program: Path) -> None:
    golden = program.with_suffix(".py.txt")
    text = generated(program)
    if os.environ.get("STARC_REGENERATE"):
        golden.write_text(text)
    assert text == golden.read_text()


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda p: p.stem)
def test_black_has_nothing_to_change(program: Path) -> None:
    text = generated(program)
    mode = black.Mode(line_length=100, target_versions={black.TargetVersion.PY311})
    assert black.format_str(text, mode=mode) == text


CHECK_ALL = """
import pathlib, runpy, sys
for file in sorted(pathlib.Path().glob("*.py")):
    module = runpy.run_path(str(file))
    assert module["SOURCE"] == file.with_suffix(".star").read_text(), file
    module["main"]()
assert not any(name.partition(".")[0] == "starc" for name in sys.modules)
"""


def test_generated_files_check_themselves(tmp_path: Path) -> None:
    """Each prints its summary, checks itself, imports nothing of starc and holds its program."""
    for program in PROGRAMS:
        (tmp_path / f"{program.stem}.py").write_text(generated(program))
        (tmp_path / program.name).write_text(program.read_text())
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", CHECK_ALL],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.count("gradients finite: True, causal: True") == len(PROGRAMS)


def test_an_encoder_checks_itself(tmp_path: Path) -> None:
    """It sees later tokens and has no cache, so neither is checked."""
    text = "use std.attention.mha\nmodel m { vocab = 8  width = 8  context = 8  causal = false\n"
    text += "backbone { mha(heads = 2) } }"
    program = tmp_path / "m.py"
    program.write_text(compile_program(Source("m.star", text), Options()).text)
    run = subprocess.run(
        [sys.executable, "-W", "error", str(program)], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert "gradients finite: True\n" in run.stdout


def test_the_program_is_kept_to_the_letter() -> None:
    text = 'operator f() { y = x |> silu }   \n# "quoted" \\ and """more"""\t\n' + (
        "model m { vocab = 8  width = 8  context = 8  backbone { f() } }  \n"
    )
    for source in (text, text + "# é 日本\n", text.rstrip("\n")):
        generated_text = compile_program(Source("m.star", source), Options()).text
        line = generated_text.index("SOURCE = ")
        scope: dict[str, str] = {}
        exec(generated_text[line : generated_text.index("\n\n\ndef main")], scope)
        assert scope["SOURCE"] == source
