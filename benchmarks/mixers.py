"""Small models of one mixer and one SwiGLU a layer, for measurements over lengths."""

from __future__ import annotations

from typing import Any

import torch

from starc.compiler.driver import compile_program
from starc.compiler.options import Options
from starc.grammar.source import Source
from starc.runtime.loader import load

WIDTH, VOCAB = 128, 256
MIXERS = {
    "attention": ("use std.attention.mha", "mha(heads = 2)"),
    "grouped-query attention": ("use std.attention.gqa", "gqa(heads = 4, groups = 1)"),
    "banded attention, 128 tokens": (
        "use std.attention.sliding",
        "sliding(heads = 2, window = 128)",
    ),
    "linear attention": ("use std.linear.linear", "linear(heads = 2)"),
    "gated linear attention": ("use std.linear.gla", "gla(heads = 2)"),
    "mamba2": ("use std.recurrent.mamba2", "mamba2(state = 64, head = 64)"),
    "mamba": ("use std.recurrent.mamba", "mamba()"),
    "gated convolution": ("use std.convolution.gconv", "gconv()"),
}
"""Declarations and call of each mixer, by its name in tables."""


def model_of(name: str, context: int, layers: int) -> Any:
    """The generated model, with the same random weights every time."""
    use, unit = MIXERS[name]
    text = f"""\
{use}
use std.channel.swiglu
model measured {{
    vocab = {VOCAB}  width = {WIDTH}  context = {context}
    backbone {{ repeat {layers} {{ {unit}  swiglu() }} }}
}}
"""
    torch.manual_seed(0)
    return load(compile_program(Source("measured.star", text), Options()).text).Model()
