"""What model code sees: functions that find the right body, and operators PyTorch can work with."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from starc.compiler.kernel_activation import ACTIVATIONS
from starc.compiler.kernel_plan import GatedConvolution, GatedProduct

Plan = GatedProduct | GatedConvolution

# Digests of their own: an operator, once registered, stays for the life of the process.
PAIR = GatedProduct(digest="d15b0a71", activation="silu", channels=24)
PACKED = GatedProduct(digest="d15b0a71", activation="gelu", channels=24, packed=True)
GATED = GatedConvolution(digest="d15b0a71", channels=24, taps=3)
PACKED_GATED = GatedConvolution(digest="d15b0a71", channels=24, taps=3, packed=True)
PLAIN = GatedConvolution(
    digest="d15b0a71", channels=24, taps=4, output_gate=False, input_gate=False
)
PLANS: list[Plan] = [PAIR, PACKED, GATED, PACKED_GATED, PLAIN]
every_plan = pytest.mark.parametrize("plan", PLANS, ids=lambda plan: plan.name)


@pytest.fixture
def module(load: Callable[..., ModuleType]) -> ModuleType:
    return load(PLANS)


def inputs_of(plan: Plan, length: int = 6, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    torch.manual_seed(0)
    tensors = [torch.randn(2, length, plan.width, dtype=dtype) for _ in plan.inputs]
    if isinstance(plan, GatedConvolution):
        tensors.append(
            torch.randn(plan.channels, plan.taps, dtype=torch.promote_types(dtype, torch.float32))
        )
    return [tensor.requires_grad_() for tensor in tensors]


def gradients(function: Callable[..., Tensor], inputs: list[Tensor]) -> tuple[Tensor, ...]:
    y = function(*inputs)
    dy = torch.sin(torch.arange(y.numel(), device=y.device)).view(y.shape).to(y.dtype)
    return (y, *torch.autograd.grad(y, inputs, dy))


@every_plan
@pytest.mark.parametrize("length", [1, 2, 9])
def test_cpu_path_has_the_right_gradients(module: ModuleType, plan: Plan, length: int) -> None:
    inputs = inputs_of(plan, length, torch.float64)
    assert torch.autograd.gradcheck(getattr(module, plan.name), inputs)


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_cpu_path_has_the_right_slopes(load: Callable[..., ModuleType], activation: str) -> None:
    plan = GatedProduct(digest="d15b0a72", activation=activation, channels=3, packed=True)
    (gate_value,) = inputs_of(plan, 5, torch.float64)
    assert torch.autograd.gradcheck(getattr(load([plan]), plan.name), [gate_value])


@every_plan
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_operator_and_cpu_path_agree(module: ModuleType, plan: Plan, dtype: torch.dtype) -> None:
    inputs = inputs_of(plan, 9, dtype)
    operator = getattr(getattr(torch.ops, plan.namespace), plan.name)
    expected = gradients(getattr(module, plan.name), inputs)
    tolerance = {"atol": 0.05, "rtol": 0.05} if dtype == torch.bfloat16 else {}
    for result, right in zip(gradients(operator, inputs), expected, strict=True):
        torch.testing.assert_close(result, right, **tolerance)


@pytest.mark.parametrize("taps", [2, 9])
@pytest.mark.parametrize("length", [1, 5, 40])
def test_bfloat16_filters_sum_in_float32(
    load: Callable[..., ModuleType], taps: int, length: int
) -> None:
    """Filters run as a convolution too, where that is faster, and it gives the same."""
    plan = GatedConvolution(digest="d15b0a73", channels=8, taps=taps)
    module = load([plan])
    inputs = [x.detach().bfloat16() for x in inputs_of(plan, length)[:3]]
    filter = inputs_of(plan)[3].detach().bfloat16().float()
    wide = [x.double().requires_grad_() for x in (*inputs, filter)]
    narrow = [x.requires_grad_() for x in (*inputs, filter)]
    function = getattr(module, plan.name)
    for result, right in zip(gradients(function, narrow), gradients(function, wide), strict=True):
        error = (result.double() - right).abs().max() / right.abs().max()
        assert error < 0.015  # three roundings to 8 bits


@every_plan
def test_opcheck(module: ModuleType, plan: Plan) -> None:
    operator = getattr(getattr(torch.ops, plan.namespace), plan.name).default
    inputs = inputs_of(plan)
    torch.library.opcheck(operator, tuple(inputs))
    turned = [x.detach().mT.contiguous().mT.requires_grad_() for x in inputs]
    torch.library.opcheck(operator, tuple(turned))


@every_plan
def test_model_code_traces_whole(module: ModuleType, plan: Plan) -> None:
    function = getattr(module, plan.name)
    compiled = torch.compile(lambda *inputs: function(*inputs), backend="aot_eager", fullgraph=True)
    inputs = inputs_of(plan)
    for result, right in zip(gradients(compiled, inputs), gradients(function, inputs), strict=True):
        torch.testing.assert_close(result, right)


@every_plan
def test_operator_survives_export(module: ModuleType, plan: Plan) -> None:
    class Model(torch.nn.Module):
        def forward(self, *inputs: Tensor) -> Tensor:
            operator = getattr(getattr(torch.ops, plan.namespace), plan.name)
            result: Tensor = operator(*inputs) + getattr(module, plan.name)(*inputs)
            return result

    inputs = tuple(x.detach() for x in inputs_of(plan))
    exported = torch.export.export(Model(), inputs)
    assert plan.name in str(exported.graph)
    torch.testing.assert_close(exported.module()(*inputs), Model()(*inputs))


class Calls(TorchDispatchMode):
    """Records the operators that run within it."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(func.name())
        return func(*args, **(kwargs or {}))


@every_plan
def test_cuda_tensors_go_to_the_operator(module: ModuleType, plan: Plan) -> None:
    """Without a GPU: on tensors that have a device but no data."""
    assert module.KERNELS
    with FakeTensorMode(), Calls() as calls:
        inputs = [torch.empty(x.shape, dtype=x.dtype, device="cuda") for x in inputs_of(plan)]
        calls.names.clear()
        y = getattr(module, plan.name)(*inputs)
    assert f"{plan.namespace}::{plan.name}" in calls.names
    assert y.device.type == "cuda"
    assert y.shape == (2, 6, plan.channels)


@every_plan
def test_autocast_keeps_the_dtype_of_the_operands(module: ModuleType, plan: Plan) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        inputs = inputs_of(plan, dtype=dtype)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = getattr(module, plan.name)(*inputs)
            assert y.dtype == dtype
            y.sum().backward()
        assert all(x.grad is not None and x.grad.dtype == x.dtype for x in inputs)


def test_filters_keep_float32_under_autocast(load: Callable[..., ModuleType]) -> None:
    """Even where a convolution does the work, which autocast would take down to bfloat16."""
    plan = GatedConvolution(digest="d15b0a73", channels=8, taps=9, output_gate=False)
    function, inputs = getattr(load([plan]), plan.name), inputs_of(plan, 20)
    expected = function(*inputs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(function(*inputs), expected)


@pytest.mark.parametrize("plan", [PAIR, GATED], ids=lambda plan: plan.name)
def test_operands_of_several_dtypes_promote(module: ModuleType, plan: Plan) -> None:
    inputs = [x.detach() for x in inputs_of(plan)]
    inputs[0] = inputs[0].bfloat16()
    inputs = [x.requires_grad_() for x in inputs]
    operator = getattr(getattr(torch.ops, plan.namespace), plan.name)
    torch.library.opcheck(operator.default, tuple(inputs))
    for function in (operator, getattr(module, plan.name)):
        y, *grads = gradients(function, inputs)
        assert y.dtype == torch.float32
        assert [x.dtype for x in grads] == [x.dtype for x in inputs]


def test_files_share_a_process(load: Callable[..., ModuleType]) -> None:
    """One file under two names, and another program with kernels of the same sizes."""
    first, again = load([PAIR], "first"), load([PAIR], "again")
    other_plan = GatedProduct(digest="d15b0a74", activation="silu", channels=24)
    other = load([other_plan], "other")
    assert PAIR.namespace != other_plan.namespace
    inputs = inputs_of(PAIR)
    right = torch.nn.functional.silu(inputs[0]) * inputs[1]
    for module in (first, again, other):
        torch.testing.assert_close(getattr(module, PAIR.name)(*inputs), right)
    for namespace in (PAIR.namespace, other_plan.namespace):
        operator = getattr(getattr(torch.ops, namespace), PAIR.name)
        torch.testing.assert_close(gradients(operator, inputs)[0], right)


LONE = """
import importlib.util, os, sys
sys.modules["triton"] = None
import torch
spec = importlib.util.spec_from_file_location("generated", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
assert module.triton is None and not module.KERNELS
gate, value = torch.randn(2, 3, 24, requires_grad=True), torch.randn(2, 3, 24)
right = torch.nn.functional.silu(gate) * value
for function in (module.{name}, torch.ops.{namespace}.{name}):
    torch.testing.assert_close(function(gate, value), right)
    function(gate, value).sum().backward()
"""

SWITCHED_OFF = """
import importlib.util, sys
import torch
spec = importlib.util.spec_from_file_location("generated", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
assert module.triton is not None and not module.KERNELS
from torch._subclasses.fake_tensor import FakeTensorMode
with FakeTensorMode():
    gate = torch.empty(2, 3, 24, device="cuda")
    with torch.profiler.profile() as profile:
        module.{name}(gate, gate)
    assert not any("starc" in event.name for event in profile.events())
"""


@pytest.mark.parametrize(
    ("script", "environment"),
    [(LONE, {}), (SWITCHED_OFF, {"STARC_KERNELS": "0"})],
    ids=["lone", "off"],
)
def test_file_works_without_kernels(
    load: Callable[..., ModuleType], script: str, environment: dict[str, str]
) -> None:
    """Where there is no triton, and where the user wants none."""
    import os

    path = load([PAIR]).__file__
    assert path is not None
    text = script.format(name=PAIR.name, namespace=PAIR.namespace)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", text, path],
        env={**os.environ, **environment},
        cwd=Path(path).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("plan", [PACKED, GATED, PACKED_GATED], ids=lambda plan: plan.name)
def test_second_derivatives_are_refused(module: ModuleType, plan: Plan) -> None:
    """Rather than wrong: these functions write gradients in place."""
    inputs = inputs_of(plan)
    y = getattr(module, plan.name)(*inputs)
    with pytest.raises(RuntimeError, match="don't support automatic differentiation"):
        torch.autograd.grad(y.sum(), inputs, create_graph=True)
