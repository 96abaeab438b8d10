"""Algorithms: what the pass `select` puts in place of `apply`, once it has read the structure of T.

Each entry computes T(x) V for one structure in one way; its template in templates/mixer has the
same name. Programs never write these.
"""

from __future__ import annotations

from starc.compiler.catalog.entry import (
    Arguments,
    Entry,
    Inputs,
    Role,
    flag,
    positive,
    size,
    value_of,
    with_shape,
)
from starc.compiler.catalog.transitions import READ, semi_separable, structured
from starc.compiler.types import (
    Feature,
    Filter,
    Mixer,
    Problem,
    Type,
    apply_mixer,
    broadcast,
    group_heads,
)


def _attention(inputs: Inputs, arguments: Arguments) -> Type:
    c, b, v = (value_of(i, "attention") for i in inputs)
    return apply_mixer(Mixer(group_heads((("C", c.heads), ("B", b.heads)))), v)


def _recurrence(inputs: Inputs, arguments: Arguments) -> Type:
    mixer = semi_separable(inputs[:3], arguments)
    assert isinstance(mixer, Mixer)
    return apply_mixer(mixer, inputs[3])


def _structured(inputs: Inputs, arguments: Arguments) -> Type:
    mixer = structured(inputs[:-1], arguments)
    assert isinstance(mixer, Mixer)
    return apply_mixer(mixer, inputs[-1])


def _convolution(inputs: Inputs, arguments: Arguments) -> Type:
    kernel = inputs[0]
    if not isinstance(kernel, Filter):
        raise Problem("wrong-type", "a convolution needs a filter.")
    return apply_mixer(Mixer(kernel.lanes, flat=True, causal=True), inputs[1])


def _gated_convolution(inputs: Inputs, arguments: Arguments) -> Type:
    return value_of(inputs[-1], "gated_convolution")


def _product(inputs: Inputs, arguments: Arguments) -> Type:
    return broadcast(inputs[0], inputs[1])


def _with_ones(inputs: Inputs, arguments: Arguments) -> Type:
    value = value_of(inputs[0], "with_ones")
    return with_shape(value, value.heads, value.channels + 1)


_SCORES = ("C", "B", "V")
_STATE = ("C", "A", "B", "V")
_DPLR = ("C", "w", "a", "b", "B", "V")
_DELTA = ("C", "w", "B", "beta", "V")

_MIXERS = tuple(
    Entry(op, Role.INTERNAL, doc, rule, operands, local=False)
    for op, doc, rule, operands in (
        (
            "log_semi_separable",
            "semi_separable with the logarithm of its transition",
            semi_separable,
            ("C", "log A", "B"),
        ),
        ("attention", "softmax of a scaled low-rank score, fused", _attention, _SCORES),
        ("banded_attention", "the same over a band, in blocks", _attention, _SCORES),
        ("linear_attention", "low rank without nonlinearity, in chunks", _attention, _SCORES),
        ("scalar_recurrence", "state space dual: one decay per head", _recurrence, _STATE),
        ("diagonal_recurrence", "one decay per channel of the state", _recurrence, _STATE),
        ("signed_recurrence", "transitions of any sign", _recurrence, _STATE),
        ("dplr_recurrence", "diagonal plus low rank, in chunks", _structured, _DPLR),
        ("delta_recurrence", "the delta rule, in chunks", _structured, _DELTA),
        ("scan", "heads of one channel, token after token in blocks", _recurrence, _STATE),
        ("short_convolution", "a few taps, as shifted products", _convolution, ("K", "V")),
        ("long_convolution", "by fast Fourier transform", _convolution, ("K", "V")),
        ("modal_convolution", "exponentials: a transform, or a state", _convolution, ("K", "V")),
    )
)

ALGORITHMS = (
    Entry(
        "stabilized",
        Role.INTERNAL,
        "log decays and gates of a memory divided by exp of a running maximum m, and -m",
        lambda inputs, arguments: Feature(arguments["heads"], 3),
        operands=("A", "u"),
        arguments=(positive("floor"), size("heads")),
        local=False,
    ),
    Entry(
        "with_ones",
        Role.INTERNAL,
        "a channel of ones behind those of every head",
        _with_ones,
        torch="F.pad({0}, (0, 1), value=1.0)",
    ),
    *_MIXERS,
    Entry(
        "dplr_semi_separable",
        Role.INTERNAL,
        "semi_separable with the steps diag(w) + a b' of its transition: C, (w, a, b)..., B",
        structured,
        ("C", "w", "a", "b", "B"),
        arguments=(flag("logarithmic", True), READ),
        local=False,
    ),
    Entry(
        "delta_semi_separable",
        Role.INTERNAL,
        "the delta rule: transition (I - beta B B') diag(w), written to along beta B",
        structured,
        ("C", "w", "B", "beta"),
        arguments=(flag("logarithmic", True), READ),
        local=False,
    ),
    Entry(
        "gated_convolution",
        Role.INTERNAL,
        "C * conv(K, B * V), either gate optional: operands K, [C], [B], V",
        _gated_convolution,
        ("K", "C", "B", "V"),
        local=False,
    ),
    Entry(
        "gated_product",
        Role.INTERNAL,
        "activation(gate) * value",
        _product,
        ("gate", "value"),
        pointwise=True,
    ),
)
