"""Distilling: filters fitted by exponentials, new programs with their weights, and refusals."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from starc.compiler.options import Options
from starc.distilling import distill
from starc.grammar.errors import StarError
from starc.grammar.source import Source
from starc.runtime.distill import Modes, fit, relative_errors
from starc.runtime.loader import load
from starc.runtime.pretrained import open_pretrained
from starc.weights import load_weights

PROGRAM = """\
# A long convolution from the library and one of its own.
use std.convolution.hyena

operator long(k: int) {
    K = explicit(k = k, channels = width)  # many taps
    y = toeplitz(K) @ x
}

model m {
    vocab   = 32
    width   = 8
    context = 96

    backbone {
        hyena(hidden = 8)
        repeat 2 {
            a: long(k = 40)
            b: long(k = 40) shares * with a
        }
    }
}
"""


def test_a_sum_of_exponentials_is_found_again() -> None:
    torch.manual_seed(0)
    rate = torch.complex(-torch.rand(3, 4).double() / 10, 3 * torch.rand(3, 4).double())
    weight = torch.complex(torch.randn(3, 4).double(), torch.randn(3, 4).double())
    taps = Modes(rate, weight).taps(300)
    t = torch.arange(300)
    direct = (weight[..., None] * (rate[..., None] * t).exp()).real.sum(1)
    torch.testing.assert_close(taps, direct)
    assert relative_errors(fit(taps, 8, steps=0), taps).max() < 1e-9
    assert relative_errors(fit(taps, 4), taps).max() < 1.0


@pytest.mark.parametrize("length", [1, 2, 3, 5])
def test_short_and_empty_filters_are_fitted(length: int) -> None:
    taps = torch.stack([torch.zeros(length), torch.arange(length) + 1.0])
    modes = fit(taps, 4, steps=3)
    assert relative_errors(modes, taps.double())[0] == 0
    assert modes.taps(length).isfinite().all()


def test_the_program_keeps_everything_but_its_filters(tmp_path: Path) -> None:
    found = distill(Source("p.star", PROGRAM), 8, Options(format=False), steps=20)
    assert [f.name for f in found.filters] == ["hyena.K", "blocks.0.a.K", "blocks.1.a.K"]
    assert "use std.convolution.hyena" not in found.text
    assert "K = ssm(width, 8)  # many taps" in found.text
    assert found.text.startswith("# A long convolution from the library and one of its own.\n")
    assert all(0 < f.mean <= f.largest for f in found.filters)
    save_file(found.tensors, tmp_path / "w.safetensors")
    model = load(found.artifact.text).Model()
    load_weights(model, tmp_path / "w.safetensors")
    assert {*found.tensors} <= {*model.state_dict()}


def test_a_smooth_filter_leaves_the_logits_close() -> None:
    text = PROGRAM.replace("repeat 2 {", "repeat 0 {")
    found = distill(Source("p.star", text), 24, Options(format=False))
    assert found.filters[0].mean < 0.02
    assert found.logits < 0.1


@pytest.mark.parametrize(
    ("order", "text", "code"),
    [
        (3, PROGRAM, "wrong-argument"),
        (64, PROGRAM.replace("hyena(hidden = 8)", ""), "nothing-to-distill"),
        (8, PROGRAM.replace("b: long(k = 40) shares * with a", "long(k = 4)"), "cannot-distill"),
    ],
)
def test_what_cannot_be_distilled_is_refused(order: int, text: str, code: str) -> None:
    with pytest.raises(StarError) as refused:
        distill(Source("p.star", text), order)
    assert [d.code for d in refused.value.diagnostics] == [code]


def test_the_command_writes_three_files(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from starc.cli.app import app

    (tmp_path / "p.star").write_text(PROGRAM)
    out = tmp_path / "out.star"
    arguments = ["distill", str(tmp_path / "p.star"), "--order", "4", "-o", str(out)]
    result = CliRunner().invoke(app, [*arguments, "--steps", "5", "--json"])
    assert result.exit_code == 0, result.output
    report = json.loads(result.output[: result.output.rindex("}") + 1])
    assert [f["lanes"] for f in report["filters"]] == [8, 8, 8]
    model = load(out.with_suffix(".py")).Model()
    load_weights(model, out.with_suffix(".safetensors"))
    assert "hyena.K.decay" in open_pretrained(out.with_suffix(".safetensors")).shapes
