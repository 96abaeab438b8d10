"""Identity: what does and does not change the digest of a program."""

from __future__ import annotations

import pytest

from starc.compiler.driver import compile_program
from starc.compiler.options import Options
from starc.grammar.source import Source

BASE = """
operator f(n: int = 4) {
    C = x |> dense(8) |> silu
    B = x |> dense(8)
    y = C * B |> dense(width)
}
operator g(first: feature) { y = x * first }
model m {
    vocab = 11  width = 8  context = 16
    backbone { a: f()  repeat 2 { f()  g(first = a.C) }  f() shares C with a }
}
"""


def digest(text: str) -> str:
    return compile_program(Source("t.star", text), Options(format=False)).digest


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("a: f()", "label: f()"),
        ("operator f(n", "# a comment\noperator f(n"),
        ("vocab = 11", "vocab = 1_1"),
        ("width = 8", "width = 16 / 2"),
        ("    y = C", "    D = x |> dense(3)\n    y = C"),
        ("x |> dense(8) |> silu", "silu(dense(x, 8))"),
        (
            "C = x |> dense(8) |> silu\n    B = x |> dense(8)",
            "B = x |> dense(8)\n    C = x |> dense(8) |> silu",
        ),
        ("f()  g(first", "f(n = 9)  g(first"),
        ("y = C * B |> dense(width)", "p = C * B\n    y = p |> dense(width)"),
        ("model m", "model other"),
    ],
    ids=lambda text: text[:24],
)  # fmt: skip
def test_spelling_does_not_count(old: str, new: str) -> None:
    changed = BASE.replace(old, new)
    if old == "a: f()":
        changed = changed.replace("a.C", "label.C").replace("with a", "with label")
    assert changed != BASE
    assert digest(changed) == digest(BASE)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("vocab = 11", "vocab = 12"),
        ("silu", "gelu"),
        ("repeat 2", "repeat 3"),
        ("shares C with a", ""),
        ("shares C with a", "shares B with a"),
        ("first = a.C", "first = a.B"),
        ("y = C * B |> dense(width)", "y = C * C |> dense(width)"),
        ("y = x * first", "y = first * (x |> shift)"),
        ("B = x |> dense(8)", "B = x |> dense(8, bias = true)"),
        ("context = 16", "context = 16  residual = post(rmsnorm)"),
        ("context = 16", "context = 16  embedding = tied"),
    ],
    ids=lambda text: text[:24],
)
def test_meaning_counts(old: str, new: str) -> None:
    assert old in BASE
    assert digest(BASE.replace(old, new)) != digest(BASE)
