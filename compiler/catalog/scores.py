"""Stages on mixers that are scores: which entries are visible, what is added to them, and what
makes weights of them.

Masks shrink the set of visible pairs, or with `also` widen it again to what is causal. Terms add to
the entries and leave the set as it is. Owns: one table entry for each. Refuses: how they are
computed.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from starc.compiler.catalog.entry import (
    Arguments,
    Entry,
    Inputs,
    Role,
    Rule,
    count,
    flag,
    positive,
    size,
    value_of,
)
from starc.compiler.types import Mixer, Problem, Type, describe, group_heads


def mixer_of(type_: Type, what: str, after_sink: bool = False) -> Mixer:
    """The operand as a mixer, or the Problem that it is none."""
    if not isinstance(type_, Mixer):
        raise Problem(
            "wrong-type",
            f"'{what}' needs a mixer, not a {describe(type_)}.",
            f"given a {describe(type_)}",
            "mixers are made by diagonal, low_rank, semi_separable and toeplitz.",
        )
    if type_.sink and not after_sink:
        raise Problem(
            "wrong-type",
            f"'{what}' of a mixer with a sink: only softmax knows what a sink is.",
            "between 'sink' and 'softmax'",
            "put 'sink' right before 'softmax'.",
        )
    return type_


def per_head(type_: Type, what: str, after_sink: bool = False) -> Mixer:
    """The operand as a mixer with one matrix per head."""
    mixer = mixer_of(type_, what, after_sink)
    if mixer.flat or mixer.channels > 1:
        raise Problem(
            "wrong-type",
            f"'{what}' needs one matrix per head; this mixer has one per channel.",
            f"given a {describe(mixer)}",
            "a nonlinearity over T fits mixers made of low_rank or semi_separable.",
        )
    return mixer


def nonlinear(what: str) -> Rule:
    def rule(inputs: Inputs, arguments: Arguments) -> Type:
        return replace(per_head(inputs[0], what, what == "softmax"), linear=False, sink=False)

    return rule


def mask(what: str, causal: bool = False) -> Rule:
    def rule(inputs: Inputs, arguments: Arguments) -> Type:
        mixer = mixer_of(inputs[0], what, after_sink=True)
        return replace(mixer, causal=mixer.causal or causal)

    return rule


def _summary(inputs: Inputs, arguments: Arguments) -> Type:
    if arguments["c"] > arguments["n"]:
        raise Problem(
            "bad-size",
            f"'summary' keeps the last {arguments['c']} of every {arguments['n']} tokens.",
            "more than there are",
            "write summary(n, c) with c at most n.",
        )
    return mask("summary")(inputs, arguments)


def _term(what: str, channels: bool = False) -> Rule:
    """A rule for a stage that adds something made of a feature to the entries of every row."""

    def rule(inputs: Inputs, arguments: Arguments) -> Type:
        mixer, f = per_head(inputs[0], what), value_of(inputs[1], what)
        if not channels and f.channels != 1:
            raise Problem(
                "shape-mismatch",
                f"'{what}' takes one number per head, F[h, 1], not {f}.",
                f"{f.channels} channels",
                f"x |> dense({mixer.heads}) |> heads({mixer.heads}) has one number per head.",
            )
        heads = group_heads((("the mixer", mixer.heads), (f"'{what}'", f.heads)))
        return replace(mixer, heads=heads)

    return rule


def _relative(inputs: Inputs, arguments: Arguments) -> Type:
    mixer = _term("relative", channels=True)(inputs, arguments)
    n, farthest = value_of(inputs[1], "relative").channels, arguments["farthest"]
    if farthest and (n < 2 or farthest <= n // 2):
        raise Problem(
            "bad-size",
            f"'relative' has {n} channels for distances up to {farthest}.",
            f"farthest = {farthest}",
            "the logarithmic scale begins at half the channels and ends at 'farthest'.",
        )
    return mixer


def _sink(inputs: Inputs, arguments: Arguments) -> Type:
    mixer = _term("sink")(inputs, arguments)
    assert isinstance(mixer, Mixer)
    return replace(mixer, sink=True)


def _select(inputs: Inputs, arguments: Arguments) -> Type:
    mixer = per_head(inputs[0], "select")
    heads = mixer.heads
    if len(inputs) > 1:
        by = per_head(inputs[1], "select")
        heads = group_heads((("the mixer", heads), ("'by'", by.heads)))
        if mixer.causal and not by.causal:
            raise Problem(
                "causality",
                "'select' chooses by a mixer that sees later tokens.",
                "token i may only use tokens j <= i",
                "put '|> causal' behind the mixer that 'by' names.",
            )
    groups = arguments["groups"]
    if groups and heads % groups:
        raise Problem(
            "heads-not-divisible",
            f"{heads} heads cannot choose in {groups} groups.",
            f"{groups} groups",
            "the number of groups divides the number of heads.",
        )
    return replace(mixer, heads=heads, linear=False)


def default_slopes(heads: int) -> tuple[float, ...]:
    """ALiBi's slopes (2108.12409, section 3): 2^(-8/h), 2^(-16/h), ... for a power of two; for
    other counts those of the power of two below, then every other one of the power above."""
    closest = 1 << (heads.bit_length() - 1)
    first = [2 ** (-8 * (k + 1) / closest) for k in range(closest)]
    more = [2 ** (-4 * (2 * k + 1) / closest) for k in range(heads - closest)]
    return tuple(first + more)


_STAGE = Role.MIXER_STAGE
_ALSO = flag("also", False)
_F = ("mixer", "f")

MASKS = tuple(
    Entry(op, _STAGE, doc, rule, operands=("mixer",), arguments=arguments)
    for op, doc, rule, arguments in (
        ("causal", "token i sees j <= i", mask("causal", True), ()),
        ("band", "token i sees |i - j| < w", mask("band"), (size("w"), _ALSO)),
        (
            "dilated",
            "token i sees w tokens, every r-th: |i - j| = 0, r, ..., (w - 1) r",
            mask("dilated"),
            (size("w"), size("r"), _ALSO),
        ),
        (
            "strided",
            "token i sees every j with i - j a multiple of n",
            mask("strided"),
            (size("n"), _ALSO),
        ),
        ("block", "token i sees its own block of n", mask("block"), (size("n"), _ALSO)),
        (
            "summary",
            "token i sees the last c of every n tokens",
            _summary,
            (size("n"), size("c", 1), _ALSO),
        ),
        ("first", "the first n tokens are visible, too", mask("first"), (size("n"),)),
    )
)

SCORES = (
    *MASKS,
    Entry(
        "select",
        _STAGE,
        "token i sees the `top` blocks of highest score, its own among them",
        _select,
        operands=("mixer", "by"),
        arguments=(size("top"), size("block", 1), count("groups", 0)),
        optional=True,
        local=False,
    ),
    Entry("bias", _STAGE, "T_ij + f_j: a score of the key", _term("bias"), operands=_F),
    Entry(
        "decay",
        _STAGE,
        "T_ij + f_(j+1) + ... + f_i, as in the forgetting transformer (2503.02130)",
        _term("decay"),
        operands=_F,
        local=False,
    ),
    Entry(
        "alibi",
        _STAGE,
        "T_ij - f_i |i - j| (2108.12409)",
        _term("alibi"),
        operands=_F,
        optional=True,
    ),
    Entry(
        "relative",
        _STAGE,
        "T_ij + f_i at channel |i - j|; the last channel serves all greater distances",
        _relative,
        operands=_F,
        arguments=(count("farthest", 0),),
    ),
    Entry(
        "sink",
        _STAGE,
        "a score that takes weight of the softmax and gives none (2309.17453)",
        _sink,
        operands=_F,
        optional=True,
    ),
    Entry(
        "softcap",
        _STAGE,
        "c tanh(T / c)",
        nonlinear("softcap"),
        operands=("mixer",),
        arguments=(positive("c"),),
    ),
    Entry(
        "mixer_softmax",
        _STAGE,
        "softmax over the visible entries of a row",
        nonlinear("softmax"),
        operands=("mixer",),
        spelling="softmax",
    ),
    Entry(
        "mixer_sigmoid",
        _STAGE,
        "sigmoid of the visible entries",
        nonlinear("sigmoid"),
        operands=("mixer",),
        spelling="sigmoid",
    ),
    Entry(
        "mixer_relu", _STAGE, "max(T, 0)", nonlinear("relu"), operands=("mixer",), spelling="relu"
    ),
    Entry(
        "normalize",
        _STAGE,
        "divide a row by max(|its sum|, floor)",
        nonlinear("normalize"),
        operands=("mixer",),
        arguments=(positive("floor", Fraction(1, 10**6)),),
    ),
    Entry(
        "standardize",
        _STAGE,
        "zero mean and unit variance over the visible entries of a row (2005.09561)",
        nonlinear("standardize"),
        operands=("mixer",),
        arguments=(positive("eps", Fraction(1, 10**5)),),
    ),
)
