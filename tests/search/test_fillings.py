"""Fillings as decisions and as points, and back."""

from __future__ import annotations

import random

import pytest

from starc.compiler.options import Options
from starc.grammar.parser import parse
from starc.grammar.source import Source
from starc.search.fillings import at, decided, drawn, find
from starc.search.space import open_space

SPACE = open_space(
    Source(
        "space.star",
        """
        use std.attention.mha
        use std.channel.swiglu
        use std.convolution.gconv
        model m {
            vocab = 64  width = 32  context = 64  residual = pre(rmsnorm)
            backbone {
                repeat 3 { ?[mha(heads = ?[1, 2, 4]), swiglu(), gconv(kernel = ?[2 .. 5])] }
                ?[parallel(sum) { mha(heads = 2) swiglu() }, swiglu()]
            }
        }
        """,
    ),
    Options(),
)


@pytest.mark.parametrize("seed", range(20))
def test_a_filling_is_found_again_from_its_decisions_its_point_and_its_text(seed: int):
    one = drawn(SPACE, random.Random(seed))
    assert decided(SPACE, one.decisions).text == one.text
    assert at(SPACE, one.point).decisions == one.decisions
    again = find(SPACE, parse(Source("other.star", one.text)))
    assert again is not None
    assert again.decisions == one.decisions


def test_another_program_is_no_filling():
    text = drawn(SPACE, random.Random(0)).text.replace("width = 32", "width = 64")
    assert find(SPACE, parse(Source("other.star", text))) is None


def test_every_point_of_the_box_and_around_it_is_a_filling():
    rng = random.Random(1)
    for length in (0, 3, 12):
        point = [rng.uniform(-0.5, 1.5) for _ in range(length)]
        one = at(SPACE, point)
        assert all(0 <= d < n for d, n in zip(one.decisions, one.options, strict=True))
