"""Passes, case by case: the program, the pass, and the IR after it (passes.txt holds the table).

STARC_REGENERATE=1 rewrites the table from what the compiler does; read the difference before
committing.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from starc.compiler.passes import PIPELINE
from starc.compiler.types import Feature
from starc.compiler.verify import verify
from starc.grammar.errors import InternalError
from tests.compiler.programs import run_until, values, with_body

TABLE = Path(__file__).with_name("passes.txt")


def cases() -> list[tuple[str, str, str, str]]:
    """(title, pass, body, expected lines) of every case in the table."""
    found = []
    for block in TABLE.read_text().strip().split("\n\n"):
        head, _, rest = block.partition("\n")
        title, _, name = head.removeprefix("== ").rpartition(" [")
        body, _, expected = rest.partition("\n--\n")
        found.append((title, name.removesuffix("]"), body, expected))
    return found


@pytest.mark.parametrize(
    ("title", "name", "body", "expected"), cases(), ids=[case[0] for case in cases()]
)
def test_pass(title: str, name: str, body: str, expected: str) -> None:
    assert "\n".join(values(run_until(with_body(body), name))) == expected


def test_regenerate() -> None:
    """Not a check: rewrites the table when asked to."""
    if os.environ.get("STARC_REGENERATE"):
        blocks = [
            f"== {title} [{name}]\n{body}\n--\n"
            + "\n".join(values(run_until(with_body(body), name)))
            for title, name, body, _ in cases()
        ]
        TABLE.write_text("\n\n".join(blocks) + "\n")


def test_every_pass_is_in_the_table_or_has_tests_below() -> None:
    tabled = {name for _, name, _, _ in cases()}
    assert {name for name, _ in PIPELINE} - tabled == {"share", "drop_unused"}


SHARED = """
model m {{
    vocab = 11  width = 8  context = 16
    backbone {{ a: f()  b: f() shares {names} with a  c: f() shares * with b }}
}}
"""
QKV = "C = x |> dense(8)\nB = x |> dense(8)\ny = C * B |> dense(8)"


def test_share_follows_chains_to_the_owner() -> None:
    model = run_until(with_body(QKV, SHARED.format(names="*")), "share")
    ties = {unit.name: {(t.parameter, t.unit) for t in unit.ties} for unit in model.layers}
    everything = {("C.weight", "a"), ("B.weight", "a"), ("y.weight", "a")}
    assert ties == {"a": set(), "b": everything, "c": everything}


def test_projections_with_the_same_ties_stay_stacked() -> None:
    model = run_until(with_body(QKV, SHARED.format(names="*")), "fuse_projections")
    (operator,) = model.operators
    assert [p.name for p in operator.parameters] == ["C_B.weight", "y.weight"]
    assert {(t.parameter, t.unit) for t in model.layers[1].ties} == {
        ("C_B.weight", "a"),
        ("y.weight", "a"),
    }


def test_projections_with_different_ties_are_not_stacked() -> None:
    program = SHARED.replace("c: f() shares * with b", "").format(names="B")
    model = run_until(with_body(QKV, program), "fuse_projections")
    (operator,) = model.operators
    assert [p.name for p in operator.parameters] == ["C.weight", "B.weight", "y.weight"]


def test_unread_values_are_dropped_with_their_parameters() -> None:
    body = "C = x |> dense(8)\nA = exp(C |> heads(2))\nB = x |> heads(2)\n"
    body += "y = semi_separable(B, A, B) @ B |> merge"
    model = run_until(with_body(body), "drop_unused")
    assert "exp" not in [v.op for v in model.operators[0].values]


@pytest.mark.parametrize(
    ("change", "finding"),
    [
        (lambda v: replace(v, type=Feature(1, 7)), "the catalog says F"),
        (lambda v: replace(v, inputs=(5,)), "reads (5,)"),
        (lambda v: replace(v, op="no_such"), "which the catalog does not have"),
        (lambda v: replace(v, parameters=("lost",)), "values own"),
    ],
    ids=["type", "order", "operation", "parameters"],
)
def test_the_verifier_finds_broken_ir(change, finding: str) -> None:
    model = run_until(with_body("y = x |> silu"), "share")
    (operator,) = model.operators
    broken = replace(operator, values=(operator.values[0], change(operator.values[1])))
    with pytest.raises(InternalError, match="after 'select'") as caught:
        verify(replace(model, operators=(broken,)), "select")
    assert finding in str(caught.value)
