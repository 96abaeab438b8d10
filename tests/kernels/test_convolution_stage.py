"""The stage `conv` with its bias and the nonlinearity behind it, and what models call of it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from starc.compiler.driver import compile_program
from starc.compiler.kernel_convolution_step import ConvolutionStep
from starc.compiler.kernel_plan import GatedConvolution
from starc.compiler.options import Options
from starc.grammar.source import Source
from starc.runtime.loader import load

PROGRAM = """
operator stage() {
    a = x |> dense(8) |> conv(3, bias = true) |> silu
    b = x |> dense(8) |> heads(2) |> conv(4) |> gelu(approximate = tanh) |> merge
    c = x |> conv(2)
    d = x |> conv(3) |> sigmoid
    g = x |> dense(8) |> conv(5) |> silu
    f = x |> dense(8) |> conv(2, dilation = 2) |> silu
    u = x |> dense(8) |> conv(1, bias = true)
    y = a + b + c + d + g + f + u + (u |> tanh)
}
model m { vocab = 16  width = 8  context = 24  backbone { stage() } }
"""


def made() -> tuple[Any, Any, Any]:
    """(artifact, module, model in float64)"""
    artifact = compile_program(Source("m.star", PROGRAM), Options())
    module = load(artifact.text)
    torch.manual_seed(0)
    model = module.Model().double()
    for parameter in model.parameters():  # biases too
        torch.nn.init.normal_(parameter)
    return artifact, module, model


def test_what_is_behind_a_convolution_is_part_of_its_kernel() -> None:
    """With a filter that is too long for that, a nonlinearity is not; nor has a dilated one a
    kernel. A delay line that two convolutions read has no kernel for steps."""
    artifact, _, _ = made()
    kernels = artifact.kernels
    assert sorted(k.name for k in kernels if isinstance(k, GatedConvolution)) == [
        "causal_convolution_8_1_biased",
        "causal_convolution_8_2",
        "causal_convolution_8_3_biased_silu",
        "causal_convolution_8_3_sigmoid",
        "causal_convolution_8_4_gelu_tanh",
        "causal_convolution_8_5",
    ]
    steps = sorted(k.name for k in kernels if isinstance(k, ConvolutionStep))
    assert steps == ["causal_convolution_8_3_biased_silu_step", "causal_convolution_8_5_step"]


def test_models_agree_with_and_without_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Logits, gradients, and reading in pieces, where operators stand as on a GPU."""
    _, module, model = made()
    tokens = torch.randint(16, (2, 11))
    right = model(tokens)
    right.sin().sum().backward()
    expected = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    called = set()
    original = torch._ops.OpOverloadPacket.__call__

    def call(self: Any, *arguments: Any, **more: Any) -> Any:
        called.add(self.__name__)
        return original(self, *arguments, **more)

    monkeypatch.setattr(torch._ops.OpOverloadPacket, "__call__", call)
    monkeypatch.setattr(module, "runs_kernels", lambda x: True)
    one = lambda x: x.shape[1] == 1 and not torch.is_grad_enabled()  # noqa: E731
    monkeypatch.setattr(module, "takes_steps", one)
    logits = model(tokens)
    torch.testing.assert_close(logits, right)
    logits.sin().sum().backward()
    for p, d in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(p.grad, d)
    with torch.no_grad():
        cache = model.init_cache(2, 11)
        pieces = [model(x, cache) for x in tokens.split((4, 1, 1, 3, 1, 1), dim=1)]
    torch.testing.assert_close(torch.cat(pieces, dim=1), right)
    assert {name for name in called if name.endswith("_step")} == {
        "causal_convolution_8_3_biased_silu_step",
        "causal_convolution_8_5_step",
    }
    assert "causal_convolution_8_4_gelu_tanh" in called


def test_without_a_gpu_the_module_is_called() -> None:
    _, _, model = made()
    tokens = torch.randint(16, (2, 7))
    with torch.profiler.profile() as profile:
        model(tokens)
    assert not any("starc" in event.name for event in profile.events())
