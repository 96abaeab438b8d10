"""Steps change activations by as much in models of any width and depth."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from starc.compiler.driver import compile_program
from starc.compiler.options import Options
from starc.coordinates import by_depth, by_width
from starc.grammar.library import read_source
from starc.grammar.source import Source
from starc.runtime.coordinates import LOGITS, STREAM, exponent, exponents
from starc.runtime.loader import load

EXAMPLES = Path(__file__).parents[2] / "examples"
EVERY = sorted(path.stem for path in EXAMPLES.glob("*.star"))
EXCEPTIONS = {
    "better_attention": {"blocks.0.super_attention"},  # one head as wide as the model
    "memory_layers": {"first", "blocks.0.memory_plus"},  # values of deviation 1 / sqrt(width)
    "product_key_memory": {"memory"},
    "latent": {"blocks.0.mla"},  # a latent of 8 channels at width 32
}
"""Places that do not follow; docs/scaling_rules.md says why."""

DIVERSE = ("transformer_pp", "mamba2", "hyena", "gated_deltanet", "mixtral", "gpt2")


def source(name: str) -> Source:
    return read_source(EXAMPLES / f"{name}.star")


@pytest.mark.parametrize("name", DIVERSE)
def test_changes_do_not_grow_with_the_width(name: str):
    found = exponents(by_width(source(name), (32, 128)), seeds=1)
    assert {STREAM, LOGITS} < set(found.values)  # and units
    assert found.outside() == {}


@pytest.mark.slow
@pytest.mark.parametrize("name", EVERY)
def test_changes_of_no_example_grow_with_the_width(name: str):
    found = exponents(by_width(source(name)))
    assert set(found.outside()) <= EXCEPTIONS.get(name, set())


def test_under_one_rate_they_grow():
    family = by_width(source("transformer_pp"), (32, 256))
    found = exponents(family, base_width=0, seeds=1)
    assert found.values[STREAM] > 0.2
    assert abs(exponents(family, seeds=1).values[STREAM]) < 0.1


def test_nor_with_the_depth_but_under_one_rate():
    family = by_depth(source("transformer_pp"), (1, 4))
    assert tuple(family) == (2, 8)
    assert abs(exponents(family, seeds=1).values[STREAM]) < 0.1
    assert exponents(family, base_width=0, seeds=1).values[STREAM] > 0.15


def test_a_read_out_that_does_not_shrink_makes_logits_grow():
    """The check sees initial values, too: the read-out of GPT-2, 0.02 at any width."""

    def wide(width: int) -> torch.nn.Module:
        text = f"""use std.channel.swiglu
        model m {{ vocab = 64  width = {width}  context = 64
            init = normal(0.02)  backbone {{ swiglu() }} }}"""
        made = compile_program(Source("<test>", text), Options(format=False))
        model: torch.nn.Module = load(made.text).Model()
        return model

    found = exponents({w: lambda w=w: wide(w) for w in (32, 128, 512)}, seeds=1)
    assert found.values[LOGITS] > 0.25


def test_the_exponent_is_that_of_a_power():
    sizes = (16, 64, 256)
    assert exponent(sizes, [3 * n**0.7 for n in sizes]) == pytest.approx(0.7)
    assert exponent(sizes, [math.pi] * 3) == pytest.approx(0)
