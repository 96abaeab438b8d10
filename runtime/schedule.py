"""The learning rate of each step, as a share of its peak.

Owns: warm-up, the decays, and until which step a schedule has not yet looked at the budget.
Refuses: rates themselves, which differ between parameters and between replicas.

`cosine` decays over the whole budget, so it must be known from the start. `wsd` (warm-up, stable,
decay: arXiv 2404.06395) stays at the peak and decays only at the end, by 1 - sqrt of the share of
the decay that is done (arXiv 2405.18392); what it does before the decay is the same for any budget.
`constant` never decays.
"""

from __future__ import annotations

import math
from typing import Protocol

SCHEDULES = ("cosine", "wsd", "constant")

FINAL_SHARE = 0.1
"""Where the cosine ends."""


class Plan(Protocol):
    """The settings that a schedule reads.

    `decay_share` is the share of the budget that wsd decays over, and `decay_after` the step that
    the decay follows at the earliest, for a run that was given another budget midway.
    """

    @property
    def schedule(self) -> str: ...

    @property
    def steps(self) -> int: ...

    @property
    def warmup(self) -> int: ...

    @property
    def decay_share(self) -> float: ...

    @property
    def decay_after(self) -> int: ...


def rate_share(plan: Plan, step: int) -> float:
    """The share of the peak learning rate at step `step`, counted from 1."""
    if step <= plan.warmup:
        return step / plan.warmup
    if plan.schedule == "constant":
        return 1.0
    if plan.schedule == "wsd":
        first = stable_until(plan)
        if step <= first:
            return 1.0
        return 1.0 - math.sqrt((step - first) / (plan.steps - first + 1))
    done = (step - plan.warmup) / max(1, plan.steps - plan.warmup)
    cosine = 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))
    return FINAL_SHARE + (1 - FINAL_SHARE) * cosine


def stable_until(plan: Plan) -> int:
    """The last step whose course does not depend on the budget."""
    match plan.schedule:
        case "constant":
            return plan.steps
        case "wsd":
            decay = max(1, round(plan.decay_share * plan.steps))
            return min(plan.steps - 1, max(plan.decay_after, plan.steps - decay))
        case _:
            return 0
