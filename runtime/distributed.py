"""A learner over several processes: each takes its share of every batch.

Owns: sharing batches and losses among processes that a launcher started, and one set of weights of
them all. Refuses: starting processes (`accelerate launch` and `torchrun` do), and the step itself.

The gradient is that of the whole batch, whatever the number of processes, so that a run of several
goes the way of one up to rounding, and either goes on where the other stopped. Weights are on every
device (DDP), or sharded where the launcher asks for FSDP; accelerate reads that from its
configuration. On processors it reads it and shards nothing, so there this module does.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from starc.grammar.errors import Diagnostic, StarError
from starc.runtime import checkpoint
from starc.runtime.checkpoint import Tensors
from starc.runtime.course import not_finite
from starc.runtime.data import IGNORED, Score, Tokens
from starc.runtime.learner import Batch, on_device, score_logits
from starc.runtime.optim import parameter_groups
from starc.runtime.precision import autocast
from starc.runtime.run import Settings
from starc.runtime.schedule import rate_share


class DistributedLearner:
    """One model whose batches are shared among processes, as `Learner` says.

    All processes call the same methods with the same arguments. `leads` is true in one of them,
    which keeps the records. Raises StarError without accelerate, outside of a launcher, or for a
    version of FSDP that has no parameters to name.
    """

    replicas = 1

    def __init__(self, model: nn.Module, settings: Settings, device: torch.device) -> None:
        self.settings, self.model = settings, model.train()
        self.accelerator = accelerator(device.type == "cpu")
        self.device: torch.device = self.accelerator.device
        self.rank, self.world = self.accelerator.process_index, self.accelerator.num_processes
        self.leads = bool(self.accelerator.is_main_process)
        model.to(self.device)
        self._whole: Any = _Whole(model)
        shards = _shards_itself(self.accelerator)
        if shards:
            _shard(self._whole, self.world)
        groups = parameter_groups(
            model,
            learning_rate=settings.learning_rate,
            weight_decay=settings.weight_decay,
            base_width=settings.base_width,
        )
        self._peaks = [float(group["lr"]) for group in groups]
        self.optimizer: torch.optim.Optimizer = torch.optim.AdamW(
            groups, betas=(0.9, 0.95), fused=True
        )
        if not shards:
            self._whole, prepared = self.accelerator.prepare(self._whole, self.optimizer)
            self.optimizer = prepared.optimizer

    def take(self, batches: Sequence[Batch], step: int) -> list[tuple[float, float]]:
        self.optimizer.zero_grad(set_to_none=True)
        total = self._backward(batches)
        clip = self.settings.clip or math.inf
        norm = self.accelerator.clip_grad_norm_(self._whole.parameters(), clip)
        loss, size = float(self.accelerator.reduce(total, "sum")), float(_full(norm))
        if not not_finite(loss, size):
            share = rate_share(self.settings, step)
            for group, peak in zip(self.optimizer.param_groups, self._peaks, strict=True):
                group["lr"] = peak * share
            self.optimizer.step()
        return [(loss, size)]

    def _backward(self, batches: Sequence[Batch]) -> Tensor:
        """This process's part of the loss; the gradients are those of all processes.

        A process weighs what it scores by its share of all scored tokens, times the number of
        processes because their gradients are averaged. One that has nothing to score computes a
        row for nothing: all must take part when gradients meet.
        """
        counts = [int(np.count_nonzero(targets != IGNORED)) for _, targets in batches]
        if not any(counts):
            raise _error("nothing-scored", "a batch has no target to learn from.")
        total = torch.zeros((), device=self.device)
        for i, (tokens, targets) in enumerate(batches):
            tokens, targets = self._share(tokens), self._share(targets)
            own = int(np.count_nonzero(targets != IGNORED))
            weight = own / sum(counts)
            if not own:
                tokens = targets = batches[i][0][:1]
            last = i == len(batches) - 1
            meet: AbstractContextManager[Any] = nullcontext()
            if hasattr(self._whole, "set_requires_gradient_sync"):
                self._whole.set_requires_gradient_sync(last)
            elif not last:
                meet = self.accelerator.no_sync(self._whole)
            with meet:
                with autocast(self.device, self.settings.precision):
                    loss = self._whole(
                        on_device(tokens, self.device), on_device(targets, self.device)
                    )
                self.accelerator.backward(loss * (weight * self.world))
            total += loss.detach().to(total.dtype) * weight
        return total

    def evaluate(self, tokens: Tokens, targets: Tokens) -> list[Score]:
        own, wanted = self._share(tokens), self._share(targets)
        if not len(own):
            own, wanted = tokens[:1], np.full_like(targets[:1], IGNORED)
        self._whole.eval()
        with torch.no_grad(), autocast(self.device, self.settings.precision):
            logits = self._whole(on_device(own, self.device))
        self._whole.train()
        score = score_logits(logits, on_device(wanted, self.device))
        sums = (score.nats, score.correct, score.scored, score.macro, score.examples)
        parts = torch.tensor(sums, dtype=torch.float64, device=self.device)
        nats, correct, scored, macro, examples = self.accelerator.reduce(parts, "sum").tolist()
        return [Score(nats, int(correct), int(scored), macro, int(examples))]

    def agree(self, yes: bool) -> bool:
        """Whether any process says yes; all must ask."""
        said = torch.tensor(float(yes), device=self.device)
        return bool(self.accelerator.reduce(said, "sum") > 0)

    def save(self) -> tuple[Tensors, Tensors]:
        weights = {name: _full(value) for name, value in checkpoint.weights_of(self.model).items()}
        slots = {
            f"{name}/{slot}": _full(value.detach()).contiguous()
            for name, parameter in self.model.named_parameters()
            for slot, value in self.optimizer.state[parameter].items()
        }
        return weights, slots

    def restore(self, weights: Tensors, slots: Tensors, path: Path) -> None:
        own = checkpoint.weights_of(self.model)
        shared = {n: _like(own[n], value) if n in own else value for n, value in weights.items()}
        checkpoint.restore_weights(self.model, shared, path)
        parameters = dict(self.model.named_parameters())
        for key, value in slots.items():
            name, _, slot = key.rpartition("/")
            if name not in parameters:
                raise checkpoint.damaged(path, f"'{name}' is no parameter of model.py")
            held = value.to(self.device)
            if held.shape == parameters[name].shape:
                held = _like(parameters[name], held)
            self.optimizer.state[parameters[name]][slot] = held

    def _share(self, rows: Tokens) -> Tokens:
        """The rows of this process, as even as can be; none where there are too few."""
        own: Tokens = np.array_split(rows, self.world)[self.rank]
        return own


class _Whole(nn.Module):
    """A model by its call alone, which is where processes meet: the loss, or logits without
    targets."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor, targets: Tensor | None = None) -> Tensor:
        if targets is None:
            logits: Tensor = self.model(tokens)
            return logits
        loss: Tensor = self.model.loss(tokens, targets)  # type: ignore[operator]
        return loss


def accelerator(cpu: bool) -> Any:
    """The processes that a launcher started, through accelerate; the same on every call."""
    try:
        from accelerate import Accelerator
    except ImportError as error:
        raise _error(
            "missing-extra",
            "training in several processes needs the package 'accelerate', which is not installed.",
            "pip install 'starc[distributed]'.",
        ) from error
    if "WORLD_SIZE" not in os.environ:
        raise _error(
            "not-launched",
            "this is one process that no launcher started.",
            "torchrun --nproc_per_node 2 -m starc.cli train --distributed ...",
        )
    made = Accelerator(cpu=cpu)
    plugin = getattr(made.state, "fsdp_plugin", None)
    version = plugin.fsdp_version if plugin else int(os.environ.get("FSDP_VERSION", "2"))
    if version != 2:
        raise _error(
            "bad-sharding",
            "the first version of FSDP joins parameters that learn at different rates.",
            "set fsdp_version: 2 in accelerate's configuration.",
        )
    return made


def _shards_itself(made: Any) -> bool:
    """Whether weights are to be sharded on processors, where accelerate asks for it in vain."""
    return (
        made.device.type == "cpu"
        and getattr(made.state, "fsdp_plugin", None) is None
        and (os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true")
    )


def _shard(whole: nn.Module, world: int) -> None:
    """Shard all weights over the processes, by the second version of FSDP."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    fully_shard(whole, mesh=init_device_mesh("cpu", (world,)))


def _full(value: Tensor) -> Tensor:
    """A tensor that lies whole in one place; gathered, where it is sharded."""
    whole: Tensor = value.full_tensor() if hasattr(value, "full_tensor") else value
    return whole


def _like(parameter: Tensor, value: Tensor) -> Tensor:
    """A whole tensor, sharded as a parameter is."""
    if not hasattr(parameter, "full_tensor"):
        return value
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(value, parameter.device_mesh, parameter.placements)  # type: ignore[attr-defined]


def _error(code: str, message: str, hint: str = "") -> StarError:
    return StarError(Diagnostic(code, message, hint=hint))
