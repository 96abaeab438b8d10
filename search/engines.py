"""Engines by name, as the command line asks for them.

Owns: which there are. Refuses: how they work, and importing ray unless it is asked for.
"""

from __future__ import annotations

from dataclasses import dataclass

from starc.grammar.errors import Diagnostic, StarError, suggest
from starc.search.engine import Engine
from starc.search.local_engine import LocalEngine

ENGINES = ("local", "ray")


@dataclass(frozen=True)
class EngineRequest:
    """An engine by `name`; the others are of `ray`: see RayEngine. Processors and GPUs are those of
    one worker."""

    name: str = "local"
    address: str | None = None
    cpus: float = 1.0
    gpus: float = 0.0

    def checked(self) -> EngineRequest:
        """This request; raises StarError for one that says nothing sensible."""
        if self.name not in ENGINES:
            raise _error(
                "unknown-engine",
                f"there is no engine '{self.name}'.",
                suggest(self.name, ENGINES) or f"there are {', '.join(ENGINES)}.",
            )
        if self.name != "ray" and (self.address is not None or self.cpus != 1 or self.gpus):
            raise _error(
                "wrong-argument",
                f"the engine '{self.name}' has no cluster, and no shares of it.",
                "add --engine ray.",
            )
        if not (0 < self.cpus <= 4096 and 0 <= self.gpus <= 4096):
            raise _error(
                "wrong-argument", "a worker has more than no processor, and no negative GPUs."
            )
        return self


def make_engine(request: EngineRequest, workers: int | None, *, cores: int) -> Engine:
    """The engine asked for; without a number of workers one for each core here, or as many as the
    cluster has room for. Raises StarError where there is none."""
    request.checked()
    if request.name == "local":
        return LocalEngine(workers or cores)
    from starc.search.ray_engine import RayEngine

    return RayEngine(workers, address=request.address, cpus=request.cpus, gpus=request.gpus)


def _error(code: str, message: str, hint: str = "") -> StarError:
    return StarError(Diagnostic(code, message, hint=hint))
