"""STAR's numbers: exact round trips, the published example, and what the numbers do not hold."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from starc.compiler import genome as genomes
from starc.compiler.genome import CLASSES, Gene, canonical, decode, encode, parse_genome
from starc.compiler.options import Options
from starc.grammar.errors import StarError
from starc.grammar.source import Source

ROOT = Path(__file__).parents[2]
SETTINGS = {"vocab": "64", "width": "64", "context": "64", "residual": "pre(rmsnorm)"}


def genes() -> st.SearchStrategy[Gene]:
    return st.sampled_from(sorted(CLASSES)).flatmap(
        lambda number: st.builds(
            Gene,
            st.just(number),
            st.integers(1, 3),
            st.sampled_from(sorted(genomes.STRATEGIES)),
            st.integers(1, 3),
            st.sampled_from(sorted(CLASSES[number].features)),
        )
    )


def program(genome: tuple[Gene, ...]) -> Source:
    return Source("<genome>", decode(genome, SETTINGS))


@settings(max_examples=15, deadline=None)
@given(st.lists(genes(), min_size=1, max_size=8))
def test_a_genome_survives_its_program(drawn: list[Gene]):
    genome = canonical(drawn)
    assert encode(program(genome), Options()) == genome
    assert decode(drawn, SETTINGS) == decode(genome, SETTINGS)


@settings(deadline=None)
@given(st.lists(genes(), min_size=1, max_size=24))
def test_a_genome_survives_its_text(drawn: list[Gene]):
    assert parse_genome(genomes.print_genome(drawn)) == tuple(drawn)
    assert canonical(canonical(drawn)) == canonical(drawn)


def test_the_published_example():
    genome = parse_genome(genomes.EXAMPLE)
    assert canonical(genome) == genome
    text = decode(genome, SETTINGS)
    assert "u3: sa2() shares * with u1" in text
    assert "u4: sa3() reuses B, V from u2" in text
    assert genomes.print_genome(encode(Source("x", text), Options())) == genomes.EXAMPLE


def test_a_class_says_its_operator():
    """The digits of a class are those in the documentation of its operator in std.star."""
    text = (ROOT / "grammar/std/star.star").read_text()
    for known in CLASSES.values():
        name = known.name.removesuffix("-Diff")
        assert f'"{name}, {known.digits}: ' in text
        assert f"operator {known.operator}(" in text


def test_the_documentation_has_the_table():
    assert (ROOT / "docs/genome.md").read_text().endswith(genomes.table())


def test_repeats_are_written_out():
    text = decode(parse_genome("11111-91111"), SETTINGS)
    repeated = text.replace("u1:", "repeat 3 { u1:").replace("gmemless()", "gmemless() }")
    found = encode(Source("x", repeated), Options())
    assert genomes.print_genome(found) == "-".join(
        ["11111", "91111", "12121", "92121", "13131", "93131"]
    )


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "the genome is empty"),
        ("2121", "gene 1, '2121', is not five integers"),
        ("21211-x1111", "gene 2, 'x1111', is not five integers"),
        ("01111", "there is no class 0"),
        ("18.1.1.1.1", "there is no class 18"),
        ("20111", "groups are counted from 1"),
        ("21411", "there is no featurizer strategy 4"),
        ("91112", "GMemless has no feature strategy 2, only 1, 4, 5"),
        ("1.1.1.1.99999999", "is not five integers"),
    ],
)
def test_what_is_no_genome(text: str, reason: str):
    with pytest.raises(StarError, match=reason):
        parse_genome(text)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("u3: sa2() shares * with u1", "u3: sa2(heads = 2)", "the program is not what the genome"),
        ("u1: sa2()", "u1: sa2() with residual = none", "the program is not what the genome"),
        ("u1: sa2()", "parallel(sum) { u1: sa2() }", "layer 1, 'parallel', is of no class"),
        ("reuses B, V from u2", "reuses C, V from u2", "takes C, V of earlier units"),
    ],
)
def test_what_the_numbers_do_not_hold(old: str, new: str, reason: str):
    text = decode(parse_genome(genomes.EXAMPLE), SETTINGS).replace(old, new)
    assert new in text
    with pytest.raises(StarError, match=reason):
        encode(Source("x", text), Options())


def test_an_operator_of_another_meaning_is_not_its_namesake():
    text = decode(parse_genome("11111"), SETTINGS).replace(
        "use std.star.sa1", "operator sa1() { y = x |> dense(width) }"
    )
    with pytest.raises(StarError, match="the program is not what the genome"):
        encode(Source("x", text), Options())
