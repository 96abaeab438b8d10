"""The kernels of recurrences: their Triton code against float64, and their operators."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from starc.compiler.kernel_recurrence import Recurrence
from starc.compiler.kernel_scan import Scan

DIGEST = "00112233445566778899"


def recurrence(
    decay: str, heads: int, groups: int, channels: int, values: int, **more: Any
) -> Recurrence:
    """A plan with chunks of 16 tokens, which the interpreter is quicker with than with 64."""
    more = {
        "function": f"{decay}_recurrence",
        "decay_heads": 0 if decay == "none" else heads,
        "chunk": 16,
        **more,
    }
    return Recurrence(
        digest=DIGEST,
        decay=decay,
        heads=heads,
        groups=groups,
        channels=channels,
        values=values,
        c_heads=groups,
        b_heads=groups,
        v_heads=heads,
        state_heads=heads,
        **more,
    )


def scan(heads: int, channels: int, reads: str, writes: str, **more: Any) -> Scan:
    more = {"factored": False, "decay_channels": 1, **more}
    return Scan(
        digest=DIGEST,
        function="scan",
        heads=heads,
        channels=channels,
        reads=reads,
        writes=writes,
        **more,
    )


# Sizes that fill their tiles and sizes that do not; several tiles of keys and of values.
FEW = [
    recurrence("none", 2, 2, 20, 16, floor=1e-2),
    recurrence("scalar", 4, 2, 16, 24),
    recurrence("diagonal", 2, 2, 24, 16),
]
FEW_SCANS = [
    scan(20, 12, "shared", "shared", factored=True),
    scan(40, 1, "one", "one"),
]
MANY_SCANS = [
    *FEW_SCANS,
    scan(24, 16, "shared", "own", decay_channels=16),
    scan(16, 8, "own", "shared"),
    scan(8, 4, "own", "own", factored=True),
]
MANY = [
    recurrence("none", 4, 1, 16, 32),
    recurrence("none", 1, 1, 72, 80, floor=1e-6),
    recurrence("scalar", 2, 2, 72, 80, floor=1e-2),
    recurrence("scalar", 4, 1, 40, 16, decay_heads=2),
    recurrence("scalar", 2, 1, 64, 64, chunk=64),
    recurrence("diagonal", 4, 2, 40, 24, floor=1e-2),
    recurrence("diagonal", 2, 2, 16, 72, decay_heads=1),
    recurrence("diagonal", 1, 1, 64, 64, chunk=64),
]


# Sizes of Mamba-2, RetNet, linear attention, GLA, RWKV-6, Mamba and Griffin.
MODELS: list[Recurrence | Scan] = [
    recurrence("scalar", 24, 1, 128, 64, chunk=64),
    recurrence("scalar", 3, 3, 256, 512, chunk=64, function="retention"),
    recurrence("none", 8, 8, 64, 64, chunk=64, floor=1e-6),
    recurrence("diagonal", 4, 4, 96, 192, chunk=64),
    recurrence("diagonal", 12, 12, 64, 64, chunk=64, function="rwkv"),
    scan(1536, 16, "shared", "shared", factored=True),
    replace(scan(1024, 1, "one", "one"), function="griffin"),
]

# Bytes of registers kept in memory, where every smaller tile costs more products.
SPILLS = {
    ("scan_backward", "sm_80"): 16,
    ("scan_backward", "sm_90"): 24,
}


def named(plans: Sequence[Recurrence | Scan]) -> list[Recurrence | Scan]:
    """The same with functions of different names, to stand in one file."""
    return [replace(plan, function=f"{plan.function}_{i}") for i, plan in enumerate(plans, 2)]


def test_interpreted_recurrences_agree_with_float64(run_script: Callable[..., Any]) -> None:
    plans = named([*FEW, *FEW_SCANS])
    arguments = ("recurrences.py", plans, "interpreted", "few", "")
    assert run_script(*arguments, TRITON_INTERPRET="1")["findings"] == []


@pytest.mark.slow
@pytest.mark.parametrize("decay", ["none", "scalar", "diagonal"])
def test_every_interpreted_recurrence_agrees_with_float64(
    run_script: Callable[..., Any], decay: str
) -> None:
    plans = named([plan for plan in (*FEW, *MANY) if plan.decay == decay])
    arguments = ("recurrences.py", plans, "interpreted", "all", plans[0].name)
    assert run_script(*arguments, TRITON_INTERPRET="1")["findings"] == []


@pytest.mark.slow
def test_every_interpreted_scan_agrees_with_float64(run_script: Callable[..., Any]) -> None:
    plans = named(MANY_SCANS)
    arguments = ("recurrences.py", plans, "interpreted", "all", plans[0].name)
    assert run_script(*arguments, TRITON_INTERPRET="1")["findings"] == []


def defect(report: dict[str, Any]) -> str | None:
    """What is wrong with a compiled kernel, if anything."""
    if report["spills"] > SPILLS.get((report["kernel"], report["target"]), 0):
        return f"{report['spills']} spills"
    if not report["fits"]:
        return f"{report['shared_bytes']} bytes of shared memory"
    if report["atomics"]:
        return "atomics, whose order is chance"
    if report["products"] and not report["matrix_instructions"]:
        return "no tensor cores"
    if report["products"] and report["target"] in ("sm_90", "sm_100"):
        if report["element"] != "fp32" and not report["group_instructions"]:
            return "tensor cores of single warps"
    return None if report["wide_accesses"] or not report["products"] else "no wide accesses"


def test_recurrences_compile_within_limits(run_script: Callable[..., Any]) -> None:
    reports = run_script("compiled.py", MODELS[:1], "sm_90", "bf16", TRITON_INTERPRET="0")
    assert len(reports) == 6
    assert [(r["target"], r["kernel"], d) for r in reports if (d := defect(r))] == []


@pytest.mark.slow
def test_recurrences_of_models_compile_within_limits(run_script: Callable[..., Any]) -> None:
    targets = "sm_80,sm_90,sm_100,gfx942"
    reports = run_script("compiled.py", MODELS, targets, "bf16", TRITON_INTERPRET="0")
    assert [(r["target"], r["kernel"], d) for r in reports if (d := defect(r))] == []


@pytest.mark.gpu
def test_recurrences_agree_with_float64_on_a_gpu(run_script: Callable[..., Any]) -> None:
    plans = named([*FEW, *MANY, *MANY_SCANS])
    names = ",".join(plan.name for plan in plans)
    assert run_script("recurrences.py", plans, "cuda", "all", names)["findings"] == []


@pytest.mark.parametrize(
    ("cache", "size", "heads", "expected"),
    [
        # half of it holds 10 parts of a head: 4 heads of 2 parts, all that there are of 12 heads
        (50 << 20, 5 << 19, 4, [(0, 4, 0, 6), (0, 4, 6, 6), (0, 4, 12, 4)]),
        (
            50 << 20,
            5 << 19,
            12,
            [(h, c, i, min(3, 16 - i)) for h, c in ((0, 10), (10, 2)) for i in range(0, 16, 3)],
        ),
        (50 << 20, 1 << 10, 12, [(0, 12, 0, 16)]),
        # so little that 24 programs a part leave 132 processors idle: as if there were none
        (
            6 << 20,
            5 << 19,
            12,
            [(h, c, i, min(3, 16 - i)) for h, c in ((0, 11), (11, 1)) for i in range(0, 16, 3)],
        ),
    ],
)
def test_slices_fit_the_cache_or_occupy_the_device(
    load: Callable[..., ModuleType],
    monkeypatch: pytest.MonkeyPatch,
    cache: int,
    size: int,
    heads: int,
    expected: list[tuple[int, int, int, int]],
) -> None:
    module = load([replace(recurrence("scalar", 2, 2, 8, 8), digest="d15b0a80")])
    device = SimpleNamespace(L2_cache_size=cache, multi_processor_count=132)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: device)
    on_a_gpu = SimpleNamespace(is_cuda=True, device="cuda")
    found = module.cached_slices_of_chunks(on_a_gpu, heads, 16, 3, size, 24)
    assert found == expected
    assert module.cached_slices_of_chunks(torch.empty(1), 5, 16, 3, size, 24) == [(0, 5, 0, 16)]
