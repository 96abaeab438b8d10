"""One token through torch.compile: eager's logits, from one compilation for all lengths."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._dynamo.utils import counters

from starc.runtime.reference import random_parameters
from tests.numerics.agreement import build
from tests.numerics.test_graphs import EXAMPLES, SMALL, loaded

LENGTH, PROMPT = 24, 5
# Every kind of cache: all tokens, a window, delay lines, states, a latent.
KINDS = """use std.attention.mha use std.attention.sliding use std.attention.latent
use std.recurrent.mamba2 use std.linear.gated_deltanet use std.convolution.gconv
model m { vocab = 13  width = 16  context = 24
    backbone {
        mha(heads = 2)  sliding(heads = 2, window = 9)
        latent(heads = 2, rank = 6)
        mamba2(state = 4, head = 8)  gated_deltanet(heads = 2, head = 4)  gconv()
    } }"""


@contextmanager
def fresh() -> Iterator[None]:
    """Nothing compiled yet, and no warnings of PyTorch about itself."""
    torch._dynamo.reset()
    counters.clear()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"torch\.")
        yield


def check(model: Any, allowed: int, backend: str, tolerance: float) -> None:
    """Compiled steps give eager's logits, and were compiled at most so many times."""
    tokens = torch.randint(13, (2, LENGTH), generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), fresh():
        caches = [model.init_cache(2, LENGTH + 1) for _ in range(2)]
        for cache in caches:
            model(tokens[:, :PROMPT], cache)
        step = model.compile_step(backend=backend)
        for i in range(PROMPT, LENGTH):
            token = tokens[:, i].unsqueeze(1)
            expected, logits = model(token, caches[0]), step(token, caches[1])
            torch.testing.assert_close(logits, expected, rtol=tolerance, atol=tolerance)
            assert not logits.requires_grad
        assert caches[1].length == LENGTH
        assert 1 <= counters["stats"]["unique_graphs"] <= allowed


@pytest.mark.parametrize(
    "backend",
    ["eager", *(pytest.param(n, marks=pytest.mark.slow) for n in ("aot_eager", "inductor"))],
)
def test_every_kind_of_cache(backend: str) -> None:
    compiled = build(KINDS)
    model = compiled.network(random_parameters(compiled.model, 0), torch.float64)
    check(model, 2, backend, tolerance=1e-10)  # a window that is full is a case of its own


def test_a_compiled_stream() -> None:
    compiled = build(
        "use std.attention.mha model m { vocab = 13  width = 16  context = 24  "
        "backbone { mha(heads = 2) } }"
    )
    model: Any = compiled.network(random_parameters(compiled.model, 0), torch.float64)
    compile_step, calls = model.compile_step, []

    def counted() -> Any:
        step = compile_step(backend="eager")
        return lambda *inputs: (calls.append(inputs), step(*inputs))[1]

    model.compile_step = counted
    with fresh():
        # The prompt gives the first token; a step behind one token is left to eager.
        for prompt, count, steps in (([[3], [1]], 8, 6), ([[3, 1, 4], [9, 2, 6]], 11, 10)):
            calls.clear()
            tokens = torch.tensor(prompt)
            found = model.generate(tokens, count, temperature=0, compiled=True)
            assert torch.equal(found, model.generate(tokens, count, temperature=0))
            assert len(calls) == steps
        assert counters["stats"]["unique_graphs"] == 1


@pytest.mark.slow
@pytest.mark.parametrize("program", EXAMPLES, ids=lambda p: p.stem)
def test_examples(program: Path) -> None:
    model: Any = loaded(program, SMALL).eval()
    if "causal = false" in program.read_text():
        with pytest.raises(ValueError, match="sees later tokens"):
            model.init_cache(1, 8)
        return
    check(model, 2, "aot_eager", tolerance=1e-4)
