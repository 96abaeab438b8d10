"""Resolving from memory gives what resolving anew gives."""

from __future__ import annotations

import random
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from starc.compiler.cost import CostModel, cost_report
from starc.compiler.ir import Model
from starc.compiler.memo import Memo
from starc.compiler.options import Limits
from starc.compiler.program import link, parse_limited
from starc.compiler.resolve import resolve_model
from starc.grammar import nodes
from starc.grammar.errors import StarError
from starc.grammar.source import Source

TEXT = """
operator mha(heads: int) {
    C = x |> dense(width) |> heads(heads)
    B = x |> dense(width) |> heads(heads)
    V = x |> dense(width) |> heads(heads)
    T = low_rank(C, B) |> causal |> softmax
    y = T @ V |> merge |> dense(width)
}
operator deep(extra: int = 1) { y = x |> scale(1 / (layer + extra)) |> dense(width) }
operator share() { y = x |> scale(1 / sqrt(depth)) |> dense(width) }
operator gate(hidden: int = 2 * width) { y = (x |> dense(hidden) |> silu) |> dense(width) }
operator stream(first: feature) { y = first * x }
operator both(first: feature, second: feature) { y = first * second }
operator late(first: feature) { y = (first |> merge) * x }
model one {
    vocab = 16   width = 8   context = 32
    backbone {
        a: mha(heads = 2)   gate()   gate(hidden = 4)   gate(hidden = 4 * (layer + 1))
        gate(hidden = depth)   deep()   share()
        mha(heads = 2) reuses B from a
        mha(heads = 4) shares C with a
        repeat 2 { gate()  deep(extra = 2)  b: mha(heads = 2)  late(first = b.V) }
        late(first = a.V)
        parallel(sum) { gate() gate() }
    }
}
model two { vocab = 16   width = 16   context = 32   backbone { a: mha(heads = 2) gate() } }
"""

LINKED = link(parse_limited(Source("test.star", TEXT), Limits()), Limits())
ONE, TWO = LINKED.models


def changed(model: nodes.Model, rng: random.Random) -> nodes.Model:
    """The model with layers replaced by others of it, and some dropped, where that is sound."""
    free = [
        layer
        for layer in model.backbone
        if not isinstance(layer, nodes.Unit) or not (layer.label or layer.modifiers)
    ]
    free = [layer for layer in free if "late" not in repr(layer)]
    if not free:
        return model
    kept = [rng.choice(free) if layer in free else layer for layer in model.backbone]
    kept = [layer for layer in kept if layer not in free or rng.random() < 0.8]
    return replace(model, backbone=tuple(kept))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 6))
def test_memory_changes_nothing(seed: int, programs: int) -> None:
    rng = random.Random(seed)
    memo, costs = Memo(), CostModel()
    model = ONE
    for _ in range(programs):
        model = changed(model, rng)
        for each in (model, TWO):
            remembered, _ = resolve_model(each, LINKED.operators, memo=memo)
            anew, _ = resolve_model(each, LINKED.operators)
            assert remembered == anew
            assert costs.report(remembered) == cost_report(anew)


BACKBONES = (
    "a: mha(heads = 2)  mha(heads = 2) reuses B from a  late(first = a.V)  stream(first = a)",
    "b: mha(heads = 2)  mha(heads = 2) reuses B from b  late(first = b.V)  stream(first = b)",
    "b: mha(heads = 2)  a: mha(heads = 4)  mha(heads = 2) reuses B from b shares C with b",
    "b: mha(heads = 2)  a: mha(heads = 4)  mha(heads = 2) reuses B from a shares C with b",
    "a: mha(heads = 2)  b: mha(heads = 2)  mha(heads = 2) reuses B from a shares C with b",
    "a: mha(heads = 2)  b: mha(heads = 2)  mha(heads = 2) reuses B from b shares C with b",
    "a: gate()  b: gate()  both(first = a, second = b)  both(first = b, second = b)",
    "a: parallel(sum) { gate()  deep() }  stream(first = a)  gate(hidden = wide)",
    "wide: gate()  stream(first = wide)",
    "wide: mha(heads = 2)  mha(heads = 2) shares * with wide  gate(hidden = wide)",
    "a: gate()  mha(heads = a)",
    "gate() with residual = post(layernorm)  parallel(sum) { gate()  gate() } with residual = none",
    "repeat 0 { gate() }  repeat 2 { a: gate()  gate() shares * with a }  gate()",
    "gate() shares * with a",
)


def judged(text: str, memo: Memo | None) -> object:
    """What a model means, or what is wrong with it."""
    source = Source("model.star", text)
    (model,) = link(parse_limited(source, Limits()), Limits()).models
    try:
        return resolve_model(model, LINKED.operators, memo=memo)[0]
    except StarError as failure:
        return failure.diagnostics


@settings(max_examples=8, deadline=None)
@given(st.randoms(use_true_random=False))
def test_labels_and_residuals_are_no_part_of_what_is_remembered(rng: random.Random) -> None:
    """Units that say the same but for labels are resolved once: whatever came before, a model
    means what it means alone."""
    memo, failed = Memo(), 0
    residuals = (
        "pre(rmsnorm)",
        "post(layernorm)",
        "hyper(2)",
        "x / depth + f(rmsnorm(x)) / (layer + 1)",
    )
    models = [(backbone, residual) for backbone in BACKBONES for residual in residuals]
    for backbone, residual in rng.sample(models, 14):
        sizes = "vocab = 16  width = 8  context = 32  wide = 4"
        text = f"model m {{ {sizes}  residual = {residual}  backbone {{ {backbone} }} }}"
        alone = judged(text, None)
        assert judged(text, memo) == alone
        failed += isinstance(alone, tuple)
    assert failed < 14


def test_units_that_differ_in_labels_only_are_resolved_once() -> None:
    memo = Memo()
    for backbone in BACKBONES[:2]:
        text = f"model m {{ vocab = 16  width = 8  context = 32  backbone {{ {backbone} }} }}"
        assert isinstance(judged(text, memo), Model)
    assert len(memo.units) == 4


def test_unchanged_operators_are_the_same_objects() -> None:
    memo = Memo()
    first, _ = resolve_model(ONE, LINKED.operators, memo=memo)
    again, _ = resolve_model(replace(ONE, backbone=ONE.backbone[:2]), LINKED.operators, memo=memo)
    assert again.operators[1].values is first.operator("gate").values
    assert again.operators[1] is not first.operator("gate")  # it is initialised for another depth


def test_an_operator_of_the_same_name_is_another() -> None:
    """A call is remembered for the operator that its name meant."""
    memo = Memo()
    other = link(
        parse_limited(Source("o.star", "operator gate() { y = x |> silu }"), Limits()), Limits()
    )
    model = replace(TWO, backbone=TWO.backbone[1:])
    first, _ = resolve_model(model, LINKED.operators, memo=memo)
    second, _ = resolve_model(model, other.operators, memo=memo)
    assert first.operators != second.operators
    assert second == resolve_model(model, other.operators)[0]
