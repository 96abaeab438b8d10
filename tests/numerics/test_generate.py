"""Tokens that a generated module draws: against the plain loop over whole sequences."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from starc.compiler.driver import compile_program
from starc.compiler.options import Options
from starc.grammar.library import read_source
from starc.runtime.loader import load
from starc.runtime.reference import random_parameters
from tests.numerics.agreement import Compiled, build

EXAMPLES = Path(__file__).parents[2] / "examples"

PROGRAM = """use std.attention.mha use std.recurrent.mamba2 use std.convolution.gconv
model m {{ vocab = 13  width = 16  context = 24  {settings}
    backbone {{ mha(heads = 2)  mamba2(state = 4, head = 8)  gconv() }} }}"""
PROMPT = torch.tensor([[3, 1, 4, 1, 5], [9, 2, 6, 5, 3]])


@pytest.fixture(scope="module")
def model() -> Any:
    return made(build(PROGRAM.format(settings="")))


def made(compiled: Compiled) -> Any:
    return compiled.network(random_parameters(compiled.model, 0), torch.float64)


def greedy(model: Any, tokens: Tensor, count: int) -> Tensor:
    for _ in range(count):
        tokens = torch.cat((tokens, model(tokens)[:, -1:].argmax(-1)), dim=1)
    return tokens


@pytest.mark.parametrize(
    "sampling", [{"temperature": 0}, {"top_k": 1}, {"top_p": 1e-9}, {"temperature": 1e-6}]
)
def test_the_likeliest_tokens(model: Any, sampling: dict[str, float]) -> None:
    assert torch.equal(model.generate(PROMPT, 12, **sampling), greedy(model, PROMPT, 12))


def test_a_stream_is_what_generate_collects(model: Any) -> None:
    def seeded() -> torch.Generator:
        return torch.Generator().manual_seed(3)

    whole = model.generate(PROMPT, 9, temperature=2.0, generator=seeded())
    pieces = list(model.stream(PROMPT, 9, temperature=2.0, generator=seeded()))
    assert torch.equal(torch.cat((PROMPT, *pieces), dim=1), whole)
    assert {tuple(piece.shape) for piece in pieces} == {(2, 1)}
    other = torch.Generator().manual_seed(4)
    assert not torch.equal(model.generate(PROMPT, 9, temperature=2.0, generator=other), whole)


def test_draws_follow_the_distribution(model: Any) -> None:
    many = PROMPT[:1].expand(4000, -1)
    drawn = model.generate(many, 1, top_k=4, generator=torch.Generator().manual_seed(0))[:, -1]
    logits = model(PROMPT[:1])[0, -1].detach()
    chosen = logits.topk(4).indices
    p = torch.zeros(13, dtype=torch.float64).scatter(0, chosen, logits[chosen].softmax(0))
    counts = drawn.bincount(minlength=13).double() / 4000
    assert (counts[p == 0] == 0).all()
    assert ((counts - p).abs() <= 5 * (p * (1 - p) / 4000).sqrt() + 1e-12).all()


def test_rows_end_at_a_stop_token_and_the_stream_with_the_last(model: Any) -> None:
    plain = greedy(model, PROMPT, 12)[:, 5:]
    stop = int(plain[0, 0])
    found = model.generate(PROMPT, 12, temperature=0, stop=(stop,))[:, 5:]
    assert (found[0] == stop).all()
    ended = (plain == stop).cumsum(1).clamp(max=1)
    wanted = torch.where((ended - (plain == stop).long()) > 0, stop, plain)[:, : found.shape[1]]
    assert torch.equal(found, wanted)
    every = tuple(range(13))
    assert model.generate(PROMPT, 12, temperature=0, stop=every).shape == (2, 6)


def test_nothing_to_draw_and_nothing_to_continue(model: Any) -> None:
    assert torch.equal(model.generate(PROMPT, 0), PROMPT)
    with pytest.raises(ValueError, match="at least one token"):
        model.generate(PROMPT[:, :0], 3)


def test_positions_with_weights_are_limited() -> None:
    limited = made(build(PROGRAM.format(settings="position = learned")))
    assert limited.generate(PROMPT, 20, temperature=0).shape == (2, 25)  # the last is not read
    with pytest.raises(ValueError, match="24 positions"):
        limited.generate(PROMPT, 21)


def test_a_cache_that_is_full_says_so(model: Any) -> None:
    cache = model.init_cache(2, 4)
    with pytest.raises(ValueError, match="room for 4 tokens"):
        model(PROMPT, cache)
    assert cache.length == 0


@pytest.mark.parametrize("program", ["mamba2", "striped_hyena", "differential", "encoder"])
def test_no_token_is_refused_before_anything_changes(program: str):
    overrides = (("vocab", "64"), ("width", "64"), ("context", "64"))
    source = read_source(EXAMPLES / f"{program}.star")
    model = load(compile_program(source, Options(overrides=overrides, format=False)).text).Model()
    with pytest.raises(ValueError, match="nothing to read"):
        model(torch.zeros(2, 0, dtype=torch.int64))
    if program != "encoder":  # which has no cache
        cache = model.init_cache(2, 8)
        with pytest.raises(ValueError, match="nothing to read"):
            model(torch.zeros(2, 0, dtype=torch.int64), cache)
        assert model(torch.zeros(2, 3, dtype=torch.int64), cache).shape == (2, 3, 64)
