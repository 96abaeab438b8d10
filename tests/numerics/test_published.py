"""Experts against the models that transformers has of them, with the same weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.numerics.agreement import build

WIDTH, HIDDEN, N, TOP = 16, 24, 6, 2


def compiled(call: str) -> Any:
    """The generated unit of a model with nothing else in it."""
    text = f"""use std.channel.swiglu
    model m {{ vocab = 8  width = {WIDTH}  context = 64  residual = none
    backbone {{ a: experts(swiglu(hidden = {HIDDEN}), n = {N}, top = {TOP}, {call}) }} }}"""
    return build(text).module.Model().a


def randomised(block: nn.Module) -> nn.Module:
    """Every parameter and buffer drawn anew."""
    generator = torch.Generator().manual_seed(3)
    for tensor in (*block.parameters(), *block.buffers()):
        if tensor.is_floating_point():
            tensor.data.copy_(torch.randn(tensor.shape, generator=generator) * 0.3)
    return block


def compare(unit: Any, theirs: nn.Module, x: Tensor) -> None:
    """The same output for the same weights: rows of gate, then of up, as C and V are stacked."""
    experts = theirs.experts
    with torch.no_grad():
        for e, own in enumerate(unit.experts):
            own.C_V.weight.copy_(experts.gate_up_proj[e])
            own.y.weight.copy_(experts.down_proj[e])
        expected = theirs(x)
        expected = expected[0] if isinstance(expected, tuple) else expected
        got = unit(x, None) if "losses" in unit.forward.__annotations__ else unit(x)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)


def test_mixtral() -> None:
    pytest.importorskip("transformers")
    from transformers import MixtralConfig
    from transformers.models.mixtral.modeling_mixtral import MixtralSparseMoeBlock

    config = MixtralConfig(
        hidden_size=WIDTH,
        intermediate_size=HIDDEN,
        num_local_experts=N,
        num_experts_per_tok=TOP,
    )
    theirs = randomised(MixtralSparseMoeBlock(config)).eval()
    unit = compiled("gate = softmax")
    unit.router.weight.data.copy_(theirs.gate.weight)
    compare(unit, theirs, torch.randn(2, 17, WIDTH))


@pytest.mark.parametrize("normalize", [True, False])
def test_qwen3(normalize: bool) -> None:
    pytest.importorskip("transformers")
    from transformers import Qwen3MoeConfig
    from transformers.models.qwen3_moe.modeling_qwen3_moe import Qwen3MoeSparseMoeBlock

    config = Qwen3MoeConfig(
        hidden_size=WIDTH,
        moe_intermediate_size=HIDDEN,
        num_experts=N,
        num_experts_per_tok=TOP,
        norm_topk_prob=normalize,
    )
    theirs = randomised(Qwen3MoeSparseMoeBlock(config)).eval()
    unit = compiled(f"normalize = {str(normalize).lower()}")
    unit.router.weight.data.copy_(theirs.gate.weight)
    compare(unit, theirs, torch.randn(2, 17, WIDTH))


def test_deepseek_v3() -> None:
    pytest.importorskip("transformers")
    from transformers import DeepseekV3Config
    from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3MoE

    config = DeepseekV3Config(
        hidden_size=WIDTH,
        moe_intermediate_size=HIDDEN,
        n_routed_experts=N,
        num_experts_per_tok=TOP,
        n_shared_experts=1,
        n_group=3,
        topk_group=2,
        norm_topk_prob=True,
        routed_scaling_factor=2.5,
    )
    theirs = randomised(DeepseekV3MoE(config)).eval()
    unit = compiled(
        "shared = 1, gate = sigmoid, correction = true, groups = 3, keep = 2, scale = 5/2, "
        "balance = 0"
    )
    shared = theirs.shared_experts
    stacked = (theirs.gate.weight, shared.gate_proj.weight, shared.up_proj.weight)
    unit.router_shared_C_shared_V.weight.data.copy_(torch.cat(stacked))
    unit.shared_y.weight.data.copy_(shared.down_proj.weight)
    unit.correction.copy_(theirs.gate.e_score_correction_bias)
    compare(unit, theirs, torch.randn(2, 17, WIDTH))
