"""What programs are made of."""

from __future__ import annotations

from pathlib import Path

import pytest

from starc.compiler.driver import resolve_source
from starc.compiler.options import Options
from starc.grammar.library import read_source
from starc.grammar.source import Source
from starc.search.motifs import Motif, motif

ROOT = Path(__file__).parents[2]

BACKBONE = """
use std.attention.mha
use std.recurrent.mamba2
use std.convolution.gconv
use std.channel.swiglu
model m {{
    vocab = 64 width = 64 context = 64 residual = pre(rmsnorm)
    backbone {{ {} }}
}}
"""


def of(backbone: str) -> Motif:
    text = BACKBONE.format(backbone)
    used = "\n".join(
        line
        for line in text.splitlines()
        if not line.startswith("use") or line.rpartition(".")[2] in backbone
    )
    return motif(resolve_source(Source("m.star", used), Options())[0])


def test_repeats_are_unrolled_and_parallels_are_one_place():
    found = of("repeat 2 { mha(heads = 2) swiglu() } parallel(sum) { gconv() mamba2() }")
    assert found.places == (
        *("attention", "gated memoryless") * 2,
        "(short convolution + recurrence)",
    )
    assert found.grams(2)["attention > gated memoryless"] == 2
    assert found.grams(3).total() == 3


def test_two_branches_that_are_subtracted_are_differential():
    assert of("parallel(difference) { gconv() gconv() }").places == (
        "short convolution (differential)",
    )


def test_distances_of_sharing_are_in_units():
    found = of("a: gconv() swiglu() b: gconv() shares * with a  swiglu() gconv() reuses V from b")
    assert found.distances == (("weights", 2), ("features", 2))


@pytest.mark.parametrize(
    ("family", "classes"),
    [
        ("transformer_pp", {"attention", "gated memoryless"}),
        ("mistral", {"windowed attention", "gated memoryless"}),
        ("deltanet", {"delta recurrence", "gated memoryless"}),
        ("mamba2", {"recurrence"}),
        ("hyena", {"long convolution", "memoryless"}),
        ("mixtral", {"attention", "experts"}),
        ("sigmoid_attention", {"sigmoid attention", "gated memoryless"}),
    ],
)
def test_published_architectures_are_of_their_classes(family: str, classes: set[str]):
    source = read_source(ROOT / "examples" / f"{family}.star")
    assert set(motif(resolve_source(source, Options())[0]).places) == classes
