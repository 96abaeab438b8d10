"""Static cost beside what the generated module holds and does: parameters, caches, products."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, note
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from starc.compiler.cost import CostModel, CostReport, cost_report
from starc.compiler.driver import resolve_source, run_passes
from starc.compiler.ir import Model
from starc.compiler.options import Options
from starc.compiler.work import visible_pairs
from starc.grammar.source import Source
from starc.runtime.loader import unload
from tests.numerics.agreement import Compiled, build
from tests.numerics.decoding import tensors
from tests.strategies.programs import programs
from tests.test_properties import fast, thorough

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.star"))
SMALL = {"width": 64, "vocab": 61, "context": 32}
BATCH = 3
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp64": torch.float64}


def resolved(text: str, **overrides: int) -> Model:
    settings = tuple((name, str(value)) for name, value in overrides.items())
    return resolve_source(Source("test.star", text), Options(overrides=settings))[0]


def check_sizes(compiled: Compiled) -> None:
    """Parameters and caches are as large as promised, at any length and in any dtype."""
    network: Any = compiled.module.Model()
    size = sum(p.numel() for p in network.parameters())
    assert cost_report(compiled.model).parameters == size
    if not compiled.model.causal:
        return
    costs = CostModel()
    for length in {1, 7, compiled.model.context}:
        for name, dtype in DTYPES.items():
            report = costs.report(compiled.model, length=length, batch=BATCH, dtype=name)
            kept = list(tensors(network.init_cache(BATCH, length, dtype=dtype)))
            assert sum(t.numel() for t in kept) == BATCH * report.state_elements
            assert sum(t.numel() * t.element_size() for t in kept) == report.cache_bytes
            assert sum(unit.cache_bytes for unit in report.units) == report.cache_bytes


def check_passes(before: Model) -> None:
    """What a program costs is read from its structure, however that is spelled."""
    after = run_passes(before)
    for length in (1, 5, before.context):
        ours, theirs = (cost_report(m, length=length).as_dict() for m in (before, after))
        for mine, other in zip(ours.pop("units"), theirs.pop("units"), strict=True):
            del mine["operator"], other["operator"]  # `share` finds twins
            assert mine == other
        assert ours == theirs


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example(path: Path) -> None:
    text = path.read_text("utf-8")
    compiled = build(text, **SMALL)
    check_sizes(compiled)
    unload(compiled.module)
    check_passes(resolved(text, **SMALL))


def check_drawn(text: str) -> None:
    note(text)
    compiled = build(text)
    check_sizes(compiled)
    unload(compiled.module)
    check_passes(resolved(text))


@fast(25)
@given(programs())
def test_drawn_programs(text: str) -> None:
    check_drawn(text)


@pytest.mark.slow
def test_drawn_programs_thoroughly() -> None:
    thorough(400)(given(programs())(check_drawn))()


# --- floating-point operations --------------------------------------------------------------------


def hidden_pairs(model: Model, report: CostReport) -> int:
    """Operations on pairs that masks hide: torch computes and counts them, the report does not."""
    costs, length, total = CostModel(), report.length, 0
    operators = {o.name for o in model.operators}
    for unit in report.units:
        if unit.operator not in operators:  # a parallel
            continue
        work = costs.profile(model.operator(unit.operator)).work
        for window, step, causal, operations in work.pairs:
            total += operations * (length**2 - visible_pairs(length, window, causal, step))
    return report.batch * total


def counted(network: torch.nn.Module, tokens: torch.Tensor) -> int:
    """The operations of matrix products and convolutions that torch counts."""
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        network(tokens)
    return int(counter.get_total_flops())


EXACT = """bermo better_attention cross_layer_kv deepseek_experts denseformer diff_qkv encoder
fixed_head_size forgetting gpt2 head_embeddings hyper_connections layer_embeddings layer_shortcuts
llama long_context mixtral mixture_of_blocks nope_temperature normalized_attention palm polynomial
relative_bias shared_blocks shortcut_experts sigmoid_attention structured_ffn tied_transpose
tokenformer transformer_pp value_residual widenet""".split()
"""Examples whose products are projections, experts and full attention. Elsewhere the report counts
an ideal that the module trades for speed: recurrences run in chunks, windows in blocks, short
convolutions as shifted products, which torch does not count."""


@pytest.mark.parametrize("name", EXACT)
def test_flops_of_attention_and_projections(name: str) -> None:
    path = Path(__file__).parents[2] / "examples" / f"{name}.star"
    compiled = build(path.read_text("utf-8"), **SMALL)
    network = compiled.module.Model().eval()
    for length in (1, 19):
        report = cost_report(compiled.final, length=length, batch=2)
        wanted = report.flops_forward + hidden_pairs(compiled.final, report)
        assert counted(network, compiled.tokens(length)) == wanted
