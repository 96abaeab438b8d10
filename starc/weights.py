"""Weights of checkpoints for compiled programs: program, map and checkpoint brought together.

Owns: which settings the program is compiled with, and what its module needs.
Refuses: the meaning of maps (runtime/importing.py), the terminal, and writing files.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import torch

from starc.compiler.driver import Artifact, compile_program, resolve_source, run_passes
from starc.compiler.inventory import model_parameters, tied, unfused_names
from starc.compiler.ir import Model
from starc.compiler.options import Options
from starc.grammar.errors import Diagnostic, StarError
from starc.grammar.library import read_source
from starc.grammar.source import Source
from starc.grammar.weight_map import WeightMap, parse_map
from starc.runtime.importing import Wanted, check_requirements, import_weights, settings_from
from starc.runtime.loader import load
from starc.runtime.pretrained import Pretrained, open_pretrained


@dataclass(frozen=True, eq=False)
class Imported:
    """A generated file and the parameters and buffers of its module, by name, tied ones once."""

    artifact: Artifact
    tensors: dict[str, torch.Tensor]

    def model(self) -> torch.nn.Module:
        """The generated model with these weights."""
        model = load(self.artifact.text).Model()
        shapes = {name: tuple(tensor.shape) for name, tensor in self.tensors.items()}
        fill(model, shapes, self.tensors.__getitem__)
        return model


def import_checkpoint(
    checkpoint: str | os.PathLike[str],
    map_file: str | os.PathLike[str],
    program: str | os.PathLike[str] | None = None,
    options: Options | None = None,
    dtype: torch.dtype | None = None,
) -> Imported:
    """Compile a program and fill it from a checkpoint, as a map says.

    Without `program` the map must name one. Settings come from `options`, else from the map, else
    from the program. `dtype` None keeps the checkpoint's. Raises StarError.
    """
    map_ = parse_map(read_source(os.fspath(map_file)))
    found = open_pretrained(Path(checkpoint))
    check_requirements(map_, found.config)
    source, options = _program(map_, program), _configured(options or Options(), map_, found)
    final: list[Model] = []
    artifact = compile_program(source, options, lambda name, model: final.append(model))
    model = final[-1]
    tensors = import_weights(map_, found, _wanted(model, options), dtype)
    names = model_parameters(model)
    if any(name not in tensors for name in names):  # constants that no entry gives
        state = load(artifact.text).Model().state_dict()
        tensors |= {name: state[name].clone() for name in names if name not in tensors}
    return Imported(artifact, {name: tensors[name] for name in names})


def load_weights(model: torch.nn.Module, file: str | os.PathLike[str]) -> None:
    """Fill a model with the weights of a file that `starc import` wrote.

    Raises StarError when the file cannot be read or its tensors are not those of the model.
    """
    fill(model, (found := open_pretrained(Path(file))).shapes, found.read, os.fspath(file))


def fill(
    model: torch.nn.Module,
    shapes: Mapping[str, tuple[int, ...]],
    read: Callable[[str], torch.Tensor],
    what: str = "weights",
) -> None:
    """Copy tensors into a model: each parameter and buffer once, by its first name."""
    state = model.state_dict(keep_vars=True)
    own = {n: t for n, t in (*model.named_parameters(), *model.named_buffers()) if n in state}
    wrong = [n for n in own if shapes.get(n) != tuple(own[n].shape)]
    wrong += [n for n in shapes if n not in own]
    if wrong:
        raise StarError(
            Diagnostic(
                "weights-do-not-fit",
                f"'{what}' does not belong to this model: {', '.join(wrong[:3])}.",
                hint="compile the program with the settings that it was imported with.",
            )
        )
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(read(name))


def parameters_of(source: Source, options: Options) -> Mapping[str, tuple[int, ...]]:
    """The parameters that a map may give, by their names in a program, with their shapes."""
    return _wanted(run_passes(resolve_source(source, options)[0]), options).shapes


def _program(map_: WeightMap, program: str | os.PathLike[str] | None) -> Source:
    if program is not None:
        return read_source(os.fspath(program))
    if map_.program is None:
        raise StarError(
            Diagnostic(
                "missing-argument",
                f"neither the command nor '{map_.source.name}' names a program.",
                hint='write program "model.star" in the map, or starc import FILE --map ...',
            )
        )
    return read_source(os.fspath(Path(map_.source.name).parent / map_.program.name))


def _configured(options: Options, map_: WeightMap, checkpoint: Pretrained) -> Options:
    given = settings_from(map_, checkpoint.config, {name for name, _ in options.overrides})
    return replace(options, overrides=(*given.items(), *options.overrides))


def _wanted(model: Model, options: Options) -> Wanted:
    parameters = model_parameters(model)
    stacks = unfused_names(model)
    shapes: dict[str, tuple[int, ...]] = {}
    for name, parameter in parameters.items():
        for part, rows in stacks.get(name, ()):
            shapes[part] = (rows, *parameter.shape[1:])
        if name not in stacks:
            shapes[name] = parameter.shape
    stored = {n: p for n, p in tied(model).items() if p in shapes}
    return Wanted(
        shapes,
        {name: tuple(part for part, _ in parts) for name, parts in stacks.items()},
        frozenset(name for name, p in parameters.items() if not p.learned),
        stored,
        {
            **dict(_numbers(options)),
            "vocab": Fraction(model.vocab),
            "width": Fraction(model.width),
            "context": Fraction(model.context),
        },
    )


def _numbers(options: Options) -> Iterator[tuple[str, Fraction]]:
    """Settings that were given as plain numbers."""
    for name, text in options.overrides:
        with suppress(ValueError):
            yield name, Fraction(text)
