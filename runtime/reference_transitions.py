"""The oracle's structured transitions: A_t written out as an n x n matrix per head and token.

Owns: operations of the catalog that give a transition, and their products. Refuses: speed, and any
code shared with the templates or with lowering.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from starc.runtime.reference_stages import Operation, Step


@dataclass(frozen=True)
class Matrices:
    """`entries` (B, h, T, n, n); B may be 1."""

    entries: Tensor

    def to(self, heads: int) -> Tensor:
        return self.entries.repeat_interleave(heads // self.entries.shape[1], dim=1)


def by_token(value: Tensor, length: int) -> Tensor:
    """A feature (B, T, h, d) or constant (h, d) as (B, h, T, d)."""
    if value.ndim == 2:
        value = value.expand(1, length, *value.shape)
    return value.transpose(1, 2)


def _together(values: list[Tensor], channels: int) -> list[Tensor]:
    """Values (B, h, T, d) with the same heads, those of one channel in all channels."""
    heads = max(v.shape[1] for v in values)
    return [
        v.repeat_interleave(heads // v.shape[1], dim=1).expand(-1, -1, -1, channels) for v in values
    ]


def _outer(a: Tensor, b: Tensor) -> Tensor:
    return a.unsqueeze(-1) * b.unsqueeze(-2)


def _householder(s: Step) -> Matrices:
    """I - beta B B'."""
    b, beta = (by_token(x, s.length) for x in s.operands)
    n = b.shape[-1]
    b, beta = _together([b, beta], n)
    return Matrices(torch.eye(n, dtype=b.dtype) - _outer(beta * b, b))


def _dplr(s: Step) -> Matrices:
    """diag(w) + a b'."""
    values = [by_token(x, s.length) for x in s.operands]
    w, a, b = _together(values, max(v.shape[-1] for v in values))
    return Matrices(torch.diag_embed(w) + _outer(a, b))


def _product(s: Step) -> Matrices:
    """Left times right; a feature is a diagonal matrix, of equal entries if it has one channel."""
    n = max(x.entries.shape[-1] for x in s.operands if isinstance(x, Matrices))
    sides = []
    for x in s.operands:
        if not isinstance(x, Matrices):
            d = by_token(x, s.length)
            x = Matrices(torch.diag_embed(d.expand(*d.shape[:-1], n)))
        sides.append(x)
    heads = max(x.entries.shape[1] for x in sides)
    left, right = (x.to(heads) for x in sides)
    return Matrices(left @ right)


TRANSITIONS: dict[str, Operation] = {
    "householder": _householder,
    "dplr": _dplr,
    "transition_product": _product,
}
