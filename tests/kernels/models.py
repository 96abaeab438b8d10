"""Runs whole models through their Triton bodies, interpreted, and holds them against the oracle.

    models.py SIZES EXAMPLE...

SIZES is JSON: settings of `starc.compiler.resize.resize`. The process must have
TRITON_INTERPRET=1. For every example it prints findings and times as JSON. Findings are empty when
logits, the gradient of every parameter and the logits of single steps with a cache are those of
float64, and when every kernel that the file holds was launched on the way.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from triton.runtime import interpreter

from starc.compiler.driver import compile_program
from starc.compiler.options import Options
from starc.compiler.resize import resize
from starc.grammar.library import read_source
from starc.runtime.interpreter import correct_interpreter, permute_programs
from starc.runtime.loader import load
from starc.runtime.reference import evaluate, random_parameters
from tests.numerics import agreement

EXAMPLES = Path(__file__).parents[2] / "examples"
PIECES = (37, 1, 1, 2, 1)
"""How a sequence is read with a cache: a text, then single tokens, and a few at once between."""

LENGTHS = (1, 70)
"""One token, and more than a chunk or a block of queries, with a ragged end."""


def for_this_processor(text: str) -> str:
    """A generated file whose kernels serve CPU tensors: the conditions for them, which all name
    KERNELS, and the device that launches are registered for."""
    lines = [
        re.sub(r"\b[\w.]+\.is_cuda\b", "True", line) if "KERNELS" in line else line
        for line in text.split("\n")
    ]
    changed = "\n".join(lines)
    assert 'op.register_kernel("cuda", ' in changed
    return changed.replace('op.register_kernel("cuda", ', 'op.register_kernel("cpu", ')


@contextmanager
def launches() -> Iterator[set[str]]:
    """Names of the kernels that are launched within it."""
    names: set[str] = set()
    original = interpreter.GridExecutor.__call__

    def called(self: Any, *arguments: Any, **options: Any) -> Any:
        names.add(self.fn.__name__)
        return original(self, *arguments, **options)

    with mock.patch.object(interpreter.GridExecutor, "__call__", called):
        yield names


def built(example: str, sizes: dict[str, int]) -> tuple[agreement.Compiled, set[str]]:
    """The example at those sizes, and the kernels that its file holds."""
    source = resize(read_source(EXAMPLES / f"{example}.star"), Options(), **sizes)
    kernels = compile_program(source, Options(format=False)).kernels
    named = {launch.kernel for plan in kernels for launch in plan.launches("fp32", 0)}

    def loaded(text: str) -> Any:
        return load(for_this_processor(text))

    with mock.patch.object(agreement, "load", loaded):
        return agreement.build(source.text), named


def check_steps(compiled: agreement.Compiled) -> None:
    """Logits of a text that is read in pieces with a cache are those of the oracle."""
    parameters = random_parameters(compiled.model, 0)
    parameters = {n: p.float().double() for n, p in parameters.items()}
    network: Any = compiled.network(parameters, torch.float32)
    tokens = compiled.tokens(sum(PIECES))
    expected = evaluate(compiled.model, parameters, tokens)
    with torch.no_grad():
        cache = network.init_cache(len(tokens), sum(PIECES))
        logits = torch.cat([network(x, cache) for x in tokens.split(PIECES, dim=1)], dim=1)
    error = float((logits.double() - expected).norm() / expected.norm())
    assert error < agreement.TOLERANCE[torch.float32][0], f"in pieces: relative error {error:.1e}"


def check(example: str, sizes: dict[str, int]) -> list[str]:
    findings: list[str] = []
    compiled, named = built(example, sizes)
    with launches() as launched:
        for what in (
            lambda: agreement.check_agreement(compiled, LENGTHS, torch.float32),
            lambda: check_steps(compiled),
        ):
            try:
                what()
            except AssertionError as failure:
                findings.append(f"{example}: {failure}")
    if not named:
        findings.append(f"{example}: holds no kernel")
    return findings + [f"{example}: {name} was not launched" for name in sorted(named - launched)]


def main() -> None:
    sizes, examples = json.loads(sys.argv[1]), sys.argv[2:]
    correct_interpreter()
    permute_programs(seed=0)
    device = SimpleNamespace(multi_processor_count=4, shared_memory_per_block_optin=0, major=9)
    with mock.patch.object(torch.cuda, "get_device_properties", return_value=device):
        found = {}
        for example in examples:
            start = time.process_time()
            findings = check(example, sizes)
            found[example] = {"findings": findings, "seconds": time.process_time() - start}
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
