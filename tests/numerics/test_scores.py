"""Masks, terms of scores and normalisers: generated modules agree with the oracle.

One line for each stage alone and for combinations; what selects or masks tokens is also compared
with plain loops over pairs.
"""

from __future__ import annotations

import pytest
import torch

from starc.grammar.errors import StarError
from tests.numerics.agreement import build, check_agreement
from tests.numerics.decoding import check_decoding
from tests.numerics.test_agreement import program

FEATURES = """C = x |> dense(8) |> heads(2)  B = x |> dense(8) |> heads(2)
V = x |> dense(8) |> heads(2)  W = x |> dense(16) |> heads(4)  f = x |> dense(2) |> heads(2)
g = f |> logsigmoid  K = explicit(2, 3)  b = x |> dense(4)  c = x |> dense(4)  s = x |> dense(1)
S = low_rank(C, B) |> causal  r = x |> dense(12) |> heads(2)  k = x |> dense(8)
D = semi_separable(C, f |> sigmoid, B)  E = toeplitz(explicit(8, 3))"""

MASKS = {
    "dilated": "S |> dilated(3, 4) |> softmax",
    "dilated-wide": "S |> dilated(100, 2) |> softmax",
    "strided": "S |> strided(5) |> softmax",
    "block": "S |> block(7) |> softmax",
    "block-band": "S |> block(16) |> band(5) |> softmax",
    "block-strided": "S |> block(16) |> strided(3) |> softmax",
    "first": "S |> band(5) |> first(3) |> softmax",
    "first-block": "S |> block(4) |> first(2) |> band(20) |> softmax",
    "summary": "S |> summary(4) |> softmax",
    "summary-2": "S |> summary(6, 2) |> softmax",
    "fixed": "S |> block(6) |> summary(6, 2, also = true) |> softmax",
    "strided-also": "S |> band(4) |> strided(4, also = true) |> softmax",
    "masks-late": "low_rank(C, B) |> dilated(2, 3) |> causal |> first(1) |> softmax",
    "first-of-sum": "S + D |> band(3) |> first(2) |> softmax",
    "first-after-sigmoid": "S |> band(3) |> sigmoid |> first(2) |> softmax",
    "linear-strided": "S |> strided(3)",
    "linear-block": "S |> block(5)",
    "linear-first": "S |> band(2) |> first(2)",
    "recurrence-block": "D |> block(5)",
    "filter-strided": "toeplitz(K) |> strided(2)",
    "diagonal-first": "diagonal(f) |> first(2) |> softmax",
    "sum-of-masks": "(S |> block(4)) + (low_rank(B, C) |> causal |> strided(5)) |> softmax",
    "linked": "(S |> band(3)) @ (D |> strided(4)) |> softmax",
    "sigmoid-strided": "S |> strided(3) |> sigmoid",
    "normalize-block": "S |> relu |> block(6) |> normalize(1/4)",
}

TERMS = {
    "bias": "S |> bias(f) |> softmax",
    "bias-number": "S |> bias(-log(context)) |> sigmoid",
    "bias-constant": "S |> bias(param(2, 1)) |> sigmoid",
    "bias-one-head": "S |> bias(s) |> softmax",
    "bias-scaled": "S |> bias(f) |> scale(1/2) |> softmax",
    "bias-more-heads": "low_rank(C, b) |> causal |> bias(x |> dense(4) |> heads(4)) |> softmax",
    "decay": "S |> scale(1/2) |> decay(g) |> softmax",
    "decay-band": "S |> decay(g) |> band(6) |> softmax",
    "alibi": "S |> alibi |> softmax",
    "alibi-own": "S |> alibi(param(2, 1, init = 0.1)) |> softmax",
    "alibi-feature": "S |> alibi(f |> softplus) |> softmax",
    "alibi-band": "S |> alibi |> band(9) |> softmax",
    "alibi-grouped": "low_rank(W, b) |> causal |> alibi |> softmax",
    "relative": "S |> relative(param(2, 6)) |> softmax",
    "relative-one": "S |> relative(param(1, 6)) |> softmax",
    "relative-buckets": "S |> relative(param(2, 8), farthest = 40) |> softmax",
    "relative-content": "S |> relative(r) |> softmax",
    "sink": "S |> sink |> softmax",
    "sink-zero": "S |> sink(0) |> softmax",
    "sink-feature": "S |> band(4) |> sink(f) |> softmax",
    "sink-late-mask": "low_rank(C, B) |> sink |> causal |> softmax",
    "sink-summary": "S |> summary(4) |> sink |> softmax",
    "softcap-bias": "S |> softcap(2) |> bias(f) |> softmax",
    "temperature": "param(2, 1, init = 1) * S |> softmax",
    "temperature-feature": "f * S |> bias(f) |> softmax",
    "temperature-late": "f * (S |> bias(s)) |> softmax",
    "all": "f * S |> scale(1/2) |> alibi |> decay(g) |> bias(s) |> band(9) |> sink |> softmax",
    "standardize": "S |> standardize",
    "standardize-band": "S |> band(5) |> standardize",
    "added": "S + toeplitz(explicit(2, 5)) |> softmax",
}

SELECT = {
    "top-1": "S |> select(1) |> softmax",
    "top-3": "S |> select(3) |> softmax",
    "blocks": "S |> select(2, 4) |> softmax",
    "blocks-band": "S |> band(20) |> select(2, 4) |> softmax",
    "blocks-group": "S |> select(2, 4, groups = 1) |> softmax",
    "blocks-by": "S |> select(2, 4, by = low_rank(c, b) |> causal |> sigmoid) |> softmax",
    "blocks-by-group": "S |> select(2, 3, by = low_rank(W, b) |> causal, groups = 2) |> softmax",
    "blocks-first": "S |> select(2, 3) |> first(2) |> band(4, also = true) |> softmax",
    "select-sigmoid": "S |> select(3) |> sigmoid",
    "native": "S |> select(3, 4, by = S |> summary(4) |> softmax) |> softmax",
}

CHANNELS = {
    "mask-of-product": "(E @ diagonal(x) |> strided(2)) @ k",
    "mask-of-product-first": "((E @ diagonal(x)) + E |> band(2) |> first(3)) @ k",
    "mask-of-heads": "((E @ diagonal(V) |> block(4)) @ V) |> merge",
    "mask-of-mixed": "((D @ diagonal(C) |> block(5)) @ V) |> merge",
    "mask-of-few-lanes": "((toeplitz(K) @ toeplitz(K) |> block(4)) @ V) |> merge",
    "mask-of-one-lane": "((toeplitz(explicit(1, 4)) |> block(3)) @ V) |> merge",
    "mask-of-grouped": "((S @ diagonal(V) |> block(4)) @ W) |> merge",
}


def body(mixer: str) -> str:
    """A program around a mixer. Equal tokens at two places would have equal scores: positions keep
    a choice among them from being a matter of rounding."""
    operator = f"operator op() {{ {FEATURES} y = {mixer} |> dense(width) }}"
    return program("op()", operator, "position = learned")


@pytest.mark.parametrize("name", [*MASKS, *TERMS, *SELECT])
def test_stage(name: str) -> None:
    mixer = {**MASKS, **TERMS, **SELECT}[name]
    compiled = build(body(f"({mixer}) @ V |> merge"))
    check_agreement(compiled, (1, 2, 5, 37))
    if name not in SELECT:
        check_agreement(compiled, (37,), torch.float32)
    check_decoding(compiled, 40)


@pytest.mark.parametrize("name", CHANNELS)
def test_masks_of_mixers_per_channel(name: str) -> None:
    compiled = build(body(CHANNELS[name]))
    check_agreement(compiled, (1, 2, 17))
    check_decoding(compiled, 20)


ENCODERS = {
    "softmax": "low_rank(C, B) |> softmax",
    "softmax-band": "low_rank(C, B) |> band(4) |> softmax",
    "softmax-block": "low_rank(C, B) |> block(5) |> alibi |> sink |> softmax",
    "softmax-decay": "low_rank(C, B) |> decay(g) |> softmax",
    "softmax-relative": "low_rank(C, B) |> relative(r, farthest = 20) |> softmax",
    "softmax-select": "low_rank(C, B) |> select(3, 2) |> softmax",
    "softmax-grouped": "low_rank(W, b) |> scale(1/2) |> softmax",
    "softmax-negative": "low_rank(C, B) |> scale(-1/2) |> softmax",
    "sigmoid": "low_rank(C, B) |> bias(f) |> sigmoid",
    "linear": "low_rank(C |> elu1, B |> elu1)",
    "linear-normalize": "low_rank(C |> elu1, B |> elu1) |> normalize",
    "product": "low_rank(C, B) @ low_rank(B, C)",
    "sum": "(low_rank(C, B) |> softmax) + D",
}


@pytest.mark.parametrize("name", ENCODERS)
def test_encoders(name: str) -> None:
    mixer = f"({ENCODERS[name]}) @ V |> merge"
    text = body(mixer).replace("position = learned", "position = learned  causal = false")
    compiled = build(text)
    check_agreement(compiled, (1, 2, 5, 37))
    with pytest.raises(ValueError, match="sees later tokens"):
        compiled.module.Model().init_cache(1, 8)


def test_the_same_body_in_a_causal_model_is_refused() -> None:
    text = body("(low_rank(C, B) |> softmax) @ V |> merge")
    build(text.replace("position = learned", "position = learned  causal = false"))
    with pytest.raises(StarError) as refused:
        build(text)
    assert [d.code for d in refused.value.diagnostics] == ["causality"]
