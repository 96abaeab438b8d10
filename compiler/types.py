"""The types of values inside an operator, and the rules by which their shapes combine.

    Type = Feature(heads, channels)      F[h, d]: for each token, h heads of d channels
         | Constant(heads, channels)     P[h, d]: learned or literal, no token axis
         | Filter(lanes, length)         K[n]: causal Toeplitz generators, one per lane
         | Mixer(heads, channels, ...)   T[h]: a token-by-token matrix per head, or per channel
         | Transition(heads, channels)   A[h, n]: for each token, an n x n matrix per head

Owns: the types and their broadcasting. Refuses: names, places in the text, and what a stage means.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class Problem(Exception):
    """A type rule was broken; whoever knows the place in the text turns it into a Diagnostic."""

    def __init__(self, code: str, message: str, label: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.code, self.message, self.label, self.hint = code, message, label, hint


@dataclass(frozen=True, slots=True)
class Feature:
    heads: int
    channels: int

    def __str__(self) -> str:
        return f"F[{self.heads}, {self.channels}]"


@dataclass(frozen=True, slots=True)
class Constant:
    heads: int
    channels: int

    def __str__(self) -> str:
        return f"P[{self.heads}, {self.channels}]"


@dataclass(frozen=True, slots=True)
class Filter:
    """`length` is the number of taps, or None when the filter is as long as the sequence."""

    lanes: int
    length: int | None

    def __str__(self) -> str:
        return f"K[{self.lanes}]"


@dataclass(frozen=True, slots=True)
class Mixer:
    """`flat` marks lanes not yet split into heads and channels (a Toeplitz matrix per lane).

    `causal` says that T_ij = 0 for j > i. `linear` says that no nonlinearity has been applied.
    `sink` says that a softmax is due, in which a sink takes part.
    """

    heads: int
    channels: int = 1
    flat: bool = False
    causal: bool = False
    linear: bool = True
    sink: bool = False

    def __str__(self) -> str:
        per_channel = f", {self.channels}" if self.channels > 1 else ""
        return f"T[{self.heads}{per_channel}]"


@dataclass(frozen=True, slots=True)
class Transition:
    """What a semi-separable mixer multiplies its state by, where that is more than a diagonal."""

    heads: int
    channels: int

    def __str__(self) -> str:
        return f"A[{self.heads}, {self.channels}]"


Type = Feature | Constant | Filter | Mixer | Transition


_KINDS = {
    Feature: "feature",
    Constant: "constant",
    Filter: "filter",
    Mixer: "mixer",
    Transition: "transition",
}


def is_value(type_: Type) -> bool:
    """Whether pointwise arithmetic applies: features and constants."""
    return isinstance(type_, Feature | Constant)


def describe(type_: Type) -> str:
    """A type in words, for diagnostics."""
    return f"{_KINDS[type(type_)]} {type_}"


def broadcast_axis(a: int, b: int, axis: str, left: Type, right: Type) -> int:
    """Sizes match when equal or when one is 1."""
    if a == b or b == 1:
        return a
    if a == 1:
        return b
    raise Problem(
        "shape-mismatch",
        f"{left} and {right} differ in {axis}: {a} and {b}.",
        f"{a} {axis} against {b}",
        "pointwise arithmetic needs equal sizes, or a size of 1 that is broadcast.",
    )


def broadcast(left: Type, right: Type) -> Feature | Constant:
    """The type of pointwise arithmetic on two features or constants."""
    for operand in (left, right):
        if not isinstance(operand, Feature | Constant):
            raise Problem(
                "wrong-type",
                f"pointwise arithmetic needs features or constants, not a {describe(operand)}.",
                f"given a {describe(operand)}",
            )
    assert isinstance(left, Feature | Constant)
    assert isinstance(right, Feature | Constant)
    heads = broadcast_axis(left.heads, right.heads, "heads", left, right)
    channels = broadcast_axis(left.channels, right.channels, "channels", left, right)
    if isinstance(left, Feature) or isinstance(right, Feature):
        return Feature(heads, channels)
    return Constant(heads, channels)


def group_heads(counts: Sequence[tuple[str, int]]) -> int:
    """The head count of a mixer whose parts have the given counts: each must divide the largest."""
    most = max(count for _, count in counts)
    for name, count in counts:
        if most % count:
            listed = ", ".join(f"{n} {c}" for n, c in counts)
            raise Problem(
                "heads-not-divisible",
                f"head counts must divide one another: {listed}.",
                f"{name} has {count} heads, which does not divide {most}",
            )
    return most


def _heads(n: int) -> str:
    return "one head" if n == 1 else f"{n} heads"


def lanes_of(mixer: Mixer, heads: int, channels: int) -> tuple[int, int]:
    """(heads, channels) of a flat mixer of n lanes, laid over a value of heads and channels.

    n = heads * channels gives each channel its own matrix, n = heads each head, n = 1 shares one.
    """
    lanes = mixer.heads
    if lanes == heads * channels:
        return heads, channels
    if lanes == heads:
        return heads, 1
    if lanes == 1:
        return 1, 1
    raise Problem(
        "shape-mismatch",
        f"a filter of {lanes} lanes does not fit {_heads(heads)} of {channels} channels.",
        f"{lanes} lanes",
        f"use {heads * channels} lanes (one per channel)"
        + (f", {heads} (one per head)" if heads > 1 else "")
        + " or 1.",
    )


def unify_mixers(left: Mixer, right: Mixer) -> tuple[int, int, bool]:
    """(heads, channels, flat) of the sum or product of two mixers."""
    if left.flat and right.flat:
        if left.heads == right.heads or right.heads == 1:
            return left.heads, 1, True
        if left.heads == 1:
            return right.heads, 1, True
        raise Problem(
            "shape-mismatch",
            f"mixers of {left.heads} and {right.heads} lanes cannot be combined.",
        )
    if left.flat:
        lanes_of(left, right.heads, right.channels)
        return right.heads, right.channels, False
    if right.flat:
        lanes_of(right, left.heads, left.channels)
        return left.heads, left.channels, False
    heads = group_heads((("the left mixer", left.heads), ("the right mixer", right.heads)))
    if 1 not in (left.channels, right.channels) and left.channels != right.channels:
        raise Problem(
            "shape-mismatch",
            f"mixers {left} and {right} differ in channels: {left.channels} and {right.channels}.",
        )
    return heads, max(left.channels, right.channels), False


def apply_mixer(mixer: Mixer, value: Type) -> Feature:
    """The type of `T @ V`. Heads group (one count divides the other), channels broadcast."""
    if not isinstance(value, Feature | Constant):
        raise Problem(
            "wrong-type",
            f"a mixer acts on a feature, not on a {describe(value)}.",
            f"given a {describe(value)}",
        )
    if mixer.flat:
        lanes_of(mixer, value.heads, value.channels)
        return Feature(value.heads, value.channels)
    heads = group_heads((("the mixer", mixer.heads), ("the value", value.heads)))
    if mixer.channels > 1 and value.channels not in (1, mixer.channels):
        raise Problem(
            "shape-mismatch",
            f"mixer {mixer} has {mixer.channels} channels, its value {value} has {value.channels}.",
            f"{mixer.channels} channels against {value.channels}",
        )
    return Feature(heads, max(mixer.channels, value.channels))
