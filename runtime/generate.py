"""Sampling from a trained model.

Owns: the choice of the next token, and what is read again when the context is full.
Refuses: tokenizers: what goes in and comes out are token numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, cast

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

    A model with a cache (`init_cache`) reads each token once. When its context is full, the last
    three quarters of it are read anew; a model without a cache reads the last `context` tokens
    each time. Only tokens below `allowed` are drawn. The same seed gives the same tokens, whatever
    else draws random numbers.
    """
    sampling = sampling or Sampling()
    device = next(model.parameters()).device
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.tensor(list(prompt), dtype=torch.int64, device=device)[-context:]
    read = _reader(model, context)
    for _ in range(count):
        token = choose(read(tokens)[:allowed].float().cpu(), sampling, generator)
        yield token
        tokens = torch.cat([tokens, tokens.new_tensor([token])])[-context:]


def _reader(model: nn.Module, context: int) -> Callable[[Tensor], Tensor]:
    """A function from the last tokens (T,), one more at each call, to logits (V,) of the next."""
    if not hasattr(model, "init_cache"):
        return lambda tokens: cast(Tensor, model(tokens[None])[0, -1])
    cache: Any = None
    again = max(1, context - context // 4)

    def read(tokens: Tensor) -> Tensor:
        nonlocal cache
        if cache is None or cache.length == context:
            tokens = tokens if cache is None else tokens[-again:]
            cache = cast(Any, model).init_cache(1, context)
        else:
            tokens = tokens[-1:]
        return cast(Tensor, model(tokens[None], cache)[0, -1])

    return read


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
