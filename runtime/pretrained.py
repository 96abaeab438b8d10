"""Checkpoints that others wrote: folders of transformers, safetensors files, PyTorch files.

Owns: finding the files of a checkpoint and reading tensors from them, one at a time where the
format allows. No code of a checkpoint is run: PyTorch files are read with `weights_only`.
Refuses: knowing any architecture.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from starc.grammar.errors import Diagnostic, StarError

INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
SINGLE = ("model.safetensors", "pytorch_model.bin")
TORCH_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt")


@dataclass(frozen=True)
class Pretrained:
    """The tensors of a checkpoint by name, with their shapes, and its configuration."""

    path: Path
    config: Mapping[str, Any]
    shapes: Mapping[str, tuple[int, ...]]
    read: Callable[[str], torch.Tensor]
    """The tensor of that name, one of `shapes`."""


def open_pretrained(path: Path) -> Pretrained:
    """A folder with config.json and weights, sharded or not, or a single file of weights.

    Raises StarError when there is no checkpoint, or a part of it is missing or damaged.
    """
    if not path.exists():
        raise _fault(path, "there is no such file or folder")
    config: Any = {}
    files = [path]
    if path.is_dir():
        if (path / "config.json").exists():
            config = _json(path / "config.json")
        files = _files(path)
    shapes: dict[str, tuple[int, ...]] = {}
    homes: dict[str, Callable[[], torch.Tensor]] = {}
    for file in files:
        for name, shape, read in _contents(file):
            if name in shapes:
                raise _fault(path, f"two of its files have a tensor '{name}'")
            shapes[name], homes[name] = shape, read
    if not shapes:
        raise _fault(path, "it has no tensors")
    return Pretrained(path, config, shapes, lambda name: homes[name]())


def _files(folder: Path) -> list[Path]:
    for index in INDEXES:
        if (folder / index).exists():
            table = _json(folder / index).get("weight_map")
            if not isinstance(table, dict) or not all(isinstance(v, str) for v in table.values()):
                raise _fault(folder / index, "it has no 'weight_map' from tensors to files")
            # Names only: an index must not point out of its folder.
            return [folder / Path(name).name for name in sorted(set(table.values()))]
    for name in SINGLE:
        if (folder / name).exists():
            return [folder / name]
    found = sorted(folder.glob("*.safetensors"))
    if not found:
        known = ", ".join((*INDEXES, *SINGLE))
        raise _fault(folder, f"it has none of {known}, and no other .safetensors file")
    return found


_Contents = Iterator[tuple[str, tuple[int, ...], Callable[[], torch.Tensor]]]


def _contents(file: Path) -> _Contents:
    try:
        yield from _torch_file(file) if file.suffix in TORCH_SUFFIXES else _safetensors(file)
    except OSError as error:
        raise _fault(file, error.strerror or str(error)) from error
    except (SafetensorError, ValueError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise _fault(file, str(error).partition("\n")[0].rstrip(".")) from error


def _safetensors(file: Path) -> _Contents:
    opened: Any = safe_open(file, framework="pt")
    for name in opened.keys():
        shape = tuple(opened.get_slice(name).get_shape())
        yield name, shape, partial(opened.get_tensor, name)


def _torch_file(file: Path) -> _Contents:
    tensors = torch.load(file, map_location="cpu", weights_only=True)
    if isinstance(tensors, dict) and isinstance(tensors.get("state_dict"), dict):
        tensors = tensors["state_dict"]
    if not isinstance(tensors, dict):
        raise _fault(file, "it holds no table of tensors")
    for name, tensor in tensors.items():
        if isinstance(tensor, torch.Tensor):
            yield str(name), tuple(tensor.shape), partial(torch.Tensor.detach, tensor)


def _json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text("utf-8"))
    except OSError as error:
        raise _fault(file, error.strerror or str(error)) from error
    except ValueError as error:
        raise _fault(file, f"it is no JSON: {error}") from error
    if not isinstance(content, dict):
        raise _fault(file, "it holds no JSON object")
    return content


def _fault(path: Path, reason: str) -> StarError:
    return StarError(
        Diagnostic(
            "not-a-checkpoint",
            f"cannot read a checkpoint from '{path}': {reason}.",
            hint="give a folder that transformers saved, or a .safetensors or PyTorch file.",
        )
    )
