"""The oracle's mixers: T(x) as a tensor (B, heads, channels, T, T) and the set of visible entries.

Constructors fill the matrix entry by entry, the algebra adds and multiplies matrices. Owns:
operations of the catalog that make, combine or apply mixers. Refuses: stages on them
(reference_scores.py), speed, and any code shared with the templates or with lowering.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from starc.grammar.errors import InternalError
from starc.runtime.reference_stages import Operation, Step
from starc.runtime.reference_transitions import TRANSITIONS, Matrices


@dataclass(frozen=True)
class Matrix:
    """`entries` (B, h, c, T, T), of which those outside of `visible` do not count (`clean` zeroes
    them); axes of size 1 broadcast, and `visible` and `reachable` may be (T, T).

    `reachable` are the pairs that a mask with `also` may show. `sink` (B, h, 1, T, 1) is a score
    that the next softmax takes in. `flat`: the head axis counts lanes, not yet split into the heads
    and channels of a value.
    """

    entries: Tensor
    visible: Tensor
    reachable: Tensor
    flat: bool = False
    sink: Tensor | None = None

    @property
    def clean(self) -> Tensor:
        return torch.where(self.visible, self.entries, 0.0)

    def to(self, heads: int, channels: int) -> Matrix:
        """This matrix for a value of so many heads and channels (axes of size 1 broadcast)."""
        entries = self.entries
        if self.flat:
            lanes = entries.shape[1]
            if lanes == heads * channels:
                entries = entries.reshape(entries.shape[0], heads, channels, *entries.shape[-2:])
            elif lanes not in (heads, 1):
                raise InternalError(f"{lanes} lanes for {heads} heads of {channels} channels")
        return replace(self, entries=entries, flat=False).grouped(heads)

    def grouped(self, heads: int) -> Matrix:
        """This matrix with so many heads, of which several may be equal."""

        def many(x: Tensor) -> Tensor:
            return x if x.ndim == 2 or x.shape[1] == 1 else group_heads(x, heads, 1)

        sink = None if self.sink is None else group_heads(self.sink, heads, 1)
        entries = group_heads(self.entries, heads, 1)
        return replace(self, entries=entries, visible=many(self.visible), sink=sink)


def group_heads(x: Tensor, heads: int, dim: int) -> Tensor:
    """Head i of the many is head i // ratio of the few."""
    return x.repeat_interleave(heads // x.shape[dim], dim=dim)


def _square(length: int) -> Tensor:
    return torch.ones(length, length, dtype=torch.bool)


def feature(value: Tensor, length: int) -> Tensor:
    """A feature or constant as (B, h, d, T), B = 1 for a constant."""
    if value.ndim == 2:
        value = value.expand(1, length, *value.shape)
    return value.permute(0, 2, 3, 1)


def _causal(entries: Tensor) -> Matrix:
    """A matrix that is causal by structure."""
    past = _square(entries.shape[-1]).tril()
    return Matrix(entries, past, past)


# --- constructors ------------------------------------------------------------------------------


def _parts(s: Step) -> tuple[Tensor, ...]:
    """The features that make up a mixer, each (B, h, N, T) in the most heads and channels."""
    parts = [feature(x, s.length) for x in s.operands]
    batch, heads, channels = (max(x.shape[axis] for x in parts) for axis in range(3))
    return tuple(group_heads(x, heads, 1).expand(batch, -1, channels, -1) for x in parts)


def _diagonal(s: Step) -> Matrix:
    f = feature(s.x, s.length)
    own = torch.eye(s.length, dtype=torch.bool)
    return Matrix(torch.diag_embed(f), own, _square(s.length).tril())


def _low_rank(s: Step) -> Matrix:
    c, b = _parts(s)  # (B, h, N, T)
    entries = torch.einsum("bhni,bhnj->bhij", c, b)
    return Matrix(entries.unsqueeze(2), _square(s.length), _square(s.length))


def _semi_separable(s: Step) -> Matrix:
    """T_ij = C_i A_i ... A_{j+1} B_j, row after row: the products that lead from each j to i.

    A token that reads before its update sees what the token before it left: C_i A_{i-1} ... B_j.
    """
    transition = s.operands[1]
    if isinstance(transition, Matrices):
        # the transition stands in for itself as a constant of as many heads and channels
        shape = transition.entries.shape
        like = torch.ones(shape[1], shape[-1], dtype=torch.float64)
        c, _, b = _parts(replace(s, operands=(s.operands[0], like, s.operands[2])))
        a = transition.to(c.shape[1])  # (B, h, T, n, n)
        c, b = (x.expand(max(c.shape[0], a.shape[0]), -1, -1, -1) for x in (c, b))
    else:
        c, a, b = _parts(s)  # (B, h, N, T)
    rows = []
    reached = c.new_zeros(*c.shape[:3], 0)  # A_i ... A_{j+1} B_j for j <= i
    for i in range(s.length):
        before = reached
        passed = a[:, :, i] @ reached if a.ndim == 5 else a[..., i : i + 1] * reached
        reached = torch.cat([passed, b[..., i : i + 1]], dim=-1)
        read = before if s.get("read") == "before" else reached
        row = (c[..., i : i + 1] * read).sum(2)  # (B, h, i) or (B, h, i + 1)
        rows.append(F.pad(row, (0, s.length - row.shape[-1])))
    return _causal(torch.stack(rows, dim=2).unsqueeze(2))


def _toeplitz(s: Step) -> Matrix:
    taps = s.x  # (lanes, T)
    steps = torch.arange(s.length)[:, None] - torch.arange(s.length)
    entries = torch.where(steps >= 0, taps[:, steps.clamp(min=0)], 0.0)
    return replace(_causal(entries[None, :, None]), flat=True)


def _static(s: Step) -> Matrix:
    return _causal(s.weights[0][None, :, None, : s.length, : s.length].tril())


# --- algebra -----------------------------------------------------------------------------------


def _unified(left: Matrix, right: Matrix) -> tuple[Matrix, Matrix, bool]:
    """Two mixers in the same heads, and whether the result still counts lanes."""
    if left.flat and right.flat:
        return left, right, True
    shape = right if left.flat else left
    heads, channels = shape.entries.shape[1:3]
    if not left.flat and not right.flat:
        heads = max(heads, right.entries.shape[1])
    return left.to(heads, channels), right.to(heads, channels), False


def _sum(s: Step) -> Matrix:
    left, right, flat = _unified(*s.operands)
    sign = 1 if s.op == "mixer_add" else -1
    return Matrix(
        left.clean + sign * right.clean,
        left.visible | right.visible,
        left.reachable | right.reachable,
        flat,
    )


def _product(s: Step) -> Matrix:
    """T1 * T2, entry by entry: what both see."""
    left, right, flat = _unified(*s.operands)
    return Matrix(
        left.clean * right.clean,
        left.visible & right.visible,
        left.reachable & right.reachable,
        flat,
    )


def _compose(s: Step) -> Matrix:
    """T1 @ T2: token i sees j when some k links them."""
    left, right, flat = _unified(*s.operands)
    linked = (left.visible.double() @ right.visible.double()) > 0
    reachable = (left.reachable.double() @ right.reachable.double()) > 0
    return Matrix(left.clean @ right.clean, linked, reachable, flat)


def _row_scale(s: Step) -> Matrix:
    mixer: Matrix = s.operands[1]
    f = feature(s.x, s.length).unsqueeze(-1)  # (B, h, d, T, 1): a factor for each row
    heads, channels = f.shape[1:3]
    if (heads, channels) != (1, 1):
        if not mixer.flat:
            heads = max(heads, mixer.entries.shape[1])
        mixer = mixer.to(heads, channels)
    return replace(mixer, entries=group_heads(f, heads, 1) * mixer.entries)


def _apply(s: Step) -> Tensor:
    """T @ V: y_i = sum_j T_ij V_j for every head and channel."""
    mixer: Matrix = s.operands[0]
    v = feature(s.operands[1], s.length)  # (B, h, d, T)
    heads = v.shape[1] if mixer.flat else max(mixer.entries.shape[1], v.shape[1])
    t = mixer.to(heads, v.shape[2]).clean
    y = (t @ group_heads(v, heads, 1).unsqueeze(-1)).squeeze(-1)
    return y.permute(0, 3, 1, 2)


MIXERS: dict[str, Operation] = {
    **TRANSITIONS,
    "diagonal": _diagonal,
    "low_rank": _low_rank,
    "semi_separable": _semi_separable,
    "toeplitz": _toeplitz,
    "static": _static,
    "mixer_add": _sum,
    "mixer_subtract": _sum,
    "mixer_multiply": _product,
    "compose": _compose,
    "row_scale": _row_scale,
    "apply": _apply,
}
