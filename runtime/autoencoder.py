"""The auto-encoder that compression is learnt with: a model, and a decoder of one vector.

Owns: reading a whole sequence out of a model's last position.
Refuses: what the sequences are, and how they are learnt.

The decoder of MAD (arXiv 2403.17844), with one difference: a generated model's `hidden` ends with
the final norm, so the vector is normalised before positions are added to it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from starc.runtime.data import IGNORED


class AutoEncoder(nn.Module):
    """A model as encoder; all tokens are predicted from its vector at the last position.

    To the vector (B, width) the sine-cosine code of each of `length` positions is added; two
    layers of RMSNorm, dense and GELU follow, without residuals, then RMSNorm and the read-out to
    `vocab` logits. The model, with `hidden(tokens) -> (B, T, width)`, is taken over: its own
    read-out, a module called `head` where it has one, is dropped, so that no parameter is idle.
    """

    def __init__(self, model: nn.Module, *, vocab: int, length: int) -> None:
        super().__init__()
        if isinstance(getattr(model, "head", None), nn.Module):
            model.head = nn.Identity()
        self.encoder = model
        width = _width(model)
        self.register_buffer("positions", _positions(length, width), persistent=False)
        self.decoder = nn.Sequential(
            *(part for _ in range(2) for part in (*_dense(width, width), nn.GELU())),
            *_dense(width, vocab),
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits (B, T, vocab) of the tokens themselves, int64 (B, T) with T <= length."""
        return self._decode(self.encoder.hidden(tokens)[:, -1], tokens.shape[1])  # type: ignore[operator]

    def loss(self, tokens: Tensor, targets: Tensor, ignore_index: int = IGNORED) -> Tensor:
        """Mean cross-entropy in nats of targets int64 (B, T) other than ignore_index.

        In training, what routers of the model add to its loss is added here too.
        """
        losses: list[Tensor] = []
        hidden = self.encoder.hidden
        if self.training and _has_routers(self.encoder):
            x = hidden(tokens, losses=losses)  # type: ignore[operator]
        else:
            x = hidden(tokens)  # type: ignore[operator]
        logits = self._decode(x[:, -1], tokens.shape[1])
        loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=ignore_index)
        return loss + sum(losses)

    def _decode(self, vector: Tensor, length: int) -> Tensor:
        positions: Tensor = self.positions  # type: ignore[assignment]
        logits: Tensor = self.decoder(vector[:, None] + positions[:length])
        return logits


def _dense(inputs: int, outputs: int) -> tuple[nn.Module, nn.Module]:
    linear = nn.Linear(inputs, outputs)
    nn.init.normal_(linear.weight, std=0.02)
    nn.init.zeros_(linear.bias)
    return nn.RMSNorm(inputs, eps=1e-6), linear


def _positions(length: int, width: int) -> Tensor:
    """Sines, then cosines, of positions at geometric frequencies (arXiv 1706.03762), (T, width)."""
    half = (width + 1) // 2
    rates = torch.exp(-math.log(10_000) * torch.arange(half) / half)
    angles = torch.arange(length)[:, None] * rates
    return torch.cat((angles.sin(), angles.cos()), dim=1)[:, :width]


@torch.no_grad()
def _width(model: nn.Module) -> int:
    """The channels of the model's stream, seen by running it on one token."""
    training = model.training
    device = next(model.parameters()).device
    model.eval()
    hidden: Tensor = model.hidden(torch.zeros(1, 1, dtype=torch.int64, device=device))  # type: ignore[operator]
    model.train(training)
    return hidden.shape[-1]


def _has_routers(model: nn.Module) -> bool:
    return "losses" in model.hidden.__annotations__
