"""Zero-cost proxies: their formulas, that they are finite, and what follows from the seed."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import nn

from starc.compiler.options import Options
from starc.compiler.resize import resize
from starc.grammar.errors import StarError
from starc.grammar.library import read_source
from starc.runtime.corpus import open_corpus
from starc.search.evaluators import evaluator_digest, make_evaluator
from starc.search.proxies import NAMES, grad_norm, of_program, synflow, zico

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.star"))
SOME = ("transformer_pp", "mamba2", "striped_hyena", "rwkv7", "mixtral", "hyper_connections")

PROGRAM = """
use std.attention.mha
use std.channel.swiglu
model m {
    vocab = 256  width = 16  context = 32  residual = pre(rmsnorm)
    backbone { mha(heads = 2)  swiglu(hidden = 16) }
}
"""


def of(text: str, seed: int = 0) -> dict[str, float]:
    torch.set_num_threads(1)
    data = open_corpus("stdlib")
    return of_program(text, data, batches=3, batch=2, length=16, seed=seed)


def small(path: Path) -> str:
    return resize(read_source(path), Options(), width=64, vocab=256, context=32).text


def test_the_norm_of_gradients_is_summed_over_parameters():
    batches = [[torch.tensor([3.0, 4.0]), torch.tensor([2.0])], [torch.zeros(2), torch.ones(1)]]
    assert grad_norm(batches) == pytest.approx((5 + 2 + 0 + 1) / 2)


def test_zico_counts_what_varies():
    a = [torch.tensor([1.0, 5.0]), torch.tensor([2.0])]
    b = [torch.tensor([-3.0, 5.0]), torch.tensor([4.0])]
    # |g| of the first entry is 1 and 3: mean 2, deviation 1; the second never varies
    assert zico([a, b]) == pytest.approx(math.log(2 / 1) + math.log(3 / 1))


class Linear(nn.Module):
    """R is the sum over tokens of 1 |W| |e|: both W and e have a flow of R."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 2)
        self.head = nn.Linear(2, 3, bias=False)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.embedding(tokens))
        return logits


def test_synflow_of_a_linear_map():
    model = Linear()
    before = [p.detach().clone() for p in model.parameters()]
    found = synflow(model, torch.tensor([[0, 3, 3], [1, 1, 1]]))
    table, weight = (value.abs() for value in before)
    total = sum(float((weight @ table[token]).sum()) for token in (0, 3, 3))
    assert found == pytest.approx(math.log(2 * total), rel=1e-5)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_proxies_follow_from_the_seed():
    first, again, other = of(PROGRAM), of(PROGRAM), of(PROGRAM, seed=1)
    assert first == again
    assert all(first[name] != other[name] for name in NAMES)


@pytest.mark.parametrize("name", SOME)
def test_proxies_of_some_examples_are_finite(name: str):
    found = of(small(ROOT / "examples" / f"{name}.star"))
    assert all(math.isfinite(found[proxy]) for proxy in NAMES)


@pytest.mark.slow
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_proxies_of_every_example_are_finite(path: Path):
    found = of(small(path))
    assert all(math.isfinite(found[proxy]) for proxy in NAMES)


def test_the_evaluators(tmp_path: Path):
    plain = make_evaluator("proxies", {"proxy": "synflow", "batch": 2, "length": 16, "batches": 2})
    assert (plain.rungs, plain.quality.sign) == (1, -1)
    found = plain.evaluate(PROGRAM, seed=0, rung=0, folder=tmp_path)
    assert isinstance(found, dict)
    assert found["quality"] == found["synflow"]
    options = {"tokens": 128, "batch": 2, "length": 16, "validation": 64, "warmup": 1}
    screened = make_evaluator("screened", options)
    assert (screened.rungs, screened.quality.sign) == (2, 1)
    assert screened.tokens(0) < screened.tokens(1)
    low = screened.evaluate(PROGRAM, seed=0, rung=0, folder=tmp_path)
    high = screened.evaluate(PROGRAM, seed=0, rung=1, folder=tmp_path)
    assert isinstance(low, dict)
    assert isinstance(high, dict)
    assert low["quality"] == -low["zico"] == -high["zico"]
    assert 0 < high["quality"] < 10
    assert evaluator_digest(screened) != evaluator_digest(plain)


@pytest.mark.parametrize("options", [{"proxy": "luck"}, {"batches": 1}, {"length": 0.5}])
def test_wrong_options_are_refused(options: dict[str, object]):
    with pytest.raises(StarError):
        make_evaluator("proxies", options)
