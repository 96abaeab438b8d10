"""Checkpoints: the weights, the optimiser and the random state after a step, whole or absent.

Owns: what a checkpoint holds and how it is found, written and read. Tensors are in safetensors
files and the rest in JSON, so that reading a checkpoint runs no code from it.
Refuses: deciding when to write one.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from starc.grammar.errors import Diagnostic, StarError
from starc.runtime.files import write_folder_atomic

Tensors = dict[str, torch.Tensor]

_FOLDER = re.compile(r"step-(\d{8,})")


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """What training needs to go on after `step` as if it had never stopped.

    `weights` has every parameter and buffer once, by its first name; `optimizer` has
    `<parameter>/<slot>` for each slot of the optimiser and the random states; `state` is small and
    fit for JSON.
    """

    step: int
    weights: Tensors
    optimizer: Tensors
    state: dict[str, Any]


def save(folder: Path, checkpoint: Checkpoint) -> Path:
    """Write a checkpoint into `folder`, then remove older ones; the path. Raises OSError."""
    path = folder / f"step-{checkpoint.step:08d}"

    def fill(scratch: Path) -> None:
        save_file(checkpoint.weights, scratch / "weights.safetensors")
        save_file(checkpoint.optimizer, scratch / "optimizer.safetensors")
        state = {"step": checkpoint.step, **checkpoint.state}
        (scratch / "state.json").write_text(json.dumps(state, indent=1) + "\n")

    if not path.exists():
        write_folder_atomic(path, fill)
    for other in folder.iterdir():
        if other != path:
            remove(other)
    return path


def all_in(*folders: Path) -> list[Path]:
    """The checkpoints in some folders, newest first."""
    found = (path for folder in folders for path in folder.glob("step-*"))
    return sorted((path for path in found if _FOLDER.fullmatch(path.name)), key=step_of)[::-1]


def latest(folder: Path) -> Path | None:
    """The newest checkpoint in `folder`, or None."""
    return next(iter(all_in(folder)), None)


def step_of(path: Path) -> int:
    """The step that the checkpoint at `path` was saved after."""
    return int(path.name[5:])


def remove(path: Path) -> None:
    """Remove a checkpoint, as far as that can be done."""
    shutil.rmtree(path, ignore_errors=True)


def load_weights(path: Path, device: torch.device | str = "cpu") -> Tensors:
    """The weights of a checkpoint; raises StarError when it is damaged."""
    return _read(path / "weights.safetensors", device)


def load(path: Path, device: torch.device | str = "cpu") -> Checkpoint:
    """A whole checkpoint; raises StarError when it is damaged."""
    state = load_state(path)
    optimizer = _read(path / "optimizer.safetensors", device)
    return Checkpoint(state.pop("step"), load_weights(path, device), optimizer, state)


def load_state(path: Path) -> dict[str, Any]:
    """The state of a checkpoint with its `step`, an int; raises StarError when it is damaged."""
    try:
        state: dict[str, Any] = json.loads((path / "state.json").read_text())
        return {**state, "step": int(state["step"])}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise damaged(path, f"state.json: {error}") from error


def weights_of(model: torch.nn.Module) -> Tensors:
    """The parameters and buffers of a model, tied ones once, ready to be saved."""
    return {name: tensor.detach().contiguous() for name, tensor in _named(model).items()}


def restore_weights(
    model: torch.nn.Module, weights: Mapping[str, torch.Tensor], path: Path
) -> None:
    """Copy `weights` into `model`; raises StarError when names or shapes differ."""
    own = _named(model)
    if set(own) != set(weights):
        names = sorted(set(own) ^ set(weights))
        raise damaged(path, f"it does not fit model.py: {', '.join(names[:3])}")
    with torch.no_grad():
        for name, tensor in own.items():
            if tensor.shape != weights[name].shape:
                raise damaged(path, f"'{name}' has shape {tuple(weights[name].shape)}")
            tensor.copy_(weights[name])


def damaged(path: Path, reason: str) -> StarError:
    """The error for a checkpoint that cannot be used."""
    return StarError(
        Diagnostic(
            "checkpoint-damaged",
            f"the checkpoint '{path}' cannot be used: {reason}.",
            hint="train again into another folder with --out.",
        )
    )


def _named(model: torch.nn.Module) -> Tensors:
    persistent = model.state_dict(keep_vars=True)
    buffers = {name: buffer for name, buffer in model.named_buffers() if name in persistent}
    return {**dict(model.named_parameters()), **buffers}


def _read(path: Path, device: torch.device | str) -> Tensors:
    try:
        return load_file(path, device=str(device))
    except (OSError, SafetensorError, ValueError) as error:
        raise damaged(path.parent, f"{path.name}: {error}") from error
