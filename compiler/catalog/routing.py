"""Stages that choose: the largest channels, the experts of a token, the rows of a memory.

Owns: one table entry for each. Refuses: how a program calls experts (compiler/experts.py).
"""

from __future__ import annotations

from fractions import Fraction

from starc.compiler.catalog.entry import (
    Arguments,
    Entry,
    Inputs,
    Role,
    choice,
    count,
    feature_of,
    flag,
    positive,
    real,
    size,
    value_of,
)
from starc.compiler.ir import Parameter
from starc.compiler.types import Constant, Feature, Problem, Type, broadcast, describe


def _top(inputs: Inputs, arguments: Arguments) -> Type:
    value, k = value_of(inputs[0], "top"), arguments["k"]
    if len(inputs) > 1:
        value = _chosen_by(value, inputs[1], k)
    if k > value.channels:
        raise Problem(
            "shape-mismatch",
            f"'top({k})' chooses among {value.channels} channels.",
            f"given {value}",
        )
    return value


def _chosen_by(value: Feature | Constant, by: Type, k: int) -> Feature | Constant:
    chooses, result = value_of(by, "top"), broadcast(value, by)
    if (chooses.heads, chooses.channels) != (result.heads, result.channels):
        raise Problem(
            "shape-mismatch",
            f"'top({k}, by = ...)' chooses among the channels of {value} by {chooses}.",
            f"given {chooses}",
            "'by' needs the heads and channels of what is kept.",
        )
    return result


def _route(inputs: Inputs, arguments: Arguments) -> Type:
    return feature_of(inputs[0], "route")


def _experts(inputs: Inputs, arguments: Arguments) -> Type:
    return Feature(1, arguments["channels"])


def _bank(inputs: Inputs, arguments: Arguments) -> tuple[Parameter, ...]:
    """One name for the weights of all experts; the inventory lists those of each."""
    shape = arguments["n"], arguments["size"]
    return (Parameter("", shape, ("experts", arguments["operator"])),)


def _retrieve(inputs: Inputs, arguments: Arguments) -> Type:
    rows, columns = (feature_of(i, "retrieve") for i in inputs[:2])
    table = value_of(inputs[2], "retrieve")
    if isinstance(table, Feature):
        raise Problem(
            "wrong-type",
            f"the table of 'retrieve' must be a constant, not a {describe(table)}.",
            f"given {table}",
            "param(rows * columns, channels, init = normal(0.02)), for example.",
        )
    if rows.heads != columns.heads:
        raise Problem(
            "shape-mismatch",
            f"'retrieve' adds scores head by head, but these have {rows.heads} and "
            f"{columns.heads} heads.",
        )
    entries = rows.channels * columns.channels
    if table.heads != entries:
        raise Problem(
            "shape-mismatch",
            f"'retrieve' needs a table of {rows.channels} * {columns.channels} = {entries} heads, "
            f"not {table.heads}.",
            f"given {table}",
            f"param({entries}, channels) has an entry for each pair of channels.",
        )
    if arguments["top"] > entries:
        raise Problem(
            "shape-mismatch", f"'retrieve' chooses {arguments['top']} of {entries} entries."
        )
    return Feature(1, table.channels)


def _read(inputs: Inputs, arguments: Arguments) -> int:
    """Numbers of the table that one token reads, at most all."""
    heads, table = feature_of(inputs[0], "retrieve").heads, value_of(inputs[2], "retrieve")
    return int(min(heads * arguments["top"], table.heads)) * table.channels


def _weighted(inputs: Inputs, arguments: Arguments, length: int) -> Fraction:
    heads, table = feature_of(inputs[0], "retrieve").heads, value_of(inputs[2], "retrieve")
    return Fraction(2 * length * heads * arguments["top"] * table.channels)


def _idle(inputs: Inputs, arguments: Arguments) -> int:
    table = value_of(inputs[2], "retrieve")
    return table.heads * table.channels - _read(inputs, arguments)


GATES = choice("gate", "softmax", "sigmoid")

ROUTING = (
    Entry(
        "top",
        Role.STAGE,
        "the k largest channels of every head, or those that are largest in `by`; zero elsewhere",
        _top,
        operands=("value", "by"),
        arguments=(size("k"),),
        optional=True,
    ),
    Entry(
        "route",
        Role.INTERNAL,
        "weights of the experts that a token is sent to, zero for all others",
        _route,
    ),
    Entry(
        "experts",
        Role.STAGE,
        "routed copies of an operator (1701.06538)",
        _experts,
        operands=("value", "weights"),
        optional=True,
        arguments=(
            size("n"),
            size("top"),
            count("shared", 0),
            GATES,
            flag("normalize", True),
            positive("scale", Fraction(1)),
            flag("noisy", False),
            real("balance", Fraction(1, 100)),
            flag("correction", False),
            size("groups", 1),
            size("keep", 1),
            flag("bias", False),
        ),
        parameters=_bank,
        flops=lambda inputs, arguments, length: Fraction(
            length * arguments["top"] * arguments["work"]
        ),
        idle=lambda inputs, arguments: (arguments["n"] - arguments["top"]) * arguments["size"],
    ),
    Entry(
        "retrieve",
        Role.FUNCTION,
        "a weighted sum of the rows of a learned table that score best (1907.05242)",
        _retrieve,
        operands=("rows", "columns", "table"),
        arguments=(size("top"), GATES),
        flops=_weighted,
        idle=_idle,
    ),
)
