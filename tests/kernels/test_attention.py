"""Attention kernels against float64: their bodies in PyTorch, in Triton, and their dispatch."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from starc.compiler.kernel_attention import FusedAttention
from starc.grammar.errors import InternalError
from tests.kernels.attention_plans import LATENT, PLANS, numbered, plan, with_steps
from tests.kernels.attention_reference import reference

FEW = ["band", "sink", "relu normalized", "dilated", "block and summary"]
"""Plans that stand for all where time is short."""


def inputs_of(plan: FusedAttention, rows: int, columns: int) -> dict[str, torch.Tensor]:
    torch.manual_seed(rows)
    shapes = {
        "C": (2, rows, plan.c_heads, plan.channels),
        "B": (2, columns, plan.b_heads, plan.channels),
        "V": (2, columns, plan.v_heads, plan.v_channels),
        **{n: (2, columns, plan.heads, 1) for n in ("bias", "total")},
        **{n: (2, rows, plan.heads, 1) for n in ("slope", "sink")},
    }
    return {
        name: torch.randn(shapes[name], dtype=torch.float64).requires_grad_()
        for name in ("C", "B", "V", *plan.terms)
    }


def test_operators_agree_with_float64_on_a_cpu(load: Callable[..., ModuleType]) -> None:
    """The body in PyTorch and its gradient, written by hand, of every plan."""
    plans = numbered(list(PLANS))
    load(with_steps(plans))
    for own in plans:
        operator = getattr(getattr(torch.ops, own.namespace), own.name)
        for rows, columns in ((19, 19), (3, 11), (1, 1)):
            inputs = inputs_of(own, rows, columns)
            y = operator(*inputs.values())
            y = y[0] if own.kept else y
            right = reference(own, inputs)
            torch.testing.assert_close(y, right)
            dy = torch.randn_like(y)
            gradients = torch.autograd.grad(y, list(inputs.values()), dy)
            expected = torch.autograd.grad(right, list(inputs.values()), dy)
            for name, result, value in zip(inputs, gradients, expected, strict=True):
                torch.testing.assert_close(result, value, msg=f"{own.name}: d_{name}")


def interpreted(run_script: Callable[..., Any], plans: list[FusedAttention], *rest: str) -> Any:
    return run_script(
        "attention_numerics.py", with_steps(plans), "interpreted", *rest, TRITON_INTERPRET="1"
    )


def test_a_few_kernels_agree_with_float64(run_script: Callable[..., Any]) -> None:
    done = interpreted(run_script, numbered(FEW), "45", "float32", "")
    assert done["findings"] == []
    done = interpreted(run_script, numbered(FEW[:2]), "1+19", "bfloat16", "")
    assert done["findings"] == []


def test_a_step_over_a_latent_agrees_with_float64(run_script: Callable[..., Any]) -> None:
    rest = ("interpreted", "1,70", "float32,bfloat16", "")
    done = run_script("attention_numerics.py", [LATENT], *rest, TRITON_INTERPRET="1")
    assert done["findings"] == []


@pytest.mark.kernels
@pytest.mark.parametrize("name", PLANS)
def test_every_kernel_agrees_with_float64(run_script: Callable[..., Any], name: str) -> None:
    """Ragged lengths, less than a block, several blocks, and queries behind a prefix."""
    lengths = "1,1+75,70,5+75" if "far" not in name else "1+300,300"
    own = numbered([name])
    findings = interpreted(run_script, own, lengths, "float32", own[0].name)["findings"]
    findings += interpreted(run_script, own, "45", "float16,bfloat16", "")["findings"]
    assert findings == []


@pytest.mark.gpu
def test_every_kernel_agrees_with_float64_on_a_gpu(run_script: Callable[..., Any]) -> None:
    plans = numbered(list(PLANS))
    lengths, dtypes = "1,1+75,70,5+75,300", "float32,float16,bfloat16"
    operators = ",".join(own.name for own in plans)
    done = run_script(
        "attention_numerics.py", with_steps(plans), "cuda", lengths, dtypes, operators
    )
    assert done["findings"] == []


def test_fake_tensors_go_through_the_operator(load: Callable[..., ModuleType]) -> None:
    own = plan(digest="a77e0716", clauses=PLANS["band"].clauses)
    module = load([own])
    with FakeTensorMode():
        c, b, v = (
            torch.empty(x.shape, device="cuda", dtype=torch.bfloat16)
            for x in inputs_of(own, 7, 9).values()
        )
        assert module.serves(c)
        y = getattr(module, own.name)(c, b, v)
    assert (y.shape, y.dtype, y.device.type) == ((2, 7, 2, 64), torch.bfloat16, "cuda")
    assert not module.serves(torch.empty(1))


@pytest.mark.parametrize(
    ("cache", "size", "blocks", "expected"),
    [
        (50 << 20, 5 << 20, 64, [(0, 5), (5, 5), (10, 2)]),  # as many as fit twice
        (50 << 20, 30 << 20, 64, [(0, 5), (5, 5), (10, 2)]),  # 5 x 64 programs occupy 132 twice
        (50 << 20, 1 << 20, 64, [(0, 12)]),
        (0, 1, 1000, [(i, 1) for i in range(12)]),
    ],
)
def test_heads_go_through_the_backward_pass_by_the_cache(
    load: Callable[..., ModuleType],
    monkeypatch: pytest.MonkeyPatch,
    cache: int,
    size: int,
    blocks: int,
    expected: list[tuple[int, int]],
) -> None:
    module = load([plan(digest="a77e0717")])
    device = SimpleNamespace(L2_cache_size=cache, multi_processor_count=132)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: device)
    on_a_gpu = SimpleNamespace(is_cuda=True, device="cuda")
    assert module.cached_slices(on_a_gpu, 12, size, blocks) == expected
    assert module.cached_slices(torch.empty(1), 12, size, blocks) == [(0, 12)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"channels": 300}, "more than 256 channels"),
        ({"weights": "tanh"}, "no kernel knows"),
        ({"b_heads": 3}, "do not divide"),
        ({"sink": True, "weights": "relu"}, "belongs to a softmax"),
        ({"floor": 1.0}, "a floor to no softmax"),
    ],
)
def test_impossible_plans_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InternalError, match=message):
        plan(**change)
