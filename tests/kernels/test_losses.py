"""Cross-entropy in chunks against float64: on a CPU, in Triton's interpreter, in whole models."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from starc.compiler import kernel_loss
from starc.compiler.driver import compile_program
from starc.compiler.kernel_loss import CrossEntropy
from starc.compiler.options import Options
from starc.grammar.errors import InternalError
from starc.grammar.source import Source
from starc.kernel_check import load as load_file

DIGEST = "00112233445566778899"


def plan(vocab: int, **more: Any) -> CrossEntropy:
    return CrossEntropy(**{"digest": DIGEST, "width": 24, "vocab": vocab, **more})


# Rows that fill a tile, rows that need a mask, and rows of several blocks.
FEW = [plan(64), plan(70, scale=0.5, softcap=5.0)]
MANY = [*FEW, plan(77, scale=2.0), plan(128, softcap=3.0), plan(32800), plan(33000, softcap=4.0)]


@pytest.fixture
def few_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of 256 tokens."""
    monkeypatch.setattr(kernel_loss, "LOGITS", {"cpu": 1, "cuda": 1})


def interpreted(run_script: Callable[..., Any], plans: list[CrossEntropy], *rest: str) -> Any:
    return run_script("losses.py", plans, "interpreted", *rest, TRITON_INTERPRET="1")["findings"]


def test_a_few_losses_agree_with_float64(run_script: Callable[..., Any]) -> None:
    assert interpreted(run_script, FEW, "6,9", "float32,bfloat16", "") == []


@pytest.mark.kernels
def test_every_loss_agrees_with_float64(run_script: Callable[..., Any], few_at_once: None) -> None:
    names = ",".join(own.name for own in MANY)
    dtypes = "float32,float16,bfloat16"
    assert interpreted(run_script, MANY, "6,11", dtypes, names) == []
    assert interpreted(run_script, MANY[:2], "600", dtypes, "") == []  # three chunks


@pytest.mark.gpu
def test_every_loss_agrees_with_float64_on_a_gpu(run_script: Callable[..., Any]) -> None:
    names = ",".join(own.name for own in MANY)
    rest = ("cuda", "6,11,600", "float32,float16,bfloat16", names)
    assert run_script("losses.py", MANY, *rest)["findings"] == []


def plain(own: CrossEntropy, x: Tensor, head: nn.Linear, targets: Tensor) -> Tensor:
    z = head(x).flatten(0, 1) * own.scale
    if own.softcap is not None:
        z = own.softcap * torch.tanh(z / own.softcap)
    return F.cross_entropy(z, targets.flatten())


class Largest(TorchDispatchMode):
    """Records the most elements of a tensor that an operation made."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self.elements = max(self.elements, result.numel())
        return result


@pytest.mark.parametrize("own", MANY[:4], ids=lambda own: f"{own.vocab}-{own.formula}")
@pytest.mark.parametrize("biased", [False, True])
def test_chunks_give_what_all_logits_give(
    load: Callable[..., ModuleType], few_at_once: None, own: CrossEntropy, biased: bool
) -> None:
    """Loss and gradients in float64, with targets that do not count, and all but one chunk's
    logits missing."""
    module = load([own])
    torch.manual_seed(0)
    head = nn.Linear(24, own.vocab, bias=biased, dtype=torch.float64)
    x = torch.randn(2, 300, 24, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(own.vocab, (2, 300))
    targets[:, ::3] = -100
    inputs = [x, *head.parameters()]
    with Largest() as largest:
        loss = getattr(module, own.name)(x, head, targets, -100)
        found = torch.autograd.grad(5 * loss, inputs)
    right = plain(own, x, head, targets)
    torch.testing.assert_close(loss, right)
    for result, value in zip(found, torch.autograd.grad(5 * right, inputs), strict=True):
        torch.testing.assert_close(result, value)
    assert largest.elements <= 256 * own.stride < 600 * own.vocab
    with torch.no_grad():
        torch.testing.assert_close(getattr(module, own.name)(x, head, targets, -100), right)


def test_autocast_and_narrow_weights(load: Callable[..., ModuleType]) -> None:
    own = plan(64, digest="a77e0718")
    function = getattr(load([own]), own.name)
    torch.manual_seed(0)
    targets = torch.randint(64, (2, 9))
    for dtype in (torch.float32, torch.bfloat16):
        head = nn.Linear(24, 64, bias=False, dtype=dtype)
        x = torch.randn(2, 9, 24, dtype=dtype, requires_grad=True)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss, right = function(x, head, targets, -100), plain(own, x, head, targets)
        assert loss.dtype == torch.float32
        torch.testing.assert_close(loss, right.float(), rtol=1e-2, atol=1e-2)
        for result, value in zip(
            torch.autograd.grad(loss, [x, head.weight]),
            torch.autograd.grad(right, [x, head.weight]),
            strict=True,
        ):
            assert result.dtype == dtype
            torch.testing.assert_close(result, value, rtol=0.05, atol=1e-3)


def test_what_cannot_be_scored(load: Callable[..., ModuleType]) -> None:
    own = plan(64, digest="a77e0719")
    function = getattr(load([own]), own.name)
    head, x = nn.Linear(24, 64), torch.randn(1, 3, 24, requires_grad=True)
    nothing = torch.full((1, 3), -100)
    assert function(x, head, nothing, -100).isnan()  # as F.cross_entropy has it
    with pytest.raises(IndexError):
        function(x, head, torch.full((1, 3), 64), -100)
    loss = function(x, head, torch.zeros(1, 3, dtype=torch.int64), -100)
    (dx,) = torch.autograd.grad(loss, x, create_graph=True)
    with pytest.raises(RuntimeError, match="does not require grad"):
        torch.autograd.grad(dx.sum(), x)


def test_graphs_and_fake_tensors(load: Callable[..., ModuleType]) -> None:
    own = plan(64, digest="a77e0720")
    module = load([own])
    function = getattr(module, own.name)
    head, x, targets = nn.Linear(24, 64), torch.randn(2, 3, 24), torch.randint(64, (2, 3))
    compiled = torch.compile(function, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x, head, targets, -100), function(x, head, targets, -100))
    with FakeTensorMode():
        x = torch.empty(2, 3, 24, device="cuda", dtype=torch.bfloat16)
        head = SimpleNamespace(weight=torch.empty(64, 24, device="cuda"), bias=None)
        loss = function(x, head, torch.empty(2, 3, device="cuda").long(), -100)
    assert (loss.shape, loss.dtype, loss.device.type) == ((), torch.float32, "cuda")


MODEL = """use std.channel.swiglu
model m {{
    vocab = {vocab}  width = 16  context = 8
    head = linear(scale = 0.5, softcap = 4)
    residual = pre(rmsnorm())
    backbone {{ swiglu(hidden = 16) }}
}}
"""


@pytest.mark.parametrize(("vocab", "chunks"), [(64, False), (4096, True)])
def test_models_with_many_entries_do_without_logits(
    tmp_path: Path, vocab: int, chunks: bool
) -> None:
    text = MODEL.format(vocab=vocab)
    made = compile_program(Source("m.star", text), Options()).text
    module = load_file(made, tmp_path)
    assert hasattr(module, f"cross_entropy_{vocab}") == chunks
    model, tokens = module.Model(), torch.randint(vocab, (2, 9))
    logits, targets = model(tokens[:, :-1]), tokens[:, 1:]
    right = F.cross_entropy(logits.flatten(0, 1), targets.flatten())
    torch.testing.assert_close(model.loss(tokens[:, :-1], targets), right)


def test_impossible_plans_are_refused() -> None:
    with pytest.raises(InternalError, match="nothing to choose from"):
        plan(1)


def test_bytes_are_the_least_as_long_as_the_cache_holds_rows() -> None:
    for vocab in (32000, 128256, 262144):
        (work,) = plan(vocab).work(1, 4096, 2)
        assert work.moved == work.least
    (work,) = plan(400000).work(1, 4096, 2)
    assert 1.49 < work.moved / work.least < 1.5


@pytest.mark.parametrize(
    ("cache", "rows", "expected"),
    [
        (50 << 20, 4096, 102),  # half of it over 2 x 128256 bytes
        (50 << 20, 60, 60),
        (4 << 20, 4096, 4 * 132),  # 8 rows leave most of 132 processors idle: it is not relied on
    ],
)
def test_rows_at_work_fit_the_cache(
    load: Callable[..., ModuleType],
    monkeypatch: pytest.MonkeyPatch,
    cache: int,
    rows: int,
    expected: int,
) -> None:
    module = load([plan(128256, digest="d15b0a90")])
    device = SimpleNamespace(L2_cache_size=cache, multi_processor_count=132)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: device)

    class Rows:
        is_cuda, device = True, "cuda"

        def __len__(self) -> int:
            return rows

        def stride(self, axis: int) -> int:
            return 128256

        def element_size(self) -> int:
            return 2

    assert module.cached_rows(Rows()) == expected
    assert module.cached_rows(torch.empty(7, 3)) == 7
