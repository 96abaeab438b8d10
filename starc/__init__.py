"""starc: from the mathematics of a sequence architecture to a PyTorch file that runs.

Owns: the public Python API, every name of it imported on first use, so that `import starc` costs
nothing and compiling never waits for torch.
Refuses: any work of its own.

    >>> import starc
    >>> artifact = starc.compile_text("use std.channel.swiglu  model m { ... }")
    >>> module = starc.load(artifact.text)
    >>> logits = module.Model()(tokens)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from starc.api import check_file, compile_file, compile_text
    from starc.compiler.driver import Artifact
    from starc.compiler.options import Options
    from starc.grammar.errors import Diagnostic, InternalError, StarError, render
    from starc.runtime.loader import load
    from starc.weights import import_checkpoint, load_weights

_HOME = {
    "Artifact": "starc.compiler.driver",
    "Diagnostic": "starc.grammar.errors",
    "InternalError": "starc.grammar.errors",
    "Options": "starc.compiler.options",
    "StarError": "starc.grammar.errors",
    "check_file": "starc.api",
    "compile_file": "starc.api",
    "compile_text": "starc.api",
    "import_checkpoint": "starc.weights",
    "load": "starc.runtime.loader",
    "load_weights": "starc.weights",
    "render": "starc.grammar.errors",
}

__all__ = [
    "Artifact",
    "Diagnostic",
    "InternalError",
    "Options",
    "StarError",
    "__version__",
    "check_file",
    "compile_file",
    "compile_text",
    "import_checkpoint",
    "load",
    "load_weights",
    "render",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'starc' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
