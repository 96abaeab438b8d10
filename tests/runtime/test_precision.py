"""bf16 is taken where it is faster and as good, and asked for once."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from starc.runtime import precision
from starc.runtime.loader import load
from starc.runtime.tasks import make_task

TINY = load((Path(__file__).parent / "fixtures" / "tiny.py").read_text())
TASK = make_task("in-context-recall", length=14, examples=64, held_out_examples=24)
CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("seconds", "loss", "expected"),
    [
        (0.5, 2.01, "bf16"),
        (2.0, 2.00, "fp32"),  # slower
        (0.5, 2.10, "fp32"),  # not close
        (0.5, float("nan"), "fp32"),
        (0.5, float("inf"), "fp32"),
    ],
)
def test_the_faster_one_that_is_as_good(
    monkeypatch: pytest.MonkeyPatch, seconds: float, loss: float, expected: str
):
    monkeypatch.setattr(precision, "_FOUND", {})
    monkeypatch.setattr(
        precision, "_step", lambda *given: (seconds, loss) if given[-1] == "bf16" else (1.0, 2.0)
    )
    assert precision.fastest_precision(TINY, TASK, CPU, 4, 12) == expected


def test_it_is_measured_once(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(precision, "_FOUND", {})
    taken: list[str] = []
    step = precision._step

    def counted(*given: object) -> tuple[float, float]:
        taken.append(str(given[-1]))
        return step(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(precision, "_step", counted)
    state = torch.get_rng_state()
    first = precision.fastest_precision(TINY, TASK, CPU, 4, 12)
    assert taken == ["fp32", "bf16"] * 3
    assert precision.fastest_precision(TINY, TASK, CPU, 4, 12) == first
    assert len(taken) == 6
    assert torch.equal(torch.get_rng_state(), state)


def test_a_step_is_measured_as_it_is_trained():
    torch.manual_seed(0)
    model = TINY.Model()
    tokens = torch.randint(16, (4, 12))
    values = {
        kind: precision._step(model, tokens, tokens, CPU, kind)[1] for kind in ("fp32", "bf16")
    }
    assert values["fp32"] == pytest.approx(float(model.loss(tokens, tokens).detach()))
    assert values["bf16"] != values["fp32"]
    assert values["bf16"] == pytest.approx(values["fp32"], rel=precision.CLOSE)
    with torch.no_grad():
        model.head.weight.fill_(torch.inf)
    assert not precision._step(model, tokens, tokens, CPU, "bf16")[1] < torch.inf
