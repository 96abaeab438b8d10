"""Spaces: fillings have no hole and verify, and the count is that of all of them."""

from __future__ import annotations

import random

import pytest

from starc.compiler.driver import check_program
from starc.compiler.holes import is_hole
from starc.compiler.options import Options
from starc.grammar import nodes
from starc.grammar.errors import StarError
from starc.grammar.parser import parse
from starc.grammar.printer import format_program
from starc.grammar.source import Source
from starc.search.counting import count
from starc.search.sampling import draw
from starc.search.space import Space, every, fill, open_space, sample

PROGRAM = """
operator a(n: int = 3) {{
    C = x |> dense(width) |> ?[silu, conv(?[2, 3])]
    B = x |> dense(width)
    V = x |> dense(width)
    y = diagonal(C) @ diagonal(B) @ V |> dense(width)
}}
operator b(n: int = 3) {{ C = x |> dense(n)  y = C |> dense(width) }}
model m {{ vocab = 8  width = ?w[8, 16]  context = 8  backbone {{ {} }} }}
"""

BODIES = [
    "a()",
    "repeat 2 { ?[a(), b(n = ?[1 .. 3])] }",
    "repeat ?[1 .. 2] { ?[a(), b(n = ?h[1, 2])] shares ? } b(n = ?h[1, 2])",
    "repeat 3 { ?[a(), b(), parallel(sum) { a() b() }] shares ? }",
    "repeat 2 { ?[a(), b()] shares ? reuses ? }",
    "repeat ?[1 .. 4] { a() } loop ?w[8, 16] { b() }",
    "repeat 2 { k: ?[a(), b()] b() shares C with k with residual = ?[none, pre(rmsnorm)] }",
    "?[a(), ?[b(), b(n = 4)]]",
    "repeat 2 { b() repeat ?[1, 2] { b() shares ? } }",
]


def space(body: str) -> Space:
    return open_space(Source("space.star", PROGRAM.format(body)), Options())


def every_filling(opened: Space) -> list[nodes.Program]:
    """All fillings, found by counting the answers of `choose` up like a number's digits."""
    found: list[nodes.Program] = []
    prefix: list[int] = []
    while True:
        trace: list[tuple[int, int]] = []

        def choose(options: int, prefix: list[int] = prefix, trace=trace) -> int:
            trace.append((prefix[len(trace)] if len(trace) < len(prefix) else 0, options))
            return trace[-1][0]

        found.append(fill(opened, choose))
        while trace and trace[-1][0] == trace[-1][1] - 1:
            trace.pop()
        if not trace:
            return found
        prefix = [digit for digit, _ in trace]
        prefix[-1] += 1


@pytest.mark.parametrize("body", BODIES)
def test_the_count_is_that_of_all_fillings(body: str):
    found = every_filling(space(body))
    if body.count("?[1, 2]") == 0:  # copies of copies can come out alike in two ways
        assert len({f.declarations for f in found}) == len(found)
    assert (count(space(body)).fillings, count(space(body)).bound) == (len(found), False)


@pytest.mark.parametrize("body", BODIES)
def test_fillings_have_no_holes_and_verify(body: str):
    for seed in range(5):
        drawn = draw(space(body), random.Random(seed))
        program = parse(Source("drawn.star", drawn.text))
        assert not any(is_hole(node) for d in program.declarations for node in every(d))
        check_program(Source("drawn.star", drawn.text), Options())


def test_the_same_seed_draws_the_same_program():
    texts = {draw(space(BODIES[4]), random.Random(7)).text for _ in range(3)}
    assert len(texts) == 1
    assert len({draw(space(BODIES[4]), random.Random(seed)).text for seed in range(20)}) > 5


def test_anonymous_holes_are_decided_in_each_copy_and_named_ones_once():
    for seed in range(20):
        text = draw(space("repeat 6 { b(n = ?[1, 2]) b(n = ?h[5, 6]) }"), random.Random(seed)).text
        if "n = 1" in text and "n = 2" in text:
            break
    else:
        pytest.fail("six copies were always decided alike")
    assert ("n = 5" in text) != ("n = 6" in text)


def test_repeats_without_holes_of_their_own_stay():
    text = draw(space("repeat 3 { b(n = ?h[1, 2]) }"), random.Random(0)).text
    assert "repeat 3 {" in text


def test_labels_of_copies_keep_apart():
    text = draw(
        space("repeat 2 { k: b(n = ?[1]) b(n = 1) shares C with k }"), random.Random(0)
    ).text
    assert "k_1: b(n = 1)" in text
    assert "shares C with k_2" in text


def test_every_option_is_drawn_about_as_often():
    opened = space("b(n = ?[1, 2, 3, 4])")
    drawn = [format_program(sample(opened, random.Random(seed))) for seed in range(400)]
    for n in range(1, 5):
        assert 60 < sum(f"n = {n})" in text for text in drawn) < 140


def test_a_long_space_is_counted_from_below():
    found = count(space("repeat 12 { ?[b(n = ?[1 .. 9]), a()] shares ? }"))
    assert found.bound
    assert found.fillings == 4 * 2 * 10**12 - 2 * 10**12
    assert str(found) == "more than 6.00e+12"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("b(n = ?[2 .. 1])", "bad-hole"),
        ("b(n = ?[1/2 .. 3])", "bad-hole"),
        ("b(n = ?[1 .. 999999999])", "bad-hole"),
        ("b(n = ?h[1, 2]) b(n = ?h[1, 3])", "bad-hole"),
        ("repeat ?[2] * 3 { b(n = ?[1, 2]) }", "bad-hole"),
        ("b(n = ?[0, -1])", "no-valid-filling"),
    ],
)
def test_what_is_wrong_with_a_space(body: str, code: str):
    def draw_some() -> None:
        for seed in range(20):
            draw(space(body), random.Random(seed))

    with pytest.raises(StarError) as refused:
        draw_some()
    assert refused.value.diagnostics[0].code == code
