"""Kernels of memories against float64: their bodies in PyTorch, in Triton, and their dispatch."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from starc.compiler.driver import compile_program
from starc.compiler.kernel_gather import Gather
from starc.compiler.options import Options
from starc.grammar.errors import InternalError
from starc.grammar.source import Source
from starc.runtime.loader import load as load_file

DIGEST = "00112233445566778899"


def plan(rows: int, reads: int, channels: int, digest: str = DIGEST) -> Gather:
    return Gather(digest=digest, rows=rows, reads=reads, channels=channels)


# Reads and channels that fill their tiles and that do not, and several tiles of channels.
FEW = [plan(20, 18, 40)]
MANY = [*FEW, plan(7, 1, 5), plan(12, 64, 64), plan(3, 33, 600), plan(70000, 2, 16)]


def test_a_memory_agrees_with_float64(run_script: Callable[..., Any]) -> None:
    arguments = ("gathers.py", FEW, "interpreted", "1,9", "float32,bfloat16", "")
    assert run_script(*arguments, TRITON_INTERPRET="1")["findings"] == []


@pytest.mark.kernels
def test_all_memories_agree_with_float64(run_script: Callable[..., Any]) -> None:
    names = ",".join(own.name for own in MANY[:4])
    arguments = ("interpreted", "1,40", "float32,float16,bfloat16", names)
    assert run_script("gathers.py", MANY[:4], *arguments, TRITON_INTERPRET="1")["findings"] == []


@pytest.mark.gpu
def test_all_memories_agree_with_float64_on_a_gpu(run_script: Callable[..., Any]) -> None:
    names = ",".join(own.name for own in MANY)
    arguments = ("gathers.py", MANY, "cuda", "1,40,5000", "float32,float16,bfloat16", names)
    assert run_script(*arguments)["findings"] == []


@pytest.mark.parametrize("own", MANY, ids=lambda own: own.name)
def test_bodies_have_the_right_gradients(load: Callable[..., ModuleType], own: Gather) -> None:
    """Of the operator and of what a CPU calls."""
    module = load([own])
    operator = getattr(getattr(torch.ops, own.namespace), own.name)
    torch.manual_seed(0)
    rows = torch.randint(own.rows, (5, own.reads))
    shapes = (5, own.reads), (own.rows, own.channels)
    inputs = [torch.randn(s, dtype=torch.float64, requires_grad=True) for s in shapes]
    right = torch.einsum("tj,tjc->tc", inputs[0], inputs[1][rows])
    expected = torch.autograd.grad(right.sin().sum(), inputs)
    for function in (operator, getattr(module, own.name)):
        y = function(rows, *inputs)
        torch.testing.assert_close(y, right)
        for d, value in zip(torch.autograd.grad(y.sin().sum(), inputs), expected, strict=True):
            torch.testing.assert_close(d, value)


def test_choices_are_sorted_by_row(load: Callable[..., ModuleType]) -> None:
    """Also where their numbers need more than 16 bits."""
    module = load(FEW)
    for count in (32767, 32768, 70000):
        rows = torch.tensor([[count - 1, 3], [0, count - 1], [3, 3]])
        order, bounds = module.sort_assignments(rows, count)
        assert order.tolist() == [2, 1, 4, 5, 0, 3]
        assert (len(bounds), bounds.dtype) == (count + 1, torch.int32)
        assert bounds[[0, 1, 3, 4, count - 1, count]].tolist() == [0, 1, 1, 4, 4, 6]


def test_fake_tensors_go_through_the_operator(load: Callable[..., ModuleType]) -> None:
    own = plan(20, 6, 40, digest="a77e0719")
    module = load([own])
    with FakeTensorMode(), torch.no_grad():  # autograd wants a CUDA that is there
        rows = torch.zeros(3, 6, dtype=torch.int64, device="cuda")
        weights, table = (torch.empty(s, device="cuda") for s in ((3, 6), (20, 40)))
        y = getattr(module, own.name)(rows, weights, table)
    assert (y.shape, y.device.type) == ((3, 40), "cuda")


PROGRAM = """
use std.channel.memory
model m {
    vocab = 8  width = 16  context = 8
    backbone { memory(keys = 4, heads = 2, top = 3, key = 8) }
}
"""


def test_models_call_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the operator where a GPU would have it: alone in a graph, and with the same result."""
    artifact = compile_program(Source("m.star", PROGRAM), Options())
    (own,) = (x for x in artifact.kernels if isinstance(x, Gather))
    assert (own.rows, own.reads, own.channels) == (16, 6, 16)
    module = load_file(artifact.text)
    torch.manual_seed(0)
    model, tokens = module.Model().double(), torch.tensor([[3, 1, 4]])
    right = model(tokens)
    monkeypatch.setattr(module, "runs_kernels", lambda x: True)
    exported = torch.export.export(model, (tokens,))
    torch.testing.assert_close(exported.module()(tokens), right)
    nodes = exported.graph_module.graph.nodes
    assert sum(own.name in str(node.target) for node in nodes) == 1


def test_impossible_plans_are_refused() -> None:
    with pytest.raises(InternalError, match="nothing to gather"):
        plan(3, 0, 8)


def test_bytes_are_counted() -> None:
    """A table that no cache holds is read again by every token; its gradient is written once."""
    for work in plan(16384, 128, 512).work(1, 4096, 2):
        assert work.moved <= 1.15 * work.least
    large = {w.operation: w for w in plan(2**20, 128, 512).work(1, 8192, 2)}
    assert large["forward"].moved >= 8192 * 128 * 1024
    assert large["d_table"].moved <= 1.15 * large["d_table"].least
