"""`starc import`: weights of a checkpoint for a compiled program.

Owns: what the command asks for and writes. Refuses: the work itself (starc/weights.py).
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file

from starc.cli import complain, files
from starc.compiler.options import Options
from starc.grammar.errors import Diagnostic, StarError, render, suggest
from starc.grammar.library import read_source
from starc.runtime.importing import collapse, pattern
from starc.runtime.pretrained import open_pretrained
from starc.weights import import_checkpoint, parameters_of

FORMATS = ("transformers", "safetensors", "torch")
DTYPES = {"keep": None, "fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Request:
    """What `starc import` was asked for."""

    program: str | None
    format: str
    checkpoint: str
    map: str | None
    output: str | None
    options: Options
    dtype: str


def import_command(request: Request) -> None:
    """Write weights as a safetensors file, and the module that they belong to beside it."""
    _known("format", request.format, FORMATS)
    _known("dtype", request.dtype, tuple(DTYPES))
    for option, value in (("--map FILE", request.map), ("-o OUT", request.output)):
        if value is None:
            hint = "starc import --from transformers DIR --map FILE -o OUT.safetensors; or --list."
            raise _error("missing-argument", f"'starc import' needs {option}.", hint)
    assert request.map is not None
    assert request.output is not None
    target = Path(request.output)
    module = target.with_suffix(".py")
    if module == target:
        message = f"weights cannot be written to '{target}'."
        raise _error("wrong-argument", message, "the file of weights ends in .safetensors.")
    if request.program is not None:
        files.refuse_overwriting_program(request.program, str(target))
    imported = import_checkpoint(
        request.checkpoint, request.map, request.program, request.options, DTYPES[request.dtype]
    )
    artifact = imported.artifact
    if artifact.warnings:
        complain(render(artifact.warnings))
    metadata = {"format": "pt", "model": artifact.model_name, "digest": artifact.digest}
    save_tensors(imported.tensors, target, metadata)
    files.write_text(str(module), artifact.text)
    count = sum(tensor.numel() for tensor in imported.tensors.values())
    complain(f"wrote {target}: {count:,} weights of model '{artifact.model_name}' in {module}\n")


def list_command(request: Request) -> None:
    """Print what a map brings together: tensors of a checkpoint, parameters of a program."""
    _known("format", request.format, FORMATS)
    print(f"# tensors of {request.checkpoint}")
    _print(open_pretrained(Path(request.checkpoint)).shapes)
    if request.program is not None:
        print(f"# parameters of {request.program}")
        _print(parameters_of(read_source(request.program), request.options))


def _print(shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Names with their shapes, those that differ in numbers only on one line."""
    groups: dict[tuple[str, tuple[int, ...]], list[str]] = {}
    for name, shape in shapes.items():
        groups.setdefault((pattern(name), shape), []).append(name)
    for (_, shape), names in groups.items():
        print(f"{collapse(names)[0]}  {' x '.join(map(str, shape)) or 'scalar'}")


def save_tensors(tensors: dict[str, torch.Tensor], target: Path, metadata: dict[str, str]) -> None:
    """Write a safetensors file that is whole or absent."""
    try:
        handle, scratch = tempfile.mkstemp(prefix=f".{target.name[:200]}.", dir=target.parent)
        os.close(handle)
        try:
            save_file(tensors, scratch, metadata)
            mask = os.umask(0)
            os.umask(mask)
            Path(scratch).chmod(0o666 & ~mask)
            os.replace(scratch, target)
        except BaseException:
            Path(scratch).unlink(missing_ok=True)
            raise
    except OSError as error:
        reason = error.strerror or str(error)
        raise _error("cannot-write", f"cannot write '{target}': {reason}.") from error


def _known(what: str, given: str, known: tuple[str, ...]) -> None:
    if given not in known:
        hint = suggest(given, known) or f"there are {', '.join(known)}."
        raise _error("wrong-argument", f"there is no {what} '{given}'.", hint)


def _error(code: str, message: str, hint: str = "") -> StarError:
    return StarError(Diagnostic(code, message, hint=hint))
