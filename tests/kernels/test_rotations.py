"""Kernels of rotary encodings against float64, their operators, and which rotations they take."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from starc.compiler.driver import compile_program
from starc.compiler.kernel_rotary import Rotary
from starc.compiler.options import Options
from starc.grammar.errors import InternalError
from starc.grammar.source import Source
from starc.kernel_check import load as load_file

DIGEST = "00112233445566778899"


def plan(heads: int, others: int, channels: int, dims: int, pairs: str, **more: Any) -> Rotary:
    sizes = {"heads": heads, "others": others, "channels": channels, "dims": dims}
    function = f"rotate_{heads}{others}{channels}{dims}"
    return Rotary(**{"digest": DIGEST, "function": function, "pairs": pairs, **sizes, **more})


# All channels and part of them, pairs that fill a tile and pairs that do not.
FEW = [plan(4, 2, 16, 16, "half"), plan(3, 1, 20, 12, "interleaved")]
MANY = [
    *FEW,
    plan(2, 0, 24, 24, "half"),
    plan(5, 3, 40, 8, "half"),
    plan(2, 4, 64, 64, "interleaved"),
]


def interpreted(run_script: Callable[..., Any], plans: list[Rotary], *rest: str) -> Any:
    return run_script("rotations.py", plans, "interpreted", *rest, TRITON_INTERPRET="1")["findings"]


def test_a_few_rotations_agree_with_float64(run_script: Callable[..., Any]) -> None:
    assert interpreted(run_script, FEW, "1,43", "float32,bfloat16", FEW[0].name) == []


@pytest.mark.kernels
def test_every_rotation_agrees_with_float64(run_script: Callable[..., Any]) -> None:
    names = ",".join(own.name for own in MANY)
    assert interpreted(run_script, MANY, "1,7,130", "float32,float16,bfloat16", names) == []


@pytest.mark.gpu
def test_every_rotation_agrees_with_float64_on_a_gpu(run_script: Callable[..., Any]) -> None:
    names = ",".join(own.name for own in MANY)
    rest = ("cuda", "1,7,130,2000", "float32,float16,bfloat16", names)
    assert run_script("rotations.py", MANY, *rest)["findings"] == []


@pytest.mark.parametrize("own", MANY, ids=lambda own: own.name)
def test_operators_agree_with_the_function(load: Callable[..., ModuleType], own: Rotary) -> None:
    module = load([own])
    operator = getattr(getattr(torch.ops, own.namespace), own.name)
    counts = [own.heads, own.others] if own.others else [own.heads]
    torch.manual_seed(0)
    inputs = [
        torch.randn(2, 5, count, own.channels, dtype=torch.float64, requires_grad=True)
        for count in counts
    ]
    angle = torch.rand(5, 1, own.half, dtype=torch.float64)
    tables = angle.cos(), angle.sin()
    found = []
    for function, last in ((operator, (False,)), (getattr(module, own.name), ())):
        results = function(*inputs, *tables, *last)
        results = results if own.others else (results,)
        loss = sum((y**3).sum() for y in results)
        found.append((*results, *torch.autograd.grad(loss, inputs)))
    for result, right in zip(*found, strict=True):
        torch.testing.assert_close(result, right)


def test_fake_tensors_go_through_the_operator(load: Callable[..., ModuleType]) -> None:
    own = plan(4, 2, 16, 16, "half", digest="a77e0721")
    module = load([own])
    with FakeTensorMode():
        x, other = (torch.empty(2, 3, n, 16, device="cuda", dtype=torch.bfloat16) for n in (4, 2))
        cos = torch.empty(3, 1, 8, device="cuda")
        y, turned = getattr(module, own.name)(x, other, cos, cos)
    assert (y.shape, turned.shape, y.dtype) == ((2, 3, 4, 16), (2, 3, 2, 16), torch.bfloat16)


MODEL = """
operator turned() {{
    C = x |> dense(width) |> heads(8) |> rope
    B = {second} |> heads({heads}) |> rope
    y = (C + (B |> merge |> dense(width) |> heads(8))) |> merge
}}
model m {{ vocab = 8  width = 256  context = 8  backbone {{ turned() }} }}
"""


@pytest.mark.parametrize(
    ("second", "heads", "call"),
    [
        ("x |> dense(64)", "2", "C, B = rotary_8_2x32(C.unflatten(-1, (8, 32)), "),
        ("C |> merge |> dense(64)", "2", "C = rotary_8x32("),  # the second reads the first
        ("x |> dense(128)", "2", "C = rotary_8x32("),  # heads of another width
    ],
)
def test_rotations_by_one_table_meet(tmp_path: Path, second: str, heads: str, call: str) -> None:
    text = MODEL.format(second=second, heads=heads)
    made = compile_program(Source("m.star", text), Options()).text
    assert call in made
    load_file(made, tmp_path).Model()(torch.zeros(1, 3, dtype=torch.int64)).sum().backward()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dims": 5}, "pairs of channels"),
        ({"dims": 18}, "pairs of channels"),
        ({"pairs": "odd"}, "no kernel knows"),
    ],
)
def test_impossible_plans_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InternalError, match=message):
        plan(**{"heads": 2, "others": 0, "channels": 16, "dims": 16, "pairs": "half", **change})
