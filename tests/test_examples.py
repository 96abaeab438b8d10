"""The programs that are shipped: examples and the standard library.

Every example compiles clean at its own size, and at a small size runs, trains and agrees with the
oracle. Search spaces are refused for their holes and have fillings.
"""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest
import torch

import starc.grammar.std
from starc.compiler.driver import check_program, compile_program, resolve_source, run_passes
from starc.compiler.inventory import model_parameters, tied, unfused_names
from starc.compiler.ir import Model
from starc.compiler.options import Options
from starc.compiler.passes.share import share
from starc.grammar.errors import StarError
from starc.grammar.library import read_source
from starc.grammar.nodes import Operator
from starc.grammar.parser import parse
from starc.grammar.printer import format_program
from starc.grammar.source import Source
from starc.runtime.loader import load
from starc.runtime.reference import evaluate, random_parameters
from starc.search.sampling import draw
from starc.search.space import open_space

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.star"))
SPACES = sorted((ROOT / "examples" / "searches").glob("*.star"))
LIBRARY = sorted(Path(starc.grammar.std.__path__[0]).glob("*.star"))
SMALL = Options(overrides=(("vocab", "53"), ("width", "64"), ("context", "48")), format=False)


def named(paths: list[Path]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("path", [pytest.param(p, id=p.stem) for p in paths])


@named(EXAMPLES)
def test_example_is_clean_at_its_own_size(path: Path) -> None:
    assert check_program(read_source(path), Options()) == ()


@named(EXAMPLES + SPACES + LIBRARY)
def test_text_is_formatted(path: Path) -> None:
    source = read_source(path)
    assert format_program(parse(source)) == source.text


@pytest.mark.slow  # tests/numerics/test_agreement.py has the examples at a smaller context
@named(EXAMPLES)
def test_example_agrees_with_the_oracle(path: Path) -> None:
    """Logits and the gradient of every parameter, in float64, every repeat done once."""
    source = read_source(path)
    source = Source(source.name, re.sub(r"repeat \d+", "repeat 1", source.text))
    resolved, _ = resolve_source(source, SMALL)
    module = load(compile_program(source, SMALL).text)
    parameters = random_parameters(share(resolved), seed=1)
    tokens = torch.randint(0, 53, (2, 19), generator=torch.Generator().manual_seed(2))

    leaves = {name: value.requires_grad_() for name, value in parameters.items()}
    expected = evaluate(share(resolved), leaves, tokens)
    expected.square().mean().backward()

    model = module.Model().double().eval()  # without the noise of training
    fused = run_passes(resolved)
    model.load_state_dict(stacked(fused, parameters), strict=True)
    logits = model(tokens)
    torch.testing.assert_close(logits, expected, rtol=1e-6, atol=1e-8)
    logits.square().mean().backward()
    gradients = stacked(fused, {n: p.grad for n, p in leaves.items() if p.grad is not None})
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name], rtol=1e-5, atol=1e-9, msg=name)


def stacked(fused: Model, parameters: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Parameters by the names of the generated module: rows of fused projections joined."""
    joined = unfused_names(fused)
    found = {}
    for name in (*model_parameters(fused), *tied(fused)):
        own = tied(fused).get(name, name)
        parts = [part for part, _ in joined.get(own, ((own, 0),))]
        if all(part in parameters for part in parts):
            found[name] = torch.cat([parameters[p].detach() for p in parts])
    return found


@named(SPACES)
def test_a_space_lists_its_holes_and_fills_them(path: Path) -> None:
    source = read_source(path)
    with pytest.raises(StarError) as refused:
        check_program(source, Options())
    assert {d.code for d in refused.value.diagnostics} == {"hole-left"}
    drawn = draw(open_space(source, Options()), random.Random(1))
    assert check_program(Source(source.name, drawn.text), Options()) == ()


ARGUMENTS = {
    "differential": "heads = 4",
    "forgetting": "heads = 4",
    "sparse": "heads = 4, groups = 2, block = 8, stride = 4, size = 4, top = 4",
    "latent": "heads = 2",
    "mha": "heads = 2",
    "gqa": "heads = 4, groups = 2",
    "mqa": "heads = 2",
    "sliding": "heads = 2, window = 5",
    "sigmoid_attention": "heads = 2",
    "grouped_hyena": "heads = 4",
    "linear": "heads = 2",
    "based": "heads = 2, feature = 4",
    "hedgehog_attention": "heads = 2",
    "retention": "heads = 2",
    "gla": "heads = 2",
    "deltanet": "heads = 2",
    "gated_deltanet": "heads = 2",
    "kda": "heads = 2",
    "deltaproduct": "heads = 2",
    "rwkv6": "heads = 2",
    "rwkv7_first": "heads = 2",
    "rwkv7": "heads = 2, first = rwkv7_first.V",
    "hgrn2": "heads = 2, lower = layer / depth",
    "mamba2": "state = 8, head = 32, groups = 2",
    "memory": "keys = 6, top = 4, key = 16",
    "memory_plus": "keys = 6, top = 4, key = 16",
}


@named(LIBRARY)
def test_every_operator_of_the_library_trains(path: Path) -> None:
    """One step from its own initial values leaves a finite loss and moves every parameter."""
    source = read_source(path)
    names = [d.name for d in parse(source).declarations if isinstance(d, Operator)]
    uses = "\n".join(f"use std.{path.stem}.{name}" for name in names)
    units = "  ".join(f"{name}: {name}({ARGUMENTS.get(name, '')})" for name in names)
    text = f"{uses}\nmodel m {{ vocab = 53  width = 64  context = 48  backbone {{ {units} }} }}"
    torch.manual_seed(0)
    model = load(compile_program(Source("<test>", text), Options(format=False)).text).Model()
    tokens = torch.randint(0, 53, (2, 30))
    loss = model.loss(tokens[:, :-1], tokens[:, 1:])
    loss.backward()
    assert abs(loss.item() - 4.0) < 1.0  # log 53, and little more
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name
