"""The oracle's stages on mixers: masks, terms added to scores, and what makes weights of them.

Owns: operations of the catalog that take a mixer and give one with other entries or another visible
set. Refuses: speed, and any code shared with the templates or with lowering.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from starc.runtime.reference_mixers import Matrix, feature, group_heads
from starc.runtime.reference_stages import Operation, Step


def _tokens(s: Step) -> tuple[Tensor, Tensor]:
    """i and j of every entry, as (T, 1) and (T,)."""
    t = torch.arange(s.length)
    return t[:, None], t


# --- masks -------------------------------------------------------------------------------------


def _pattern(s: Step) -> Tensor:
    """The pairs (T, T) that a mask shows."""
    i, j = _tokens(s)
    apart = (i - j).abs()
    match s.op:
        case "causal":
            shown = j <= i
        case "band":
            shown = apart < s.get("w")
        case "dilated":
            shown = (apart % s.get("r") == 0) & (apart // s.get("r") < s.get("w"))
        case "strided":
            shown = apart % s.get("n") == 0
        case "block":
            shown = i // s.get("n") == j // s.get("n")
        case "summary":
            shown = j % s.get("n") >= s.get("n") - s.get("c")
        case _:
            shown = j < s.get("n")  # first
    return shown.expand(s.length, s.length)


def _mask(s: Step) -> Matrix:
    mixer: Matrix = s.operands[0]
    pattern = _pattern(s)
    if s.op == "causal":
        return replace(mixer, visible=mixer.visible & pattern, reachable=mixer.reachable & pattern)
    if s.op == "first" or s.get("also"):
        return replace(mixer, visible=mixer.visible | (mixer.reachable & pattern))
    return replace(mixer, visible=mixer.visible & pattern)


def _select(s: Step) -> Matrix:
    """For every row the blocks with the largest sums of visible entries, its own always."""
    mixer: Matrix = s.operands[0]
    by: Matrix = s.operands[-1]
    size, length = s.get("block"), s.length
    blocks = -(-length // size)
    heads = max(mixer.entries.shape[1], by.entries.shape[1])
    by = by.grouped(max(by.entries.shape[1], s.get("groups")))
    scores = by.clean[:, :, 0]  # (B, h, T, T)
    shown = by.visible.expand(by.entries.shape)[:, :, 0]
    totals, seen = [], []
    for b in range(blocks):
        columns = slice(b * size, (b + 1) * size)
        totals.append(scores[..., columns].sum(-1))
        seen.append(shown[..., columns].any(-1))
    total, any_seen = torch.stack(totals, -1), torch.stack(seen, -1)  # (B, h, T, blocks)
    if groups := s.get("groups"):
        total = torch.stack([g.sum(1) for g in total.chunk(groups, dim=1)], dim=1)
        any_seen = torch.stack([g.any(1) for g in any_seen.chunk(groups, dim=1)], dim=1)
    own = torch.arange(length)[:, None] // size == torch.arange(blocks)
    ranked = torch.where(any_seen, total, -torch.inf).masked_fill(own, torch.inf)
    order = ranked.detach().argsort(dim=-1, descending=True, stable=True)
    rank = order.argsort(dim=-1)  # the place of each block in the order of its row
    chosen = (rank < s.get("top")).repeat_interleave(size, dim=-1)[..., :length]
    chosen = group_heads(chosen, heads, 1).unsqueeze(2)
    mixer = mixer.grouped(heads)
    return replace(mixer, visible=mixer.visible & chosen)


# --- terms -------------------------------------------------------------------------------------


def _term(s: Step) -> Matrix:
    """A number for every pair, added to the entries."""
    mixer: Matrix = s.operands[0]
    f = feature(s.operands[1], s.length)  # (B, h, d, T)
    i, j = _tokens(s)
    match s.op:
        case "bias":
            term = f.unsqueeze(-2)
        case "decay":
            total = f.cumsum(-1)
            term = total.unsqueeze(-1) - total.unsqueeze(-2)
        case "alibi":
            term = -f.unsqueeze(-1) * (i - j).abs()
        case _:
            table = f.transpose(2, 3)  # (B, h, T, d)
            channel = _channel((i - j).abs(), table.shape[-1], s.get("farthest"))
            channel = channel.expand(*table.shape[:2], -1, -1)
            rows = table.expand(-1, -1, s.length, -1)
            term = rows.gather(-1, channel).unsqueeze(2)
    heads = max(mixer.entries.shape[1], f.shape[1])
    mixer = mixer.grouped(heads)
    return replace(mixer, entries=mixer.entries + group_heads(term, heads, 1))


def _channel(apart: Tensor, n: int, farthest: int) -> Tensor:
    """The channel for each distance; with `farthest` the upper half of the channels share out the
    distances up to it on a logarithmic scale (T5, 1910.10683)."""
    if not farthest:
        return apart.clamp(max=n - 1)
    exact = n // 2
    ratio = torch.log(apart.clamp(min=1).double() / max(exact, 1)) / math.log(
        farthest / max(exact, 1)
    )
    far = exact + (ratio * (n - exact)).long()
    return torch.where(apart < exact, apart, far.clamp(max=n - 1))


def _sink(s: Step) -> Matrix:
    mixer: Matrix = s.operands[0]
    f = feature(s.operands[1], s.length).unsqueeze(-1)  # (B, h, 1, T, 1)
    heads = max(mixer.entries.shape[1], f.shape[1])
    return replace(mixer.grouped(heads), sink=group_heads(f, heads, 1))


# --- entries -----------------------------------------------------------------------------------


def _linear(s: Step) -> Matrix:
    """A factor of all entries, hidden ones included."""
    mixer: Matrix = s.operands[0]
    factor = float(s.get("s")) if s.op == "mixer_scale" else -1.0
    return replace(mixer, entries=factor * mixer.entries)


def _entries(s: Step) -> Matrix:
    """Visible entries through a function of their row; the others become zero."""
    mixer: Matrix = s.operands[0]
    t, visible = mixer.entries, mixer.visible
    match s.op:
        case "softcap":
            c = float(s.get("c"))
            t = c * (t / c).tanh()
        case "mixer_sigmoid":
            t = t.sigmoid()
        case "mixer_relu":
            t = t.relu()
        case "mixer_softmax":
            t = _softmax(torch.where(visible, t, -torch.inf), mixer.sink)
        case "normalize":
            floor = float(s.get("floor"))
            t = mixer.clean / mixer.clean.sum(-1, keepdim=True).abs().clamp(min=floor)
        case "standardize":
            count = visible.sum(-1, keepdim=True)
            mean = mixer.clean.sum(-1, keepdim=True) / count.clamp(min=1)
            centred = torch.where(visible, t - mean, 0.0)
            variance = centred.square().sum(-1, keepdim=True) / count.clamp(min=1)
            t = centred / (variance + float(s.get("eps"))).sqrt()
    return replace(mixer, entries=torch.where(visible, t, 0.0), sink=None)


def _softmax(scores: Tensor, sink: Tensor | None) -> Tensor:
    """Softmax of the rows; a row in which nothing is visible is zero."""
    if sink is None:
        sink = scores.new_full((), -torch.inf)
    highest = torch.maximum(scores.amax(-1, keepdim=True), sink).detach().clamp(min=-1e300)
    weights = (scores - highest).exp()
    total = weights.sum(-1, keepdim=True) + (sink - highest).exp()
    return weights / torch.where(total > 0, total, 1.0)


SCORES: dict[str, Operation] = {
    **dict.fromkeys(("causal", "band", "dilated", "strided", "block", "summary", "first"), _mask),
    "select": _select,
    **dict.fromkeys(("bias", "decay", "alibi", "relative"), _term),
    "sink": _sink,
    **dict.fromkeys(("mixer_scale", "mixer_negate"), _linear),
    **dict.fromkeys(
        (
            "softcap",
            "mixer_sigmoid",
            "mixer_relu",
            "mixer_softmax",
            "normalize",
            "standardize",
        ),
        _entries,
    ),
}
