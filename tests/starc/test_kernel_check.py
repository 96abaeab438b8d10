"""`starc kernels check`: what it says of kernels, and of what it cannot check."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import typer.testing

from starc.cli.app import app
from starc.compiler.kernel_plan import Launch
from starc.grammar.errors import StarError
from starc.kernel_check import defects
from starc.runtime.kernels import KernelReport

PROGRAM = """
operator gate() { y = diagonal(x |> dense(32) |> silu) @ (x |> dense(32)) |> dense(width) }
operator plain() { y = x |> dense(width) |> tanh }
model gated { vocab = 8  width = 16  context = 8  backbone { gate() } }
model bare { vocab = 8  width = 16  context = 8  backbone { plain() } }
"""


@pytest.fixture
def program(tmp_path: Path) -> str:
    path = tmp_path / "program.star"
    path.write_text(PROGRAM)
    return str(path)


def run(*arguments: str) -> typer.testing.Result:
    return typer.testing.CliRunner().invoke(app, ["kernels", "check", *arguments])


def test_it_reports_every_kernel(program: str) -> None:
    done = run(program, "--model", "gated", "--target", "sm_90", "--json")
    assert done.exit_code == 0, done.exception
    forward, backward = json.loads(done.stdout)
    assert forward["kernel"].endswith("gated_product_silu_32_forward")
    assert backward["kernel"].endswith("_backward")
    for report in (forward, backward):
        assert report["defects"] == []
        assert report["wide_accesses"] > 0
        assert report["traffic"] == 1
    assert forward["moved"] == 3 * 4096 * 32 * 2


def test_a_program_without_kernels_is_no_fault(program: str) -> None:
    done = run(program, "--model", "bare")
    assert done.exit_code == 0
    assert "no kernels" in done.stdout


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [("--target", "sm_91", "no target 'sm_91'"), ("--element", "int8", "no element type 'int8'")],
)
def test_unknown_targets_and_types(program: str, option: str, value: str, message: str) -> None:
    failure = run(program, "--model", "gated", option, value).exception
    assert isinstance(failure, StarError)
    assert message in str(failure)


def test_it_needs_triton(program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "triton", None)
    failure = run(program, "--model", "gated").exception
    assert isinstance(failure, StarError)
    assert failure.diagnostics[0].code == "missing-extra"


def test_it_needs_a_process_that_compiles(program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    failure = run(program, "--model", "gated").exception
    assert isinstance(failure, StarError)
    assert "interprets" in str(failure)


def test_defects() -> None:
    fine = KernelReport("k", "sm_90", 128, 0, 1024, 2048, 4, 0, 0, 8, 8)
    product = Launch("k", {}, 4, (), products=True)
    assert defects(fine, product, "bf16") == []
    wrong = KernelReport("k", "sm_90", 255, 8, 4096, 2048, 0, 4, 1, 0, 0)
    assert [d.split()[-1] for d in defects(wrong, product, "bf16")] == [
        "memory",
        "spills",
        "chance",
        "cores",
    ]
    single = KernelReport("k", "sm_90", 128, 0, 1024, 2048, 4, 0, 0, 8, 0)
    assert defects(single, product, "bf16") == ["matrix products at the rate of single warps"]
    assert defects(single, product, "fp32") == []
    assert defects(single, Launch("k", {}, 4, ()), "bf16") == []
