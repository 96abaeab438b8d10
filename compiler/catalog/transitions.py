"""Structured transitions of a semi-separable mixer: n x n matrices A_t per head and token.

    householder(B, beta) = I - beta B B'      the delta rule (2406.06484)
    dplr(w, a, b)        = diag(w) + a b'     diagonal plus low rank (RWKV-7, 2503.14456)
    A1 @ A2                                   the right one meets the state first

A feature in a product is a diagonal (or, with one channel, a multiple of the identity). Plain
features are transitions by themselves. The pass `infer` turns every product into steps of the form
diag(w) + a b'.

Owns: one table entry for each, and the type of a mixer with such a transition. Refuses: how it is
computed.
"""

from __future__ import annotations

from starc.compiler.catalog.entry import Arguments, Entry, Inputs, Role, choice, value_of
from starc.compiler.types import (
    Constant,
    Feature,
    Mixer,
    Problem,
    Transition,
    Type,
    describe,
    group_heads,
)

READ = choice("read", "after", "before")
"""Whether a token reads the state after its own update or ahead of it."""


def _householder(inputs: Inputs, arguments: Arguments) -> Type:
    b, beta = (value_of(i, "householder") for i in inputs)
    if beta.channels != 1:
        raise Problem(
            "shape-mismatch",
            f"'householder' takes one beta per head, not {beta.channels}.",
            f"given {beta}",
            "beta is F[h, 1]: x |> dense(h) |> sigmoid |> heads(h).",
        )
    return Transition(group_heads((("B", b.heads), ("beta", beta.heads))), b.channels)


def _same_channels(
    name: str, parts: tuple[tuple[str, Feature | Constant | Transition], ...]
) -> int:
    """The channels n that the parts of a transition agree on; a size of 1 is broadcast."""
    n = max(part.channels for _, part in parts)
    for what, part in parts:
        if part.channels != n and (part.channels > 1 or isinstance(part, Transition)):
            raise Problem(
                "shape-mismatch",
                f"the parts of '{name}' differ in channels: {what} has {part.channels}, not {n}.",
                f"{part.channels} channels against {n}",
                "a transition acts on the n channels that C and B share.",
            )
    return n


def _dplr(inputs: Inputs, arguments: Arguments) -> Type:
    w, a, b = (value_of(i, "dplr") for i in inputs)
    n = _same_channels("dplr", (("w", w), ("a", a), ("b", b)))
    return Transition(group_heads((("w", w.heads), ("a", a.heads), ("b", b.heads))), n)


def _product(inputs: Inputs, arguments: Arguments) -> Type:
    left, right = inputs
    for operand in inputs:
        if not isinstance(operand, Feature | Constant | Transition):
            raise Problem(
                "wrong-type",
                f"a transition is multiplied by transitions and features, not by a "
                f"{describe(operand)}.",
                f"given a {describe(operand)}",
            )
    assert isinstance(left, Feature | Constant | Transition)
    assert isinstance(right, Feature | Constant | Transition)
    n = _same_channels("@", (("the left side", left), ("the right side", right)))
    heads = group_heads((("the left side", left.heads), ("the right side", right.heads)))
    return Transition(heads, n)


def state_channels(inputs: Inputs) -> int:
    """N of a semi-separable mixer: the channels that C, A and B share."""
    c, b = (value_of(inputs[i], "semi_separable") for i in (0, 2))
    a = inputs[1] if isinstance(inputs[1], Transition) else value_of(inputs[1], "semi_separable")
    n = paired_channels("semi_separable", c, b)
    if a.channels == n or n == 1 or (a.channels == 1 and not isinstance(a, Transition)):
        return max(n, a.channels)
    raise Problem(
        "shape-mismatch",
        f"the transition A of 'semi_separable' has {a.channels} channels, C and B have {n}.",
        f"{a.channels} channels against {n}",
        f"A is a scalar per head, F[h, 1], diagonal, F[h, {n}], or a transition of {n} channels.",
    )


def paired_channels(name: str, left: Feature | Constant, right: Feature | Constant) -> int:
    """The inner size N that C and B agree on; a size of 1 is broadcast."""
    if left.channels == right.channels or 1 in (left.channels, right.channels):
        return max(left.channels, right.channels)
    raise Problem(
        "shape-mismatch",
        f"the parts of '{name}' differ in channels: C has {left.channels}, B has {right.channels}.",
        f"{left} against {right}",
        "T_ij is a product over the channels of C_i and B_j.",
    )


def semi_separable(inputs: Inputs, arguments: Arguments) -> Type:
    """The type rule of a semi-separable mixer, whatever its transition."""
    state_channels(inputs)
    c, a, b = inputs
    assert isinstance(c, Feature | Constant)
    assert isinstance(b, Feature | Constant)
    assert isinstance(a, Feature | Constant | Transition)
    return Mixer(group_heads((("C", c.heads), ("A", a.heads), ("B", b.heads))), causal=True)


def structured(inputs: Inputs, arguments: Arguments) -> Type:
    """C, then w, a, b of every step in the order in which they meet the state, then B."""
    values = [value_of(i, "dplr_semi_separable") for i in inputs]
    return Mixer(group_heads([("its parts", v.heads) for v in values]), causal=True)


TRANSITIONS = (
    Entry(
        "householder",
        Role.FUNCTION,
        "the transition I - beta B B' (delta rule, 2406.06484)",
        _householder,
        operands=("B", "beta"),
    ),
    Entry(
        "dplr",
        Role.FUNCTION,
        "the transition diag(w) + a b' (RWKV-7, 2503.14456)",
        _dplr,
        operands=("w", "a", "b"),
    ),
    Entry(
        "transition_product",
        Role.INTERNAL,
        "A1 @ A2, the right one meeting the state first",
        _product,
        operands=("left", "right"),
    ),
)
