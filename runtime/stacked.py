"""Several models of one architecture that take their steps together, as one program.

Owns: parameters stacked along a first axis of replicas, and the losses of all replicas under
`torch.vmap`, so that a linear map of each is one batched matrix product of all.
Refuses: clipping and the optimiser, which are a `SingleLearner`'s per replica, and choosing when
stacking pays (sweep.py).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from starc.grammar.errors import InternalError
from starc.runtime.checkpoint import Tensors
from starc.runtime.course import not_finite
from starc.runtime.data import IGNORED, Data, Score, Tokens
from starc.runtime.learner import Batch, SingleLearner, on_device, score_logits
from starc.runtime.precision import autocast
from starc.runtime.run import Run, Settings

Build = Callable[[nn.Module, Settings, torch.device], SingleLearner]
"""Makes the learner of one model."""


class StackedLearner:
    """Replicas whose settings differ in learning rate, weight decay and seed.

    Every replica is a `SingleLearner` whose weights lie in the stack: the stack computes all
    gradients at once, and each replica clips them, steps and is saved as it would be alone. Batches
    are the same for all, (B, T), or (B, replicas, T) where each has its own.

    Raises whatever `torch.vmap` does, in the first step, for a program that cannot be mapped, such
    as one that draws random numbers while it learns.
    """

    def __init__(
        self,
        models: Sequence[nn.Module],
        settings: Sequence[Settings],
        device: torch.device,
        build: Build = SingleLearner,
    ) -> None:
        if any(shared_settings(s) != shared_settings(settings[0]) for s in settings):
            raise InternalError("stacked replicas differ in more than rates, decays and seeds")
        self.device, self.precision = device, settings[0].precision
        self.learners = [
            build(model, own, device) for model, own in zip(models, settings, strict=True)
        ]
        self._running = list(range(len(self.learners)))
        self._stack()

    @property
    def replicas(self) -> int:
        return len(self.learners)

    def retire(self, replica: int) -> None:
        """Take a replica out of the stack: it keeps its weights, and the others no longer pay."""
        if replica in self._running:
            self._running.remove(replica)
            self._stack()

    def take(self, batches: Sequence[Batch], step: int) -> list[tuple[float, float]]:
        figures = [(math.nan, math.nan)] * self.replicas
        if not self._running:
            return figures
        counts = np.stack([_scored(targets, self.replicas) for _, targets in batches])
        running = counts[:, self._running]
        # Cross-entropy over no target is no number, and a singular system raises for all replicas:
        # rare, and then each goes on alone.
        found = self._take(batches, step, running) if running.all() else None
        for place, i in enumerate(self._running):
            if found is not None:
                figures[i] = found[place]
            else:
                own = [tuple(_of_replica(x, i) for x in batch) for batch in batches]
                (figures[i],) = self.learners[i].take(own, step)  # type: ignore[arg-type]
        return figures

    def _take(
        self, batches: Sequence[Batch], step: int, counts: np.ndarray
    ) -> list[tuple[float, float]] | None:
        learners = [self.learners[i] for i in self._running]
        for value in self._weights.values():
            value.grad = None
        shares = torch.from_numpy(counts / counts.sum(0)).to(self.device, torch.float32)
        totals: Tensor | None = None
        try:
            for batch, share in zip(batches, shares, strict=True):
                losses = self._map(self._loss, *batch)
                if len(batches) > 1:
                    losses = losses * share
                losses.sum().backward()  # type: ignore[no-untyped-call]
                totals = losses.detach() if totals is None else totals + losses.detach()
        except torch.linalg.LinAlgError:  # type: ignore[attr-defined]
            return None
        assert totals is not None
        for place, learner in enumerate(learners):
            for name, parameter in learner.model.named_parameters():
                slopes = self._weights[name].grad
                parameter.grad = None if slopes is None else slopes[place]
        norms = torch.stack([learner.clip().to(totals.dtype) for learner in learners])
        table = torch.stack((totals, norms), dim=1).tolist()  # waits for the device
        figures = [(loss, norm) for loss, norm in table]
        for learner, (loss, norm) in zip(learners, figures, strict=True):
            if not not_finite(loss, norm):
                learner.move(step)
        return figures

    @torch.no_grad()
    def evaluate(self, tokens: Tokens, targets: Tokens) -> list[Score]:
        scores = [Score()] * self.replicas
        if not self._running:
            return scores
        self._skeleton.eval()
        try:
            logits = self._map(self._logits, tokens)
        finally:
            self._skeleton.train()
        expected = on_device(targets, self.device)
        for place, i in enumerate(self._running):
            scores[i] = score_logits(logits[place], expected)
        return scores

    def save(self) -> tuple[Tensors, Tensors]:
        """The tensors of all replicas: those of replica i begin with `i/`."""
        saved: tuple[Tensors, Tensors] = ({}, {})
        for i, learner in enumerate(self.learners):
            for all_of, own in zip(saved, learner.save(), strict=True):
                all_of.update({f"{i}/{name}": value for name, value in own.items()})
        return saved

    def restore(self, weights: Tensors, slots: Tensors, path: Path) -> None:
        for i, learner in enumerate(self.learners):
            own = [
                {n.removeprefix(f"{i}/"): v for n, v in all_of.items() if n.startswith(f"{i}/")}
                for all_of in (weights, slots)
            ]
            learner.restore(own[0], own[1], path)

    def _stack(self) -> None:
        """Lay the weights of running replicas into one tensor each, of which theirs are views."""
        models = [self.learners[i].model for i in self._running]
        self._weights: Tensors = {}
        self._constants: Tensors = {}
        if not models:
            return
        self._skeleton = models[0]
        self._places = places(self._skeleton)
        for name, parameter in self._skeleton.named_parameters():
            own = [model.get_parameter(name) for model in models]
            stacked = torch.stack([p.detach() for p in own]).requires_grad_(parameter.requires_grad)
            for p, view in zip(own, stacked.detach(), strict=True):
                p.data = view
            self._weights[name] = stacked
        for name, buffer in self._skeleton.named_buffers():
            buffers = [model.get_buffer(name) for model in models]
            # Buffers are constants of the program; those that a seed decides are stacked too.
            if all(torch.equal(buffer, other) for other in buffers):
                self._constants[name] = buffer
            else:
                self._weights[name] = torch.stack(buffers)

    def _map(self, of_one: Callable[..., Tensor], *arrays: Tokens) -> Tensor:
        """What `of_one(weights, *tensors)` gives for each replica, (replicas, ...)."""
        if arrays[0].ndim == 3 and len(self._running) < self.replicas:
            arrays = tuple(array[:, self._running] for array in arrays)
        inputs = [on_device(array, self.device) for array in arrays]
        axes = (0, *(1 if x.ndim == 3 else None for x in inputs))
        with _quiet(), autocast(self.device, self.precision):
            mapped: Tensor = vmap(of_one, in_dims=axes)(self._weights, *inputs)
        return mapped

    def _loss(self, weights: Tensors, tokens: Tensor, targets: Tensor) -> Tensor:
        return self._call(_Loss(self._skeleton), weights, "model.", tokens, targets)

    def _logits(self, weights: Tensors, tokens: Tensor) -> Tensor:
        return self._call(self._skeleton, weights, "", tokens)

    def _call(self, part: nn.Module, weights: Tensors, prefix: str, *inputs: Tensor) -> Tensor:
        state = {**self._constants, **weights}
        given = {prefix + place: state[name] for place, name in self._places.items()}
        found: Tensor = functional_call(part, given, inputs, tie_weights=False)
        return found


class _Loss(nn.Module):
    """The loss of a model as a forward pass, which is what `functional_call` calls."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor, targets: Tensor) -> Tensor:
        loss: Tensor = self.model.loss(tokens, targets)  # type: ignore[operator]
        return loss


def stack_runs(
    runs: Sequence[Run], data: Data, device: torch.device, build: Build = SingleLearner
) -> StackedLearner:
    """The models of runs as they begin, stacked. Sets the random state."""
    models: list[nn.Module] = []
    for run in runs:
        torch.manual_seed(run.settings.seed)
        models.append(data.adapt(run.module().Model()))
    return StackedLearner(models, [run.settings for run in runs], device, build)


def shared_settings(settings: Settings) -> Settings:
    """What replicas of one stack have in common."""
    return replace(settings, learning_rate=0.0, weight_decay=0.0, seed=0)


def places(model: nn.Module) -> dict[str, str]:
    """Where the parameters and buffers of a model stand, each place with the first name of it.

    A tied weight stands in several modules, and a module may stand in several others: its own
    place counts once. `functional_call(model, ..., tie_weights=False)` with a tensor for every
    place leaves the model as it was; tying by itself, it would not.
    """
    first: dict[int, str] = {}
    found: dict[str, str] = {}
    for path, module in model.named_modules():
        for own in (module._parameters, module._buffers):
            for name, tensor in own.items():
                if tensor is not None:
                    place = f"{path}.{name}" if path else name
                    found[place] = first.setdefault(id(tensor), place)
    return found


def _scored(targets: Tokens, replicas: int) -> np.ndarray:
    """How many targets of a batch each replica learns from, (replicas,)."""
    if targets.ndim == 3:
        return np.asarray(np.count_nonzero(targets != IGNORED, axis=(0, 2)))
    return np.full(replicas, np.count_nonzero(targets != IGNORED))


def _of_replica(array: Tokens, replica: int) -> Tokens:
    return array[:, replica] if array.ndim == 3 else array


@contextmanager
def _quiet() -> Iterator[None]:
    """Without a warning for operators that PyTorch maps one replica after the other."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="There is a performance drop")
        yield
