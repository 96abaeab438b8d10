"""An engine without processes, for tests of what is done with outcomes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from starc.search.engine import Job, Outcome, carry_out


@dataclass
class InlineEngine:
    """Carries out a job whenever it is waited for; `change` may alter an outcome. `seen` are the
    jobs in the order in which they were carried out; `backwards` takes the newest first."""

    change: Callable[[Job, Outcome], Outcome] = lambda job, outcome: outcome
    backwards: bool = False
    capacity: int = 1
    waiting: deque[Job] = field(default_factory=deque)
    seen: list[Job] = field(default_factory=list)
    closed: bool = False

    def submit(self, job: Job) -> None:
        self.waiting.append(job)

    def wait(self, timeout: float) -> list[Outcome]:
        if not self.waiting:
            return []
        job = self.waiting.pop() if self.backwards else self.waiting.popleft()
        self.seen.append(job)
        return [self.change(job, carry_out(job, "inline"))]

    def cancel(self, key: str) -> None:
        self.waiting = deque(job for job in self.waiting if job.key != key)

    def close(self) -> None:
        self.closed = True
