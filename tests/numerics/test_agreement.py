"""Generated modules agree with the oracle: logits and every gradient, dtype by dtype.

The tables hold the structures that the compiler has an algorithm for and the standard library, one
line each, and the examples; random combinations of them are tested in test_properties.py.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.numerics.agreement import build, check_agreement
from tests.numerics.decoding import check_decoding

LENGTHS = (1, 2, 63, 130)

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.star"))

FEATURES = """C = x |> dense(8) |> heads(2)  B = x |> dense(8) |> heads(2)
V = x |> dense(8) |> heads(2)  K = explicit(2, 3)  a = x |> dense(2) |> heads(2) |> sigmoid
A = x |> dense(8) |> heads(2) |> sigmoid  p = C |> elu1  q = B |> elu1  g = x |> dense(8)
f = x |> dense(2) |> heads(2)  c = x |> dense(4)  b = x |> dense(4)"""
"""Bindings that the mixers below are made of; those that a mixer leaves unread vanish."""

MIXERS = {
    "softmax": "(low_rank(C, B) |> scale(1/2) |> causal |> softmax) @ V",
    "softmax-band": "(low_rank(C, B) |> band(5) |> causal |> softmax) @ V",
    "softmax-wide-band": "(low_rank(C, B) |> causal |> band(1000) |> softmax) @ V",
    "softmax-grouped": "(low_rank(C, b) |> causal |> softmax) @ V",
    "softmax-one-query": "(low_rank(c, B) |> causal |> softmax) @ V",
    "softmax-shared-value": "(low_rank(C, B) |> causal |> softmax) @ b",
    "softmax-softcap": "(low_rank(C, B) |> softcap(3) |> causal |> softmax) @ V",
    "softmax-constant-query": "(low_rank(param(2, 4), B) |> causal |> softmax) @ V",
    "softmax-twice": "(low_rank(C, B) |> causal |> softmax |> scale(3) |> softmax) @ V",
    "sigmoid": "(low_rank(C, B) |> causal |> sigmoid) @ V",
    "sigmoid-then-causal": "(low_rank(C, B) |> sigmoid |> causal |> band(9)) @ V",
    "relu-normalize": "(low_rank(C, B) |> causal |> relu |> normalize(1/8)) @ V",
    "linear": "(low_rank(C, B) |> causal) @ V",
    "linear-grouped": "(low_rank(C, b) |> causal |> scale(1/3)) @ V",
    "linear-band": "(low_rank(C, B) |> causal |> band(7)) @ V",
    "linear-normalize": "(low_rank(p, q) |> causal |> normalize) @ V",
    "linear-signed-normalize": "(low_rank(C, B) |> causal |> normalize(1)) @ V",
    "scalar": "semi_separable(C, a, B) @ V",
    "scalar-exp": "semi_separable(C, exp(-softplus(f)), B) @ V",
    "scalar-groups": "semi_separable(c, a, b) @ V",
    "scalar-constant": "semi_separable(C, sigmoid(param(2, 1)), B) @ V",
    "scalar-number": "semi_separable(C, 0.9, B) @ V",
    "scalar-negative": "semi_separable(C, tanh(f), B) @ V",
    "scalar-zero": "semi_separable(C, 0, B) @ V",
    "scalar-normalize": "(semi_separable(p, a, q) |> normalize) @ V",
    "scalar-softmax": "(semi_separable(C, a, B) |> softmax) @ V",
    "diagonal": "semi_separable(C, A, B) @ V",
    "diagonal-exp": "semi_separable(C, exp(-softplus(A) * exp(param(2, 4))), B) @ V",
    "diagonal-signed": "semi_separable(C, tanh(C), B) @ V",
    "diagonal-normalize": "(semi_separable(p, A, q) |> normalize(1/4)) @ V",
    "diagonal-affine": "semi_separable(C, 1/2 + 1/2 * A, 1 - A) @ V",
    "scan": "semi_separable(1, x |> dense(8) |> sigmoid |> heads(8), 1) @ (x |> heads(8))",
    "scan-signed": "semi_separable(1, x |> dense(8) |> tanh |> heads(8), 1) @ (x |> heads(8))",
    "chosen-band": "(low_rank(C, B) |> causal |> band(4) |> summary(3)) @ V",
    "chosen-diagonal": "(diagonal(f) + (low_rank(C, B) |> causal) |> summary(4, 2)) @ V",
    "chosen-scores": "(low_rank(C, B) |> causal |> summary(3) |> band(1)) @ V",
    "blocks-of-recurrence": "(semi_separable(C, a, B) |> band(4) |> block(3)) @ V",
    "band-of-recurrence": "(semi_separable(C, a, B) |> band(6)) @ V",
    "short-filter": "toeplitz(K) @ V",
    "channel-filter": "toeplitz(explicit(8, 4)) @ V",
    "one-filter": "toeplitz(explicit(1, 4)) @ V",
    "long-explicit": "toeplitz(explicit(8, 100)) @ V",
    "implicit": "toeplitz(implicit(8, 6)) @ V",
    "implicit-heads": "toeplitz(implicit(2, 6, decay = false)) @ V",
    "filter-band": "(toeplitz(explicit(8, 30)) |> band(10)) @ V",
    "gated-filter": "diagonal(x) @ toeplitz(explicit(8, 3)) @ diagonal(g) @ (x |> dense(8))",
    "gate": "diagonal(x |> dense(8) |> silu) @ g",
    "gate-heads": "diagonal(f) @ V",
    "gate-constant": "diagonal(param(2, 4)) @ V",
    "rows": "(f * (low_rank(C, B) |> causal |> softmax)) @ V",
    "rows-of-filter": "(f * toeplitz(K)) @ V",
    "sum": "((low_rank(C, B) |> causal |> softmax) + toeplitz(K)) @ V",
    "difference": "((low_rank(C, B) |> causal |> softmax) "
    "- param(2, 1) * (low_rank(B, C) |> causal |> softmax)) @ V",
    "sum-softmax": "((low_rank(C, B) |> causal) + semi_separable(C, a, B) |> softmax) @ V",
    "product": "(low_rank(C, B) |> causal |> softmax) @ toeplitz(K) @ semi_separable(C, a, B) @ V",
    "product-of-sums": "(diagonal(f) + toeplitz(K)) @ (semi_separable(C, a, B) - toeplitz(K)) @ V",
    "product-softmax": "((low_rank(C, B) |> causal) @ semi_separable(C, a, B) |> softmax) @ V",
    "negated": "(-(low_rank(C, B) |> causal |> softmax) / 2) @ V",
    "constants": "(low_rank(param(2, 3), param(2, 3)) |> causal |> softmax) @ param(2, 4) + 0 * V",
}

LIBRARY = [
    f"{module}.{call}"
    for module, calls in {
        "attention": "mha(heads=2) gqa(heads=4,groups=2) mqa(heads=2) sliding(heads=2,window=5) "
        "sigmoid_attention(heads=2) differential(heads=2) forgetting(heads=2) latent(heads=2)",
        "channel": "swiglu() geglu() gelu_mlp() relu2_mlp() rwkv6_mlp() rwkv7_mlp()",
        "convolution": "gconv() hyena(hidden=8) grouped_hyena(heads=2,hidden=8)",
        "linear": "linear(heads=2) retention(heads=2) gla(heads=2,rank=3) "
        "hgrn2(heads=2,lower=1/(layer+2)) deltanet(heads=2) gated_deltanet(heads=2) kda(heads=2) "
        "deltaproduct(heads=2) mlstm(heads=2) "
        "rwkv7_first(heads=2,decay_rank=3,rate_rank=3,gate_rank=3)",
        "recurrent": "mamba(state=3) mamba2(state=4,head=8,groups=2) rglru(blocks=2)",
        "star": "sa1() sa2() sa3() sa4() rec1(state=4) rec2() gconv1() gconv2() gmemless()",
    }.items()
    for call in calls.split()
]

WIRING = {
    "residuals": "f() with residual = post(layernorm)  f() with residual = none  "
    "f() with residual = sandwich(rmsnorm(weight = offset))",
    "parallel": "parallel(difference) { f() g() }  p: parallel(mean) { repeat 2 { f() } g() f() }",
    "repeat": "repeat 2 { g()  repeat 3 { a: f()  f() shares * with a } }",
    "reuse": "a: f() repeat 2 { f() reuses u from a  b: f() reuses * from a  f() reuses u from b }",
    "share": "a: f() b: f() shares u with a  c: f() shares * with b  g()",
    "labels": "parallel(sum) { x: f() with residual = pre  x_norm: g() }  a_norm: f()  a: g()  "
    "forward: parallel(difference) { head: f()  embedding: g() with residual = post }",
    "loop": "a: f() loop 3 { b: f() reuses u from a  d: f() repeat 2 { f() shares u with d } "
    "loop 2 { g() } }  "
    "parallel(sum) { loop 2 { g() with residual = pre } f() }",
    "gated": "parallel(gated) { f() repeat 2 { g() } }  "
    "p: parallel(gated) { parallel(mean) { f() g() } g() f() with residual = pre } "
    "with residual = none",
    "streams": "a: f() p: parallel(sum) { b: f() c: f() with residual = post g() } "
    "repeat 2 { k(a) d: parallel(mean) { g() f() } with residual = none  k(d) k(p) } k(b) k(c) "
    "loop 2 { k(p) e_: g() k(e_) with residual = none }",
    "formulas": "f() with residual = 0.5 * x - 2 * f(x |> layernorm(bias = false)) "
    "g() with residual = rmsnorm(x) + f(rmsnorm(x))  "
    "repeat 2 { f() with residual = x + (f(x) |> gain(init = 1e-4)) + param(1, width) } "
    "f() with residual = (1 - sigmoid(dense(x, 1, bias = true))) * x "
    "+ sigmoid(dense(x, 1, bias = true)) * f(x / (layer + 1) |> tanh) "
    "parallel(sum) { f() g() with residual = x - f(-x) } with residual = rmsnorm(3 * x + f(x))",
    "uneven": "a: f() repeat 3 { r(theta = 2 + mod(layer, 2)) g() h(from_a = a.u) g() g() }",
    "feature": "a: f() h(from_a = a.u) h(from_a = 0.5)",
}

UNITS = """
operator f() { u = x |> dense(6) |> tanh  w = u |> dense(4)  y = concat(u, w) |> dense(width) }
operator g() { y = x |> conv(3) |> silu }
operator r(theta: real) { y = x |> dense(width) |> rope(theta) }
operator k(first: feature) { y = x + first |> dense(width) }
operator h(from_a: feature) { y = (x |> dense(6)) * from_a |> dense(width) }
"""

SETTINGS = {
    "tied": "embedding = tied(scale = sqrt(width), norm = layernorm)  head = linear(bias = true)",
    "learned": "position = learned  head = linear(scale = 1/4, softcap = 2)  final_norm = none",
    "sinusoidal": "position = sinusoidal  residual = post(layernorm(bias = false))",
    "sandwich": "residual = sandwich(rmsnorm)  final_norm = groupnorm(groups = 2)",
    "deepnorm": "residual = layernorm(power(2 * depth, 1/4) * x + f(x))",
    "scaled": "residual = scaled(layernorm(bias = false), branch = 1 / (layer + 1), stream = 0.7)",
    "rezero": "residual = x + param(1, 1) * f(x)  final_norm = rmsnorm",
    "hyper": "residual = hyper(2)",
    "dynamic": "residual = hyper(3, dynamic = true, norm = layernorm)",
    "weighted": "residual = weighted(post(layernorm))  readout = weighted",
    "attend": "readout = attend(heads = 2, every = 2, norm = layernorm)  final_norm = none",
    "l2norm": "residual = pre(l2norm)  embedding = untied(norm = l2norm)",
}


SPELLINGS = {
    "two-projections": """a = x |> dense(4)  b = x |> dense(1, bias = true)
    y = diagonal(b) @ a + (diagonal(x |> dense(4)) @ semi_separable(x |> dense(1), 0.9, 1)) @ a
    * (x |> dense(1, bias = true)) |> dense(width)""",
    "python-names": """class = x |> dense(8)  F = class |> gelu  torch = F |> silu  
    self = torch |> relu  None = self + x  y = None |> layernorm""",
    "latent": """c = x |> dense(3)  r = x |> dense(2) |> rope  kv = c |> dense(16) |> heads(2)
    C = x |> dense(12) |> heads(2)  B = concat(kv |> slice(0, 4), r |> repeat(2))
    y = (low_rank(C, B) |> causal |> softmax) @ (kv |> slice(4, 8)) |> merge |> dense(width)""",
    "latent-flat": """c = x |> dense(3)  kv = c |> dense(16)  B = kv |> slice(0, 8) |> heads(2)
    C = x |> dense(8) |> heads(2)  V = kv |> slice(8, 16) |> heads(2)
    y = (low_rank(C, B) |> scale(1/3) |> causal |> softmax) @ V |> merge |> dense(width)""",
    "latent-read-twice": """c = x |> dense(3)  B = c |> dense(8) |> heads(2)
    C = x |> dense(8) |> heads(2)  V = c |> dense(8) |> heads(2)
    y = ((low_rank(C, B) |> causal |> softmax) @ V + V) * (B |> rope) |> merge |> dense(width)""",
    "latent-bias": """c = x |> dense(3)  B = c |> dense(8, bias = true) |> heads(2) |> rope
    C = x |> dense(8) |> heads(2)  V = c |> dense(8) |> heads(2)
    y = (low_rank(C, B) |> causal |> softmax) @ V |> merge |> dense(width)""",
    "sum-of-lanes-and-heads": """v = x |> dense(1)
    y = (toeplitz(explicit(4, 4)) / 2 + (static(context, 4) |> band(1))) @ v
    |> merge |> dense(width)""",
    "matrix-of-its-own-name": """T = low_rank(x |> dense(6) |> heads(2), x |> dense(3))
    |> softcap(2) |> band(70) |> causal |> softmax
    y = T @ (T @ (x |> dense(2))) |> merge |> dense(width)""",
    "negative-scale": "y = (low_rank(x, x) |> scale(-1/3) |> causal |> softmax) @ x",
    "transposed": """h = x |> dense(12, bias = true) |> relu  C = x |> dense(width) |> heads(2)
    B = transposed(x, C) |> heads(2)  V = x |> dense(width) |> heads(2)
    y = transposed(h, of = h) + transposed((low_rank(C, B) |> causal) @ V |> merge, V)""",
    "scaled-diagonal-band": """d = diagonal(x) |> scale(0.7) |> causal |> band(4)
    y = d @ (d @ lookup(8))""",
    "shifts-beside-keys": """c = x |> dense(2)  k = low_rank(c, c |> tanh) |> causal |> sigmoid
    z = k @ concat(c, c |> tanh, c |> sigmoid) |> dense(2)
    y = z + (c |> silu |> shift) + (c |> relu |> shift) + (c |> gelu |> shift) |> dense(width)""",
    "zero-scale": "y = (low_rank(x, x) |> scale(0) |> causal |> softmax) @ x",
}
"""Bodies of an operator called F: texts that once were compiled to something else."""


def program(backbone: str, operators: str = "", settings: str = "", width: int = 8) -> str:
    return (
        f"{operators} model m {{ vocab = 13  width = {width}  context = 131 {settings}"
        f" backbone {{ {backbone} }} }}"
    )


@pytest.mark.parametrize("name", MIXERS)
def test_mixer(name: str) -> None:
    last = "dense(width)" if name in ("gated-filter", "gate") else "merge |> dense(width)"
    compiled = build(
        program("op()", f"operator op() {{ {FEATURES} y = {MIXERS[name]} |> {last} }}")
    )
    check_agreement(compiled, LENGTHS)
    check_agreement(compiled, (65,), torch.float32)
    check_decoding(compiled)


@pytest.mark.parametrize("unit", LIBRARY)
def test_library(unit: str) -> None:
    use, call = unit.partition("(")[0], unit.partition(".")[2]
    compiled = build(program(call, f"use std.{use}", width=16))
    check_agreement(compiled, LENGTHS)
    check_agreement(compiled, (65,), torch.float32)
    check_decoding(compiled)
    check_agreement(compiled, (65,), torch.bfloat16)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example(path: Path) -> None:
    compiled = build(path.read_text("utf-8"), width=64, vocab=61, context=32)
    check_agreement(compiled, (1, 19))
    if compiled.model.causal:  # an encoder reads a text as a whole
        check_decoding(compiled)


@pytest.mark.parametrize("name", WIRING)
def test_wiring(name: str) -> None:
    compiled = build(program(WIRING[name], UNITS))
    check_agreement(compiled, (1, 5))
    check_decoding(compiled)


def test_a_step_attends_to_the_latent_itself_where_it_can() -> None:
    for name, taken in (("latent", True), ("latent-flat", True), ("latent-bias", False)):
        compiled = build(program("F()", f"operator F() {{ {SPELLINGS[name]} }}"))
        assert hasattr(compiled.module, "latent_step") == taken, name


@pytest.mark.parametrize("name", SPELLINGS)
def test_spelling(name: str) -> None:
    compiled = build(program("F()", f"operator F() {{ {SPELLINGS[name]} }}"))
    check_agreement(compiled, (1, 5))
    check_decoding(compiled)


@pytest.mark.parametrize("name", SETTINGS)
def test_settings(name: str) -> None:
    compiled = build(program("f() g()", UNITS, SETTINGS[name]))
    check_agreement(compiled, (1, 5, 131))
    check_decoding(compiled)
