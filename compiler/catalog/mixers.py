"""Mixers: the structures of T, and their algebra.

A mixer value denotes a token-by-token matrix per head together with the set of pairs (i, j) that
are visible. Masks (causal, band) shrink that set and zero what lies outside; softmax and normalize
run over the visible entries of a row only; nonlinearities leave invisible entries at zero.

Owns: one table entry for each. Refuses: how a mixer is computed (the pass `select` decides that).
"""

from __future__ import annotations

from starc.compiler.catalog.entry import (
    Arguments,
    Entry,
    Inputs,
    Role,
    Rule,
    real,
    size,
    value_of,
)
from starc.compiler.catalog.scores import mixer_of
from starc.compiler.catalog.transitions import READ, paired_channels, semi_separable
from starc.compiler.ir import Parameter
from starc.compiler.types import (
    Filter,
    Mixer,
    Problem,
    Type,
    apply_mixer,
    broadcast,
    describe,
    group_heads,
    unify_mixers,
)

# --- constructors ------------------------------------------------------------------------------


def _diagonal(inputs: Inputs, arguments: Arguments) -> Type:
    value = value_of(inputs[0], "diagonal")
    return Mixer(value.heads, value.channels, causal=True)


def _low_rank(inputs: Inputs, arguments: Arguments) -> Type:
    c, b = value_of(inputs[0], "low_rank"), value_of(inputs[1], "low_rank")
    paired_channels("low_rank", c, b)
    return Mixer(group_heads((("C", c.heads), ("B", b.heads))))


def _static(inputs: Inputs, arguments: Arguments) -> Type:
    n, context = arguments["n"], arguments["context"]
    if n < context:
        raise Problem(
            "shape-mismatch",
            f"'static({n})' holds {n} tokens, but the context of the model is {context}.",
            f"{n} tokens",
            "write static(context).",
        )
    return Mixer(arguments["heads"], causal=True)


def _static_parameters(inputs: Inputs, arguments: Arguments) -> tuple[Parameter, ...]:
    n = arguments["n"]
    return (Parameter("", (arguments["heads"], n, n), ("normal", 1 / n)),)


def _toeplitz(inputs: Inputs, arguments: Arguments) -> Type:
    if not isinstance(inputs[0], Filter):
        raise Problem(
            "wrong-type",
            f"'toeplitz' needs a filter, not a {describe(inputs[0])}.",
            f"given a {describe(inputs[0])}",
            "filters are made by explicit(channels, k), implicit(channels) and ssm(channels).",
        )
    return Mixer(inputs[0].lanes, flat=True, causal=True)


# --- stages on mixers --------------------------------------------------------------------------


def _keep(what: str) -> Rule:
    def rule(inputs: Inputs, arguments: Arguments) -> Type:
        return mixer_of(inputs[0], what)

    return rule


# --- algebra -----------------------------------------------------------------------------------


def _combine(inputs: Inputs, arguments: Arguments) -> Type:
    left, right = mixer_of(inputs[0], "+"), mixer_of(inputs[1], "+")
    heads, channels, flat = unify_mixers(left, right)
    return Mixer(heads, channels, flat, left.causal and right.causal, left.linear and right.linear)


def _product(inputs: Inputs, arguments: Arguments) -> Type:
    left, right = mixer_of(inputs[0], "*"), mixer_of(inputs[1], "*")
    heads, channels, flat = unify_mixers(left, right)
    return Mixer(heads, channels, flat, left.causal or right.causal, left.linear and right.linear)


def _row_scale(inputs: Inputs, arguments: Arguments) -> Type:
    value, mixer = value_of(inputs[0], "*"), mixer_of(inputs[1], "*")
    rows = Mixer(value.heads, value.channels, causal=True)
    if (value.heads, value.channels) == (1, 1):
        return mixer
    heads, channels, flat = unify_mixers(rows, mixer)
    return Mixer(heads, channels, flat, mixer.causal, mixer.linear)


def _apply(inputs: Inputs, arguments: Arguments) -> Type:
    return apply_mixer(mixer_of(inputs[0], "@"), inputs[1])


def _broadcast(inputs: Inputs, arguments: Arguments) -> Type:
    return broadcast(inputs[0], inputs[1])


_FUNCTION, _STAGE, _INTERNAL = Role.FUNCTION, Role.MIXER_STAGE, Role.INTERNAL

MIXERS = (
    Entry(
        "static",
        Role.SOURCE,
        "a learned T_ij for i >= j of up to n tokens (gMLP, 2105.08050)",
        _static,
        operands=(),
        arguments=(size("n"), size("heads", 1)),
        parameters=_static_parameters,
        local=False,
    ),
    Entry("diagonal", _FUNCTION, "T_ii = f_i (memoryless)", _diagonal, operands=("f",)),
    Entry("low_rank", _FUNCTION, "T_ij = C_i . B_j", _low_rank, operands=("C", "B"), local=False),
    Entry(
        "semi_separable",
        _FUNCTION,
        "T_ij = C_i A_i ... A_{j+1} B_j for i >= j",
        semi_separable,
        operands=("C", "A", "B"),
        arguments=(READ,),
        local=False,
    ),
    Entry(
        "toeplitz", _FUNCTION, "T_ij = K_{i-j} for i >= j", _toeplitz, operands=("K",), local=False
    ),
    Entry(
        "mixer_scale",
        _STAGE,
        "times a number",
        _keep("scale"),
        operands=("mixer",),
        arguments=(real("s"),),
        spelling="scale",
    ),
    Entry("compose", _INTERNAL, "T1 @ T2", _combine, operands=("left", "right"), local=False),
    Entry("mixer_add", _INTERNAL, "T1 + T2", _combine, operands=("left", "right")),
    Entry("mixer_subtract", _INTERNAL, "T1 - T2", _combine, operands=("left", "right")),
    Entry(
        "mixer_multiply",
        _INTERNAL,
        "T1 * T2, entry by entry",
        _product,
        operands=("left", "right"),
    ),
    Entry("mixer_negate", _INTERNAL, "-T", _keep("-"), operands=("mixer",)),
    Entry("row_scale", _INTERNAL, "f * T: row i times f_i", _row_scale, operands=("f", "mixer")),
    Entry("apply", _INTERNAL, "T @ V", _apply, operands=("mixer", "value"), local=False),
    Entry(
        "add",
        _INTERNAL,
        "a + b",
        _broadcast,
        operands=("a", "b"),
        torch="({0} + {1})",
        pointwise=True,
    ),
    Entry(
        "subtract",
        _INTERNAL,
        "a - b",
        _broadcast,
        operands=("a", "b"),
        torch="({0} - {1})",
        pointwise=True,
    ),
    Entry(
        "multiply",
        _INTERNAL,
        "a * b",
        _broadcast,
        operands=("a", "b"),
        torch="({0} * {1})",
        pointwise=True,
    ),
    Entry(
        "divide",
        _INTERNAL,
        "a / b",
        _broadcast,
        operands=("a", "b"),
        torch="({0} / {1})",
        pointwise=True,
    ),
    Entry(
        "negate",
        _INTERNAL,
        "-a",
        lambda inputs, arguments: value_of(inputs[0], "-"),
        torch="(-{0})",
        pointwise=True,
    ),
)
