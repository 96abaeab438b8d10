"""Small random models of published families, built by transformers: what to compare with.

Owns: one small configuration of each family, and noise on every parameter, so that no term hides
behind a 0 or a 1. Refuses: comparing anything (parity.py, tests/peers).
"""

from __future__ import annotations

import logging
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from starc.compiler.options import Options
from starc.weights import Imported, import_checkpoint

FOLDER = Path(__file__).parents[1] / "examples" / "families"
VOCAB = 211


@dataclass(frozen=True)
class Family:
    """A family: its model class without "ForCausalLM", and its configuration.

    `attention` is the implementation of attention in transformers; `cache` says that its decoding
    from a cache is to be compared as well.
    """

    architecture: str
    config: dict[str, Any] = field(default_factory=dict)
    attention: str = "eager"
    model: str = "ForCausalLM"
    cache: bool = True
    configuration: str = ""
    """The class of its configuration without "Config", where it is not `architecture`."""
    constant: tuple[str, ...] = ()
    """Buffers that get no noise: what they hold follows from the configuration."""
    tolerance: float = 1e-5
    """Largest difference of logits over the largest logit."""


LLAMA = {
    "vocab_size": VOCAB,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 96,
    "max_position_embeddings": 128,
    "tie_word_embeddings": False,
    "pad_token_id": None,
}
GPT = {
    "vocab_size": VOCAB,
    "n_embd": 64,
    "n_layer": 2,
    "n_head": 4,
    "n_inner": 96,
    "n_positions": 128,
}
WINDOW = 16
PARTIAL = {"rope_type": "default", "rope_theta": 10_000.0, "partial_rotary_factor": 0.5}
ROPE = {"rope_type": "default", "rope_theta": 10_000.0}
YARN = {
    "rope_type": "yarn",
    "rope_theta": 10_000.0,
    "factor": 8.0,
    "original_max_position_embeddings": 24,
    "beta_fast": 4.0,
    "beta_slow": 1.0,
}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2}
LOCAL_EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
GROUPED_EXPERTS = {
    "num_hidden_layers": 3,
    "first_k_dense_replace": 1,
    "n_routed_experts": 8,
    "num_experts_per_tok": 2,
    "n_group": 4,
    "topk_group": 2,
    "moe_intermediate_size": 32,
}
FULL, SLIDING = "full_attention", "sliding_attention"
ZAMBA2 = [*["linear_attention", "hybrid"] * 9, *["linear_attention"] * 2]
WINDOWS_OF_FOUR = {
    "num_hidden_layers": 4,
    "sliding_window": WINDOW,
    "layer_types": [SLIDING, SLIDING, SLIDING, FULL],
}

FAMILIES: dict[str, Family] = {
    "llama": Family("Llama", LLAMA | {"head_dim": 24}),
    "mistral": Family("Mistral", LLAMA | {"sliding_window": WINDOW}),
    "qwen3": Family("Qwen3", LLAMA | {"head_dim": 24}),
    "gemma2": Family(
        "Gemma2",
        LLAMA
        | {"head_dim": 24, "sliding_window": WINDOW, "query_pre_attn_scalar": 20}
        | {"attn_logit_softcapping": 5.0, "final_logit_softcapping": 8.0}
        | {"tie_word_embeddings": True, "layer_types": [SLIDING, FULL]},
    ),
    "gpt_neox": Family("GPTNeoX", LLAMA | {"rotary_pct": 0.25}),
    "minicpm3": Family(
        "MiniCPM3",
        LLAMA
        | {"num_key_value_heads": 4, "q_lora_rank": 24, "kv_lora_rank": 16}
        | {"qk_nope_head_dim": 12, "qk_rope_head_dim": 8, "v_head_dim": 10, "dim_model_base": 16}
        | {"tie_word_embeddings": True},
    ),
    "mamba": Family(
        "Mamba",
        {"vocab_size": VOCAB, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 8}
        | {"tie_word_embeddings": True, "pad_token_id": None},
    ),
    "mamba2": Family(
        "Mamba2",
        {"vocab_size": VOCAB, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 8}
        | {"num_heads": 8, "head_dim": 8, "expand": 2, "n_groups": 2, "chunk_size": 16}
        | {"tie_word_embeddings": False, "pad_token_id": None},
    ),
    "lfm2": Family(
        "Lfm2",
        LLAMA
        | {"num_hidden_layers": 3, "layer_types": ["conv", "conv", FULL]}
        | {"block_multiple_of": 16, "tie_word_embeddings": True},
    ),
    "qwen2": Family("Qwen2", LLAMA),
    "gemma": Family("Gemma", LLAMA | {"head_dim": 24, "tie_word_embeddings": True}),
    "phi3": Family("Phi3", LLAMA | {"sliding_window": WINDOW, "rope_parameters": PARTIAL}),
    "olmo": Family("Olmo", LLAMA),
    "olmo2": Family("Olmo2", LLAMA),
    "granite": Family(
        "Granite",
        LLAMA
        | {"attention_multiplier": 0.3, "residual_multiplier": 0.6, "tie_word_embeddings": True}
        | {"embedding_multiplier": 3.0, "logits_scaling": 2.0},
    ),
    "cohere": Family("Cohere", LLAMA | {"logit_scale": 0.3, "tie_word_embeddings": True}),
    "stablelm": Family("StableLm", LLAMA | {"use_qkv_bias": True, "rope_parameters": PARTIAL}),
    "starcoder2": Family("Starcoder2", LLAMA | {"sliding_window": WINDOW}),
    "nemotron": Family("Nemotron", LLAMA | {"head_dim": 16, "rope_parameters": PARTIAL}),
    "persimmon": Family("Persimmon", LLAMA | {"rope_parameters": PARTIAL}),
    "glm": Family("Glm", LLAMA | {"head_dim": 16}),
    "glm4": Family("Glm4", LLAMA | {"head_dim": 16, "attention_bias": True}),
    "phi": Family("Phi", LLAMA | {"rope_parameters": PARTIAL}),
    "gptj": Family("GPTJ", GPT | {"rotary_dim": 8, "tie_word_embeddings": False}),
    "gpt2": Family("GPT2", GPT, model="LMHeadModel"),
    "opt": Family(
        "OPT", LLAMA | {"ffn_dim": 96, "word_embed_proj_dim": 64, "tie_word_embeddings": True}
    ),
    "helium": Family("Helium", LLAMA | {"head_dim": 16}),
    "arcee": Family("Arcee", LLAMA),
    "seed_oss": Family("SeedOss", LLAMA | {"head_dim": 24}),
    "hunyuan": Family("HunYuanDenseV1", LLAMA | {"head_dim": 16}),
    "ernie": Family("Ernie4_5", LLAMA | {"head_dim": 16, "use_bias": False}),
    "mixtral": Family("Mixtral", LLAMA | LOCAL_EXPERTS | {"sliding_window": WINDOW}),
    "qwen3_moe": Family(
        "Qwen3Moe",
        LLAMA | EXPERTS | {"moe_intermediate_size": 32, "head_dim": 16, "norm_topk_prob": True},
    ),
    "olmoe": Family("Olmoe", LLAMA | EXPERTS),
    "granitemoe": Family(
        "GraniteMoe",
        LLAMA
        | LOCAL_EXPERTS
        | {"attention_multiplier": 0.3, "residual_multiplier": 0.6, "tie_word_embeddings": True}
        | {"embedding_multiplier": 3.0, "logits_scaling": 2.0},
    ),
    "exaone4": Family("Exaone4", LLAMA | WINDOWS_OF_FOUR | {"head_dim": 16}),
    "smollm3": Family(
        "SmolLM3",
        LLAMA
        | {"num_hidden_layers": 4, "no_rope_layers": [1, 1, 1, 0], "use_sliding_window": False},
    ),
    "cohere2": Family(
        "Cohere2",
        LLAMA | WINDOWS_OF_FOUR | {"head_dim": 16, "logit_scale": 0.3, "tie_word_embeddings": True},
    ),
    "qwen3_next": Family(
        "Qwen3Next",
        LLAMA
        | {"num_hidden_layers": 3, "full_attention_interval": 3, "head_dim": 16}
        | {"linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 16}
        | {"linear_value_head_dim": 12, "num_experts": 4, "mlp_only_layers": [0, 1, 2]},
        tolerance=5e-5,  # in float32 each of the two is this far from float64
    ),
    "gemma3": Family(
        "Gemma3",
        LLAMA
        | {"num_hidden_layers": 6, "head_dim": 16, "sliding_window": WINDOW}
        | {"query_pre_attn_scalar": 20, "tie_word_embeddings": True},
        configuration="Gemma3Text",
    ),
    "glm4_moe": Family(
        "Glm4Moe",
        LLAMA
        | GROUPED_EXPERTS
        | {"head_dim": 16, "routed_scaling_factor": 1.5, "attention_bias": True},
    ),
    "deepseek_v3": Family(
        "DeepseekV3",
        LLAMA
        | GROUPED_EXPERTS
        | {"num_key_value_heads": 4, "q_lora_rank": 24, "kv_lora_rank": 16}
        | {"qk_nope_head_dim": 12, "qk_rope_head_dim": 8, "v_head_dim": 10}
        | {"n_shared_experts": 1},
    ),
    "deepseek_v2": Family(
        "DeepseekV2",
        LLAMA
        | GROUPED_EXPERTS
        | {"num_key_value_heads": 4, "q_lora_rank": 24, "kv_lora_rank": 16}
        | {"qk_nope_head_dim": 12, "qk_rope_head_dim": 8, "v_head_dim": 10}
        | {"topk_method": "group_limited_greedy", "routed_scaling_factor": 1.5}
        | {"n_shared_experts": 2},
    ),
    "phimoe": Family(
        "Phimoe",
        LLAMA
        | LOCAL_EXPERTS
        | {"attention_bias": True, "lm_head_bias": True, "sliding_window": None}
        | {"router_jitter_noise": 0.2},
    ),
    "falcon_h1": Family(
        "FalconH1",
        LLAMA
        | {"mamba_d_ssm": 96, "mamba_n_heads": 8, "mamba_n_groups": 2, "mamba_d_state": 8}
        | {"mamba_chunk_size": 16, "mamba_rms_norm": True, "mamba_norm_before_gate": False}
        | {"lm_head_multiplier": 0.7, "embedding_multiplier": 3.0, "key_multiplier": 0.6}
        | {"mlp_multipliers": [1.3, 0.8], "ssm_multipliers": [0.9, 1.2, 0.7, 1.4, 0.6]}
        | {"attention_in_multiplier": 1.1, "attention_out_multiplier": 0.9}
        | {"ssm_in_multiplier": 1.2, "ssm_out_multiplier": 0.8},
    ),
    "zamba2": Family(
        "Zamba2",
        LLAMA
        | {"num_hidden_layers": 20, "layers_block_type": ZAMBA2, "hidden_size": 32}
        | {"num_key_value_heads": 4, "num_mem_blocks": 2, "use_shared_attention_adapter": True}
        | {"adapter_rank": 4, "use_mem_rope": True, "n_mamba_heads": 8, "mamba_ngroups": 2}
        | {"mamba_d_state": 8, "chunk_size": 16, "tie_word_embeddings": True}
        | {"time_step_min": 1e-7},  # its forward pass cuts steps off there, its decoding does not
        tolerance=5e-4,  # in float32 each of the two is 1e-4 from float64
    ),
    "rwkv": Family(
        "Rwkv",
        {"vocab_size": VOCAB, "hidden_size": 64}
        | {"num_hidden_layers": 2, "context_length": 128, "tie_word_embeddings": False},
        cache=False,  # its single steps mix up the sequences of a batch
    ),
    "jetmoe": Family(
        "JetMoe",
        LLAMA
        | LOCAL_EXPERTS
        | {"kv_channels": 16, "head_dim": 16, "rope_parameters": ROPE, "tie_word_embeddings": True},
    ),
    "diffllama": Family("DiffLlama", LLAMA | {"num_key_value_heads": 4, "head_dim": 16}),
    "apertus": Family(
        "Apertus",
        LLAMA | {"head_dim": 16, "rope_parameters": ROPE},
        constant=("act_fn.beta", "act_fn.eps"),
    ),
    "llama4_text": Family(
        "Llama4",
        LLAMA
        | {"num_hidden_layers": 4, "head_dim": 16, "num_local_experts": 4, "rope_parameters": ROPE}
        | {"intermediate_size": 32, "attention_chunk_size": 32, "floor_scale": 16},
        configuration="Llama4Text",
    ),
    "minimax": Family(
        "MiniMax",
        LLAMA
        | LOCAL_EXPERTS
        | {"head_dim": 16, "block_size": 16, "rope_parameters": ROPE}
        | {"full_attn_alpha_factor": 0.9, "full_attn_beta_factor": 1.2, "mlp_alpha_factor": 1.1}
        | {"linear_attn_alpha_factor": 0.8, "linear_attn_beta_factor": 1.3},
        constant=("slope_rate", "query_decay", "key_decay", "diagonal_decay"),
    ),
    "longcat_flash": Family(
        "LongcatFlash",
        LLAMA
        | {"num_layers": 2, "num_key_value_heads": 4, "q_lora_rank": 24, "kv_lora_rank": 16}
        | {"qk_nope_head_dim": 12, "qk_rope_head_dim": 8, "v_head_dim": 10, "head_dim": 8}
        | {"ffn_hidden_size": 96, "expert_ffn_hidden_size": 32, "n_routed_experts": 4}
        | {"zero_expert_num": 3, "moe_topk": 3, "rope_parameters": ROPE},
    ),
    "kimi_linear": Family(
        "KimiLinear",
        LLAMA
        | {"num_hidden_layers": 8, "num_key_value_heads": 4, "kv_lora_rank": 16, "num_experts": 8}
        | {"qk_nope_head_dim": 12, "qk_rope_head_dim": 8, "v_head_dim": 10, "head_dim": 20}
        | {"linear_head_dim": 12, "linear_num_heads": 4, "moe_intermediate_size": 32}
        | {"num_experts_per_tok": 2, "layer_types": [*["linear_attention"] * 3, FULL] * 2},
        tolerance=5e-5,  # float32: benchmarks/results/parity.md has the distances from float64
    ),
    "gpt_bigcode": Family("GPTBigCode", GPT),
    "gpt_neo": Family(
        "GPTNeo",
        {"vocab_size": VOCAB, "hidden_size": 64, "num_layers": 2, "num_heads": 4}
        | {"attention_types": [[["global", "local"], 1]], "window_size": WINDOW}
        | {"intermediate_size": 96, "max_position_embeddings": 128},
    ),
    "falcon": Family(
        "Falcon",
        {"vocab_size": VOCAB, "hidden_size": 64, "num_hidden_layers": 2}
        | {"num_attention_heads": 4, "num_kv_heads": 2, "ffn_hidden_size": 96}
        | {"new_decoder_architecture": True, "tie_word_embeddings": True},
    ),
    "falcon_mamba": Family(
        "FalconMamba",
        {"vocab_size": VOCAB, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 8}
        | {"tie_word_embeddings": False, "pad_token_id": None},
    ),
    "xlstm": Family(
        "xLSTM",
        {"vocab_size": VOCAB, "hidden_size": 128, "num_hidden_layers": 2, "num_blocks": 2}
        | {"num_heads": 4, "chunk_size": 16, "autocast_kernel_dtype": "float32"}
        | {"pad_token_id": None},
    ),
    "bloom": Family(
        "Bloom",
        {"vocab_size": VOCAB, "hidden_size": 60, "n_layer": 2, "n_head": 6, "pad_token_id": None},
    ),
    "mpt": Family(
        "Mpt",
        {"vocab_size": VOCAB, "d_model": 60, "n_layers": 2, "n_heads": 6, "max_seq_len": 128},
    ),
    "olmo3": Family(
        "Olmo3", LLAMA | WINDOWS_OF_FOUR | {"rope_parameters": {SLIDING: ROPE, FULL: YARN}}
    ),
    "qwen2_moe": Family(
        "Qwen2Moe",
        LLAMA | EXPERTS | {"moe_intermediate_size": 32, "shared_expert_intermediate_size": 48},
    ),
    "jamba": Family(
        "Jamba",
        LLAMA
        | EXPERTS
        | {"num_hidden_layers": 8, "hidden_size": 32, "intermediate_size": 48}
        | {"mamba_d_state": 8, "mamba_dt_rank": 4},
        tolerance=1e-4,  # in float32 theirs is 3e-5 from float64, and this 2e-5
    ),
    "gpt_oss": Family(
        "GptOss",
        LLAMA
        | LOCAL_EXPERTS
        | {"head_dim": 16, "sliding_window": WINDOW, "rope_parameters": YARN | {"truncate": False}}
        | {"swiglu_limit": 0.5},
    ),
    "bamba": Family(
        "Bamba",
        LLAMA
        | {"num_hidden_layers": 11, "attn_layer_indices": [9], "hidden_size": 32}
        | {"intermediate_size": 48, "mamba_n_heads": 8, "mamba_n_groups": 2, "mamba_d_state": 8}
        | {"mamba_chunk_size": 16},
        tolerance=1e-4,  # in float32 theirs is 5e-5 from float64, and this 2e-5
    ),
    "recurrent_gemma": Family(
        "RecurrentGemma",
        LLAMA
        | {"num_hidden_layers": 3, "lru_width": 64, "attention_window_size": WINDOW}
        | {"num_key_value_heads": 1, "tie_word_embeddings": True, "logits_soft_cap": 8.0},
        cache=False,  # its cache lives inside its layers
    ),
}


def published(name: str, seed: int = 0) -> Any:
    """A family's model with noise on every parameter, in evaluation mode."""
    torch.manual_seed(seed)
    model = build(FAMILIES[name])
    shake(model, FAMILIES[name].constant)
    return model.eval()


def build(family: Family) -> Any:
    """transformers' model of a family, in float32, as it is before training."""
    import transformers

    logging.disable(logging.WARNING)  # it tells of kernels that only a GPU has
    transformers.utils.logging.disable_progress_bar()
    config_class = getattr(transformers, (family.configuration or family.architecture) + "Config")
    model_class = getattr(transformers, family.architecture + family.model)
    return model_class._from_config(
        config_class(**family.config), attn_implementation=family.attention
    ).float()


def shake(model: nn.Module, constant: tuple[str, ...] = ()) -> None:
    """Noise on every parameter, and on the buffers that a checkpoint keeps, `constant` aside."""
    kept = {name for name in model.state_dict() if not name.endswith(constant)}
    tensors = dict(model.named_parameters())
    tensors |= {name: b for name, b in model.named_buffers() if name in kept}
    with torch.no_grad():
        for tensor in tensors.values():
            if tensor.is_floating_point():
                scale = tensor.shape[-1] ** -0.5 if tensor.dim() > 1 else 0.2
                tensor += scale * torch.randn_like(tensor)


def compiled(name: str, model: Any) -> tuple[nn.Module, Imported]:
    """The program of a family with the weights of a published model, through files and its map."""
    with tempfile.TemporaryDirectory() as checkpoint:
        model.save_pretrained(checkpoint)
        imported = import_checkpoint(
            checkpoint, FOLDER / f"{name}.map", options=Options(format=False)
        )
    return imported.model().eval(), imported
