"""Stages on features beside the oracle and beside formulas and programs of others."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.numerics.agreement import build, check_agreement
from tests.numerics.decoding import check_decoding

ROOT = Path(__file__).parents[2]

MAPS = {
    "shuffle": "x |> dense(12) |> shuffle(3) |> dense(width)",
    "shuffle-heads": "x |> dense(12) |> heads(2) |> shuffle(2) |> merge |> dense(width)",
    "block-shuffle": "x |> dense(16, groups = 4) |> shuffle(4) |> dense(width, groups = 4)",
    "ema": "x |> dense(6) |> ema |> dense(width)",
    "ema-heads": "x |> dense(6) |> heads(2) |> ema |> merge |> dense(width)",
    "ema-one": "x |> dense(1) |> ema |> dense(width)",
    "polyrelu": "x |> dense(6) |> polyrelu |> dense(width)",
    "polyrelu-1": "x |> dense(6) |> heads(2) |> polyrelu(1) |> merge |> dense(width)",
    "polynorm": "x |> dense(6) |> polynorm(3) |> dense(width)",
    "polynorm-heads": "x |> dense(8) |> heads(2) |> polynorm(2) |> merge |> dense(width)",
    "taylor": "x |> dense(4) |> taylor |> dense(width)",
    "taylor-one-channel": "x |> dense(3) |> heads(3) |> taylor(2) |> merge |> dense(width)",
    "taylor-1": "x |> dense(4) |> taylor(order = 1) |> dense(width)",
    "hedgehog": "x |> dense(8) |> heads(2) |> hedgehog |> merge |> dense(width)",
    "hedgehog-exp": "x |> dense(4) |> hedgehog(exp) |> dense(width)",
    "constants": "x * (param(1, 8, init = normal(1)) |> shuffle(2) |> polynorm)",
}

POINTWISE = (
    "quick_gelu mish leaky_relu leaky_relu(0.2) elu elu(1/2) hard_sigmoid hard_silu softsign erf "
    "clamp(-0.3,0.5)"
).split()


def program(y: str, settings: str = "") -> str:
    return (
        f"operator f() {{ {y if y.startswith('C =') else 'y = ' + y} }}\n"
        f"model m {{ vocab = 20  width = 8  context = 80  {settings}  backbone {{ f() }} }}"
    )


@pytest.mark.parametrize("name", MAPS)
def test_maps_agree_with_the_oracle(name: str) -> None:
    compiled = build(program(MAPS[name]))
    check_agreement(compiled, (1, 5, 70))
    check_decoding(compiled, 75)


def test_pointwise_functions_agree_with_the_oracle() -> None:
    y = " + ".join(f"(x |> dense(width) |> {stage})" for stage in POINTWISE)
    check_agreement(build(program(y)), (1, 5))


def test_max_and_min_of_features_constants_and_numbers() -> None:
    y = "max(x, 0) + min(0.1, x) * max(x, x |> shift) - min(param(1, 8), x) + max(x |> abs, 1/2)"
    check_agreement(build(program(y)), (1, 5))


def test_linear_attention_over_a_taylor_map_is_a_series_of_the_exponential() -> None:
    module = build(program("x |> taylor |> dense(width)")).module
    a, b = torch.randn(2, 100, 8, dtype=torch.float64).unbind(0)
    scores = (a * b).sum(-1) / 8**0.5
    series = 1 + scores + scores**2 / 2
    taylor = vars(module)["taylor"]
    torch.testing.assert_close((taylor(a) * taylor(b)).sum(-1), series)


def test_based_is_attention_with_a_series_for_the_exponential() -> None:
    """Against scores 1 + s + s^2 / 2 of s = q . k / sqrt(d), row by row (2402.18668)."""
    text = """use std.linear.based
    model m { vocab = 20  width = 16  context = 80  residual = none  backbone { based(2, 4) } }"""
    model = build(text).module.Model().double()
    x = torch.randn(2, 70, 16, dtype=torch.float64)
    unit = model.based
    found = unit(x)
    rows = [p for name, p in unit.named_parameters() if "y" not in name]
    q, k, v = torch.cat([x @ p.T for p in rows], dim=-1).split((8, 8, 16), dim=-1)
    q, k, v = (t.unflatten(-1, (2, -1)).transpose(1, 2) for t in (q, k, v))
    s = q @ k.mT / 2
    scores = (1 + s + s**2 / 2).tril()
    wanted = (scores @ v / scores.sum(-1, keepdim=True)).transpose(1, 2).flatten(-2)
    torch.testing.assert_close(found, unit.y(wanted))


def test_shared_projections_with_head_embeddings_cost_what_the_paper_says() -> None:
    """MHE-Add has the parameters of one head and 3 n d for n heads of size d (2310.07911)."""
    sizes = {}
    for heads in (1, 4):
        text = (ROOT / "examples" / "head_embeddings.star").read_text()
        text = text.split("model head_embeddings")[0] + (
            "model m { vocab = 20  width = 32  context = 16  "
            f"backbone {{ mhe_add(heads = {heads}, size = 8) }} }}"
        )
        model = build(text).module.Model()
        named = model.mhe_add.named_parameters()
        sizes[heads] = sum(p.numel() for name, p in named if not name.startswith("y"))
    assert sizes[4] - sizes[1] == 3 * 8 * 3
