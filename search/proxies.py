"""Zero-cost proxies: figures of a program at its initial values, after a few backward passes.

    grad_norm   the norm of the gradient of the loss, sum over parameters of |g|_2, mean of the
                batches (Abdelfattah et al. 2021, arXiv 2101.08134)
    synflow     log of the sum of |w dR/dw| where every parameter is its absolute value and R is the
                sum of the logits of one sequence (Tanaka et al. 2020, arXiv 2006.05467). Unlike
                there, norms stay, without which these models overflow, and the input is the tokens'
                own vectors, as a norm makes nothing of an input of ones
    zico        sum over parameter tensors of log(sum of E|g| / sqrt(Var |g|)) over the batches (Li
                et al. 2023, arXiv 2301.11300); entries whose gradient never varies do not count

All are thought of as larger being better; docs/search.md says how well each ranks programs. They
follow from the program, the text and the seed alone.

Two evaluators are made of them. `proxies` gives them and trains nothing. `screened` is `lm` with
one rung more, the lowest, on which quality is minus one of them: halving then trains only the most
promising. Its figures have the proxies on every rung, so that they can be objectives, too.

Owns: the proxies, and these evaluators. Refuses: training (lm.py).
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from starc.compiler.driver import compile_program
from starc.compiler.options import Options
from starc.grammar.errors import Diagnostic, StarError
from starc.grammar.source import Source
from starc.runtime.data import Data
from starc.runtime.device import memory_errors
from starc.runtime.loader import load, unload
from starc.search import lm
from starc.search.objectives import Objective

NAMES = ("grad_norm", "synflow", "zico")

Batch = tuple[Tensor, Tensor]


def proxies(model: nn.Module, batches: Sequence[Batch]) -> dict[str, float]:
    """All proxies of a model at its present values, on at least two batches (tokens and targets,
    both (B, T) int64). The model's parameters are as before, without gradients."""
    if len(batches) < 2:
        raise ValueError("a variance needs two batches")
    gradients = [_gradients(model, batch) for batch in batches]
    return {
        "grad_norm": grad_norm(gradients),
        "synflow": synflow(model, batches[0][0]),
        "zico": zico(gradients),
    }


def grad_norm(gradients: Sequence[Sequence[Tensor]]) -> float:
    """Of the gradients of each batch, one tensor per parameter."""
    norms = [sum(float(g.double().norm()) for g in batch) for batch in gradients]
    return sum(norms) / len(norms)


def zico(gradients: Sequence[Sequence[Tensor]]) -> float:
    """Of the gradients of each batch, one tensor per parameter."""
    total = 0.0
    for of_parameter in zip(*gradients, strict=True):
        sizes = torch.stack([g.double().abs() for g in of_parameter])
        spread = sizes.std(dim=0, correction=0)
        ratio = torch.where(spread > 0, sizes.mean(dim=0) / spread.clamp_min(1e-300), 0.0).sum()
        if ratio > 0:
            total += math.log(float(ratio))
    return total


def synflow(model: nn.Module, tokens: Tensor) -> float:
    """In double precision, of the first sequence of `tokens` (B, T)."""
    parameters = list(model.parameters())
    kept = [p.detach().clone() for p in parameters]
    buffers = {name: b.detach().clone() for name, b in model.named_buffers()}
    try:
        model.double()
        with torch.no_grad():
            for p in parameters:
                p.abs_()
        model.zero_grad(set_to_none=True)
        model(tokens[:1]).sum().backward()
        flow = sum(
            float((p.detach() * p.grad).abs().sum()) for p in parameters if p.grad is not None
        )
    finally:
        model.to(kept[0].dtype if kept else torch.float32)
        with torch.no_grad():
            for p, value in zip(parameters, kept, strict=True):
                p.copy_(value)
            for name, b in model.named_buffers():
                b.copy_(buffers[name])
        model.zero_grad(set_to_none=True)
    return math.log(flow) if flow > 0 else -math.inf


def _gradients(model: nn.Module, batch: Batch) -> list[Tensor]:
    """Of the loss, for every parameter that is learned."""
    model.zero_grad(set_to_none=True)
    loss: Tensor = model.loss(*batch)  # type: ignore[operator]
    loss.backward()  # type: ignore[no-untyped-call]
    found = [
        torch.zeros_like(p) if p.grad is None else p.grad.detach().clone()
        for p in model.parameters()
        if p.requires_grad
    ]
    model.zero_grad(set_to_none=True)
    return found


def of_program(
    text: str, data: Data, *, batches: int, batch: int, length: int, seed: int
) -> dict[str, float]:
    """The proxies of a program's text, at the initial values that the seed draws.

    Raises StarError for a program that cannot be compiled or needs too much memory.
    """
    module = load(compile_program(Source("<program>", text), Options(format=False)).text)
    try:
        with torch.random.fork_rng(devices=[]), memory_errors():
            torch.manual_seed(seed)
            drawn = [
                data.batch(step, batch=batch, length=length, seed=seed)
                for step in range(1, batches + 1)
            ]
            pairs = [(torch.from_numpy(x), torch.from_numpy(y)) for x, y in drawn]
            return proxies(data.adapt(module.Model()), pairs)
    finally:
        unload(module)


@dataclass(frozen=True)
class Proxies:
    """See the module. `proxy` is the one that quality is, `training` what the upper rungs are."""

    data: str
    data_digest: str
    proxy: str
    batches: int
    batch: int
    length: int
    training: lm.LanguageModel | None = None

    figures: tuple[str, ...] | None = ("quality", "loss", "train_loss", *NAMES)

    @property
    def name(self) -> str:
        return "proxies" if self.training is None else "screened"

    @property
    def quality(self) -> Objective:
        if self.training is None:
            return Objective("quality", -1, self.proxy)
        return self.training.quality

    @property
    def rungs(self) -> int:
        return 1 if self.training is None else 1 + self.training.rungs

    def tokens(self, rung: int) -> float:
        """Those of the proxies' batches, and of training."""
        own = float(self.batches * self.batch * self.length)
        return own + (self.training.tokens(rung - 1) if self.training and rung else 0.0)

    def describe(self) -> dict[str, Any]:
        """The whole recipe."""
        return {**asdict(self), "version": 1}

    def evaluate(self, text: str, *, seed: int, rung: int, folder: Path) -> dict[str, float]:
        """The proxies, and behind the lowest rung of `screened` the figures of a training."""
        torch.set_num_threads(self.training.threads if self.training else 1)
        found = of_program(
            text,
            lm.opened(self.data),
            batches=self.batches,
            batch=self.batch,
            length=self.length,
            seed=seed,
        )
        if self.training is None:
            return {"quality": found[self.proxy], **found}
        if rung == 0:
            return {"quality": -found[self.proxy], **found}
        trained = self.training.evaluate(text, seed=seed, rung=rung - 1, folder=folder)
        return {**found, **trained}

    def probe(self, text: str, *, seed: int, folder: Path) -> dict[str, float]:
        """Seconds of a full evaluation: those of the training, which is all but everything."""
        if self.training is not None:
            return self.training.probe(text, seed=seed, folder=folder)
        began = time.monotonic()
        self.evaluate(text, seed=seed, rung=0, folder=folder)
        return {"seconds": time.monotonic() - began}


def make(
    data: str = "stdlib", proxy: str = "zico", batches: int = 4, batch: int = 8, length: int = 64
) -> Proxies:
    """The evaluator `proxies`; raises StarError for wrong options."""
    _check(proxy, batches, batch, length)
    opened = lm.opened(data)
    opened.batch(1, batch=1, length=length, seed=0)  # a text that is too short is said now
    return Proxies(data, opened.digest, proxy, batches, batch, length)


def make_screened(
    data: str = "stdlib",
    proxy: str = "zico",
    batches: int = 4,
    tokens: int = 200_000,
    rungs: int = 1,
    factor: int = 4,
    batch: int = 16,
    length: int = 128,
    lr: float = 0.0,
    warmup: int = 0,
    validation: int = 32_768,
    device: str = "cpu",
    precision: str = "fp32",
    threads: int = 1,
) -> Proxies:
    """The evaluator `screened`: `rungs` are those of the training, above that of the proxies."""
    _check(proxy, batches, batch, length)
    training = lm.make(
        data=data,
        tokens=tokens,
        rungs=rungs,
        factor=factor,
        batch=batch,
        length=length,
        lr=lr,
        warmup=warmup,
        validation=validation,
        device=device,
        precision=precision,
        threads=threads,
    )
    return Proxies(data, training.data_digest, proxy, batches, batch, length, training)


def _check(proxy: str, batches: int, batch: int, length: int) -> None:
    if proxy not in NAMES:
        raise _error(f"'proxy' is one of {', '.join(NAMES)}, and not {proxy!r}.")
    for name, value, least in (("batches", batches, 2), ("batch", batch, 1), ("length", length, 1)):
        if not isinstance(value, int) or value < least:
            raise _error(f"'{name}' is a whole number of at least {least}, and not {value!r}.")


def _error(message: str) -> StarError:
    return StarError(Diagnostic("bad-evaluator-option", message))
