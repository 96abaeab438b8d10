"""Plans of attention kernels that between them use every feature of the template."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from starc.compiler.kernel_attention import FusedAttention
from starc.compiler.kernel_attention_step import AttentionStep, step_of
from starc.compiler.kernel_plan import KernelPlan
from starc.compiler.visibility import CAUSAL, Clause

DIGEST = "a77e0715"
SCALE = ("scale", 0.125)


def clause(*masks: tuple[str, tuple[int, ...]]) -> Clause:
    return frozenset(masks)


BAND = clause(CAUSAL, ("band", (20,)))


def plan(**fields: Any) -> FusedAttention:
    """Softmax attention over causal pairs, two heads that share keys, changed by `fields`."""
    given: dict[str, Any] = {
        "digest": DIGEST,
        "heads": 2,
        "c_heads": 2,
        "b_heads": 1,
        "v_heads": 1,
        "channels": 64,
        "v_channels": 64,
        "stages": (SCALE,),
        "clauses": (clause(CAUSAL),),
    }
    return FusedAttention(**{**given, **fields})


PAIRS = {"b_heads": 2, "v_heads": 2}

PLANS: dict[str, FusedAttention] = {
    "causal": plan(),
    "full": plan(clauses=(clause(),), **PAIRS),
    "band": plan(clauses=(BAND,), channels=40, v_channels=24, b_heads=2),
    "wide values": plan(clauses=(BAND,), channels=16, v_channels=100),
    "one query head": plan(c_heads=1, **PAIRS),
    "soft-cap": plan(stages=(SCALE, ("softcap", 5.0), ("scale", 1.5))),
    "terms": plan(stages=(SCALE, ("alibi", 1.0), ("bias", 2.0), ("decay", 1.0))),
    "terms and heads": plan(stages=(SCALE, ("bias", 1.0)), heads=4, c_heads=4, b_heads=2),
    "sink": plan(sink=True, stages=(SCALE, ("softcap", 3.0), ("alibi", 1.0))),
    "sink alone": plan(sink=True, clauses=(clause(CAUSAL, ("summary", (8, 1))),), **PAIRS),
    "sigmoid": plan(weights="sigmoid", stages=(SCALE, ("bias", 1.0))),
    "relu": plan(weights="relu", **PAIRS),
    "relu normalized": plan(weights="relu", floor=1.0),
    "linear": plan(weights="linear", clauses=(BAND,)),
    "linear normalized": plan(weights="linear", floor=1.0, clauses=(clause(),)),
    "sigmoid normalized": plan(weights="sigmoid", floor=0.5, clauses=(BAND,)),
    "dilated": plan(clauses=(clause(CAUSAL, ("dilated", (5, 3))),), stages=(SCALE, ("alibi", 1.0))),
    "dilated both ways": plan(clauses=(clause(("dilated", (4, 2))),), **PAIRS),
    "strided": plan(
        clauses=(clause(CAUSAL, ("strided", (7,))),), sink=True, stages=(SCALE, ("decay", 1.0))
    ),
    "blocks": plan(clauses=(clause(("block", (32,))),)),
    "window and first": plan(clauses=(BAND, clause(CAUSAL, ("first", (3,))))),
    "block and summary": plan(
        clauses=(clause(CAUSAL, ("block", (48,))), clause(CAUSAL, ("summary", (48, 5)))), **PAIRS
    ),
    "window and stride": plan(clauses=(BAND, clause(CAUSAL, ("strided", (20,)))), **PAIRS),
    "window and far stride": plan(
        clauses=(clause(CAUSAL, ("band", (128,))), clause(CAUSAL, ("strided", (128,)))), **PAIRS
    ),
    "three masks": plan(clauses=(clause(("band", (20,))), clause(("block", (32,)))), **PAIRS),
}


def numbered(names: list[str]) -> list[FusedAttention]:
    """Some plans under names that tell them apart."""
    every = list(PLANS)
    return [replace(PLANS[name], variant=1 + every.index(name)) for name in names]


def with_steps(plans: list[FusedAttention]) -> list[KernelPlan]:
    """Plans, each followed by that for single tokens where there is one."""
    found: list[KernelPlan] = []
    for own in plans:
        found += [own, step_of(own)] if own.steps else [own]
    return found


LATENT = AttentionStep(
    digest=DIGEST,
    heads=5,
    c_heads=5,
    b_heads=1,
    v_heads=1,
    v_channels=40,
    stages=(SCALE,),
    clauses=(clause(CAUSAL),),
    parts=(40, 16),
    value_part=0,
)
