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
from starc.compiler.types import Feature, Problem, Type


def _top(inputs: Inputs, arguments: Arguments) -> Type:
    value, k = value_of(inputs[0], "top"), arguments["k"]
    if k > value.channels:
        raise Problem(
            "shape-mismatch",
            f"'top({k})' chooses among {value.channels} channels.",
            f"given {value}",
        )
    return value


def _route(inputs: Inputs, arguments: Arguments) -> Type:
    return feature_of(inputs[0], "route")


def _experts(inputs: Inputs, arguments: Arguments) -> Type:
    return Feature(1, arguments["channels"])


def _bank(inputs: Inputs, arguments: Arguments) -> tuple[Parameter, ...]:
    """One name for the weights of all experts; the inventory lists those of each."""
    shape = arguments["n"], arguments["size"]
    return (Parameter("", shape, ("experts", arguments["operator"])),)


def _retrieve(inputs: Inputs, arguments: Arguments) -> Type:
    rows, columns = (feature_of(i, "retrieve") for i in inputs)
    if rows.heads != columns.heads:
        raise Problem(
            "shape-mismatch",
            f"'retrieve' adds scores head by head, but these have {rows.heads} and "
            f"{columns.heads} heads.",
        )
    entries = rows.channels * columns.channels
    if arguments["top"] > entries:
        raise Problem(
            "shape-mismatch",
            f"'retrieve' chooses {arguments['top']} of {entries} entries.",
            f"{rows.channels} rows of {columns.channels} columns",
        )
    return Feature(1, arguments["channels"])


def _entries(inputs: Inputs, arguments: Arguments) -> int:
    rows, columns = (feature_of(i, "retrieve") for i in inputs)
    return rows.channels * columns.channels


def _table(inputs: Inputs, arguments: Arguments) -> tuple[Parameter, ...]:
    channels = arguments["channels"]
    std = float(channels) ** -0.5
    return (Parameter("", (_entries(inputs, arguments), channels), ("normal", std)),)


def _retrieved(inputs: Inputs, arguments: Arguments) -> int:
    """Entries that one token reads, at most all."""
    heads = feature_of(inputs[0], "retrieve").heads
    return int(min(heads * arguments["top"], _entries(inputs, arguments)))


GATES = choice("gate", "softmax", "sigmoid")

ROUTING = (
    Entry(
        "top",
        Role.STAGE,
        "the k largest channels of every head, zero elsewhere",
        _top,
        arguments=(size("k"),),
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
        operands=("rows", "columns"),
        arguments=(size("top"), size("channels"), GATES),
        parameters=_table,
        flops=lambda inputs, arguments, length: Fraction(
            2
            * length
            * feature_of(inputs[0], "retrieve").heads
            * arguments["top"]
            * arguments["channels"]
        ),
        idle=lambda inputs, arguments: (_entries(inputs, arguments) - _retrieved(inputs, arguments))
        * arguments["channels"],
    ),
)
