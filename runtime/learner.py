"""What takes optimiser steps: a model, or several of one shape at once.

Owns: the step (loss, gradient, clipping, AdamW), precision, scoring held-out examples, and the
tensors of a checkpoint.
Refuses: the loop over steps, schedules, files.

AdamW: Loshchilov and Hutter, arXiv 1711.05101.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from starc.grammar.errors import Diagnostic, StarError
from starc.runtime import checkpoint
from starc.runtime.checkpoint import Tensors
from starc.runtime.course import not_finite
from starc.runtime.data import IGNORED, Data, Score, Split, Tokens
from starc.runtime.optim import parameter_groups
from starc.runtime.precision import autocast
from starc.runtime.run import Settings
from starc.runtime.schedule import rate_share

Batch = tuple[Tokens, Tokens]
"""Tokens and targets, both (B, T)."""


class Learner(Protocol):
    """Replicas of one architecture that see the same batches and differ in what else they like."""

    @property
    def replicas(self) -> int: ...

    def take(self, batches: Sequence[Batch], step: int) -> list[tuple[float, float]]:
        """Take step `step`, counted from 1, on micro-batches as if they were one batch.

        Returns the loss (nats per scored token of all of them) and the gradient norm of each
        replica; one for which either is not finite has not moved.
        """
        ...

    def evaluate(self, tokens: Tokens, targets: Tokens) -> list[Score]:
        """The score of each replica on a batch, both (B, T); nothing is learnt."""
        ...

    def save(self) -> tuple[Tensors, Tensors]:
        """Weights by name, and the optimiser's slots as `<parameter>/<slot>`."""
        ...

    def restore(self, weights: Tensors, slots: Tensors, path: Path) -> None:
        """Take back what `save` gave; StarError that names `path` when it does not fit."""
        ...


class SingleLearner:
    """One model under fused AdamW."""

    replicas = 1

    def __init__(self, model: nn.Module, settings: Settings, device: torch.device) -> None:
        self.model = model.to(device).train()
        self.settings, self.device = settings, device
        groups = parameter_groups(
            self.model,
            learning_rate=settings.learning_rate,
            weight_decay=settings.weight_decay,
            base_width=settings.base_width,
        )
        self.optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.95), fused=True)
        self._peaks = [float(group["lr"]) for group in self.optimizer.param_groups]
        self._parameters = [p for group in self.optimizer.param_groups for p in group["params"]]

    def take(self, batches: Sequence[Batch], step: int) -> list[tuple[float, float]]:
        self.optimizer.zero_grad(set_to_none=True)
        try:
            total = self._backward(batches)
        except torch.linalg.LinAlgError:  # type: ignore[attr-defined]  # singular by weights
            return [(math.nan, math.nan)]
        norm = self.clip()
        loss, size = torch.stack((total, norm.to(total.dtype))).tolist()  # waits for the device
        if not not_finite(loss, size):
            self.move(step)
        return [(loss, size)]

    def clip(self) -> Tensor:
        """Scale the gradients down to the norm that the settings allow; their norm before."""
        return nn.utils.clip_grad_norm_(self._parameters, self.settings.clip or math.inf)

    def move(self, step: int) -> None:
        """Move along the gradients, at the rate of step `step`."""
        share = rate_share(self.settings, step)
        for group, peak in zip(self.optimizer.param_groups, self._peaks, strict=True):
            group["lr"] = peak * share
        self.optimizer.step()

    def _backward(self, batches: Sequence[Batch]) -> Tensor:
        """Add the gradients of the mean loss over all scored tokens; that loss, on the device.

        Each micro-batch weighs as many tokens as it scores, so that the sum is what one batch of
        all would give.
        """
        counts = [int(np.count_nonzero(targets != IGNORED)) for _, targets in batches]
        if not any(counts):
            raise _error("nothing-scored", "a batch has no target to learn from.")
        total: Tensor | None = None
        for (tokens, targets), count in zip(batches, counts, strict=True):
            if not count:
                continue
            with autocast(self.device, self.settings.precision):
                loss: Tensor = self.model.loss(  # type: ignore[operator]
                    on_device(tokens, self.device), on_device(targets, self.device)
                )
            if len(batches) > 1:
                loss = loss * (count / sum(counts))
            loss.backward()  # type: ignore[no-untyped-call]
            total = loss.detach() if total is None else total + loss.detach()
        assert total is not None
        return total

    def evaluate(self, tokens: Tokens, targets: Tokens) -> list[Score]:
        return [score_batch(self.model, tokens, targets, self.device, self.settings.precision)]

    def save(self) -> tuple[Tensors, Tensors]:
        slots = {
            f"{name}/{slot}": value.detach().contiguous()
            for name, parameter in self.model.named_parameters()
            for slot, value in self.optimizer.state[parameter].items()
        }
        return checkpoint.weights_of(self.model), slots

    def restore(self, weights: Tensors, slots: Tensors, path: Path) -> None:
        checkpoint.restore_weights(self.model, weights, path)
        parameters = dict(self.model.named_parameters())
        for key, value in slots.items():
            name, _, slot = key.rpartition("/")
            if name not in parameters:
                raise checkpoint.damaged(path, f"'{name}' is no parameter of model.py")
            # Fused AdamW wants its step counter in float32 on the parameter's device, as it was
            # saved.
            self.optimizer.state[parameters[name]][slot] = value


def on_device(array: Tokens, device: torch.device) -> Tensor:
    """An array as a tensor; on the CPU they share their memory where the array may be written."""
    tensor = torch.from_numpy(np.require(array, requirements="W"))
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


@torch.no_grad()
def score_batch(
    model: nn.Module, tokens: Tokens, targets: Tokens, device: torch.device, precision: str = "fp32"
) -> Score:
    """The score of a model on a batch of tokens and targets, both (B, T); its mode is kept."""
    training = model.training
    model.eval()
    with autocast(device, precision):
        logits: Tensor = model(on_device(tokens, device))
    model.train(training)
    return score_logits(logits, on_device(targets, device))


def score_logits(logits: Tensor, targets: Tensor) -> Score:
    """The score of logits (B, T, V) for targets (B, T)."""
    nats = F.cross_entropy(
        logits.flatten(0, 1).float(), targets.flatten(), ignore_index=IGNORED, reduction="sum"
    )
    hits = (logits.argmax(-1) == targets).sum(1)
    counts = (targets != IGNORED).sum(1)
    shares = hits.double() / counts.clamp(min=1)
    sums = (nats, hits.sum(), counts.sum(), shares.sum(), (counts > 0).sum())
    total, correct, scored, macro, examples = torch.stack([s.double() for s in sums]).tolist()
    return Score(total, int(correct), int(scored), macro, int(examples))


def evaluate(
    model: nn.Module,
    data: Data,
    split: Split,
    *,
    length: int,
    limit: int,
    batch: int = 128,
    precision: str = "fp32",
) -> Score:
    """The score of a model on at most `limit` held-out examples, where the model is."""
    tokens, targets = data.held_out(split, length=length, limit=limit)
    device = next(model.parameters()).device
    parts = (slice(first, first + batch) for first in range(0, len(tokens), batch))
    scores = (score_batch(model, tokens[p], targets[p], device, precision) for p in parts)
    return sum(scores, Score())


def _error(code: str, message: str, hint: str = "") -> StarError:
    return StarError(Diagnostic(code, message, hint=hint))
