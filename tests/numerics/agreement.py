"""A generated module beside the oracle: the same weights, tokens and loss for both.

Owns: how parameters of the program reach the (possibly stacked) parameters of the generated module,
and the tolerances, one table by dtype. Refuses: which programs are compared.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from starc.compiler import ir
from starc.compiler.driver import compile_program
from starc.compiler.inventory import model_parameters, unfused_names
from starc.compiler.options import Options
from starc.grammar.source import Source
from starc.runtime.loader import Generated, load
from starc.runtime.reference import evaluate, random_parameters

BATCH = 2

TOLERANCE = {
    torch.float64: (1e-10, 1e-8, 1e-6),
    torch.float32: (1e-4, 1e-3, 1e-3),
    torch.bfloat16: (5e-2, 2e-1, 1e-2),
}
"""dtype: greatest error of the logits and of a gradient, each relative to its norm, and the norm
below which a gradient is rounding, relative to the largest (its error is then relative to that)."""

_STORED = {torch.bfloat16: torch.float32}


@dataclass(frozen=True)
class Compiled:
    """A program: its IR after `share` (for the oracle), its final IR and its generated module."""

    text: str
    model: ir.Model
    final: ir.Model
    module: Generated

    def lengths(self, *wanted: int) -> list[int]:
        """Those of the wanted lengths that the model's context holds."""
        return [n for n in wanted if n <= self.model.context]

    def tokens(self, length: int) -> Tensor:
        generator = torch.Generator().manual_seed(length)
        return torch.randint(0, self.model.vocab, (BATCH, length), generator=generator)

    def network(self, parameters: Mapping[str, Tensor], dtype: torch.dtype) -> nn.Module:
        """The generated module with the given parameters of the program."""
        network = self.module.Model().to(dtype).eval()  # noise of routers is for training
        own = dict(network.named_parameters()) | dict(network.named_buffers())
        stacks = unfused_names(self.final)
        with torch.no_grad():
            for name in model_parameters(self.final):
                parts = [part for part, _ in stacks.get(name, ((name, 0),))]
                own[name].copy_(torch.cat([parameters[part] for part in parts]))
        return network


def build(text: str, **overrides: int) -> Compiled:
    """Compile a program, some of its settings overridden, and load what was generated."""
    stages: dict[str, ir.Model] = {}

    def watch(name: str, model: ir.Model) -> None:
        stages[name] = stages["last"] = model

    settings = tuple((name, str(value)) for name, value in overrides.items())
    options = Options(overrides=settings, format=False)
    artifact = compile_program(Source("test.star", text), options, watch)
    return Compiled(text, stages["share"], stages["last"], load(artifact.text))


def gradients(logits: Tensor, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The gradient of a fixed random reading of the logits, by name; zero where nothing depends."""
    generator = torch.Generator().manual_seed(0)
    reading = torch.randn(logits.shape, generator=generator, dtype=torch.float64)
    found = torch.autograd.grad(
        (logits * reading.to(logits.dtype)).sum(),
        list(parameters.values()),
        allow_unused=True,
        materialize_grads=True,
    )
    return dict(zip(parameters, found, strict=True))


def check_agreement(
    compiled: Compiled, lengths: Iterable[int], dtype: torch.dtype = torch.float64, seed: int = 0
) -> None:
    """Logits and the gradient of every parameter agree with the oracle at every length.

    bfloat16 means autocast: parameters are float32.
    """
    learned = {n for n, p in model_parameters(compiled.model).items() if p.learned}
    parameters = random_parameters(compiled.model, seed)
    parameters = {n: p.to(_STORED.get(dtype, dtype)).double() for n, p in parameters.items()}
    leaves = {n: p.requires_grad_() for n, p in parameters.items() if n in learned}
    network = compiled.network(parameters, _STORED.get(dtype, dtype))
    own = dict(network.named_parameters())
    stacks = unfused_names(compiled.final)
    for length in lengths:
        tokens = compiled.tokens(length)
        expected = evaluate(compiled.model, parameters, tokens)
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            logits = network(tokens)
        assert logits.dtype == dtype
        for_logits, for_gradients, floor = TOLERANCE[dtype]
        where = f"at length {length}"
        _close(logits, expected, for_logits, _norm(expected), f"logits {where}")
        wanted = gradients(expected, leaves)
        largest = max(map(_norm, wanted.values()))
        for name, gradient in gradients(logits, own).items():
            parts = [part for part, _ in stacks.get(name, ((name, 0),))]
            oracle = torch.cat([wanted[part] for part in parts])
            scale = max(_norm(oracle), floor * largest)
            _close(gradient, oracle, for_gradients, scale, f"gradient of {name} {where}")


def _norm(x: Tensor) -> float:
    return float(x.detach().norm())


def _close(actual: Tensor, expected: Tensor, tolerance: float, scale: float, what: str) -> None:
    assert actual.shape == expected.shape, what
    assert actual.isfinite().all(), f"{what}: not finite"
    error = _norm(actual.double() - expected) / (scale or 1.0)
    assert error <= tolerance, f"{what}: relative error {error:.1e} > {tolerance:.0e}"
