"""Bytes, active parameters and intensities of a report, by hand."""

from __future__ import annotations

import pytest

from starc.compiler.cost import CostReport, cost_report
from starc.compiler.driver import resolve_source
from starc.compiler.options import Options
from starc.grammar.source import Source

D, L, VOCAB = 8, 20, 50


def report(body: str, dtype: str = "bf16", batch: int = 3) -> CostReport:
    text = (
        f"operator f() {{ {body} }} model m {{ vocab = {VOCAB} width = {D} context = {L} "
        "residual = none final_norm = none backbone { f() } }"
    )
    model, _ = resolve_source(Source("test.star", text), Options())
    return cost_report(model, batch=batch, dtype=dtype)


@pytest.mark.parametrize(
    ("dtype", "state", "other"), [("bf16", 4, 2), ("fp32", 4, 4), ("fp64", 8, 8)]
)
def test_states_are_kept_in_float32_at_least(dtype: str, state: int, other: int) -> None:
    found = report("y = (low_rank(x, x) |> causal) @ (x |> conv(4))", dtype)
    assert found.state_elements == D * D + 3 * D
    assert found.cache_bytes == 3 * (state * D * D + other * 3 * D) == found.units[0].cache_bytes


def test_active_parameters() -> None:
    dense = report("y = x |> dense(width)")
    assert dense.active_parameters == dense.parameters
    assert dense.units[0].active_parameters == dense.units[0].parameters == D * D


def test_prefill_and_intensity() -> None:
    found = report("y = (low_rank(x, x) |> causal |> softmax) @ x |> dense(width)", "fp32")
    weights = 4 * (D * D + 2 * VOCAB * D)
    assert found.flops_prefill == found.flops_forward - 3 * 2 * VOCAB * D * (L - 1)
    assert found.cache_bytes == 3 * 4 * L * D
    moved = weights + found.cache_bytes
    assert found.intensity_prefill == pytest.approx(found.flops_prefill / moved)
    assert found.intensity_decode == pytest.approx(found.flops_decode / moved)
