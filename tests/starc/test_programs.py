"""`check`, `fmt`, `compile`, `show` and `cost`: what they print and write, and what they refuse."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import starc

Command = Callable[..., Any]
COMMANDS = ("check", "fmt", "compile", "show", "cost", "resize", "train", "generate")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example(command: Command, name: str):
    outcome = command(name, "--help")
    assert outcome.status == 0
    assert f"Example: starc {name}" in outcome.out


def test_version(command: Command):
    assert command("--version").out.strip() == starc.__version__


@pytest.mark.parametrize("arguments", [["nothing"], ["compile"], ["compile", "a", "--nothing"]])
def test_wrong_usage_has_status_2(command: Command, arguments: list[str]):
    outcome = command(*arguments)
    assert outcome.status == 2
    assert "Usage: starc" in outcome.err


# --- resize ------------------------------------------------------------------------------------


def test_resize_writes_a_program(command: Command, small: Path):
    outcome = command("resize", small, "--width", "32", "--context", "64", "-o", "other.star")
    assert (outcome.status, outcome.out, outcome.err) == (0, "", "")
    report = json.loads(command("resize", "other.star", "--json").out)
    assert (report["width"], report["context"]) == (32, 64)
    assert report["program"] == Path("other.star").read_text()
    assert (
        report["parameters"]
        == json.loads(command("cost", "other.star", "--json").out)["parameters"]
    )


def test_resize_to_a_number_of_parameters(command: Command, small: Path):
    report = json.loads(command("resize", small, "--parameters", "300_000", "--json").out)
    assert abs(report["parameters"] / 300_000 - 1) < 0.02


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--width", "8", "--parameters", "1000"], "wrong-argument"),
        (["--units", "2", "--repeat", "1"], "cannot-resize"),
    ],
)
def test_resize_refuses(command: Command, small: Path, arguments: list[str], code: str):
    outcome = command("resize", small, *arguments)
    assert (outcome.status, outcome.out) == (1, "")
    assert f"error[{code}]" in outcome.err


# --- check -------------------------------------------------------------------------------------


def test_check_of_a_good_program(command: Command, small: Path):
    outcome = command("check", small)
    assert (outcome.status, outcome.err) == (0, "")
    assert outcome.out == "1 program: no errors, no warnings\n"


def test_check_reports_all_files(command: Command, small: Path):
    Path("bad.star").write_text(
        small.read_text().replace("explicit(width, 4)", "explict(width, 4)")
    )
    outcome = command("check", "bad.star", "absent.star", small)
    assert outcome.status == 1
    assert "bad.star:5:" in outcome.err
    assert "'absent.star'" in outcome.err
    assert outcome.out == ""


def test_check_as_json(command: Command, small: Path):
    Path("bad.star").write_text(
        small.read_text().replace("explicit(width, 4)", "explict(width, 4)")
    )
    outcome = command("check", "--json", "bad.star")
    assert outcome.status == 1
    (found,) = json.loads(outcome.out)
    assert found["severity"] == "error"
    assert found["place"]["file"] == "bad.star"
    assert (found["place"]["line"], found["place"]["column"]) == (5, 9)
    assert json.loads(command("check", "--json", small).out) == []


def test_warnings_alone_are_fine(command: Command, small: Path):
    text = small.read_text().replace("    y = ", "    spare = x\n    y = ")
    small.write_text(text)
    outcome = command("check", small)
    assert outcome.status == 0
    assert outcome.err.startswith("warning[")


# --- fmt ---------------------------------------------------------------------------------------


def test_fmt_writes_canonical_text_once(command: Command, small: Path):
    before = small.read_text()
    messy = before.replace("    vocab    = 256\n    width    = 16\n", "vocab=256 width  =  16 ")
    small.write_text(messy)
    assert command("fmt", "--check", small).status == 1
    assert small.read_text() == messy
    diff = command("fmt", "--diff", small)
    assert diff.status == 0
    assert "-vocab=256 width  =  16" in diff.out
    assert small.read_text() == messy
    assert command("fmt", small).status == 0
    written = small.read_text()
    assert written.startswith("# A mixer of few parameters")
    assert command("fmt", "--check", small).status == 0
    assert command("fmt", small).out == ""
    assert small.read_text() == written


def test_fmt_leaves_a_program_with_errors_alone(command: Command, small: Path):
    Path("bad.star").write_text("model {")
    other = small.read_text()
    small.write_text("\n\n" + other)
    outcome = command("fmt", "bad.star", small)
    assert outcome.status == 1
    assert "bad.star:1:" in outcome.err
    assert Path("bad.star").read_text() == "model {"
    assert not small.read_text().startswith("\n")


def test_fmt_of_standard_input(process: Command, small: Path):
    outcome = process("fmt", "-", stdin=b"\n" + small.read_bytes())
    assert outcome.status == 0
    assert outcome.out.startswith("# A mixer")


# --- compile -----------------------------------------------------------------------------------


def test_compile_writes_the_model_here_by_default(command: Command, small: Path):
    outcome = command("compile", small)
    assert outcome.status == 0
    assert "small.py" in outcome.err
    text = Path("small.py").read_text()
    ast.parse(text)
    assert starc.compile_file(small).text == text
    assert starc.load(Path("small.py")).CONFIG["width"] == 16
    assert command("compile", small).status == 0


def test_compile_does_not_replace_what_it_did_not_write(command: Command, small: Path):
    Path("small.py").write_text("print('mine')\n")
    outcome = command("compile", small)
    assert outcome.status == 1
    assert "error[would-overwrite]" in outcome.err
    assert Path("small.py").read_text() == "print('mine')\n"
    assert command("compile", small, "-o", "small.py").status == 0
    assert "class Model" in Path("small.py").read_text()


def test_compile_never_replaces_its_program(command: Command, small: Path):
    text = small.read_text()
    Path("link.star").symlink_to(small)
    for output in ("small.star", small, "link.star"):
        outcome = command("compile", small, "-o", output)
        assert outcome.status == 1
        assert "error[would-overwrite]" in outcome.err
    assert small.read_text() == text


def test_compile_to_standard_output_is_the_file(command: Command, process: Command, small: Path):
    command("compile", small)
    written = Path("small.py").read_text()
    assert command("compile", small, "-o", "-").out == written
    piped = process("compile", "-", stdin=small.read_bytes())
    assert (piped.status, piped.err) == (0, "")
    assert piped.out == written


def test_set_overrides_a_setting(command: Command, small: Path):
    command("compile", small, "--set", "width=24", "--set", "context = 2 * 8")
    config = starc.load(Path("small.py")).CONFIG
    assert (config["width"], config["context"]) == (24, 16)


@pytest.mark.parametrize(
    "override", ["width", "=3", "width=", "widht=3", "width=1/0", "width=)", ""]
)
def test_wrong_overrides_are_diagnosed(command: Command, small: Path, override: str):
    outcome = command("compile", small, f"--set={override}")
    assert outcome.status == 1
    assert outcome.err.startswith("error[")
    assert not Path("small.py").exists()


def test_a_model_is_chosen_by_name(command: Command, small: Path):
    text = small.read_text()
    small.write_text(text + text[text.index("model small") :].replace("small", "other"))
    outcome = command("compile", small)
    assert outcome.status == 1
    assert "--model" in outcome.err
    assert command("compile", small, "--model", "other").status == 0
    assert Path("other.py").exists()
    assert command("compile", small, "--model", "othre").status == 1


def test_limits_can_be_raised(command: Command, small: Path):
    small.write_text(small.read_text().replace("repeat 2", "repeat 5000"))
    outcome = command("check", small)
    assert outcome.status == 1
    assert "--max-units" in outcome.err
    assert command("check", small, "--max-units", 5000).status == 0


@pytest.mark.parametrize("output", [".", "absent/small.py", "small.star/x.py", "a" * 300, "a\0b"])
def test_outputs_that_cannot_be_written(command: Command, small: Path, output: str):
    outcome = command("compile", small, "-o", output)
    assert outcome.status == 1
    assert outcome.err.startswith("error[cannot-write]")
    assert sorted(path.name for path in small.parent.iterdir()) == ["small.star"]


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"\0", b"model", b"model m {", b"\x1b[31m"])
@pytest.mark.parametrize("name", ["check", "fmt", "compile", "show", "cost"])
def test_programs_that_are_none(command: Command, small: Path, content: bytes, name: str):
    small.write_bytes(content)
    outcome = command(name, small)
    allowed = (0, 1) if name == "fmt" else (1,)
    assert outcome.status in allowed
    assert outcome.status == 0 or outcome.err.startswith("error[")


@pytest.mark.parametrize("file", [".", "absent.star", "small.star/x", "a\0b"])
@pytest.mark.parametrize("name", ["check", "fmt", "compile", "show", "cost"])
def test_files_that_cannot_be_read(command: Command, small: Path, file: str, name: str):
    outcome = command(name, file)
    assert outcome.status == 1
    assert outcome.err.startswith("error[")


def test_an_empty_standard_input_is_no_program(process: Command):
    outcome = process("compile", "-")
    assert (outcome.status, outcome.out) == (1, "")
    assert outcome.err.startswith("error[")


# --- show, cost --------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", ["nodes", "ir", "plan"])
def test_show_prints_every_stage(command: Command, small: Path, stage: str):
    outcome = command("show", small, "--stage", stage)
    assert outcome.status == 0
    assert "blend" in outcome.out


def test_show_of_what_is_no_stage(command: Command, small: Path):
    outcome = command("show", small, "--stage", "noodles")
    assert outcome.status == 1
    assert "nodes" in outcome.err
    outcome = command("show", small, "--print-after", "nothing")
    assert outcome.status == 1
    assert outcome.err.startswith("error[")


def test_cost_as_json_has_the_documented_keys(command: Command, small: Path):
    outcome = command("cost", small, "--length", 64, "--batch", 2, "--json")
    assert outcome.status == 0
    report = json.loads(outcome.out)
    keys = {"parameters", "flops_forward", "flops_train", "cache_bytes", "state_elements", "units"}
    assert keys <= set(report)
    assert len(report["units"]) >= 2
    half = json.loads(command("cost", small, "--length", 64, "--json").out)
    assert report["cache_bytes"] == 2 * half["cache_bytes"]


def test_cost_as_a_table(command: Command, small: Path):
    outcome = command("cost", small)
    assert outcome.status == 0
    assert "blend" in outcome.out
    assert "parameters" in outcome.out


def test_cost_of_an_unknown_type(command: Command, small: Path):
    outcome = command("cost", small, "--dtype", "bf61")
    assert outcome.status == 1
    assert "bf16" in outcome.err


# --- processes ---------------------------------------------------------------------------------


def test_a_reader_that_goes_away_is_no_traceback(small: Path):
    script = f"{sys.executable} -m starc.cli compile {small} -o - | head -c 10"
    done = subprocess.run(["sh", "-c", script], capture_output=True, timeout=120, check=False)
    assert len(done.stdout) == 10
    assert done.stderr == b""


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-"])
def test_closed_streams_are_no_traceback(small: Path, closed: str):
    for arguments in (f"compile {small} -o -", "check -"):
        script = f"{sys.executable} -m starc.cli {arguments} {closed}"
        done = subprocess.run(
            ["sh", "-c", script], capture_output=True, timeout=120, check=False, input=b""
        )
        assert b"Traceback" not in done.stderr
        assert done.returncode in (0, 1)


def test_characters_the_terminal_lacks_are_escaped(process: Command, small: Path):
    small.write_text("# é ✓\n" + small.read_text().replace("blend()", "blénd()"))
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    for arguments in (["check", small], ["fmt", "--diff", small]):
        done = subprocess.run(
            [sys.executable, "-m", "starc.cli", *map(str, arguments)],
            capture_output=True,
            env=environment,
            timeout=120,
            check=False,
        )
        assert b"Traceback" not in done.stderr
        assert done.returncode in (0, 1)


def test_output_does_not_depend_on_hash_order(small: Path):
    texts = set()
    for seed in ("0", "1"):
        done = subprocess.run(
            [sys.executable, "-m", "starc.cli", "compile", str(small), "-o", "-"],
            capture_output=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
            timeout=120,
            check=True,
        )
        texts.add(done.stdout)
    assert len(texts) == 1


def test_a_fault_of_starc_says_so(command: Command, small: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(*arguments: object) -> None:
        raise KeyError("wrong")

    monkeypatch.setattr("starc.compiler.driver.compile_program", fail)
    outcome = command("compile", small)
    assert outcome.status == 70
    assert outcome.err.startswith("error[internal]: KeyError: 'wrong'.")
