"""The matrix of another projection, transposed: one weight used by its rows and by its columns.

Owns: finding that matrix, and the entry. Refuses: where the weight itself lives (with its `dense`).
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from starc.compiler.catalog.entry import Arguments, Entry, Inputs, Role, feature_of
from starc.compiler.ir import Value
from starc.compiler.types import Feature, Problem, Type


def source_of(values: Sequence[Value], id: int) -> int:
    """The `dense` stage that a feature comes from, through stages of one operand; raises Problem
    when there is none, or one without a plain matrix."""
    while values[id].op != "dense" and len(values[id].inputs) == 1:
        id = values[id].inputs[0]
    dense = values[id]
    if dense.op != "dense" or dense.attribute("rank") or dense.attribute("groups") > 1:
        raise Problem(
            "wrong-argument",
            "'transposed' needs a feature that comes from one plain 'dense'.",
            hint="h = x |> dense(n) |> relu, then transposed(h, of = h), for example.",
        )
    return id


def inputs_of(values: Sequence[Value], id: int) -> int:
    """The channels that a `dense` stage reads: those that its transpose gives."""
    type_ = values[values[id].inputs[0]].type
    assert isinstance(type_, Feature)
    return type_.channels


def _transposed(inputs: Inputs, arguments: Arguments) -> Type:
    value, source = feature_of(inputs[0], "transposed"), feature_of(inputs[1], "transposed")
    if (value.heads, value.channels) != (1, source.heads * source.channels):
        raise Problem(
            "shape-mismatch",
            f"'transposed' of a matrix with {source.heads * source.channels} outputs does not "
            f"take a {value}.",
            f"given {value}",
        )
    return Feature(1, arguments["n"])


def _flops(inputs: Inputs, arguments: Arguments, length: int) -> Fraction:
    value = feature_of(inputs[0], "transposed")
    return Fraction(2 * length * value.channels * arguments["n"])


TRANSPOSED = (
    Entry(
        "transposed",
        Role.FUNCTION,
        "the matrix of the 'dense' that `of` comes from, transposed and without its bias",
        _transposed,
        ("value", "of"),
        flops=_flops,
    ),
)
