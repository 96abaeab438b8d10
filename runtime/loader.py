"""Generated modules, from file or text to a Python module.

Owns: importing generated code, once per content, from a real file (Triton reads the source of its
kernels there).
Refuses: code that does not offer what generated modules offer.
"""

from __future__ import annotations

import atexit
import hashlib
import shutil
import sys
import tempfile
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol, cast

import torch

from starc.grammar.errors import Diagnostic, StarError


class Generated(Protocol):
    """What every generated module offers."""

    SOURCE: str
    DIGEST: str
    CONFIG: dict[str, Any]
    Model: type[torch.nn.Module]


_OFFERED = ("Model", "SOURCE", "DIGEST", "CONFIG")


def load(module: Path | str) -> Generated:
    """Import a generated module: a `Path` is the file, a `str` is the text.

    The same content is imported once in a process, whatever its path: its kernels register under
    names that carry its digest. Raises StarError when the file cannot be read or is no generated
    module.
    """
    if isinstance(module, str):
        content, shown = module.encode(), "<text>"
    else:
        shown = str(module)
        try:
            content = module.read_bytes()
        except OSError as error:
            reason = error.strerror or str(error)
            raise _refusal("cannot-read", f"cannot read '{shown}': {reason}.") from error
    known = sys.modules.get(_module_name(content))
    if known is None:
        path = module if isinstance(module, Path) else _scratch_file(content)
        known = _import(content, path.resolve(), shown)
    return cast(Generated, known)


def unload(module: Generated) -> None:
    """Forget a module, so that a process that loads thousands does not keep them all."""
    sys.modules.pop(cast(Any, module).__name__, None)


def _import(content: bytes, path: Path, shown: str) -> Any:
    name = _module_name(content)
    module = ModuleType(name)
    module.__file__ = str(path)
    sys.modules[name] = module  # Triton and torch.compile look a function's module up by name
    try:
        exec(compile(content, path, "exec"), module.__dict__)
        missing = [offer for offer in _OFFERED if not hasattr(module, offer)]
        if missing:
            raise AttributeError(f"it has no {', '.join(missing)}")
    except Exception as error:  # whatever a damaged or foreign file may raise
        del sys.modules[name]
        reason = f"{type(error).__name__}: {error}"
        raise _refusal("not-a-module", f"'{shown}' cannot be imported: {reason}.") from error
    return module


def _module_name(content: bytes) -> str:
    return "starc_generated_" + hashlib.sha256(content).hexdigest()[:16]


def _scratch_file(content: bytes) -> Path:
    path = _scratch_folder() / f"{_module_name(content)}.py"
    path.write_bytes(content)
    return path


@cache
def _scratch_folder() -> Path:
    """A folder of this process for the files of texts, removed at exit."""
    folder = tempfile.mkdtemp(prefix="starc-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def _refusal(code: str, message: str) -> StarError:
    return StarError(Diagnostic(code, message, hint="give a file that 'starc compile' wrote."))
