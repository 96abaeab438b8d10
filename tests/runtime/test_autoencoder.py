"""The auto-encoder of compression: one vector in between, and every parameter in use."""

from __future__ import annotations

import math

import pytest
import torch

from starc.compiler.driver import compile_program
from starc.compiler.options import Options
from starc.grammar.source import Source
from starc.runtime.autoencoder import AutoEncoder
from starc.runtime.loader import load
from starc.runtime.tasks import make_task

PROGRAM = """\
use std.attention.mha
use std.channel.swiglu
use std.channel.moe
model m {{
    vocab = 16  width = 32  context = 64  {settings}
    backbone {{ mha(heads = 2)  swiglu(hidden = 64)  {more} }}
}}
"""


def encoder(settings: str = "", more: str = "") -> torch.nn.Module:
    text = PROGRAM.format(settings=settings, more=more)
    torch.manual_seed(0)
    return load(compile_program(Source("m.star", text), Options(format=False)).text).Model()


def adapted(settings: str = "", more: str = "", length: int = 12) -> AutoEncoder:
    model = make_task("compression", length=length, examples=64).adapt(encoder(settings, more))
    assert isinstance(model, AutoEncoder)
    return model


TOKENS = torch.arange(24).reshape(2, 12) % 15


def test_logits_at_all_positions_come_from_one_vector():
    model = adapted()
    logits = model(TOKENS)
    assert logits.shape == (2, 12, 16)
    (gradient,) = torch.autograd.grad(logits.square().sum(), model.encoder.embedding.weight)
    assert gradient.abs().sum() > 0
    vector = model.encoder.hidden(TOKENS)[:, -1]
    again = torch.stack([model.decoder(vector + model.positions[t]) for t in range(12)], 1)
    torch.testing.assert_close(logits, again)


@pytest.mark.parametrize("settings", ["", "embedding = tied"])
def test_no_parameter_is_idle(settings: str):
    model = adapted(settings)
    model.loss(TOKENS, TOKENS).backward()
    assert not [name for name, p in model.named_parameters() if p.grad is None]
    assert not [name for name in model.state_dict() if "head" in name or name == "positions"]


def test_positions_are_sines_and_cosines():
    table = adapted().positions
    assert table.shape == (12, 32)
    assert torch.allclose(table[:, 0], torch.arange(12.0).sin())
    assert torch.allclose(table[:, 16], torch.arange(12.0).cos())
    rate = math.exp(-math.log(10_000) * 5 / 16)
    assert torch.allclose(table[:, 5], (torch.arange(12.0) * rate).sin())


def test_ignored_targets_do_not_count():
    model = adapted()
    targets = TOKENS.clone()
    targets[:, 3:] = -100
    logits = model(TOKENS)[:, :3]
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), TOKENS[:, :3].flatten())
    torch.testing.assert_close(model.loss(TOKENS, targets), expected)


def test_what_routers_add_counts_in_training():
    model = adapted(more="moe(n = 4, hidden = 32)")
    training = model.loss(TOKENS, TOKENS)
    evaluated = model.eval().loss(TOKENS, TOKENS)
    assert training > evaluated + 1e-4


def test_it_learns_to_give_short_sequences_back():
    task = make_task("compression", vocab=4, length=3, examples=200)
    model = task.adapt(encoder())
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for step in range(1, 251):
        tokens, targets = map(torch.from_numpy, task.batch(step, batch=32, seed=0))
        loss = model.loss(tokens, targets)  # type: ignore[operator]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    tokens, targets = map(torch.from_numpy, task.held_out("test", limit=200))
    assert (model(tokens).argmax(-1) == targets).float().mean() > 0.95
