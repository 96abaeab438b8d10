"""Structured transitions agree with the oracle: outputs and the gradient of every parameter."""

from __future__ import annotations

import pytest
import torch

from starc.compiler.cost import cost_report
from tests.numerics.agreement import build, check_agreement
from tests.numerics.decoding import check_decoding

FEATURES = """C = x |> dense(8) |> heads(2)  B = x |> dense(8) |> heads(2) |> l2norm
V = x |> dense(8) |> heads(2)  W = x |> dense(16) |> heads(4)  c = x |> dense(4)
b = x |> dense(4) |> l2norm  f = x |> dense(2) |> heads(2)  a = f |> sigmoid  g = x |> dense(8)
A = x |> dense(8) |> heads(2) |> sigmoid  S = g |> tanh |> heads(2)"""

MIXERS = {
    # the delta rule
    "delta": "semi_separable(C, householder(B, a), a * B) @ V",
    "gated": "semi_separable(C, a * householder(B, 1 - a), (1 - a) * B) @ V",
    "gated-first": "semi_separable(C, householder(B, 1 - a) @ a, B * (1 - a)) @ V",
    "per-channel": "semi_separable(C, householder(B, a) @ A, a * B) @ V",
    "grouped": "semi_separable(c, a * householder(b, 1 - a), (1 - a) * b) @ W",
    "signed": "semi_separable(C, tanh(f) * householder(B, a), a * B) @ V",
    "signed-per-channel": "semi_separable(C, householder(B, a) @ S, a * B) @ V",
    "negated": "semi_separable(C, -householder(B, a) / 2, a * B) @ V",
    "number": "semi_separable(C, 0.9 * householder(B, a), a * B) @ V",
    "normalize": "(semi_separable(C, a * householder(B, 1 - a), (1 - a) * B) |> normalize(1)) @ V",
    # steps diag(w) + a b'
    "untied": "semi_separable(C, householder(B, 2 * a), B) @ V",
    "left": "semi_separable(C, A @ householder(B, a), a * B) @ V",
    "dplr": "semi_separable(C, dplr(A, -a * B, B), C / 2) @ V",
    "dplr-number": "semi_separable(C, dplr(0.9, -a * B, B), C / 2) @ V",
    "dplr-one": "semi_separable(C, dplr(1, -a * B, B), C / 2) @ V",
    "dplr-signed": "semi_separable(C, dplr(S, -a * B, B), C / 2) @ V",
    "dplr-grouped": "semi_separable(c, dplr(0.9, -a * b, b), C / 2) @ W",
    "product": "semi_separable(C, a * householder(B, 1 - a) @ householder(b, a) @ A, B) @ W",
    "product-plain": "semi_separable(C, householder(B, 1 - a) @ householder(b, a), B) @ V",
    "scaled": "(semi_separable(C, dplr(A, -B, B), B) |> scale(-1/2) |> normalize(1)) @ V",
    "one-channel": "semi_separable(f, householder(f |> tanh, a), f) @ V",
    # reads ahead of the update
    "before": "semi_separable(C, dplr(A, -a * B, B), C / 2, read = before) @ V",
    "before-scalar": "semi_separable(C, a, B, read = before) @ V",
    "before-diagonal": "semi_separable(c, A, B, read = before) @ W",
    "before-signed": "semi_separable(C, S, B, read = before) @ V",
    "before-scan": "semi_separable(1, sigmoid(g) |> heads(8), 1, read = before) @ (g |> heads(8))",
    "bonus": "(semi_separable(C, A, B, read = before) + diagonal(param(2, 4) * C * B |> sum)) @ V",
    "bonus-band": "(semi_separable(C, A, B, read = before)"
    " + (low_rank(C * param(2, 4), B) |> causal |> band(1))) @ V",
    # written out
    "softmax": "(semi_separable(C, a * householder(B, 1 - a), (1 - a) * B) |> softmax) @ V",
    "before-normalize": "(semi_separable(C, a, B, read = before) |> normalize(1)) @ V",
    "before-softmax": "(semi_separable(C, A, B, read = before) |> softmax) @ V",
    "before-dplr": "(semi_separable(c, dplr(A, -a * b, b), B, read = before) |> softmax) @ V",
    "bonus-scaled": "(low_rank(C, B) |> scale(3) |> causal |> band(4) |> band(1)) @ V",
    "band": "(semi_separable(C, householder(B, 1 - a) @ householder(b, a), B) |> band(7)) @ V",
}


def program(mixer: str) -> str:
    return f"""operator op() {{ {FEATURES} y = {mixer} |> merge |> dense(width) }}
    model m {{ vocab = 13  width = 8  context = 67  backbone {{ op() }} }}"""


@pytest.mark.parametrize("name", MIXERS)
def test_mixer(name: str) -> None:
    compiled = build(program(MIXERS[name]))
    check_agreement(compiled, (1, 67))
    check_agreement(compiled, (5,), torch.float32)
    check_agreement(compiled, (5,), torch.bfloat16)


@pytest.mark.parametrize("name", MIXERS)
def test_decoding(name: str) -> None:
    check_decoding(build(program(MIXERS[name])), longest=67)


def test_a_decay_of_hundreds_of_powers_does_not_overflow() -> None:
    compiled = build(
        program("semi_separable(C, householder(B, a) @ exp(100 * S - 100), a * B) @ V")
    )
    check_agreement(compiled, (67,))
    check_agreement(compiled, (67,), torch.float32)


MEMORY = """
operator memory() {
    C = x |> dense(16) |> heads(4)
    B = x |> dense(8) |> heads(2)
    V = x |> dense(12) |> heads(2)
    i = (x |> dense(2, bias = true)) * BY |> heads(2)
    f = x |> dense(2, bias = true) |> heads(2)
    T = semi_separable(C, sigmoid(f), exp(i) * B / 3) |> scale(-1/2) |> normalize(FLOOR)
    y = T @ V |> merge |> dense(width)
}
model m { vocab = 32  width = 8  context = 300  backbone { memory() } }
"""


@pytest.mark.parametrize(("by", "floor"), [("1", "1"), ("100", "1 / 1000"), ("-100", "3")])
def test_exponential_gates_do_not_overflow(by: str, floor: str) -> None:
    """Gates of some hundreds, whose exponential no float32 holds, in chunks and in steps."""
    compiled = build(MEMORY.replace("BY", by).replace("FLOOR", floor))
    check_agreement(compiled, (1, 37, 200))
    check_decoding(compiled)
    assert cost_report(compiled.final) == cost_report(compiled.model)


def test_bounded_gates_need_no_running_maximum() -> None:
    free = build(MEMORY.replace("BY", "1").replace("FLOOR", "1"))
    bounded = build(
        MEMORY.replace("(2, bias = true)) * BY", "(2) |> tanh) * 15").replace("FLOOR", "1")
    )
    kept = [cost_report(compiled.final).fixed_state_elements for compiled in (free, bounded)]
    assert kept[0] - kept[1] == 2
