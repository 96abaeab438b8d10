"""Long convolutions: kernels against float64, what they take in, and when they are called."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest import mock

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from starc.compiler.driver import compile_program
from starc.compiler.kernel_long_convolution import LongConvolution
from starc.compiler.kernel_roofline import DEVICES
from starc.compiler.kernel_tiles import LONGEST_PRODUCT
from starc.compiler.options import Options
from starc.grammar.errors import InternalError
from starc.grammar.source import Source
from starc.runtime.reference import evaluate, random_parameters
from tests.numerics import agreement

DIGEST = "00112233445566778899"


def plan(channels: int, lanes: int = 0, **more: Any) -> LongConvolution:
    own = {"digest": DIGEST, "channels": channels, "lanes": lanes or channels}
    return LongConvolution(**{**own, **more})


BOTH = {"output_gate": True, "input_gate": True}

FEW = [plan(2, **BOTH), plan(3, 1)]
MANY = [
    *FEW,
    plan(5, output_gate=True),
    plan(7, input_gate=True),
    plan(6, 2, **BOTH),
    plan(66, 2),
    plan(9, 1, **BOTH),
]
"""Filters of a channel and of several; channels that hang over a tile."""


def interpreted(run_script: Callable[..., Any], plans: list[LongConvolution], *rest: str) -> Any:
    arguments = ("long_convolutions.py", plans, "interpreted", *rest)
    return run_script(*arguments, TRITON_INTERPRET="1")["findings"]


def test_a_few_long_convolutions_agree_with_float64(run_script: Callable[..., Any]) -> None:
    """Less than a chunk, and more than one with a ragged end."""
    assert interpreted(run_script, FEW, "150", "float32,bfloat16", "") == []


@pytest.mark.kernels
def test_long_convolutions_agree_with_float64(run_script: Callable[..., Any]) -> None:
    """One token; whole chunks; more columns than one program takes, and more tokens than taps."""
    names = ",".join(own.name for own in MANY[:4])
    dtypes = "float32,float16,bfloat16"
    assert interpreted(run_script, MANY, "1,63,128,300", dtypes, names) == []
    assert interpreted(run_script, [plan(12, 1, **BOTH)], "800", "float32,bfloat16", "") == []


@pytest.mark.gpu
def test_long_convolutions_agree_with_float64_on_a_gpu(run_script: Callable[..., Any]) -> None:
    names = ",".join(own.name for own in MANY)
    rest = ("cuda", "1,63,128,1000", "float32,float16,bfloat16", names)
    assert run_script("long_convolutions.py", MANY, *rest)["findings"] == []


@pytest.mark.kernels
@pytest.mark.parametrize("element", ["bf16", "fp32"])
def test_long_convolutions_compile_within_limits(
    run_script: Callable[..., Any], element: str
) -> None:
    plans = [plan(768, **BOTH), plan(60)][: 2 if element == "bf16" else 1]
    reports = run_script(
        "compiled.py", plans, "sm_80,sm_90,sm_100,gfx942", element, TRITON_INTERPRET="0"
    )
    assert len(reports) == 4 * 11 * len(plans)
    for report in reports:
        assert report["fits"], report
        assert (report["spills"], report["atomics"]) == (0, 0), report
        if report["products"]:
            grouped = report["target"] in ("sm_90", "sm_100")
            assert report["group_instructions" if grouped else "matrix_instructions"], report
        elif report["target"] == "sm_90" and "_768_" in report["kernel"]:
            assert report["wide_accesses"], report
            assert not report["narrow_accesses"], report


@pytest.mark.parametrize("own", MANY, ids=lambda own: f"{own.name}{own.output_gate:d}")
def test_bodies_have_the_right_gradients(
    load: Callable[..., ModuleType], own: LongConvolution
) -> None:
    """The PyTorch body and its gradient, against sums over lags written out."""
    load([own])
    operator = getattr(getattr(torch.ops, own.namespace), own.name)
    torch.manual_seed(0)
    there = (own.output_gate, own.input_gate, True)
    shapes = [(5, own.lanes), *((2, 9, own.channels) if x else None for x in there)]
    inputs = [
        None if shape is None else torch.randn(shape, dtype=torch.float64, requires_grad=True)
        for shape in shapes
    ]
    given = [x for x in inputs if x is not None]
    filter, output_gate, input_gate, value = inputs
    assert filter is not None
    assert value is not None
    u = value if input_gate is None else input_gate * value
    wide = filter.repeat_interleave(own.channels // own.lanes, dim=1)
    expected = torch.zeros_like(u)
    for s in range(5):
        expected = expected + wide[s] * torch.nn.functional.pad(u, (0, 0, s, 0))[:, :9]
    if output_gate is not None:
        expected = output_gate * expected
    y, _ = operator(*inputs)
    torch.testing.assert_close(y, expected)
    slope = torch.randn_like(y)
    found = torch.autograd.grad(y, given, slope)
    for result, right in zip(found, torch.autograd.grad(expected, given, slope), strict=True):
        torch.testing.assert_close(result, right)


def test_fake_tensors_go_through_the_operator(load: Callable[..., ModuleType]) -> None:
    """Up to so many taps; beyond, and behind a cache, transforms serve."""
    own = plan(8, 2, digest="a77e0718", **BOTH)
    module = load([own])
    device = SimpleNamespace(major=9)
    called = mock.Mock(side_effect=lambda K, V, length: V)
    with (
        FakeTensorMode(),
        torch.no_grad(),
        mock.patch.object(torch.cuda, "get_device_properties", return_value=device),
        mock.patch.object(module, "long_convolution", called),
    ):
        x = torch.empty(2, 3, 2, 4, device="cuda", dtype=torch.bfloat16)
        gate = torch.empty(2, 3, 2, 4, device="cuda")
        y = getattr(module, own.name)(torch.empty(3, 2, 1, device="cuda"), x, 3, gate)
        assert (y.dtype, y.shape, called.call_count) == (torch.float32, x.shape, 0)
        getattr(module, own.name)(torch.empty(3, 2, 1, device="cuda"), x, 2)
        assert called.call_count == 1
        long = torch.empty(1, 8192, 2, 4, device="cuda")
        getattr(module, own.name)(torch.empty(8192, 2, 1, device="cuda"), long, 8192)
        assert called.call_count == 2
        getattr(module, own.name)(torch.empty(100, 2, 1, device="cuda"), long, 8192)
        assert called.call_count == 2


@pytest.mark.parametrize("name", sorted(LONGEST_PRODUCT))
@pytest.mark.parametrize("size", [2, 4])
def test_the_longest_product_is_where_both_take_as_long(name: str, size: int) -> None:
    device = DEVICES[name]
    rate = device.matrix if size == 2 else device.matrix / (8 if name == "MI300X" else 6)
    saved = 76 - 6 * size
    taps = saved / device.bandwidth * rate / 2 / 1.25
    step = {2: 1024, 4: 512}[size]
    assert LONGEST_PRODUCT[name][size] == round(taps / step) * step


def test_generated_files_know_the_table(load: Callable[..., ModuleType]) -> None:
    module = load([plan(8)])
    for size, dtype in ((2, torch.bfloat16), (4, torch.float32)):
        for major, name in ((8, "A100"), (9, "H100"), (10, "H100"), (12, "RTX4090")):
            with mock.patch.object(
                torch.cuda, "get_device_properties", return_value=SimpleNamespace(major=major)
            ):
                found = module.longest_product(torch.empty(1, dtype=dtype))
            assert found == LONGEST_PRODUCT[name][size]
        with mock.patch.object(torch.version, "hip", "6.0"):
            found = module.longest_product(torch.empty(1, dtype=dtype))
        assert found == LONGEST_PRODUCT["MI300X"][size]


def test_work_counts_what_the_launches_do() -> None:
    own = plan(768, **BOTH)
    elements, work = 8 * 4096 * 768, own.work(8, 4096, 2)
    (blocks,) = (w for w in work if w.kernel.endswith("_blocks") and w.operation == "forward")
    assert 1.0 < blocks.flops / (elements * 4096) <= 1.3  # the rest lies above the diagonal
    (lags,) = (w for w in work if w.kernel.endswith("_lags"))
    assert 1.0 < lags.flops / (elements * 4096) < 1.05
    least = {w.operation: w.least for w in work}
    filter = 4 * 768 * 4096
    assert least == {"forward": 8 * elements + filter, "backward": 14 * elements + 2 * filter}


@pytest.mark.parametrize(("channels", "lanes"), [(8, 3), (2, 4), (0, 0)])
def test_impossible_plans_are_refused(channels: int, lanes: int) -> None:
    with pytest.raises(InternalError, match="filters for"):
        LongConvolution(digest=DIGEST, channels=channels, lanes=lanes)


PROGRAM = """
operator mixed() {
    C = x |> dense(width)
    B = x |> dense(width)
    V = x |> dense(width)
    K = FILTER
    D = param(1, width, init = normal(1))
    BODY
}
model m {
    vocab = 11  width = 8  context = 32  residual = pre(rmsnorm)
    backbone { mixed() }
}
"""


@pytest.mark.parametrize(
    ("body", "wanted", "unwanted"),
    [
        ("y = diagonal(C) @ toeplitz(K) @ diagonal(B) @ V", ["V, x.shape[1], C, B)"], ["C * "]),
        ("y = C * (toeplitz(K) @ (B * V))", ["V, x.shape[1], C, B)"], ["C * "]),
        ("u = B * V  y = toeplitz(K) @ u + u * D", ["with_skip(", "None, B)"], []),
        ("u = B * V  y = C * (D * u + toeplitz(K) @ u) + u", ["with_skip(", "C)"], ["C * y"]),
        ("y = toeplitz(K) @ V + B", ["long_convolution_8("], ["with_skip"]),
        ("h = toeplitz(K) @ V  y = h * C + h", ["long_convolution_8("], ["x.shape[1], C)"]),
        ("h = toeplitz(K) @ V  y = toeplitz(K) @ (C * h) + B", ["x.shape[1], C)"], []),
    ],
)
@pytest.mark.parametrize("filter", ["implicit(width)", "ssm(width, 4)", "explicit(width, 40)"])
def test_what_stands_around_a_convolution_joins_it(
    filter: str, body: str, wanted: list[str], unwanted: list[str]
) -> None:
    """And gives what the definition does, at once and in pieces with a cache."""
    source = Source("m.star", PROGRAM.replace("FILTER", filter).replace("BODY", body))
    made = compile_program(source, Options())
    forward = made.text[made.text.index("class Mixed(") :].partition("def init_cache")[0]
    before = forward.partition("else:")[0]  # without a cache
    joined = " ".join(before.split()).replace("( ", "(").replace(" )", ")").replace(",)", ")")
    for piece in wanted:
        assert piece in joined, forward
    for piece in unwanted:
        assert piece not in before, forward
    compiled = agreement.build(source.text)
    agreement.check_agreement(compiled, (1, 21), torch.float64)
    parameters = random_parameters(compiled.model, 0)
    model: Any = compiled.network(parameters, torch.float64)
    tokens = compiled.tokens(21)
    expected = evaluate(compiled.model, parameters, tokens)
    with torch.no_grad():
        cache = model.init_cache(len(tokens), 21)
        pieces = [model(piece, cache) for piece in tokens.split((9, 1, 1, 10), dim=1)]
    torch.testing.assert_close(torch.cat(pieces, dim=1), expected, rtol=1e-6, atol=1e-8)
