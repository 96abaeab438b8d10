"""Training under bfloat16 autocast, and with units computed again: finite, and close to plain."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch

from tests.numerics.test_graphs import EXAMPLES, SMALL, loaded

FAST = {"gated_deltanet", "mamba2", "mixtral"}
CASES = [
    pytest.param(p, id=p.stem, marks=() if p.stem in FAST else pytest.mark.slow) for p in EXAMPLES
]
LENGTH = 37


def tokens() -> torch.Tensor:
    return torch.randint(64, (2, LENGTH + 1), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("program", CASES)
def test_bfloat16_autocast_trains(program: Path) -> None:
    """Three steps of AdamW: losses near those of float32, every weight finite."""
    plain = loaded(program, SMALL)
    half = copy.deepcopy(plain)
    losses: dict[str, list[float]] = {}
    for name, model in (("plain", plain), ("half", half)):
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        losses[name] = []
        for _ in range(3):
            torch.manual_seed(2)  # noisy routers draw the same noise
            with torch.autocast("cpu", torch.bfloat16, enabled=name == "half"):
                loss = model.loss(tokens()[:, :-1], tokens()[:, 1:])  # type: ignore[operator]
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses[name].append(float(loss.detach()))
    assert losses["half"] == pytest.approx(losses["plain"], rel=0.05)
    assert all(bool(p.isfinite().all()) for p in half.parameters())


@pytest.mark.parametrize("program", CASES)
def test_checkpointed_units_give_the_same_gradients(program: Path) -> None:
    model = loaded(program, SMALL).double()
    gradients = []
    for on in (False, True):
        model.checkpointing = on
        model.zero_grad()
        torch.manual_seed(2)
        model.loss(tokens()[:, :-1], tokens()[:, 1:]).backward()  # type: ignore[operator]
        gradients.append(
            {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
        )
    for name, expected in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], expected, rtol=1e-9, atol=1e-12, msg=name)
