"""What holds for every program: random ones over the whole catalog, and damaged ones.

The examples of the fast tests are the same in every run. `make test-slow` draws many more, new ones
each time; what it finds becomes a line of a table elsewhere (tests/numerics/test_agreement.py).
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, Phase, assume, given, note, settings
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from starc.compiler.catalog import ALGORITHMS, BACKBONE, ENTRIES, TRANSPOSED
from starc.compiler.cost import cost_report
from starc.compiler.digest import digest
from starc.compiler.driver import compile_program, resolve_source, run_passes
from starc.compiler.options import Options
from starc.grammar.errors import StarError, render
from starc.grammar.parser import parse
from starc.grammar.printer import format_program
from starc.grammar.source import Source
from starc.runtime.loader import unload
from starc.runtime.reference import random_parameters
from tests.numerics.agreement import Compiled, build, check_agreement
from tests.numerics.decoding import check_decoding
from tests.strategies.programs import programs

QUICK = Options(format=False)


def fast(examples: int) -> settings:
    """The same examples every time. A failure is shown as found: shrinking takes minutes."""
    return settings(
        max_examples=examples,
        derandomize=True,
        deadline=None,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )


def thorough(examples: int) -> settings:
    """New examples every time; a failure is shrunk."""
    phases = [Phase.explicit, Phase.generate, Phase.shrink]
    return settings(fast(examples), derandomize=False, phases=phases)


def source(text: str) -> Source:
    return Source("drawn.star", text)


def compiled(text: str) -> Compiled:
    note(text)
    return build(text)


@pytest.mark.slow
def test_random_programs_use_the_whole_catalog() -> None:
    seen = {
        value.op
        for text in sample(1000)
        for operator in resolve_source(source(text), QUICK)[0].operators
        for value in operator.values
    }
    assert seen == ENTRIES.keys() - {entry.op for entry in (*ALGORITHMS, *BACKBONE, *TRANSPOSED)}


# --- the front end -----------------------------------------------------------------------------


def meaning(text: str) -> str:
    """The digest of what a program says."""
    return digest(run_passes(resolve_source(source(text), QUICK)[0]))


def check_printing(text: str) -> None:
    note(text)
    program = parse(source(text))
    printed = format_program(program)
    again = parse(source(printed))
    assert again == program
    assert format_program(again) == printed
    assert meaning(printed) == meaning(text)


@fast(40)
@given(programs())
def test_printing(text: str) -> None:
    check_printing(text)


@pytest.mark.slow
@thorough(500)
@given(programs())
def test_printing_thoroughly(text: str) -> None:
    check_printing(text)


WORD = re.compile(r"[A-Za-z_0-9.]+|\s+|\|>|.", re.DOTALL)

SPLINTERS = (
    "", "|>", "(", ")", "{", "}", "=", "@", "?", "?[1, 2]", "..", ",", "-", "/ 0", "x", "y",
    "width", "1e99", "0", "1.5", "999999999999", "true", "none", "causal", "softmax", "dense(3)",
    "repeat 3", "merge", "heads(7)", "low_rank(x, x)", "toeplitz(x)", "shares * with a", '"',
    "reuses B from b0", '"""', "\x00", "\ud800", "é", "#", "use std.x.y", "operator", "model",
    "loop 2", "sqrt(-1)", "experts", "with residual = post", "parallel(gated) { }", "log(0)",
)  # fmt: skip


@st.composite
def damaged(draw: DrawFn) -> str:
    """A program with a few words dropped, doubled, exchanged or replaced."""
    words = WORD.findall(draw(programs(max_units=2)))
    for _ in range(draw(st.integers(1, 4))):
        i = draw(st.integers(0, len(words) - 1))
        j = draw(st.integers(0, len(words) - 1))
        match draw(st.integers(0, 5)):
            case 0:
                words[i] = ""
            case 1:
                words[i] += " " + words[i]
            case 2:
                words[i], words[j] = words[j], words[i]
            case 3:
                words[i] = draw(st.sampled_from(SPLINTERS))
            case 4:
                words[i] = words[j]
            case 5:
                del words[i:]
                words.append("")
    return "".join(words)


def check_damaged(text: str) -> None:
    note(text)
    try:
        artifact = compile_program(source(text), QUICK)
    except StarError as error:
        shown = render(error.diagnostics)
    else:
        compile(artifact.text, "generated", "exec")
        shown = render(artifact.warnings)
    assert shown.encode()


@fast(120)
@given(damaged())
def test_damaged_programs_are_compiled_or_refused(text: str) -> None:
    check_damaged(text)


@pytest.mark.slow
@thorough(2000)
@given(damaged())
def test_damaged_programs_are_compiled_or_refused_thoroughly(text: str) -> None:
    check_damaged(text)


# --- generated modules -------------------------------------------------------------------------


def largest_activation(model: torch.nn.Module, tokens: torch.Tensor) -> float:
    """The largest number that any part of the model puts out, computed in float64."""
    model, largest = copy.deepcopy(model).double(), [0.0]

    def watch(part: torch.nn.Module, inputs: object, output: object) -> None:
        outputs = output if isinstance(output, tuple) else (output,)
        largest.extend(float(value.abs().max()) for value in outputs)

    for part in model.modules():
        part.register_forward_hook(watch)
    with torch.no_grad():
        model(tokens)
    return max(largest)


def check_training(text: str) -> None:
    """A fresh module in float32 is finite and differentiable, and as large as its cost says."""
    program = compiled(text)
    torch.manual_seed(0)
    model: Any = program.module.Model()
    size = sum(p.numel() for p in model.parameters())
    assert cost_report(program.model).parameters == size
    assert program.module.CONFIG["parameters"] == size
    assert text == program.module.SOURCE
    length = min(70, program.model.context)
    tokens, targets = program.tokens(length), program.tokens(length).roll(-1, 1)
    assert model(tokens).shape == (*tokens.shape, program.model.vocab)
    # Units without residual or norm are polynomials of one another: they may leave float32 rightly.
    assume(largest_activation(model, tokens) < 1e6)
    loss = model.loss(tokens, targets)
    assert loss.shape == ()
    assert loss.isfinite()
    loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is None or parameter.grad.isfinite().all(), name
    unload(program.module)


def check_oracle(text: str) -> None:
    program = compiled(text)
    check_agreement(program, program.lengths(1, 2, 63, 130))
    unload(program.module)


def check_causality(text: str) -> None:
    """Logits before a token do not change with it, or with how many tokens follow."""
    program = compiled(text)
    model = program.network(random_parameters(program.model, 0), torch.float64)
    length = min(67, program.model.context)
    tokens = program.tokens(length)
    with torch.no_grad():
        logits = model(tokens)
        near = 1e-9 * logits.abs().max()
        for t in {0, 1, length // 2, length - 1} & set(range(length)):
            changed = tokens.clone()
            changed[:, t] = (changed[:, t] + 1) % program.model.vocab
            assert ((model(changed) - logits).abs()[:, :t] <= near).all()
            assert ((model(tokens[:, : t + 1]) - logits[:, : t + 1]).abs() <= near).all()
    unload(program.module)


def check_decodes(text: str) -> None:
    """Prefill, pieces and single steps give the logits of one forward pass, and the cache has the
    size that the cost report promises."""
    program = compiled(text)
    check_decoding(program, longest=70)
    unload(program.module)


@fast(16)
@given(programs())
def test_modules_train(text: str) -> None:
    check_training(text)


@fast(16)
@given(programs())
def test_modules_agree_with_the_oracle(text: str) -> None:
    check_oracle(text)


@fast(16)
@given(programs())
def test_modules_are_causal(text: str) -> None:
    check_causality(text)


@fast(16)
@given(programs())
def test_modules_decode_from_a_cache(text: str) -> None:
    check_decodes(text)


@pytest.mark.slow
@pytest.mark.parametrize("check", [check_training, check_oracle, check_causality, check_decodes])
def test_modules_thoroughly(check: Callable[[str], None]) -> None:
    thorough(200)(given(programs())(check))()


# --- determinism -------------------------------------------------------------------------------

COMPILE = """
import hashlib, json, sys
from starc.compiler.driver import compile_program
from starc.compiler.options import Options
from starc.grammar.source import Source

for text in json.load(sys.stdin):
    artifact = compile_program(Source("drawn.star", text), Options(format=False))
    print(artifact.digest, hashlib.sha256(artifact.text.encode()).hexdigest())
"""


def sample(count: int) -> list[str]:
    """The same few programs every time."""
    found: list[str] = []

    @fast(count)
    @given(programs())
    def collect(text: str) -> None:
        found.append(text)

    collect()
    return found


def test_the_hash_seed_changes_nothing() -> None:
    texts = sample(20)
    printed = []
    for seed in ("1", "2"):
        run = subprocess.run(
            [sys.executable, "-c", COMPILE],
            input=json.dumps(texts),
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        )
        printed.append(run.stdout)
    artifacts = [compile_program(source(text), QUICK) for text in texts]
    here = [f"{a.digest} {hashlib.sha256(a.text.encode()).hexdigest()}\n" for a in artifacts]
    assert printed == ["".join(here)] * 2
