"""Groups of parameters: what class each is of, and how fast it learns in a model of its size."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from starc.compiler.driver import compile_program
from starc.compiler.options import Options
from starc.grammar.source import Source
from starc.runtime.loader import load
from starc.runtime.optim import BASE_DEPTH, Rule, parameter_groups, parameter_rules, units_passed

PARTS = """
operator mixed() {
    a = x |> dense(width, rank = 8) |> conv(4, bias = true)
    b = x |> dense(2 * width, groups = 4) |> slice(0, width) |> conv(3, groups = 2)
    c = x |> heads(4) |> headwise(64) |> merge |> gain
    V = concat(a, b) |> dense(width)
    K = implicit(width, 16)
    y = (diagonal(c) @ toeplitz(K) @ V |> dense(width)) + (x |> dense(width, rank = 4))
}
"""


def model(backbone: str, settings: str = "", width: int = 256) -> nn.Module:
    text = f"""
    use std.attention.mha
    use std.channel.swiglu
    use std.channel.gelu_mlp
    {PARTS}
    model m {{ vocab = 32  width = {width}  context = 16  {settings}  backbone {{ {backbone} }} }}
    """
    made: nn.Module = load(
        compile_program(Source("<test>", text), Options(format=False)).text
    ).Model()
    return made


def rules(backbone: str, settings: str = "", width: int = 256) -> dict[str, Rule]:
    return parameter_rules(model(backbone, settings, width))


def test_matrices_learn_by_their_inputs():
    found = rules("u: mixed()")
    units = math.sqrt(BASE_DEPTH)  # a model of one unit
    matrices = {
        "u.a_dense.down.weight": (256, units),
        "u.a_dense.up.weight": (8, units),
        "u.b_dense.weight": (64, units),
        "u.b_conv.weight": (128 * 3, units),
        "u.c_headwise.weight": (64, units),
        "u.V.weight": (512, units),
        "u.y_dense.weight": (256, BASE_DEPTH),
        "u.y_dense_2.down.weight": (256, units),
        "u.y_dense_2.up.weight": (4, BASE_DEPTH),
    }
    for name, (inputs, depth) in matrices.items():
        assert found[name] == Rule(
            "matrix", inputs, pytest.approx(128 / inputs * depth), True
        ), name
    assert found["embedding.weight"] == Rule("table", 0, 1.0, False)
    assert found["head.weight"] == Rule("readout", 256, 0.5, True)
    assert found["final_norm.weight"] == Rule("vector", 0, 1.0, False)
    rest = {n: r for n, r in found.items() if n.startswith("u") and n not in matrices}
    assert {r.kind for r in rest.values()} == {"vector"}
    assert {r.rate for r in rest.values()} == {units}
    assert {n for n, r in rest.items() if r.decays} >= {"u.a_conv.weight"}


def test_experts_and_streams_of_hyper_connections():
    found = rules(
        "experts(swiglu(hidden = 64), n = 2, top = 1)", "residual = hyper(2, dynamic = true)"
    )
    assert found["experts.router.weight"].rate == pytest.approx(0.5 * 2)
    assert found["experts.experts.1.y.weight"].rate == pytest.approx(128 / 64 * 4)
    assert found["experts_hyper.alpha_map"] == Rule("matrix", 256, pytest.approx(0.5 * 2), False)
    assert found["experts_hyper.alpha"].kind == "vector"


@pytest.mark.parametrize(
    ("backbone", "units"),
    [
        ("swiglu()", 1),
        ("repeat 3 { mha(heads = 4)  swiglu() }", 6),
        ("loop 5 { swiglu()  repeat 2 { swiglu() } }  swiglu()", 16),
        ("parallel(sum) { swiglu()  swiglu() }", 2),
        ("experts(swiglu(hidden = 8), n = 4, top = 1)", 1),
    ],
)
def test_units_that_a_token_passes(backbone: str, units: int):
    assert units_passed(model(backbone, width=32)) == units


def test_a_tied_table_learns_as_a_read_out():
    found = rules("swiglu()", "embedding = tied")
    assert found["embedding.weight"] == Rule("readout", 256, 0.5, False)
    assert "head.weight" not in found


def test_groups_hold_every_parameter_once_and_decay_by_the_same_share():
    made = model("a: mixed()  mixed() shares * with a  repeat 4 { gelu_mlp() }", "embedding = tied")
    groups = parameter_groups(made, learning_rate=1e-2, weight_decay=0.1)
    members = [p for group in groups for p in group["params"]]
    assert {id(p) for p in members} == {id(p) for p in made.parameters()}
    assert len({id(p) for p in members}) == len(members)
    shares = {round(group["lr"] * group["weight_decay"], 12) for group in groups}
    assert shares == {0.0, 1e-3}


def test_without_a_base_width_all_learn_at_one_rate():
    groups = parameter_groups(model("mixed()"), learning_rate=1e-2, weight_decay=0.1, base_width=0)
    assert {group["lr"] for group in groups} == {1e-2}
    assert {group["weight_decay"] for group in groups} == {0.0, 0.1}


def test_at_the_base_nothing_changes():
    """Square matrices, tables and vectors of a model of 128 channels and four units."""
    found = rules("repeat 4 { mha(heads = 4) }", width=128)
    assert {rule.rate for rule in found.values()} == {1.0}


def test_read_outs_start_smaller_in_wide_models():
    torch.manual_seed(0)
    stds = {w: model("swiglu()", width=w).head.weight.std().item() for w in (64, 256)}
    assert stds[64] == pytest.approx(0.04, rel=0.1)
    assert stds[256] == pytest.approx(0.01, rel=0.1)
    plain = model("swiglu()", "init = normal(0.02)", width=256).head.weight.std().item()
    assert plain == pytest.approx(0.02, rel=0.1)
