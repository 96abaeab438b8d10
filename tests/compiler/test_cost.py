"""Static cost against counts made by hand."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from starc.compiler.cost import CostModel, CostReport, cost_report
from starc.compiler.driver import resolve_source
from starc.compiler.ir import Model
from starc.compiler.options import Options
from starc.compiler.work import WHOLE, visible_pairs
from starc.grammar.errors import StarError
from starc.grammar.source import Source

WIDTH, LENGTH, VOCAB = 32, 100, 50


def resolved(text: str) -> Model:
    model, _ = resolve_source(Source("test.star", text), Options())
    return model


def program(operators: str, backbone: str, settings: str = "residual = none") -> Model:
    return resolved(
        f"{operators}\nmodel m {{ vocab = {VOCAB} width = {WIDTH} context = {LENGTH} {settings}\n"
        f"backbone {{ {backbone} }} }}"
    )


def unit(body: str, width: int = WIDTH, length: int = LENGTH) -> CostReport:
    """The report of a model with one unit and no norms."""
    return cost_report(
        resolved(
            f"operator f() {{ {body} }}\nmodel m {{ vocab = {VOCAB} width = {width} "
            f"context = {length} residual = none final_norm = none\nbackbone {{ f() }} }}"
        )
    )


def body_flops(report: CostReport) -> int:
    return report.units[0].flops_forward


def pairs(length: int, window: int = WHOLE) -> int:
    return sum(min(i + 1, window) for i in range(length))


MHA = """operator mha(heads: int, groups: int = heads) {
    C = x |> dense(width) |> heads(heads) |> rope(10_000)
    B = x |> dense(groups * width / heads) |> heads(groups) |> rope(10_000)
    V = x |> dense(groups * width / heads) |> heads(groups)
    T = low_rank(C, B) |> scale(1 / 8) |> causal |> softmax
    y = T @ V |> merge |> dense(width)
}
"""


# --- whole models ---------------------------------------------------------------------------------


def test_published_cache_of_24_attention_units() -> None:
    """24 of 48 units attend at width 2,048: 805.306 MB at 4,096 tokens in bf16 (2411.17800)."""
    model = resolved(
        MHA + """operator gate() { y = (x |> dense(64) |> silu) * (x |> dense(64)) |> dense(width) }
        model transformer { vocab = 50_304 width = 2048 context = 4096
            backbone { repeat 24 { mha(heads = 32) gate() } } }"""
    )
    report = cost_report(model, dtype="bf16")
    assert len(report.units) == 48
    assert report.cache_bytes == 805_306_368
    assert report.state_elements == 2 * 2048 * 4096 * 24
    assert report.fixed_state_elements == 0
    assert cost_report(model, dtype="fp32", batch=3).cache_bytes == 6 * 805_306_368
    assert cost_report(model, length=1).state_elements == 2 * 2048 * 24


def test_a_transformer_by_hand() -> None:
    model = program(
        MHA, "mha(heads = 4, groups = 2)", "residual = pre(layernorm) head = linear(bias = true)"
    )
    report = cost_report(model, length=10, batch=3)
    d = WIDTH
    own = d * d + 2 * (d // 2) * d + d * d
    assert report.units[0].parameters == own + 2 * d
    assert report.embedding.parameters == VOCAB * d
    assert report.head.parameters == VOCAB * d + VOCAB + 2 * d
    assert report.parameters == own + 2 * VOCAB * d + VOCAB + 4 * d
    assert report.active_parameters == report.parameters
    attention = pairs(10) * (2 * 4 * 8 + 2 * 4 * 8)
    assert report.units[0].flops_forward == 3 * (2 * 10 * own + attention)
    assert report.head.flops_forward == 3 * 2 * 10 * d * VOCAB
    assert report.flops_forward == report.units[0].flops_forward + report.head.flops_forward
    assert report.flops_train == 3 * report.flops_forward
    assert report.flops_decode == 3 * (2 * own + 10 * 4 * 4 * 8 + 2 * d * VOCAB)
    assert report.state_elements == 10 * d  # half of the heads: a quarter of the width each


def test_the_report_as_numbers() -> None:
    found = cost_report(program(MHA, "mha(heads = 4)")).as_dict()
    assert {"parameters", "flops_forward", "flops_train", "cache_bytes", "state_elements"} <= set(
        found
    )
    assert found["units"][0]["operator"] == "mha"
    assert found["units"][0]["path"] == "mha"
    assert found["length"] == LENGTH


def test_decoding_steps_add_up_to_the_forward_pass() -> None:
    """For causal attention and recurrences the work of all steps is the work of the pass."""
    model = program(
        MHA + "operator lin() { T = low_rank(x, x) |> causal   y = T @ x }",
        "mha(heads = 4) lin()",
    )
    whole = cost_report(model, length=20).flops_forward
    assert whole == sum(cost_report(model, length=n).flops_decode for n in range(1, 21))


def test_bad_requests_are_diagnostics() -> None:
    model = program(MHA, "mha(heads = 4)")
    with pytest.raises(StarError, match="no dtype is named 'bf61'"):
        cost_report(model, dtype="bf61")
    with pytest.raises(StarError, match="length of a cost report"):
        cost_report(model, length=0)
    with pytest.raises(StarError, match="batch of a cost report"):
        cost_report(model, batch=0)


def test_no_torch() -> None:
    code = "import sys, starc.compiler.cost; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- structures -----------------------------------------------------------------------------------

D, L = WIDTH, LENGTH

STATE = {
    "diagonal": ("y = diagonal(x |> silu) @ (x |> dense(width))", 0, 0),
    "attention": (
        "T = low_rank(x |> dense(8), x |> dense(8)) |> causal |> softmax"
        "  y = T @ (x |> dense(width))",
        0,
        (8 + D) * L,
    ),
    "band": (
        "T = low_rank(x |> dense(8), x |> dense(8)) |> causal |> band(16) |> softmax"
        "  y = T @ (x |> dense(width))",
        0,
        (8 + D) * 16,
    ),
    "band wider than the sequence": (
        "T = low_rank(x |> dense(8), x |> dense(8)) |> causal |> band(1000) |> softmax"
        "  y = T @ (x |> dense(width))",
        0,
        (8 + D) * L,
    ),
    "band after the nonlinearity": (
        "T = low_rank(x |> dense(8), x |> dense(8)) |> causal |> sigmoid |> band(16)"
        "  y = T @ (x |> dense(width))",
        0,
        (8 + D) * 16,
    ),
    "band after a softmax": (
        "T = low_rank(x |> dense(8), x |> dense(8)) |> causal |> softmax |> band(16)"
        "  y = T @ (x |> dense(width))",
        0,
        (8 + D) * L,
    ),
    "banded, linear": (
        "T = low_rank(x |> dense(8), x |> dense(8)) |> causal |> band(16)"
        "  y = T @ (x |> dense(width))",
        0,
        (8 + D) * 16,
    ),
    "linear": (
        "T = low_rank(x |> dense(8), x |> dense(8)) |> scale(2) |> causal"
        "  y = T @ (x |> dense(width))",
        8 * D,
        0,
    ),
    "linear, heads": (
        "B = x |> dense(8) |> heads(2)  C = x |> dense(16) |> heads(4)"
        "  T = low_rank(C, B) |> causal  y = T @ (x |> dense(width) |> heads(4)) |> merge",
        4 * 4 * (D // 4),
        0,
    ),
    "linear, heads of C only read": (
        "B = x |> dense(8) |> heads(2)  C = x |> dense(16) |> heads(4)"
        "  T = low_rank(C, B) |> causal  y = T @ (x |> dense(16) |> heads(2)) |> merge",
        2 * 4 * 8,
        0,
    ),
    "linear, normalised": (
        "B = x |> dense(16) |> heads(2) |> elu1  C = x |> dense(16) |> heads(2) |> elu1"
        "  T = low_rank(C, B) |> causal |> normalize"
        "  y = T @ (x |> dense(width) |> heads(2)) |> merge",
        2 * 8 * (D // 2) + 2 * 8,
        0,
    ),
    "semi-separable, scalar": (
        "A = x |> dense(2) |> sigmoid |> heads(2)  B = x |> dense(16) |> heads(2)"
        "  y = semi_separable(B, A, B) @ (x |> heads(2)) |> merge",
        2 * 8 * (D // 2),
        0,
    ),
    "semi-separable, diagonal": (
        "A = exp(-(x |> softplus |> heads(width)) * exp(param(width, 4)))"
        "  B = x |> dense(4)  y = semi_separable(B, A, B) @ (x |> heads(width)) |> merge",
        D * 4,
        0,
    ),
    "semi-separable, per head of the value": (
        "A = x |> dense(1) |> sigmoid  B = x |> dense(4)"
        "  y = semi_separable(B, A, B) @ (x |> heads(2)) |> merge",
        2 * 4 * (D // 2),
        0,
    ),
    "explicit filter": ("y = toeplitz(explicit(width, 5)) @ (x |> dense(width))", 4 * D, 0),
    "filter per head": (
        "y = toeplitz(explicit(4, 5)) @ (x |> dense(width) |> heads(4)) |> merge",
        4 * D,
        0,
    ),
    "gated filter": (
        "C = x |> dense(width)  B = x |> dense(width)  V = x |> dense(width)"
        "  y = diagonal(C) @ toeplitz(explicit(width, 3)) @ diagonal(B) @ V",
        2 * D,
        0,
    ),
    "exponentials": ("y = toeplitz(ssm(width, 4)) @ (x |> dense(width))", 4 * D, 0),
    "implicit filter": ("y = toeplitz(implicit(width)) @ (x |> dense(width))", 0, D * L),
    "implicit filter after a gate": (
        "B = x |> dense(width)  V = x |> dense(width)"
        "  y = toeplitz(implicit(width)) @ diagonal(B) @ V",
        0,
        D * L,
    ),
    "conv": ("y = x |> dense(8) |> conv(4, dilation = 3) |> dense(width)", 8 * 9, 0),
    "shift": ("y = x |> dense(8) |> shift(3) |> dense(width)", 8 * 3, 0),
    "one line for all that look back": (
        "y = (x |> conv(4)) + (x |> conv(3)) + (x |> shift(2))",
        3 * D,
        0,
    ),
    "sum of mixers": (
        "T = (low_rank(x |> dense(8), x |> dense(8)) |> causal) + toeplitz(explicit(1, 3))"
        "  y = T @ (x |> dense(width))",
        8 * D + 2 * D,
        0,
    ),
    "product of mixers": (
        "T = toeplitz(explicit(width, 3)) @ toeplitz(explicit(width, 5))"
        "  y = T @ (x |> dense(width))",
        4 * D + 2 * D,
        0,
    ),
    "row scale": (
        "T = (x |> dense(1)) * (low_rank(x |> dense(8), x |> dense(8)) |> causal)"
        "  y = T @ (x |> dense(width))",
        8 * D,
        0,
    ),
    "two bands": (
        "B = x |> dense(8)  V = x |> dense(8)  C = x |> dense(8)"
        "  T = low_rank(C, B) |> causal |> band(16) |> softmax"
        "  U = low_rank(C, x |> dense(8)) |> causal |> band(40) |> softmax"
        "  y = (T @ V) + (U @ V) |> dense(width)",
        0,
        8 * 16 + 8 * 40 + 8 * 40,
    ),
    "semi-separable under a nonlinearity": (
        "A = x |> dense(1) |> sigmoid  B = x |> dense(8)"
        "  T = semi_separable(x |> dense(8), A, B) |> relu  y = T @ (x |> dense(width))",
        0,
        (1 + 8 + D) * L,
    ),
}


@pytest.mark.parametrize("case", STATE)
def test_what_a_structure_keeps(case: str) -> None:
    body, fixed, growing = STATE[case]
    report = unit(body)
    assert (report.fixed_state_elements, report.state_elements) == (fixed, fixed + growing)


CUTS = {
    # One projection for keys and values is kept once.
    "shared key and value": (
        "B = x |> dense(8)  T = low_rank(x |> dense(8), B) |> causal |> softmax"
        "  y = T @ B |> dense(width)",
        8,
    ),
    # Two mixers that read the same keys and values keep them once.
    "two mixers": (
        "B = x |> dense(8)  V = x |> dense(8)"
        "  T = low_rank(x |> dense(8), B) |> causal |> softmax"
        "  U = low_rank(x |> dense(8), B) |> causal |> sigmoid"
        "  y = (T - U) @ V |> dense(width)",
        16,
    ),
    # The value is the stream itself: then it is all that must be kept.
    "value is x": (
        "T = low_rank(x |> dense(8), x |> dense(8)) |> causal |> softmax  y = T @ x",
        D,
    ),
    "value is x in heads": (
        "T = low_rank(x |> dense(8) |> heads(2), x |> dense(8) |> heads(2)) |> causal |> softmax"
        "  y = T @ (x |> heads(2)) |> merge",
        D,
    ),
    # A norm or gate of the stream is no latent: keys and values are kept, not the stream.
    "norm inside": (
        "n = x |> rmsnorm  T = low_rank(n |> dense(width), n |> dense(width)) |> causal |> softmax"
        "  y = T @ (n |> dense(width))",
        2 * D,
    ),
    # A dense map to fewer channels is.
    "latent": (
        "c = x |> dense(6) |> rmsnorm"
        "  T = low_rank(x |> dense(width), c |> dense(width)) |> causal |> softmax"
        "  y = T @ (c |> dense(width))",
        6,
    ),
    "latent wider than its use": (
        "c = x |> dense(width)  T = low_rank(x |> dense(4), c |> dense(4)) |> causal |> softmax"
        "  y = T @ (c |> dense(4)) |> dense(width)",
        8,
    ),
    # Multi-head latent attention: the latent, and the rotary key before it is copied to the heads.
    "latent with rotary key": (
        "c = x |> dense(6) |> rmsnorm  r = x |> dense(2) |> rope(10_000)"
        "  C = x |> dense(40) |> heads(4)  B = concat(c |> dense(32) |> heads(4), r |> repeat(4))"
        "  T = low_rank(C, B) |> causal |> softmax"
        "  y = T @ (c |> dense(32) |> heads(4)) |> merge |> dense(width)",
        8,
    ),
    "part of a projection": (
        "p = x |> dense(24)"
        "  T = low_rank(p |> slice(0, 8), p |> slice(8, 16)) |> causal |> softmax"
        "  y = T @ (p |> slice(16, 24)) |> dense(width)",
        16,
    ),
    "part of the stream": (
        "s = x |> slice(0, 4)  T = low_rank(s |> dense(8), s |> dense(8)) |> causal |> softmax"
        "  y = T @ (s |> dense(width))",
        4,
    ),
    # What a convolution gives cannot be made from one token of x, so the path starts there.
    "convolved": (
        "u = x |> dense(4) |> conv(3)"
        "  T = low_rank(u |> dense(16), u |> dense(16)) |> causal |> softmax"
        "  y = T @ (u |> dense(width))",
        4,
    ),
    "constant key": (
        "T = low_rank(x |> dense(8), param(1, 8)) |> causal |> softmax"
        "  y = T @ (x |> dense(8)) |> dense(width)",
        8,
    ),
    "grouped": (
        "C = x |> dense(width) |> heads(4)  B = x |> dense(8)  V = x |> dense(8)"
        "  T = low_rank(C, B) |> causal |> softmax  y = T @ V |> merge |> dense(width)",
        16,
    ),
}


@pytest.mark.parametrize("case", CUTS)
def test_smallest_cut(case: str) -> None:
    body, each = CUTS[case]
    report = unit(body)
    assert report.state_elements - report.fixed_state_elements == each * LENGTH


FLOPS = {
    "dense": ("y = x |> dense(8) |> dense(width)", 2 * L * 2 * 8 * D),
    "dense, low rank": ("y = x |> dense(width, rank = 4)", 2 * L * 2 * 4 * D),
    "dense, groups": ("y = x |> dense(width, groups = 4)", 2 * L * D * D // 4),
    "headwise": ("y = x |> heads(4) |> headwise(8) |> merge", 2 * L * D * 8),
    "conv": ("y = x |> conv(4)", 2 * L * 4 * D),
    "explicit filter": ("y = toeplitz(explicit(width, 4)) @ x", 2 * L * 4 * D),
    "linear": ("T = low_rank(x, x) |> causal  y = T @ x", L * 4 * D * D),
    "grouped linear": (
        "C = x |> heads(4)  B = x |> slice(0, 8)  T = low_rank(C, B) |> causal"
        "  y = T @ (x |> slice(0, 8)) |> merge",
        L * (2 * 8 * 8 + 4 * 2 * 8 * 8),
    ),
    "semi-separable": (
        "A = x |> slice(0, 1) |> sigmoid  y = semi_separable(x, A, x) @ x",
        L * 4 * D * D,
    ),
    "attention": ("T = low_rank(x, x) |> causal |> softmax  y = T @ x", 4 * D * L * (L + 1) // 2),
    "band": ("T = low_rank(x, x) |> causal |> band(7) |> softmax  y = T @ x", 4 * D * pairs(L, 7)),
    "one mixer, two values": (
        "T = low_rank(x, x) |> causal |> softmax  y = (T @ x) + (T @ (x |> silu))",
        6 * D * pairs(L),
    ),
    "pointwise": ("y = diagonal(x |> silu) @ (x |> rmsnorm)", 0),
}


@pytest.mark.parametrize("case", FLOPS)
def test_flops(case: str) -> None:
    body, flops = FLOPS[case]
    assert body_flops(unit(body)) == flops


def test_long_filter_by_fft() -> None:
    report = unit("y = toeplitz(implicit(width, 8)) @ x", length=1024)
    assert body_flops(report) >= 10 * 1024 * 10 * D
    assert unit("y = toeplitz(implicit(width, 8)) @ x", length=1).units[0].flops_decode == 2 * D


@given(st.integers(1, 40), st.integers(1, 50), st.booleans())
def test_visible_pairs(length: int, window: int, causal: bool) -> None:
    counted = sum(
        abs(i - j) < window and (j <= i or not causal) for i in range(length) for j in range(length)
    )
    assert visible_pairs(length, window, causal) == counted


# --- sharing --------------------------------------------------------------------------------------


def test_shared_weights_count_once() -> None:
    own = cost_report(program(MHA, "a: mha(heads = 4) mha(heads = 4)"))
    tied = cost_report(program(MHA, "a: mha(heads = 4) mha(heads = 4) shares * with a"))
    some = cost_report(program(MHA, "a: mha(heads = 4) mha(heads = 4) shares B, V with a"))
    assert own.parameters - tied.parameters == 4 * D * D
    assert own.parameters - some.parameters == 2 * D * D
    assert tied.units[1].parameters == 0
    assert tied.flops_forward == own.flops_forward
    assert tied.cache_bytes == own.cache_bytes


def test_reused_features_are_kept_once() -> None:
    own = cost_report(program(MHA, "a: mha(heads = 4) mha(heads = 4)"))
    reused = cost_report(program(MHA, "a: mha(heads = 4) mha(heads = 4) reuses B, V from a"))
    assert [u.state_elements for u in reused.units] == [2 * D * L, 0]
    assert own.parameters - reused.parameters == 2 * D * D
    one = cost_report(program(MHA, "a: mha(heads = 4) mha(heads = 4) reuses V from a"))
    assert [u.state_elements for u in one.units] == [2 * D * L, D * L]


BANDED = MHA.replace("mha", "local").replace("|> causal", "|> causal |> band(8)")


def test_the_producer_keeps_what_its_readers_need() -> None:
    """A banded unit whose keys a full one reads keeps them all, and values for its band only."""
    report = cost_report(
        program(MHA + BANDED, "a: local(heads = 4) mha(heads = 4) reuses B from a")
    )
    assert [u.state_elements for u in report.units] == [D * L + 8 * D, D * L]
    # and a unit without attention of its own keeps a feature that a later unit attends to.
    plain = "operator gate() { V = x |> dense(width) |> heads(4)  y = (V |> merge) * x }\n"
    report = cost_report(program(MHA + plain, "a: gate() mha(heads = 4) reuses V from a"))
    assert [u.state_elements for u in report.units] == [D * L, D * L]


def test_a_reused_feature_inside_a_value() -> None:
    """What a unit makes of a reused value it keeps itself: nothing is asked of the other unit."""
    mixed = MHA.replace("mha(heads: int, ", "mixed(first: feature, heads: int, ").replace(
        "V = x |> dense(groups * width / heads) |> heads(groups)",
        "V = (x |> dense(width) |> heads(heads)) / 2 + first / 2",
    )
    report = cost_report(program(MHA + mixed, "a: mha(heads = 4) mixed(heads = 4, first = a.V)"))
    assert [u.state_elements for u in report.units] == [2 * D * L, 2 * D * L]


def test_parallel_and_repeat() -> None:
    report = cost_report(
        program(
            MHA,
            "repeat 2 { parallel(difference) { mha(heads = 4) mha(heads = 2) } }",
            "residual = pre(rmsnorm)",
        )
    )
    assert [u.operator for u in report.units] == ["parallel(difference)", "mha", "mha_2"] * 2
    assert [u.parameters for u in report.units] == [D, 4 * D * D, 4 * D * D] * 2
    assert report.state_elements == 4 * 2 * D * L


def test_one_cost_model_for_many_programs() -> None:
    model = program(MHA, "mha(heads = 4) mha(heads = 2)")
    costs = CostModel()
    assert costs.report(model) == costs.report(model) == cost_report(model)
    costs.clear()
    assert costs.report(model, length=7, batch=2) == cost_report(model, length=7, batch=2)
