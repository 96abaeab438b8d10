"""What surrounds a search on the machine: a lock on its folder, versions, the device.

Owns: that one driver writes to a run at a time, and what is noted of where it ran. Refuses: the
store.
"""

from __future__ import annotations

import fcntl
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

from starc import __version__
from starc.grammar.errors import Diagnostic, StarError
from starc.search.evaluators import Evaluator

_PACKAGES = ("torch", "numpy", "pymoo")


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """The folder is this driver's; raises StarError when another has it. A killed one has not."""
    with open(folder / "lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise StarError(
                Diagnostic(
                    "run-busy",
                    f"another process works on the search in '{folder}'.",
                    hint="wait for it, or end it; 'starc watch' shows how far it is.",
                )
            ) from error
        yield


def versions() -> dict[str, str]:
    """Of starc, Python and the packages that decide results, as far as they are installed."""
    found = {"starc": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def device(evaluator: Evaluator) -> str:
    """Where evaluations run, in words."""
    own = str(evaluator.describe().get("device", "cpu"))
    return f"{own}, {platform.machine()} with {os.cpu_count()} cores"


def data_digest(evaluator: Evaluator) -> str:
    """The digest of the data that an evaluator trains on; empty where it has none."""
    return str(evaluator.describe().get("data_digest", ""))
