"""Sampling: distributions, windows and streaming text, on models whose next token is known."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from starc.runtime.generate import Sampling, choose, generate
from starc.runtime.tokenizer import ByteTokenizer


class Successor(nn.Module):
    """Prefers the token after the last one, by `gap` nats; records how much it was shown."""

    def __init__(self, vocab: int = 256, gap: float = 50.0) -> None:
        super().__init__()
        self.vocab, self.gap = vocab, nn.Parameter(torch.tensor(gap))
        self.lengths: list[int] = []

    def forward(self, tokens: Tensor) -> Tensor:
        self.lengths.append(tokens.shape[1])
        return self.gap * nn.functional.one_hot((tokens + 1) % self.vocab, self.vocab).float()


def test_it_continues_the_prompt():
    tokens = generate(Successor(), b"abc", count=4, context=8)
    assert bytes(tokens) == b"defg"


def test_the_window_never_exceeds_the_context():
    model = Successor()
    list(generate(model, b"abcdefghij", count=3, context=4))
    assert model.lengths == [4, 4, 4]
    model.lengths.clear()
    list(generate(model, b"a", count=5, context=4))
    assert model.lengths == [1, 2, 3, 4, 4]


def test_a_cache_is_read_once_and_renewed_when_full():
    class Cached(Successor):
        def init_cache(self, batch: int, max_length: int) -> SimpleNamespace:
            assert batch == 1
            return SimpleNamespace(length=0, max_length=max_length)

        def forward(self, tokens: Tensor, cache: SimpleNamespace) -> Tensor:
            cache.length += tokens.shape[1]
            assert cache.length <= cache.max_length
            return super().forward(tokens)

    model = Cached()
    assert bytes(generate(model, b"abc", count=8, context=8)) == b"defghijk"
    assert model.lengths == [3, 1, 1, 1, 1, 1, 6, 1]


def test_the_seed_decides_and_nothing_else():
    model = Successor(gap=0.0)
    first = list(generate(model, b"a", count=20, context=4, seed=1))
    torch.rand(5)
    assert list(generate(model, b"a", count=20, context=4, seed=1)) == first
    assert list(generate(model, b"a", count=20, context=4, seed=2)) != first


def test_only_allowed_tokens_are_drawn():
    drawn = set(generate(Successor(vocab=300, gap=0.0), b"a", count=200, context=2, allowed=5))
    assert drawn <= set(range(5))


def test_temperature_zero_takes_the_likeliest():
    logits = torch.tensor([0.0, 0.1, 0.05])
    picks = {choose(logits, Sampling(temperature=0), torch.Generator()) for _ in range(20)}
    assert picks == {1}


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [
        (Sampling(temperature=1.0), {0, 1, 2, 3}),
        (Sampling(temperature=1.0, top_k=2), {0, 1}),
        (Sampling(temperature=1.0, top_p=0.6), {0, 1}),
        (Sampling(temperature=1.0, top_p=0.45), {0}),
        (Sampling(temperature=1.0, top_k=3, top_p=0.9), {0, 1, 2}),
        (Sampling(temperature=0.01), {0}),
    ],
)
def test_what_can_be_drawn(sampling: Sampling, expected: set[int]):
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()
    generator = torch.Generator().manual_seed(0)
    assert {choose(logits, sampling, generator) for _ in range(400)} == expected


def test_draws_follow_the_probabilities():
    wanted = torch.tensor([0.6, 0.1, 0.3])
    generator = torch.Generator().manual_seed(0)
    draws = [choose(wanted.log(), Sampling(temperature=1.0), generator) for _ in range(5000)]
    found = torch.bincount(torch.tensor(draws), minlength=3) / len(draws)
    torch.testing.assert_close(found, wanted, atol=0.03, rtol=0)


def test_text_comes_when_its_bytes_are_whole():
    pieces = list(ByteTokenizer().decode("aé✓".encode()))
    assert pieces == ["a", "é", "✓"]


def test_bytes_that_are_no_text_are_replaced():
    assert "".join(ByteTokenizer().decode(b"a\xffb\xe2\x9c")) == "a\ufffdb\ufffd"
