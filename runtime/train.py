"""The trainer: one run from its first step, or from its newest checkpoint, to its last.

Owns: the optimiser, the schedule, precision, validation, metrics and when to save.
Refuses: showing progress (it reports to an observer), signals (it asks `should_stop`), and raising
because a model diverged: that is a result.

AdamW (Loshchilov and Hutter, arXiv 1711.05101) with linear warm-up and cosine decay to a tenth of
the peak, gradients clipped by their norm. Batches depend on the seed and the step alone, so that a
run cut anywhere and resumed takes the same steps, on one CPU to the bit.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from starc.grammar.errors import Diagnostic, StarError
from starc.runtime import checkpoint
from starc.runtime.corpus import VOCAB, Corpus
from starc.runtime.files import write_atomic
from starc.runtime.loader import Generated
from starc.runtime.run import Run, Settings

FINAL_RATE = 0.1
"""The learning rate at the last step, as a share of its peak."""

PRECISIONS = ("auto", "fp32", "bf16")

_LN2 = math.log(2.0)

_RANDOM = "<random>"
"""Stands where a parameter's name stands in a checkpoint; no parameter can be called so."""


@dataclass(frozen=True)
class Progress:
    """The state after `step` steps.

    `loss` is in nats per token, `validation_bits`, once known, in bits per byte.
    """

    step: int
    steps: int
    loss: float
    learning_rate: float
    tokens_per_second: float
    validation_bits: float | None


@dataclass(frozen=True)
class Result:
    """How a call of `train` ended.

    `diverged` means that step `step + 1` gave a loss or a gradient that is not finite (`reason`
    says which); the weights are those after `step` steps. `seconds` counts this call only.
    """

    status: Literal["finished", "interrupted", "diverged"]
    step: int
    loss: float
    validation_bits: float | None
    seconds: float
    reason: str = ""


def recommended_settings(
    module: Generated,
    data: str,
    steps: int,
    *,
    batch: int | None = None,
    length: int | None = None,
    learning_rate: float | None = None,
    seed: int = 0,
    device: str = "auto",
    precision: str = "auto",
) -> Settings:
    """Settings for a program, with what is not given chosen for it.

    Length: the context, 512 at most. Batch: 4,096 tokens a step. Learning rate: 8e-4 at width 768,
    falling with the square root of the width. Precision "auto" times a step of both kinds on the
    device. Raises StarError for a model that cannot read bytes, a length beyond its context, or a
    device that is not there.
    """
    config = module.CONFIG
    if config["vocab"] < VOCAB:
        raise _error(
            "vocab-too-small",
            f"'{config['name']}' has a vocabulary of {config['vocab']}, but text is read as bytes.",
            f"set vocab = {VOCAB} in the model, or give --set vocab={VOCAB}.",
        )
    if not config.get("causal", True):
        raise _error(
            "causality",
            f"'{config['name']}' sees later tokens: it cannot learn to predict them.",
            "a language model has 'causal = true'; this one encodes a text.",
        )
    if precision not in PRECISIONS:
        raise _error(
            "bad-precision",
            f"there is no precision '{precision}'.",
            f"give {', '.join(PRECISIONS[:-1])} or {PRECISIONS[-1]}.",
        )
    if learning_rate is not None and not 0 < learning_rate < math.inf:
        raise _error(
            "bad-learning-rate",
            f"the learning rate {learning_rate} is not a positive number.",
            "leave --lr out for a rate that fits the width.",
        )
    length = length or min(config["context"], 512)
    if length > config["context"]:
        raise _error(
            "length-beyond-context",
            f"the length {length:,} is beyond the model's context of {config['context']:,}.",
            f"give --length {config['context']} or less.",
        )
    batch = batch or max(1, 4096 // length)
    place = pick_device(device)
    if precision == "auto":
        precision = _fastest_precision(module, place, batch, length)
    return Settings(
        data=data,
        steps=steps,
        batch=batch,
        length=length,
        learning_rate=learning_rate or 8e-4 * math.sqrt(768 / config["width"]),
        warmup=max(1, min(500, steps // 10)),
        seed=seed,
        device=str(place),
        precision=precision,
        validate_every=max(1, min(500, -(-steps // 10))),
        validation_tokens=max(length, min(65_536, steps * batch * length // 32)),
    )


def train(
    run: Run,
    corpus: Corpus,
    *,
    observe: Callable[[Progress], None] = lambda progress: None,
    should_stop: Callable[[], bool] = lambda: False,
    save_seconds: float = 60.0,
    save_steps: int | None = None,
) -> Result:
    """Train a run to its last step, or until `should_stop()`, going on from its newest checkpoint.

    Saves every `save_seconds` (and every `save_steps` steps), and at the end in any case. Raises
    StarError for data that changed, a damaged checkpoint, or too little memory; OSError when the
    folder cannot be written.
    """
    if corpus.digest != run.data_digest:
        raise _error(
            "data-changed",
            f"'{corpus.name}' is not the text that the run in '{run.folder}' began with.",
            "bring the old text back, or begin a new run.",
        )
    place = pick_device(run.settings.device)
    devices = [place] if place.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), _memory_errors():
        torch.manual_seed(run.settings.seed)
        return _Training(run, corpus, place).go(observe, should_stop, save_seconds, save_steps)


class _Training:
    """One call of `train`: the model, the optimiser and what has been seen so far."""

    def __init__(self, run: Run, corpus: Corpus, device: torch.device) -> None:
        self.run, self.corpus, self.device, self.settings = run, corpus, device, run.settings
        self.model = run.module().Model().to(device)
        self.optimizer = _optimizer(self.model, self.settings)
        self.step = 0
        self.loss = math.nan
        self.validation_bits: float | None = None
        path = checkpoint.latest(run.checkpoints)
        if path is not None:
            self._restore(path)
        _cut_metrics(run, self.step)

    def go(
        self,
        observe: Callable[[Progress], None],
        should_stop: Callable[[], bool],
        save_seconds: float,
        save_steps: int | None,
    ) -> Result:
        settings = self.settings
        began = saved = time.monotonic()
        saved_step = self.step
        status: Literal["finished", "interrupted", "diverged"] = "finished"
        reason = ""
        self.model.train()
        with self.run.metrics_path.open("a") as metrics:
            for step in range(self.step + 1, settings.steps + 1):
                if should_stop():
                    status = "interrupted"
                    break
                started = time.monotonic()
                loss, norm = self._take(step)
                reason = _not_finite(loss, norm)
                if reason:
                    status = "diverged"
                    _record(metrics, {"step": step, "status": status, "reason": reason})
                    break
                self.step, self.loss = step, loss
                rate = settings.batch * settings.length / (time.monotonic() - started)
                _record(
                    metrics,
                    {
                        "step": step,
                        "loss": loss,
                        "learning_rate": learning_rate(settings, step),
                        "gradient_norm": norm,
                        "tokens_per_second": round(rate),
                    },
                )
                if step % settings.validate_every == 0 or step == settings.steps:
                    self.validation_bits = self.validate()
                    _record(metrics, {"step": step, "validation_bits": self.validation_bits})
                now = time.monotonic()
                if now - saved >= save_seconds or (save_steps and step % save_steps == 0):
                    self._save()
                    saved, saved_step = now, step
                observe(
                    Progress(
                        step,
                        settings.steps,
                        loss,
                        learning_rate(settings, step),
                        rate,
                        self.validation_bits,
                    )
                )
        if saved_step != self.step or self.step == 0:
            self._save()
        seconds = time.monotonic() - began
        return Result(status, self.step, self.loss, self.validation_bits, seconds, reason)

    def _take(self, step: int) -> tuple[float, float]:
        """Loss and gradient norm of a step, which is not taken unless both are finite."""
        settings = self.settings
        tokens, targets = self.corpus.batch(
            step, batch=settings.batch, length=settings.length, seed=settings.seed
        )
        with self._autocast():
            loss = self._loss(tokens, targets)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = float(nn.utils.clip_grad_norm_(self.model.parameters(), settings.clip))
        value = float(loss.detach())
        if not _not_finite(value, norm):
            for group in self.optimizer.param_groups:
                group["lr"] = learning_rate(settings, step)
            self.optimizer.step()
        return value, norm

    @torch.no_grad()
    def validate(self) -> float:
        """Bits per byte of evenly spread windows of the validation part."""
        settings = self.settings
        limit = max(1, settings.validation_tokens // settings.length)
        tokens, targets = self.corpus.held_out("validation", length=settings.length, limit=limit)
        self.model.eval()
        total = 0.0
        for first in range(0, len(tokens), settings.batch):
            part = slice(first, first + settings.batch)
            with self._autocast():
                loss = self._loss(tokens[part], targets[part])
            total += float(loss) * len(tokens[part])
        self.model.train()
        return total / len(tokens) / _LN2

    def _loss(self, tokens: Any, targets: Any) -> Tensor:
        moved = (torch.from_numpy(array).to(self.device) for array in (tokens, targets))
        loss: Tensor = self.model.loss(*moved)  # type: ignore[operator]
        return loss

    def _autocast(self) -> AbstractContextManager[Any]:
        return _autocast(self.device, self.settings.precision)

    def _save(self) -> None:
        slots = {
            f"{name}/{slot}": value.detach().contiguous()
            for name, parameter in self.model.named_parameters()
            for slot, value in self.optimizer.state[parameter].items()
        }
        slots[_RANDOM + "/cpu"] = torch.get_rng_state()
        if self.device.type == "cuda":
            slots[_RANDOM + "/cuda"] = torch.cuda.get_rng_state(self.device)
        state = {"loss": self.loss if self.step else None, "validation_bits": self.validation_bits}
        weights = checkpoint.weights_of(self.model)
        checkpoint.save(
            self.run.checkpoints, checkpoint.Checkpoint(self.step, weights, slots, state)
        )

    def _restore(self, path: Any) -> None:
        stored = checkpoint.load(path, self.device)
        checkpoint.restore_weights(self.model, stored.weights, path)
        parameters = dict(self.model.named_parameters())
        for key, value in stored.optimizer.items():
            name, _, slot = key.rpartition("/")
            if name == _RANDOM:
                continue
            if name not in parameters:
                raise checkpoint.damaged(path, f"'{name}' is no parameter of model.py")
            # Fused AdamW wants its step counter in float32 on the parameter's device, as it was
            # saved.
            self.optimizer.state[parameters[name]][slot] = value
        random = stored.optimizer.get(_RANDOM + "/cpu")
        if random is None:
            raise checkpoint.damaged(path, "the random state is missing")
        torch.set_rng_state(random.cpu())
        if self.device.type == "cuda" and _RANDOM + "/cuda" in stored.optimizer:
            torch.cuda.set_rng_state(stored.optimizer[_RANDOM + "/cuda"].cpu(), self.device)
        self.step = stored.step
        loss = stored.state.get("loss")
        self.loss = math.nan if loss is None else loss
        self.validation_bits = stored.state.get("validation_bits")


def learning_rate(settings: Settings, step: int) -> float:
    """The learning rate of step `step`, counted from 1: linear warm-up, then half a cosine."""
    if step <= settings.warmup:
        return settings.learning_rate * step / settings.warmup
    done = (step - settings.warmup) / max(1, settings.steps - settings.warmup)
    cosine = 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))
    return settings.learning_rate * (FINAL_RATE + (1 - FINAL_RATE) * cosine)


def _optimizer(model: nn.Module, settings: Settings) -> torch.optim.Optimizer:
    """AdamW that decays the matrices of maps, and leaves the rest alone.

    The rest: embeddings, norms, biases, and constants that a program declares itself, such as the
    logarithm of a decay, for which zero is no natural value.
    """
    decayed: list[nn.Parameter] = []
    free: list[nn.Parameter] = []
    seen: set[int] = set()
    for module in model.modules():
        matrices = not isinstance(module, nn.Embedding) and "Norm" not in type(module).__name__
        for name, parameter in module.named_parameters(recurse=False):
            if id(parameter) in seen:
                continue
            seen.add(id(parameter))
            decays = matrices and name.startswith("weight") and parameter.ndim >= 2
            (decayed if decays else free).append(parameter)
    groups = [
        {"params": decayed, "weight_decay": settings.weight_decay},
        {"params": free, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=settings.learning_rate, betas=(0.9, 0.95), fused=True)


def _fastest_precision(module: Generated, device: torch.device, batch: int, length: int) -> str:
    """ "bf16" if a training step under autocast is faster here than one in float32, and finite."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), _memory_errors():
        torch.manual_seed(0)
        model = module.Model().to(device)
        tokens = torch.randint(module.CONFIG["vocab"], (batch, length), device=device)
        best = {"fp32": math.inf, "bf16": math.inf}
        for turn in range(3):
            for precision in best:
                seconds = _time_step(model, tokens, device, precision)
                if turn > 0:  # the first turn pays for allocation and code generation
                    best[precision] = min(best[precision], seconds)
    return "bf16" if best["bf16"] < best["fp32"] else "fp32"


def _time_step(model: nn.Module, tokens: Tensor, device: torch.device, precision: str) -> float:
    started = time.perf_counter()
    with _autocast(device, precision):
        loss: Tensor = model.loss(tokens, tokens)  # type: ignore[operator]
    loss.backward()  # type: ignore[no-untyped-call]
    model.zero_grad(set_to_none=True)
    finite = math.isfinite(float(loss.detach()))  # this waits for the device
    return time.perf_counter() - started if finite else math.inf


def _autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()


def pick_device(name: str) -> torch.device:
    """The device called `name`; "auto" is a GPU if there is one. StarError if it cannot be used."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        if device.type == "meta":
            raise RuntimeError("it computes nothing")
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise _error(
            "no-device",
            f"the device '{name}' cannot be used: {reason}.",
            "--device cpu always works.",
        ) from error
    return device


@contextmanager
def _memory_errors() -> Iterator[None]:
    """Turn what torch raises for want of memory into a diagnostic."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        # Only the GPU allocators have an exception of their own; the CPU's raises a plain
        # RuntimeError.
        text = str(error)
        if isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate" in text:
            raise _error(
                "out-of-memory",
                "the device has too little memory for a training step.",
                "give a smaller --batch or --length.",
            ) from error
        raise


def _not_finite(loss: float, norm: float) -> str:
    if not math.isfinite(loss):
        return f"the loss is {loss}"
    return "" if math.isfinite(norm) else f"the gradient norm is {norm}"


def _record(metrics: Any, entry: dict[str, Any]) -> None:
    metrics.write(json.dumps(entry) + "\n")
    metrics.flush()


def _cut_metrics(run: Run, step: int) -> None:
    """Drop lines of steps after the checkpoint: they will be taken again."""
    if not run.metrics_path.exists():
        return
    kept = []
    for line in run.metrics_path.read_bytes().splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue  # the line that a killed process was writing
        if entry.get("step", 0) <= step and "status" not in entry:
            kept.append(line)
    write_atomic(run.metrics_path, b"".join(line + b"\n" for line in kept))


def _error(code: str, message: str, hint: str) -> StarError:
    return StarError(Diagnostic(code, message, hint=hint))
