"""The oracle's mixers: T(x) as a tensor (B, heads, channels, T, T) and the set of visible entries.

Constructors fill the matrix entry by entry, stages change entries or shrink the visible set, the
algebra adds and multiplies matrices. Owns: operations of the catalog that give or apply a mixer.
Refuses: speed, and any code shared with the templates or with lowering.
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
    """`entries` (B, h, c, T, T), zero outside `visible` (T, T); B and c may be 1 and broadcast.

    `flat`: the head axis counts lanes, not yet split into the heads and channels of a value.
    """

    entries: Tensor
    visible: Tensor
    flat: bool = False

    def to(self, heads: int, channels: int) -> Matrix:
        """This matrix for a value of so many heads and channels (axes of size 1 broadcast)."""
        entries = self.entries
        if self.flat:
            lanes = entries.shape[1]
            if lanes == heads * channels:
                entries = entries.reshape(entries.shape[0], heads, channels, *entries.shape[-2:])
            elif lanes not in (heads, 1):
                raise InternalError(f"{lanes} lanes for {heads} heads of {channels} channels")
        return Matrix(group_heads(entries, heads, 1), self.visible)


def group_heads(x: Tensor, heads: int, dim: int) -> Tensor:
    """Head i of the many is head i // ratio of the few."""
    return x.repeat_interleave(heads // x.shape[dim], dim=dim)


def _square(length: int) -> Tensor:
    return torch.ones(length, length, dtype=torch.bool)


def _feature(value: Tensor, length: int) -> Tensor:
    """A feature or constant as (B, h, d, T), B = 1 for a constant."""
    if value.ndim == 2:
        value = value.expand(1, length, *value.shape)
    return value.permute(0, 2, 3, 1)


# --- constructors ------------------------------------------------------------------------------


def _parts(s: Step) -> tuple[Tensor, ...]:
    """The features that make up a mixer, each (B, h, N, T) in the most heads and channels."""
    parts = [_feature(x, s.length) for x in s.operands]
    batch, heads, channels = (max(x.shape[axis] for x in parts) for axis in range(3))
    return tuple(group_heads(x, heads, 1).expand(batch, -1, channels, -1) for x in parts)


def _diagonal(s: Step) -> Matrix:
    f = _feature(s.x, s.length)
    return Matrix(torch.diag_embed(f), torch.eye(s.length, dtype=torch.bool))


def _low_rank(s: Step) -> Matrix:
    c, b = _parts(s)  # (B, h, N, T)
    entries = torch.einsum("bhni,bhnj->bhij", c, b)
    return Matrix(entries.unsqueeze(2), _square(s.length))


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
    return Matrix(torch.stack(rows, dim=2).unsqueeze(2), _square(s.length).tril())


def _toeplitz(s: Step) -> Matrix:
    taps = s.x  # (lanes, T)
    steps = torch.arange(s.length)[:, None] - torch.arange(s.length)
    entries = torch.where(steps >= 0, taps[:, steps.clamp(min=0)], 0.0)
    return Matrix(entries[None, :, None], _square(s.length).tril(), flat=True)


# --- stages ------------------------------------------------------------------------------------


def _mask(s: Step) -> Matrix:
    mixer: Matrix = s.operands[0]
    if s.op == "causal":
        pattern = _square(s.length).tril()
    else:
        steps = torch.arange(s.length)[:, None] - torch.arange(s.length)
        pattern = steps.abs() < s.get("w")
    visible = mixer.visible & pattern
    return replace(mixer, entries=torch.where(visible, mixer.entries, 0.0), visible=visible)


def _stage(s: Step) -> Matrix:
    """Scores of visible entries through a function; the others stay zero."""
    mixer: Matrix = s.operands[0]
    t, visible = mixer.entries, mixer.visible
    match s.op:
        case "mixer_scale":
            t = t * float(s.get("s"))
        case "mixer_negate":
            t = -t
        case "softcap":
            c = float(s.get("c"))
            t = c * (t / c).tanh()
        case "mixer_sigmoid":
            t = t.sigmoid()
        case "mixer_relu":
            t = t.relu()
        case "mixer_softmax":
            t = torch.where(visible, t, -torch.inf).softmax(-1)
        case "normalize":
            floor = float(s.get("floor"))
            t = t / t.sum(-1, keepdim=True).abs().clamp(min=floor)
    return replace(mixer, entries=torch.where(visible, t, 0.0))


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
    return Matrix(left.entries + sign * right.entries, left.visible | right.visible, flat)


def _compose(s: Step) -> Matrix:
    """T1 @ T2: token i sees j when some k links them."""
    left, right, flat = _unified(*s.operands)
    linked = (left.visible.double() @ right.visible.double()) > 0
    return Matrix(left.entries @ right.entries, linked, flat)


def _row_scale(s: Step) -> Matrix:
    mixer: Matrix = s.operands[1]
    f = _feature(s.x, s.length).unsqueeze(-1)  # (B, h, d, T, 1): a factor for each row
    if f.shape[1:3] == (1, 1):
        return replace(mixer, entries=f * mixer.entries)
    rows, mixer, flat = _unified(Matrix(f, mixer.visible), mixer)
    return Matrix(rows.entries * mixer.entries, mixer.visible, flat)


def _apply(s: Step) -> Tensor:
    """T @ V: y_i = sum_j T_ij V_j for every head and channel."""
    mixer: Matrix = s.operands[0]
    v = _feature(s.operands[1], s.length)  # (B, h, d, T)
    heads = v.shape[1] if mixer.flat else max(mixer.entries.shape[1], v.shape[1])
    t = mixer.to(heads, v.shape[2]).entries
    y = (t @ group_heads(v, heads, 1).unsqueeze(-1)).squeeze(-1)
    return y.permute(0, 3, 1, 2)


MIXERS: dict[str, Operation] = {
    **TRANSITIONS,
    "diagonal": _diagonal,
    "low_rank": _low_rank,
    "semi_separable": _semi_separable,
    "toeplitz": _toeplitz,
    "causal": _mask,
    "band": _mask,
    "mixer_scale": _stage,
    "mixer_negate": _stage,
    "softcap": _stage,
    "mixer_sigmoid": _stage,
    "mixer_relu": _stage,
    "mixer_softmax": _stage,
    "normalize": _stage,
    "mixer_add": _sum,
    "mixer_subtract": _sum,
    "compose": _compose,
    "row_scale": _row_scale,
    "apply": _apply,
}
