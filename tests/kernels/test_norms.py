"""Kernels of norms against float64: their bodies in PyTorch, in Triton, and their dispatch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from starc.compiler.driver import compile_program
from starc.compiler.kernel_norm import NormKernel
from starc.compiler.options import Options
from starc.grammar.errors import InternalError
from starc.grammar.source import Source
from starc.kernel_check import load as load_file

DIGEST = "00112233445566778899"


def plan(kind: str, channels: int, **more: Any) -> NormKernel:
    return NormKernel(**{"digest": DIGEST, "kind": kind, "channels": channels, **more})


# Rows that fill their tile and rows that need a mask.
FEW = [
    plan("rms", 64),
    plan("layer", 60, bias=True),
    plan("rms", 24, heads=3, residual=False),
]
MANY = [
    *FEW,
    plan("rms", 60, weight="offset"),
    plan("rms", 72, weight="none"),
    plan("layer", 64),
    plan("layer", 72, weight="none"),
    plan("layer", 48, weight="offset", bias=True),
    plan("rms", 600, residual=False, weight="offset"),
    plan("rms", 16, heads=3, residual=False, weight="own"),
    plan("layer", 24, heads=2, residual=False, weight="own", bias=True),
    plan("l2", 24, heads=3, residual=False, weight="none"),
    plan("l2", 64, residual=False, weight="none"),
    plan("layer", 5000, bias=True),
]


def interpreted(run_script: Callable[..., Any], plans: list[NormKernel], *rest: str) -> Any:
    return run_script("norms.py", plans, "interpreted", *rest, TRITON_INTERPRET="1")["findings"]


def test_a_few_norms_agree_with_float64(run_script: Callable[..., Any]) -> None:
    assert interpreted(run_script, FEW, "1,67", "float32,bfloat16", "") == []


@pytest.mark.kernels
def test_every_norm_agrees_with_float64(run_script: Callable[..., Any]) -> None:
    """One row, less than a tile, and more tiles than there may be programs."""
    names = ",".join(own.name for own in MANY)
    dtypes = "float32,float16,bfloat16"
    assert interpreted(run_script, MANY, "1,3,259", dtypes, names) == []
    several = plan("rms", 2048, heads=128, residual=False)  # two programs a head, many steps each
    assert interpreted(run_script, [several], "7", "float32", "") == []


@pytest.mark.gpu
def test_every_norm_agrees_with_float64_on_a_gpu(run_script: Callable[..., Any]) -> None:
    names = ",".join(own.name for own in MANY)
    rest = ("cuda", "1,3,67,5000", "float32,float16,bfloat16", names)
    assert run_script("norms.py", MANY, *rest)["findings"] == []


@pytest.mark.parametrize("own", MANY, ids=lambda own: own.name)
def test_bodies_have_the_right_gradients(load: Callable[..., ModuleType], own: NormKernel) -> None:
    """The gradient in PyTorch, written by hand, is that of the body."""
    module = load([own])
    operator = getattr(getattr(torch.ops, own.namespace), own.name)
    torch.manual_seed(0)
    shape = (2, 3, own.heads, own.channels) if own.heads > 1 else (2, 3, own.channels)
    shapes = [shape] * (1 + own.residual) + [own.weight_shape] * len(own.weights)
    inputs = [torch.randn(x, dtype=torch.float64, requires_grad=True) for x in shapes]
    found = []
    for function in (operator, getattr(module, f"body_{own.name}")):
        results = function(*inputs, 1e-3)
        results = results if own.residual else (results,)
        loss = sum((y * torch.cos(3 * y + i)).sum() for i, y in enumerate(results))
        found.append((*results, *torch.autograd.grad(loss, inputs)))
    for result, right in zip(*found, strict=True):
        torch.testing.assert_close(result, right)


def test_a_norm_without_a_gpu_is_the_module(load: Callable[..., ModuleType]) -> None:
    own = FEW[1]
    module = load([own])
    norm = torch.nn.LayerNorm(60)
    x, more = torch.randn(2, 2, 5, 60)
    total, y = getattr(module, own.name)(x, more, norm)
    torch.testing.assert_close(total, x + more)
    torch.testing.assert_close(y, norm(x + more))
    compiled = torch.compile(getattr(module, own.name), backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x, more, norm)[1], y)


def test_fake_tensors_go_through_the_operator(load: Callable[..., ModuleType]) -> None:
    own = plan("rms", 64, digest="a77e0717")
    module = load([own])
    with FakeTensorMode(), torch.no_grad():  # autograd wants a CUDA that is there
        x = torch.empty(2, 3, 64, device="cuda")
        more = torch.empty(2, 3, 64, device="cuda", dtype=torch.bfloat16)
        norm = torch.nn.RMSNorm(64, eps=1e-6, device="cuda")
        assert module.runs_kernels(x)
        total, y = getattr(module, own.name)(x, more, norm)
    assert (total.dtype, y.dtype, y.shape) == (torch.float32, torch.float32, (2, 3, 64))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"channels": 20000}, "1 to 8192 channels"),
        ({"kind": "max"}, "no kernel knows"),
        ({"weight": "tanh"}, "no kernel knows"),
        ({"heads": 2}, "the stream has no heads"),
        ({"weight": "none", "bias": True}, "comes with a weight"),
    ],
)
def test_impossible_plans_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InternalError, match=message):
        plan(**{"kind": "rms", "channels": 8, **change})


def test_bytes_are_the_least() -> None:
    """Shares of the weight's gradient are a few hundredths of a long sequence."""
    for own in (plan("rms", 512), plan("rms", 64, heads=8, residual=False)):
        for work in own.work(1, 4096, 2):
            assert work.moved <= 1.15 * work.least


HEADS = """
operator normed() {
    C = x |> dense(width) |> heads(4) |> rmsnorm
    B = x |> dense(width) |> heads(4) |> l2norm
    y = C * B |> merge
}
model m {
    vocab = 8  width = 256  context = 8  residual = RESIDUAL
    backbone { normed() normed() }
}
"""


@pytest.mark.parametrize(
    ("residual", "calls"),
    [
        ("pre(rmsnorm)", ["x, read = add_rms_norm_256(x, ", "self.normed_2_norm"]),
        ("sandwich(layernorm)", ["x, read = add_biased_layer_norm_256("]),
        ("post(layernorm)", ["_, x = add_biased_layer_norm_256(", "self.normed_norm"]),
    ],
)
def test_models_call_them(tmp_path: Path, residual: str, calls: list[str]) -> None:
    """And give what their definition does."""
    text = HEADS.replace("RESIDUAL", residual)
    made = compile_program(Source("m.star", text), Options()).text
    for call in [*calls, "rms_norm_4x64(", "plain_l2_norm_4x64("]:
        assert call in made, made
    model, tokens = load_file(made, tmp_path).Model(), torch.tensor([[3, 1, 4]])
    x = model.embedding(tokens)
    for name in ("normed", "normed_2"):
        unit, norm = getattr(model, name), getattr(model, f"{name}_norm")
        if residual.startswith("post"):
            x = norm(x + unit(x))
        elif residual.startswith("sandwich"):
            x = x + getattr(model, f"{name}_post_norm")(unit(norm(x)))
        else:
            x = x + unit(norm(x))
    x = model.final_norm(x) if hasattr(model, "final_norm") else x
    torch.testing.assert_close(model(tokens), model.head(x))
