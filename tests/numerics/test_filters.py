"""Filters that are sums of exponentials: beside the oracle, a formula, and their own recurrence."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch

from tests.numerics.agreement import build, check_agreement
from tests.numerics.decoding import check_decoding

FILTERS = {
    "ssm": "toeplitz(ssm(8, 6)) @ x",
    "ssm-inv": "toeplitz(ssm(8, 4, init = inv)) @ x",
    "ssm-real": "toeplitz(ssm(8, 3, init = real)) @ x",
    "ssm-heads": "toeplitz(ssm(2, 4)) @ (x |> heads(2)) |> merge",
    "ssm-heads-channels": "toeplitz(ssm(8, 4)) @ (x |> heads(2)) |> merge",
    "ssm-one": "toeplitz(ssm(1, 4)) @ x",
    "ssm-band": "(toeplitz(ssm(8, 4)) |> band(9)) @ x",
    "ssm-gated": "diagonal(x |> silu) @ toeplitz(ssm(8, 4)) @ diagonal(x) @ (x |> dense(8)) + x",
    "ssm-softmax": "((low_rank(x, x) |> causal) @ toeplitz(ssm(1, 4)) |> scale(1/3)) @ x",
    "ssm-constant": "toeplitz(ssm(8, 4)) @ param(1, 8, init = 1) + x",
}


def program(y: str) -> str:
    return (
        f"operator f() {{ y = {y} |> dense(width) }}\n"
        "model m { vocab = 20  width = 8  context = 300  backbone { f() } }"
    )


@pytest.mark.parametrize("name", FILTERS)
def test_filters_agree_with_the_oracle(name: str) -> None:
    compiled = build(program(FILTERS[name]))
    check_agreement(compiled, (1, 5, 130))
    check_decoding(compiled, 75)


@pytest.mark.parametrize("init", ["lin", "inv", "real"])
def test_taps_are_those_of_s4d(init: str) -> None:
    """The kernel of S4D (2206.11893): C A^t B after a zero-order hold."""
    torch.manual_seed(0)
    n = 6
    filter_ = vars(build(program(FILTERS["ssm"])).module)["SSMFilter"](3, n, init).double()
    if init == "real":
        a, c = -torch.arange(1.0, n + 1).double().to(torch.complex128), filter_.C
    else:
        k = torch.arange(n // 2)
        imaginary = math.pi * k if init == "lin" else n / math.pi * (n / (2 * k + 1) - 1)
        a = torch.complex(torch.full((n // 2,), -0.5).double(), imaginary.double())
        c = 2 * torch.view_as_complex(filter_.C)
    dt = filter_.step.exp()
    held = ((dt * a).exp() - 1) / a
    taps = [((c * held) * (dt * a * t).exp()).real.sum(-1) for t in range(100)]
    torch.testing.assert_close(filter_(100), torch.stack(taps), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["ssm", "ssm-real", "ssm-heads", "ssm-heads-channels", "ssm-one"])
def test_pieces_with_a_state_are_the_whole(name: str) -> None:
    compiled = build(program(FILTERS[name]))
    convolve = vars(compiled.module)["modal_convolution"]
    filter_ = next(m for m in compiled.module.Model().double().modules() if hasattr(m, "modes"))
    shape = (2, 4) if "heads" in name else (8,)
    v = torch.randn(2, 150, *shape, dtype=torch.float64)
    with torch.no_grad():
        whole, (_, weight) = convolve(filter_, v), filter_.modes()
        state = torch.zeros(2, 8, weight.shape[1], 2 if weight.is_complex() else 1).double()
        edges = (0, 70, 71, 72, 140, 141, 150)
        pieces = [convolve(filter_, v[:, a:b], state) for a, b in pairwise(edges)]
    torch.testing.assert_close(torch.cat(pieces, dim=1), whole)
