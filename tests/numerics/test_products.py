"""Static mixers and products of mixers, beside the oracle and beside what they stand for."""

from __future__ import annotations

import pytest
import torch

from tests.numerics.agreement import build, check_agreement
from tests.numerics.decoding import check_decoding

PARTS = """C = x |> dense(8) |> heads(2)  B = x |> dense(8) |> heads(2)
V = x |> dense(8) |> heads(2)
a = x |> dense(2) |> heads(2) |> sigmoid  f = x |> dense(2) |> heads(2)"""

PRODUCTS = {
    "filter": "low_rank(C, B) * toeplitz(explicit(2, 5))",
    "long-filter": "toeplitz(implicit(2, 4)) * low_rank(C, B)",
    "exponentials": "low_rank(C, B) * toeplitz(ssm(2, 4))",
    "one-filter": "low_rank(C, B) * toeplitz(explicit(1, 5))",
    "decay": "low_rank(C, B) * semi_separable(1, a, 1)",
    "decay-gates": "(low_rank(C, B) |> causal) * semi_separable(f, a, f + 1)",
    "decay-number": "semi_separable(1, 0.9, 1) * low_rank(C, B)",
    "softmax": "(low_rank(C, B) |> causal |> softmax) * (f * semi_separable(1, a, 1))",
    "diagonal": "low_rank(C, B) * diagonal(f)",
    "band": "(low_rank(C, B) * toeplitz(explicit(2, 50))) |> band(7)",
    "softmax-of-product": "(low_rank(C, B) |> causal) * low_rank(B, C) |> scale(1/2) |> softmax",
    "normalised": "(low_rank(C |> elu1, B |> elu1) * semi_separable(1, a, 1)) |> normalize",
    "static": "static(100)",
    "static-heads": "static(128, 2) + (low_rank(C, B) |> causal)",
    "static-scores": "low_rank(C, B) * static(n = 100, heads = 2)",
    "static-band": "(static(100, 2) |> band(5)) @ toeplitz(explicit(1, 3))",
    "static-softmax": "f * (static(100) |> softmax)",
    "of-sums": "(low_rank(C, B) + low_rank(B, C)) * (toeplitz(explicit(2, 3)) - diagonal(f))",
}


def program(mixer: str) -> str:
    return (
        f"operator f() {{ {PARTS} y = ({mixer}) @ V |> merge |> dense(width) }}\n"
        "model m { vocab = 20  width = 8  context = 100  backbone { f() } }"
    )


@pytest.mark.parametrize("name", PRODUCTS)
def test_products_agree_with_the_oracle(name: str) -> None:
    compiled = build(program(PRODUCTS[name]))
    check_agreement(compiled, (1, 5, 70))
    check_decoding(compiled, 75)


def test_a_score_that_decays_is_a_recurrence() -> None:
    compiled = build(program(PRODUCTS["decay"]))
    ops = {v.op for o in compiled.final.operators for v in o.values}
    assert "scalar_recurrence" in ops


def test_multihead_hyena_convolves_outer_products() -> None:
    """y_t = q_t sum_s h_(t-s) k_s v_s' per head, with the filter over the outer product
    (2310.18780, section 4)."""
    text = """use std.convolution.multihead_hyena
    model m { vocab = 20  width = 16  context = 40  residual = none
        backbone { multihead_hyena(heads = 4, hidden = 4) } }"""
    model = build(text).module.Model().double()
    unit = model.multihead_hyena
    x = torch.randn(2, 33, 16, dtype=torch.float64)
    inner = {}
    unit.y.register_forward_hook(lambda module, given, out: inner.update(y=given[0]))
    unit(x)
    stages = dict(unit.named_children())
    q, k, v = (
        stages[f"{n}_conv"](p, 33) for n, p in zip("CBV", _projected(stages, x), strict=True)
    )
    q, k, v = (t.unflatten(-1, (4, 4)) for t in (q, k, v))
    taps = unit.K(33)
    outer = k.unsqueeze(-1) * v.unsqueeze(-2)  # (B, T, H, 4, 4)
    rows = []
    for t in range(33):
        lagged = taps[: t + 1].flip(0)[None, :, :, None, None]
        rows.append(torch.einsum("bhi,bhij->bhj", q[:, t], (lagged * outer[:, : t + 1]).sum(1)))
    torch.testing.assert_close(inner["y"], torch.stack(rows, dim=1).flatten(-2))


def _projected(stages: dict[str, torch.nn.Module], x: torch.Tensor) -> list[torch.Tensor]:
    weights = [m.weight for name, m in stages.items() if "dense" in name and name != "y"]
    return list((x @ torch.cat(weights).T).split(16, dim=-1))
