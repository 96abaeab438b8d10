"""Generated modules under torch.compile(fullgraph=True) and torch.export: same numbers as eager."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from starc.compiler.driver import compile_program
from starc.compiler.options import Options
from starc.grammar.source import Source
from starc.runtime.loader import load

ROOT = Path(__file__).parents[2]
GOLDEN = sorted((ROOT / "tests" / "golden").glob("*.star"))
EXAMPLES = sorted((ROOT / "examples").glob("*.star"))
SMALL = (("width", "64"), ("vocab", "64"), ("context", "64"))


def loaded(program: Path, overrides: tuple[tuple[str, str], ...] = ()) -> torch.nn.Module:
    # Two iterations of a repeat show what twelve would, in a sixth of the time.
    text = re.sub(r"\brepeat ([3-9]|\d\d+) ", "repeat 2 ", program.read_text())
    source = Source(program.name, text)
    torch.manual_seed(0)
    model: torch.nn.Module = load(
        compile_program(source, Options(overrides=overrides)).text
    ).Model()
    return model


@contextmanager
def quiet() -> Iterator[None]:
    """Without PyTorch's warnings of its own deprecations."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"torch\.")
        warnings.filterwarnings("ignore", message=r"`torch\.jit\.")
        warnings.filterwarnings("ignore", message=".*autograd.function.Function.*")
        yield


def check(model: torch.nn.Module, length: int = 37, atol: float = 1e-5) -> None:
    tokens = torch.randint(32, (2, length), generator=torch.Generator().manual_seed(1))
    torch.manual_seed(2)  # here and below: noisy routers draw, in training
    expected = model(tokens)
    expected.square().mean().backward()
    gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    torch._dynamo.reset()
    with quiet():
        compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
        torch.manual_seed(2)
        logits = compiled(tokens)
        logits.square().mean().backward()
        exporting = torch.export.export(model, (tokens,)).module()
        torch.manual_seed(2)
        exported = exporting(tokens)
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=atol)
    torch.testing.assert_close(exported, expected, rtol=1e-4, atol=atol)
    for name, parameter in model.named_parameters():
        if name in gradients:
            scale = gradients[name].abs().max().item() + 1e-6
            torch.testing.assert_close(
                parameter.grad, gradients[name], rtol=1e-3, atol=1e-3 * scale
            )


LONGER = (("width", "64"), ("vocab", "64"), ("context", "256"))


LENGTHS = (37, 100, 64, 11, 130, 200, 255, 96, 3, 53, 128)


def check_lengths(model: torch.nn.Module, lengths: tuple[int, ...] = LENGTHS) -> None:
    """One exported graph for any batch and length, and few compiled ones for all lengths."""
    model.eval()
    draw = torch.Generator().manual_seed(1)

    def agrees(graph: Callable[[torch.Tensor], torch.Tensor], batch: int, length: int) -> None:
        tokens = torch.randint(32, (batch, length), generator=draw)
        torch.testing.assert_close(graph(tokens), model(tokens), rtol=1e-4, atol=2e-5)

    any_shape = {0: torch.export.Dim("batch", max=64), 1: torch.export.Dim("T", min=2, max=255)}
    graphs = 0

    def count(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Callable[..., object]:
        nonlocal graphs
        graphs += 1
        return graph.forward

    torch._dynamo.reset()
    with quiet(), torch.no_grad():
        tokens = torch.zeros(2, 100, dtype=torch.long)
        exported = torch.export.export(model, (tokens,), dynamic_shapes=(any_shape,)).module()
        for batch, length in ((2, 37), (1, 255), (3, 11), (2, 2), (2, 130), (5, 192)):
            agrees(exported, batch, length)
        compiled = torch.compile(model, fullgraph=True, backend=count)
        for length in lengths:
            agrees(compiled, 2, length)
    # one of the first length; of others one within a chunk of 16, within one of 64, and beyond
    assert graphs <= 4


@pytest.mark.parametrize("program", GOLDEN, ids=lambda p: p.stem)
def test_golden_programs_at_any_length(program: Path) -> None:
    check_lengths(loaded(program, LONGER[2:]), LENGTHS[:4])


CHOOSERS = {"mixture_of_blocks", "native_sparse_attention"}
"""`select` counts blocks that are fewer than it may choose: a graph for every such count."""


@pytest.mark.slow
@pytest.mark.parametrize(
    "program", [p for p in EXAMPLES if p.stem not in CHOOSERS], ids=lambda p: p.stem
)
def test_examples_at_any_length(program: Path) -> None:
    check_lengths(loaded(program, LONGER))


@pytest.mark.parametrize("program", GOLDEN, ids=lambda p: p.stem)
def test_golden_programs(program: Path) -> None:
    check(loaded(program))


@pytest.mark.slow
@pytest.mark.parametrize("program", EXAMPLES, ids=lambda p: p.stem)
def test_examples(program: Path) -> None:
    check(loaded(program, SMALL))


@pytest.mark.slow
def test_inductor() -> None:
    """One real run of the default backend."""
    model = loaded(ROOT / "tests" / "golden" / "attention.star")
    tokens = torch.randint(32, (2, 37))
    with quiet():
        logits = torch.compile(model, fullgraph=True)(tokens)
    torch.testing.assert_close(logits, model(tokens), rtol=1e-4, atol=1e-5)
