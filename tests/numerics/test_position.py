"""Position: scaling rules of rotary encoding, the names e and index, and token lookups."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.numerics.agreement import build, check_agreement
from tests.numerics.decoding import check_decoding

SCALINGS = {
    "linear(4)": {"rope_type": "linear", "factor": 4.0},
    "yarn(4, 32)": {
        "rope_type": "yarn",
        "factor": 4.0,
        "original_max_position_embeddings": 32,
    },
    "yarn(8, 64, fast = 16, slow = 2, attention = 1.5, truncate = false)": {
        "rope_type": "yarn",
        "factor": 8.0,
        "original_max_position_embeddings": 64,
        "beta_fast": 16,
        "beta_slow": 2,
        "attention_factor": 1.5,
        "truncate": False,
    },
    "llama3(8, original = 64)": {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    },
    "factors(1, 1.5, 2, 2.5, 3, 4, 5, 6, attention = 1.19)": {
        "rope_type": "longrope",
        "factor": 4.0,
        "attention_factor": 1.19,
        "short_factor": [1, 1.5, 2, 2.5, 3, 4, 5, 6],
        "long_factor": [1, 1.5, 2, 2.5, 3, 4, 5, 6],
        "original_max_position_embeddings": 32,
    },
}


def attention(rope: str) -> str:
    return f"""operator f() {{
        C = x |> dense(16) |> {rope}
        B = x |> dense(16) |> {rope}
        y = (low_rank(C, B) |> causal |> softmax) @ x
    }}
    model m {{ vocab = 20  width = 8  context = 128  backbone {{ f() }} }}"""


@pytest.mark.parametrize("scaling", [*SCALINGS, "ntk(4)"])
def test_scaled_rotations_agree_with_the_oracle(scaling: str) -> None:
    compiled = build(attention(f"rope(100, scaling = {scaling})"))
    check_agreement(compiled, (1, 37))
    check_decoding(compiled, 37)


@pytest.mark.parametrize("scaling", SCALINGS)
def test_frequencies_are_those_of_transformers(scaling: str) -> None:
    pytest.importorskip("transformers")
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    rope: dict[str, Any] = {"rope_theta": 10_000.0, **SCALINGS[scaling]}
    config = LlamaConfig(
        hidden_size=16, num_attention_heads=1, max_position_embeddings=128, rope_parameters=rope
    )
    config.standardize_rope_params()
    frequency, factor = ROPE_INIT_FUNCTIONS[rope["rope_type"]](config, "cpu", seq_len=128)
    tables = vars(build(attention(f"rope(scaling = {scaling})")).module)["rotary_tables"]
    cos, sin = tables(3, torch.device("cpu"), start=5)
    angle = torch.arange(5, 8)[:, None, None].double() * frequency.double()
    torch.testing.assert_close(cos, angle.cos() * factor, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(sin, angle.sin() * factor, rtol=1e-5, atol=1e-5)


OF_THE_TOKEN = {
    "embedded": "y = x + (e |> dense(width)) * e",
    "embedded-alone": "y = e |> tanh",
    "index": "y = x / (1 + index)",
    "index-score": """C = x |> dense(6) |> heads(2)
        T = low_rank(C * log(1 + index), x |> dense(6) |> heads(2)) |> causal |> softmax
        y = T @ (x |> dense(6) |> heads(2)) |> merge |> dense(width)""",
    "index-key": "y = (low_rank(x, concat(x |> slice(0, 7), sin(index))) |> causal) @ x",
    "lookup": "V = lookup(4) y = x * (V |> dense(width)) + lookup(width)",
    "lookup-alone": "y = lookup(width)",
    "lookup-value": "y = (low_rank(x, x) |> causal |> softmax) @ (x |> dense(6)) + lookup(6)"
    " |> dense(width)",
    "own-names": "index_ = x |> tanh  e_ = index_ * x  y = e_ * e + index_ * index + e_",
}


@pytest.mark.parametrize("name", OF_THE_TOKEN)
def test_names_and_lookups_agree_with_the_oracle(name: str) -> None:
    for settings in ("embedding = tied(scale = 3, norm = rmsnorm)", "position = learned"):
        text = f"""operator f() {{ {OF_THE_TOKEN[name]} }}
        model m {{ vocab = 20  width = 8  context = 80  {settings}
            backbone {{ repeat 2 {{ f() parallel(sum) {{ f() repeat 2 {{ f() }} }} }} }} }}"""
        compiled = build(text)
        check_agreement(compiled, (1, 5, 37))
        check_decoding(compiled, 37)
