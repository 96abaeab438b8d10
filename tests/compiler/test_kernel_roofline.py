"""`starc show --stage kernels`: what is fused, bytes and FLOPs by hand, and the roofline."""

from __future__ import annotations

from dataclasses import replace

import pytest

from starc.compiler.driver import show
from starc.compiler.kernel_attention import FusedAttention
from starc.compiler.kernel_attention_step import step_of
from starc.compiler.kernel_plan import Work
from starc.compiler.kernel_roofline import DEVICES, find_device, roofline
from starc.compiler.options import Options
from starc.compiler.visibility import CAUSAL
from starc.grammar.errors import StarError
from starc.grammar.source import Source

PROGRAM = """
operator capped_attention(heads: int) {
    C = x |> dense(width) |> heads(heads)
    B = x |> dense(width) |> heads(heads)
    V = x |> dense(width) |> heads(heads)
    y = (low_rank(C, B) |> scale(1 / 4) |> softcap(30) |> causal |> softmax) @ V |> merge
}
operator plain_attention(heads: int) {
    C = x |> dense(width) |> heads(heads)
    B = x |> dense(width) |> heads(heads)
    V = x |> dense(width) |> heads(heads)
    y = (low_rank(C, B) |> scale(1 / 4) |> causal |> softmax) @ V |> merge
}
model capped { vocab = 8  width = 64  context = 1024  backbone { capped_attention(heads = 4) } }
model plain { vocab = 8  width = 64  context = 1024  backbone { plain_attention(heads = 4) } }
"""
PLAN = FusedAttention(
    digest="0123456789",
    heads=4,
    c_heads=4,
    b_heads=2,
    v_heads=2,
    channels=64,
    v_channels=32,
    stages=(("scale", 0.125),),
    clauses=(frozenset({CAUSAL}),),
)


def table(model: str, device: str = "H100") -> str:
    return show(Source("m.star", PROGRAM), Options(model=model), "kernels", device)


def test_kernels_of_a_program() -> None:
    shown = table("capped")
    assert "softmax(30.0 tanh((0.25 C_i . B_j) / 30.0))" in shown
    assert "fused_softmax_attention_4x16_step" in shown
    assert "1 x 1024 tokens in bfloat16" in shown
    assert "no kernels" in table("plain")


def test_an_unknown_device() -> None:
    assert find_device("rtx 4090") is DEVICES["RTX4090"]
    with pytest.raises(StarError, match="no figures of a device"):
        table("capped", "B1")


def test_work_of_attention_by_hand() -> None:
    forward, queries, keys = PLAN.work(3, 100, 2)
    pairs = 3 * 4 * 100 * 100 // 2
    assert forward.flops == 2 * pairs * (64 + 32)
    assert queries.flops == 2 * pairs * (2 * 64 + 32)
    assert keys.flops == 2 * pairs * (2 * 64 + 2 * 32)
    per_token = 2 * (4 * 64 + 2 * 64 + 2 * 32 + 4 * 32) + 4 * 4
    assert forward.moved == forward.least == 300 * per_token
    assert queries.least == keys.least
    assert 1 < (queries.moved + keys.moved) / keys.least < 1.15
    _, queries, keys = PLAN.work(1, 10**6, 2)  # more than a cache holds of a head: read twice
    assert 1.4 < (queries.moved + keys.moved) / keys.least < 1.6


def test_a_window_bounds_the_work() -> None:
    band = frozenset({CAUSAL, ("band", (10,))})
    windowed = replace(PLAN, clauses=(band,))
    assert windowed.work(1, 1000, 2)[0].flops == 2 * 4 * 1000 * 10 * (64 + 32)
    assert step_of(windowed).work(1, 1000, 2)[0].flops == 2 * 4 * 10 * (64 + 32)


def test_the_roofline_takes_the_longer_time() -> None:
    device = DEVICES["A100"]
    assert roofline(Work("k", "f", 10**12, 1, 1), True, device) == (1 / 312, "arithmetic")
    seconds, binds = roofline(Work("k", "f", 1, 2039 * 10**6, 1), True, device)
    assert (round(seconds, 9), binds) == (0.001, "memory")
