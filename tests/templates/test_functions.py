"""Functions of generated files that are no mixers, against plain definitions in float64."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from starc.compiler.plan import FunctionPlan
from tests.templates.generated import load

LENGTHS = (1, 2, 63)


def function(template: str, **values: object) -> Any:
    plan = FunctionPlan(template, template, tuple(sorted(values.items())))
    return getattr(load(plan), template)


def randn(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def same(got: Tensor, want: Tensor, *inputs: Tensor) -> None:
    """Equal values and equal gradients of all inputs."""
    torch.testing.assert_close(got, want)
    direction = torch.randn_like(want)
    pairs = zip(
        torch.autograd.grad(got, inputs, direction),
        torch.autograd.grad(want, inputs, direction, retain_graph=True),
        strict=True,
    )
    for own, exact in pairs:
        torch.testing.assert_close(own, exact)


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize(
    "trailing", [((5,), (5,)), ((2, 3), (2, 3)), ((2, 1), (2, 3)), ((1,), (5,))]
)
@pytest.mark.parametrize("taps", [1, 4, 80])
def test_convolutions(length: int, trailing: tuple[tuple[int, ...], tuple[int, ...]], taps: int):
    k = randn(taps, *trailing[0]).requires_grad_()
    v = randn(2, length, *trailing[1]).requires_grad_()
    rows = []
    for t in range(length):
        rows.append(sum(k[s] * v[:, t - s] for s in range(min(taps, t + 1))))
    want = torch.stack(rows, dim=1)
    for name in ("short_convolution", "depthwise_convolution", "long_convolution"):
        f = function(name)
        same(f(k, v, length), want, k, v)
        for last in {1, length // 2 or 1}:
            torch.testing.assert_close(f(k, v, last), want[:, -last:])
        assert f(k, v.bfloat16(), length).dtype == torch.bfloat16


@pytest.mark.filterwarnings(
    "ignore:.*should not be instantiated:DeprecationWarning"
)  # dynamo's own
@pytest.mark.parametrize("dims", [0, 4])
@pytest.mark.parametrize("pairs", ["half", "interleaved"])
def test_rotary_encoding_turns_pairs_as_complex_numbers(dims: int, pairs: str):
    length, theta, turned = 63, 100.0, dims or 8
    plain = {"theta": theta, "dims": turned, "scaling": ("none",), "attention": 1.0}
    tables = function("rotary_tables", **plain)(length, torch.device("cpu"))
    assert [t.shape for t in tables] == [(length, 1, turned // 2)] * 2
    rotate = function("rotate", dims=dims, pairs=pairs)
    x = randn(2, length, 3, 8).requires_grad_()
    if pairs == "half":
        a, b = x[..., : turned // 2], x[..., turned // 2 : turned]
    else:
        a, b = x[..., 0:turned:2], x[..., 1:turned:2]
    t, j = torch.arange(length)[:, None, None], torch.arange(turned // 2)
    angle = t * theta ** (-2 * j.double() / turned)
    z = torch.complex(a, b) * torch.polar(torch.ones_like(angle), angle)
    if pairs == "half":
        want = torch.cat((z.real, z.imag), dim=-1)
    else:
        want = torch.view_as_real(z).flatten(-2)
    same(rotate(x, *tables), torch.cat((want, x[..., turned:]), dim=-1), x)
    low = rotate(x.bfloat16(), *tables)
    assert low.dtype == torch.bfloat16
    torch.testing.assert_close(low.double(), rotate(x, *tables), rtol=0.02, atol=0.02)
    torch._dynamo.reset()
    compiled = torch.compile(rotate, fullgraph=True, backend="aot_eager")
    same(compiled(x, *tables), rotate(x, *tables), x)


@pytest.mark.parametrize("k", [1, 5, 63, 100])
def test_shift(k: int):
    x = randn(2, 63, 3, 4).requires_grad_()
    want = torch.cat((torch.zeros(2, k, 3, 4, dtype=x.dtype), x), dim=1)[:, :63]
    same(function("shift")(x, k, 63), want, x)
    if k < 63:
        torch.testing.assert_close(function("shift")(x, k, 63 - k), want[:, k:])


def test_l2norm():
    x = randn(2, 5, 3, 4).requires_grad_()
    same(function("l2norm")(x, eps=1e-2), x / (x.pow(2).sum(-1, keepdim=True) + 1e-2).sqrt(), x)


@pytest.mark.parametrize("rows", [1, 3, 7])
def test_visible(rows: int):
    values = {"code": "(j <= i) & (i - j < 3)", "words": "j <= i and |i - j| < 3"}
    seen = function("visible", rows=True, **values)(rows, 7, torch.device("cpu"))
    for row in range(rows):
        i = 7 - rows + row
        for j in range(7):
            assert seen[row, j].item() == (j <= i < j + 3)
    seen = function("visible", rows=False, code="j < 2", words="")(rows, 7, torch.device("cpu"))
    assert seen.shape == (rows, 7)
    assert seen.sum(-1).tolist() == [2] * rows


def test_diagonal_matrix():
    f = randn(2, 3, 4).requires_grad_()
    want = F.pad(torch.diag_embed(f), (2, 0))
    same(function("diagonal_matrix")(f, 6), want, f)


@pytest.mark.parametrize("taps", [1, 4, 63, 80])
@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("rows", [1, 2, 63])
def test_toeplitz_matrix(taps: int, length: int, rows: int):
    rows = min(rows, length)
    k = randn(3, taps).requires_grad_()
    padded = F.pad(k, (0, length))
    lag = torch.arange(length - rows, length)[:, None] - torch.arange(length)
    want = padded[:, lag.clamp(min=0)] * (lag >= 0)
    same(function("toeplitz_matrix")(k, rows, length), want, k)


@pytest.mark.parametrize("logarithmic", [True, False])
@pytest.mark.parametrize("heads", [(3, 3, 3), (1, 3, 1), (3, 1, 1), (1, 1, 1)])
@pytest.mark.parametrize("channels", [1, 4])
@pytest.mark.parametrize("length", [1, 2, 13])
def test_semi_separable_matrix(
    logarithmic: bool, heads: tuple[int, int, int], channels: int, length: int
):
    c, b = (randn(2, length, h, 4).requires_grad_() for h in (heads[0], heads[2]))
    a = -3 * torch.rand(2, length, heads[1], channels, dtype=torch.float64)
    a.requires_grad_()
    decay = a.exp() if logarithmic else a
    want = torch.zeros(2, max(heads), length, length, dtype=torch.float64)
    rows = []
    for i in range(length):
        row = [(c[:, i] * decay[:, j + 1 : i + 1].prod(1) * b[:, j]).sum(-1) for j in range(i + 1)]
        zero = [torch.zeros_like(row[0])] * (length - i - 1)
        rows.append(torch.stack([*row, *zero], dim=-1).expand(-1, max(heads), -1))
    want = torch.stack(rows, dim=2)
    matrix = function("semi_separable_matrix", logarithmic=logarithmic)
    torch.testing.assert_close(matrix(c[:, -3:], a, b), want[:, :, -3:])
    got = matrix(c, a, b)
    if length > 1:
        same(got, want, c, a, b)
    else:
        torch.testing.assert_close(got, want)


@pytest.mark.parametrize("decay", [True, False])
def test_implicit_filter(decay: bool):
    torch.manual_seed(0)
    module = load(FunctionPlan("implicit_filter", "ImplicitFilter"))
    net = module.ImplicitFilter(6, 16, context=32, decay=decay)
    assert {name for name, _ in net.named_parameters()} == {
        f"{layer}.{kind}"
        for layer in ("inner", "hidden", "outer")
        for kind in ("weight", "bias")
        if (layer, kind) != ("outer", "bias")
    }
    low = net(20)
    assert low.dtype == torch.float32
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(net(20), low)
    exact = net.double()(20)
    torch.testing.assert_close(low.double(), exact, rtol=1e-4, atol=1e-5)
    u = torch.arange(20, dtype=torch.float64)[:, None] / 32
    f = torch.arange(1, 9, dtype=torch.float64)
    z = torch.cat((u, (2 * math.pi * f * u).sin(), (2 * math.pi * f * u).cos()), dim=-1)
    h = net.hidden(net.inner(z).sin()).sin()
    want = net.outer(h)
    if decay:
        rates = torch.linspace(math.log(100) / 1.5, math.log(100) / 0.3, 6, dtype=torch.float64)
        want = want * torch.exp(-rates * u)
    same(exact, want, *net.parameters())
    assert net.bfloat16()(20).dtype == torch.float32
