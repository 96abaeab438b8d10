"""The course of one training: what it has come to, and whether it goes on.

Owns: the statuses of a training, divergence and early stopping.
Refuses: taking steps. A course sees numbers only, so that replicas trained together have one each.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, Protocol

from starc.runtime.data import Score

Status = Literal["running", "finished", "interrupted", "diverged", "stopped-early"]

SMOOTHING = 0.9
"""What a step's loss is averaged with before it is called high: single batches are noisy."""


class Limits(Protocol):
    """The settings that end a training before its last step; 0 is never.

    `stop_accuracy` is a held-out accuracy that is enough; `patience` is how many evaluations in a
    row may fail to lower the held-out loss; a training whose smoothed loss stays `divergence` nats
    above its lowest for `divergence_steps` steps in a row has diverged.
    """

    @property
    def stop_accuracy(self) -> float: ...

    @property
    def patience(self) -> int: ...

    @property
    def divergence(self) -> float: ...

    @property
    def divergence_steps(self) -> int: ...


@dataclass
class Course:
    """One training so far.

    `step` counts the steps taken, `loss` (nats per scored token) and `norm` (of the gradient,
    before clipping) are the last one's, `score` is the newest held-out score. `reason` says why a
    course diverged or stopped early, with the step.
    """

    status: Status = "running"
    reason: str = ""
    step: int = 0
    loss: float = math.nan
    norm: float = math.nan
    score: Score | None = None
    # Sums of exponential means, the lowest mean, and for how many steps it has been far above.
    smoothed: float = 0.0
    weight: float = 0.0
    lowest: float = math.inf
    above: int = 0
    # The lowest held-out loss, and how many evaluations have not lowered it.
    best: float = math.inf
    stale: int = 0

    @property
    def running(self) -> bool:
        return self.status == "running"

    def took(self, step: int, loss: float, norm: float, limits: Limits) -> None:
        """Note a step. One whose loss or gradient is not finite was not taken, and is the end."""
        fault = not_finite(loss, norm)
        if fault:
            self._end("diverged", step, fault)
            return
        self.step, self.loss, self.norm = step, loss, norm
        self.weight = SMOOTHING * self.weight + 1 - SMOOTHING
        self.smoothed += (1 - SMOOTHING) * (loss - self.smoothed)
        mean = self.smoothed / self.weight
        self.lowest = min(self.lowest, mean)
        high = limits.divergence > 0 and mean > self.lowest + limits.divergence
        self.above = self.above + 1 if high else 0
        if high and self.above >= limits.divergence_steps:
            self._end(
                "diverged",
                step,
                f"the loss is about {mean:.3g}, and was {self.lowest:.3g} before",
            )

    def judged(self, score: Score, limits: Limits) -> None:
        """Note a held-out score."""
        self.score = score
        if not self.running:
            return
        if limits.stop_accuracy and score.accuracy >= limits.stop_accuracy:
            self._end("stopped-early", self.step, f"the accuracy is {score.accuracy:.4f}")
            return
        self.stale = 0 if score.loss < self.best else self.stale + 1
        self.best = min(self.best, score.loss)
        if limits.patience and self.stale >= limits.patience:
            text = f"the held-out loss has not fallen in {self.stale} evaluations"
            self._end("stopped-early", self.step, text)

    def _end(self, status: Status, step: int, reason: str) -> None:
        self.status, self.reason = status, f"at step {step:,}, {reason}"

    def state(self) -> dict[str, Any]:
        """Everything, fit for JSON; `of_state` is the way back.

        A course that was cut or ran out of steps is still running, should it get more.
        """
        status = "running" if self.status in ("interrupted", "finished") else self.status
        return {**asdict(self), "status": status}

    @classmethod
    def of_state(cls, state: dict[str, Any], step: int) -> Course:
        """The course that `state` describes after `step` steps, also where an older version wrote
        less of it; TypeError for what is none."""
        known = {name: state[name] for name in (f.name for f in fields(cls)) if name in state}
        known["loss"] = math.nan if known.get("loss") is None else known["loss"]
        if known.get("score") is not None:
            known["score"] = Score(**known["score"])
        return cls(**{**known, "step": step})


def not_finite(loss: float, norm: float) -> str:
    """What is not finite, in words; empty when both are."""
    if not math.isfinite(loss):
        return f"the loss is {loss}"
    return "" if math.isfinite(norm) else f"the gradient norm is {norm}"
