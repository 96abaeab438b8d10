"""Operators as stages: written out they mean what the operator means as a unit."""

from __future__ import annotations

import pytest

from starc.compiler.inventory import model_parameters
from tests.numerics.agreement import build, check_agreement

OPERATORS = """
use std.attention.mha
use std.channel.gelu_mlp
use std.channel.swiglu
use std.convolution.gconv
operator halve(n: int) { u = x |> dense(width / n)  y = u |> silu }
operator pair(n: int) { y = (x |> halve(n)) * (x |> dense(width / n)) |> dense(width) }
operator attend(B: feature, scale: feature = 1/2, heads: int = 2) {
    C = x |> dense(width) |> heads(heads)
    V = x |> dense(width) |> heads(heads)
    y = scale * ((low_rank(C, B) |> causal |> softmax) @ V) |> merge |> dense(width)
}
operator deep() { y = x |> scale(1 / (layer + 2)) |> dense(width) }
"""

BODIES = {
    "neox": "y = x + (x |> layernorm |> mha(heads = 2)) + (x |> layernorm |> gelu_mlp())",
    "narrow": "y = x |> dense(6) |> swiglu(hidden = 5) |> dense(width)",
    "nested": "a = x |> pair(2)  y = pair(a, n = 4) + a |> deep()",
    "same-twice": "y = (x |> pair(2) |> pair(2)) - (x |> pair(2))",
    "opened": "a = x |> mha(heads = 2)  y = (x |> attend(a.B) |> gconv()) + (a.V |> merge) * a",
    "features": "B = x |> dense(8) |> heads(2)  y = x |> attend(B, x |> dense(1), heads = 2)",
    "taken-names": "a = x |> halve(2)  a_u = x |> dense(4) |> tanh  y = concat(a, a_u) + x",
    "python-names": "class = x |> pair(2)  self = class |> pair(2)  y = self + class",
}


@pytest.mark.parametrize("name", BODIES)
def test_stage(name: str) -> None:
    text = f"{OPERATORS} operator op() {{ {BODIES[name]} }} model m {{ vocab = 13  width = 8"
    units = "a: op()  op() shares * with a  op() with residual = none"
    check_agreement(build(f"{text} context = 40 backbone {{ {units} }} }}"), (1, 5, 37))


def test_names_of_weights() -> None:
    text = f"{OPERATORS} operator op() {{ {BODIES['neox']} }} model m {{ vocab = 13  width = 8"
    compiled = build(f"{text}  context = 8  residual = none  backbone {{ op() }} }}")
    own = [n.removeprefix("op.") for n in model_parameters(compiled.final) if "op." in n]
    assert own == [
        "y_layernorm.weight",
        "y_layernorm.bias",
        "y_mha_C_B_V.weight",
        "y_mha_y.weight",
        "y_layernorm_2.weight",
        "y_layernorm_2.bias",
        "y_gelu_mlp_y_dense.weight",
        "y_gelu_mlp_y_dense.bias",
        "y_gelu_mlp_y_dense_2.weight",
        "y_gelu_mlp_y_dense_2.bias",
    ]
