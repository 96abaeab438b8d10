"""Bytes that kernels move, counted from their plans, against the least for what they compute."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from starc.compiler import kernel_recurrence, kernel_structured
from starc.compiler.driver import compile_program
from starc.compiler.kernel_plan import CACHED, PROCESSORS, is_cached
from starc.compiler.options import Options
from starc.grammar.library import read_source

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.star"))
LIMIT = 1.15

WORSE = {
    ("AttentionStep", "step"): 1.5,
    ("GatedConvolution", "backward"): 1.18,
    ("ExpertProducts", "outputs"): 4.39,
    ("ExpertProducts", "d_inputs"): 2.99,
    ("LongConvolution", "forward"): 3.1,
    ("LongConvolution", "backward"): 4.35,
}
"""What moves more, by plan and operation, and how many times the least it may at most; the reasons
are in docs/kernels.md."""


def excess(path: Path, tokens: int = 4096) -> list[str]:
    """Operations of a program's kernels that move more than they may in bfloat16."""
    found = []
    for plan in dict.fromkeys(compile_program(read_source(path), Options(format=False)).kernels):
        moved: Counter[str] = Counter()
        least = {}
        for work in plan.work(1, tokens, 2):
            moved[work.operation] += work.moved
            least[work.operation] = work.least
        for operation, total in moved.items():
            times = total / least[operation]
            if times > WORSE.get((type(plan).__name__, operation), LIMIT):
                found.append(f"{path.stem}: {plan.name} {operation}: {times:.2f}")
    return found


@pytest.mark.parametrize("name", ["mistral", "hybrid", "mamba2", "deltanet"])
def test_a_few_programs_move_little_more_than_they_must(name: str) -> None:
    assert excess(Path(EXAMPLES[0].parent, f"{name}.star")) == []


@pytest.mark.kernels
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_programs_move_little_more_than_they_must(path: Path) -> None:
    assert excess(path) == []


def test_operands_that_no_cache_holds_are_found() -> None:
    (found,) = excess(Path(EXAMPLES[0].parent, "mistral.star"), tokens=2**20)
    assert "backward: 1.5" in found


@pytest.mark.parametrize(
    ("name", "forward", "backward"), [("mamba2", 3.2, 4.7), ("deltanet", 5.6, 6.5)]
)
def test_without_slices_recurrences_move_several_times_as_much(
    monkeypatch: pytest.MonkeyPatch, name: str, forward: float, backward: float
) -> None:
    for module in (kernel_recurrence, kernel_structured):
        monkeypatch.setattr(module, "is_cached", lambda size, programs: False)
    found = excess(Path(EXAMPLES[0].parent, f"{name}.star"))
    times = {line.rsplit(" ", 2)[1]: float(line.rsplit(" ", 1)[1]) for line in found}
    assert times["forward:"] > forward
    assert times["backward:"] > backward


def test_half_of_a_cache_holds_so_many_parts() -> None:
    assert is_cached(CACHED, PROCESSORS)
    assert is_cached(CACHED // 2, PROCESSORS // 4)
    assert not is_cached(CACHED // 2, PROCESSORS // 4 - 1)  # most processors would be idle
    assert not is_cached(CACHED + 1, 1000)
