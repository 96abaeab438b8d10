"""Sampling from a trained model.

Owns: the choice of the next token, and windows of the context for models without a cache.
Refuses: tokenizers: what goes in and comes out are token numbers.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Sampling:
    """How the next token is drawn.

    Temperature 0 takes the likeliest; `top_k` 0 and `top_p` 1 leave all tokens in.
    """

    temperature: float = 0.8
    top_k: int = 0
    top_p: float = 1.0


@torch.inference_mode()
def generate(
    model: nn.Module,
    prompt: Iterable[int],
    *,
    count: int,
    context: int,
    sampling: Sampling | None = None,
    seed: int = 0,
    allowed: int | None = None,
) -> Iterator[int]:
    """Yield `count` tokens that continue `prompt`, which must not be empty.

    Each token is drawn from a fresh evaluation of the last `context` tokens. Only tokens below
    `allowed` are drawn. The same seed gives the same tokens, whatever else draws random numbers.
    """
    sampling = sampling or Sampling()
    device = next(model.parameters()).device
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.tensor(list(prompt), dtype=torch.int64, device=device)[-context:]
    for _ in range(count):
        logits = model(tokens[None])[0, -1, :allowed].float().cpu()  # (V,)
        token = choose(logits, sampling, generator)
        yield token
        tokens = torch.cat([tokens, tokens.new_tensor([token])])[-context:]


def choose(logits: Tensor, sampling: Sampling, generator: torch.Generator) -> int:
    """A token drawn from `logits` (V,) on the CPU.

    top_p is nucleus sampling (Holtzman et al., arXiv 1904.09751): the smallest set of likeliest
    tokens whose probability reaches it, after the temperature and after top_k.
    """
    if sampling.temperature == 0:
        return int(logits.argmax())
    order = torch.sort(logits / sampling.temperature, descending=True)
    kept = order.values[: sampling.top_k] if sampling.top_k else order.values
    probabilities = torch.softmax(kept.double(), dim=0)
    if sampling.top_p < 1:
        before = probabilities.cumsum(0) - probabilities
        probabilities = torch.where(before < sampling.top_p, probabilities, 0.0)
    return int(order.indices[torch.multinomial(probabilities, 1, generator=generator)])


def decode_bytes(tokens: Iterable[int]) -> Iterator[str]:
    """Text as soon as its bytes are whole; what is no UTF-8 becomes the replacement character."""
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    for token in tokens:
        text = decoder.decode(bytes([token]))
        if text:
            yield text
    rest = decoder.decode(b"", final=True)
    if rest:
        yield rest
