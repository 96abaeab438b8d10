"""Weights of published models for compiled programs, through a map.

Owns: what a map means for a checkpoint: which entry gives which parameter, shapes, what is missing
and what is left over. Refuses: the text of maps (grammar/weight_map.py), files (pretrained.py) and
values (weight_values.py).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache
from typing import Any

import torch
from torch import Tensor

from starc.grammar.errors import Diagnostic, StarError, suggest
from starc.grammar.weight_map import Entry, Name, WeightMap
from starc.runtime.pretrained import Pretrained
from starc.runtime.weight_functions import FUNCTIONS
from starc.runtime.weight_values import INDEX, Absent, Evaluation, Shape, configured, no_tensor

_SHOWN = 8


@dataclass(frozen=True)
class Wanted:
    """What a program needs: the shapes of its parameters by their names in the program.

    `stacked` has the tensors of the generated module that are made of several parameters, in order
    along axis 0. `fixed` are constants, which keep the program's value unless an entry gives
    another. `tied` are weights that are another parameter's: an entry may give them, too, and must
    then give the same.
    """

    shapes: Mapping[str, Shape]
    stacked: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    fixed: frozenset[str] = frozenset()
    tied: Mapping[str, str] = field(default_factory=dict)
    numbers: Mapping[str, Fraction] = field(default_factory=dict)
    """Numbers of the program that a map may read: vocab, width, context, and what was set."""


def settings_from(
    map_: WeightMap, config: Mapping[str, Any], given: Collection[str] = ()
) -> dict[str, str]:
    """The model settings that a map reads from a configuration, as text for `--set`.

    Those in `given` are known already. Raises StarError.
    """
    evaluation = Evaluation(config, {}, {}, no_tensor)
    found = {}
    for entry in map_.settings:
        if entry.target.name in given:
            continue
        number = evaluation.number(entry.value)
        found[entry.target.name] = str(number) if isinstance(number, int) else repr(float(number))
    return found


def check_requirements(map_: WeightMap, config: Mapping[str, Any]) -> None:
    """Raise StarError when a configuration says what the map's program does not do."""
    faults = []
    for requirement in map_.required:
        known = configured(config, requirement.key.name)
        wanted = [v.name if isinstance(v, Name) else v.value for v in requirement.values]
        if known is None or _word(known) in wanted:
            continue
        shown = " or ".join(map(str, wanted))
        faults.append(
            Diagnostic(
                "checkpoint-differs",
                f"config.json says {requirement.key.name} = {_word(known)}; "
                f"this map is for {shown}.",
                requirement.span,
                hint="write a program that does what the checkpoint does, and a map for it.",
            )
        )
    if faults:
        raise StarError(faults)


def _word(value: Any) -> str | Fraction:
    """A value of a configuration as a map writes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return Fraction(value) if isinstance(value, int | float) else str(value)


def import_weights(
    map_: WeightMap, checkpoint: Pretrained, wanted: Wanted, dtype: torch.dtype | None = None
) -> dict[str, Tensor]:
    """The tensors of the generated module, by name, from those of a checkpoint.

    `dtype` None keeps the checkpoint's. Raises StarError with every fault found: names that the
    checkpoint or the program lack, shapes that differ, parameters without an entry, tensors that
    nothing reads and no `ignore` names.
    """
    read: set[str] = set()
    faults: list[Diagnostic] = []

    def tensor(name: str) -> Tensor:
        read.add(name)
        return checkpoint.read(name)

    found: dict[str, Tensor] = {}
    claimed: dict[str, Entry] = {}
    shapes = {**wanted.shapes, **{n: wanted.shapes[s] for n, s in wanted.tied.items()}}
    for entry in map_.entries:
        matches = _matches(entry.target.name, shapes)
        if not matches:
            faults.append(_no_parameter(entry, shapes))
        for name, indices in matches:
            if name in claimed:
                faults.append(_claimed(name, entry, claimed[name]))
                continue
            claimed[name] = entry
            numbers: dict[str, int | Fraction] = {**wanted.numbers, **indices}
            evaluation = Evaluation(checkpoint.config, numbers, checkpoint.shapes, tensor)
            try:
                value = evaluation.parameter(entry, name, shapes[name])
                found[name] = value.to(dtype or value.dtype)
            except Absent as failure:
                if name not in wanted.tied:
                    faults += failure.diagnostics
            except StarError as failure:
                faults += failure.diagnostics
            if len(faults) > _SHOWN**2:  # the same fault in every layer
                raise StarError(_distinct(faults)[:_SHOWN])
    faults += _missing(set(wanted.shapes) - set(claimed) - wanted.fixed, map_)
    for name, stored in wanted.tied.items():
        if name not in found:
            continue
        value = found.pop(name)
        if stored in found and not torch.equal(value, found[stored]):
            faults.append(_not_tied(name, stored, claimed[name]))
    if not faults:
        ignored = {n for p in map_.ignored for n, _ in _matches(p.name, checkpoint.shapes)}
        faults += _unread(set(checkpoint.shapes) - read - ignored)
    if faults:
        raise StarError(_distinct(faults)[:_SHOWN])
    for name, parts in wanted.stacked.items():
        pieces = [found.pop(part) for part in parts if part in found]
        if pieces:
            found[name] = FUNCTIONS["concat"].run(*pieces)
    return {name: value.contiguous().clone() for name, value in found.items()}


# --- names with indices ---------------------------------------------------------------------------


def _matches(pattern: str, names: Iterable[str]) -> list[tuple[str, dict[str, int]]]:
    """The names that a pattern such as blocks.{i}.C.weight matches, with the indices of each."""
    expression, indices = _compiled(pattern)
    found = []
    for name in names:
        if match := expression.fullmatch(name):
            found.append((name, {i: int(match[group]) for i, group in indices}))
    return found


@cache
def _compiled(pattern: str) -> tuple[re.Pattern[str], tuple[tuple[str, str], ...]]:
    pieces = INDEX.split(pattern)
    text = ""
    indices: list[tuple[str, str]] = []
    for place, piece in enumerate(pieces):
        if place % 2 == 0:
            text += re.escape(piece)
        elif (known := dict(indices).get(piece.strip())) is not None:
            text += f"(?P={known})"
        else:
            indices.append((piece.strip(), f"g{place}"))
            text += rf"(?P<g{place}>\d+)"
    return re.compile(text), tuple(indices)


_NUMBER = re.compile(r"\d+(?=\.|$)")


def pattern(name: str) -> str:
    """A name with {} for its numbers; what layers have in common."""
    return _NUMBER.sub("{}", name.replace("{", "{{").replace("}", "}}"))


def collapse(names: Collection[str]) -> list[str]:
    """Names with what differs in numbers only written once: layers.{0..3}.weight."""
    groups: dict[str, list[list[int]]] = {}
    for name in names:
        numbers = [int(number) for number in _NUMBER.findall(name)]
        groups.setdefault(pattern(name), []).append(numbers)
    found = []
    for shape, group in groups.items():
        ranges = []
        for values in zip(*group, strict=True):
            low, high = min(values), max(values)
            ranges.append(str(low) if low == high else f"{{{low}..{high}}}")
        found.append(shape.format(*ranges))
    return found


# --- diagnostics ----------------------------------------------------------------------------------


def _no_parameter(entry: Entry, names: Collection[str]) -> Diagnostic:
    shown = re.sub(INDEX, "0", entry.target.name)
    near = suggest(shown, names)
    return Diagnostic(
        "unknown-name",
        f"the program has no parameter '{entry.target.name}'.",
        entry.target.span,
        "unknown",
        near or "'starc import --list' shows the program's parameters.",
    )


def _claimed(name: str, entry: Entry, first: Entry) -> Diagnostic:
    return Diagnostic(
        "duplicate",
        f"'{name}' is given twice.",
        entry.target.span,
        "again here",
        "every parameter has one entry.",
        ((first.target.span, "first here"),),
    )


def _not_tied(name: str, stored: str, entry: Entry) -> Diagnostic:
    return Diagnostic(
        "weights-not-tied",
        f"'{name}' is '{stored}' in the program, but the checkpoint has two different tensors.",
        entry.value.span,
        hint="untie them in the program, for example with embedding = untied.",
    )


def _missing(names: Collection[str], map_: WeightMap) -> list[Diagnostic]:
    if not names:
        return []
    return [
        Diagnostic(
            "parameter-missing",
            f"no entry of '{map_.source.name}' gives {_listed(names)}.",
            hint="every parameter of the program needs an entry: PARAMETER = TENSOR, or = 0.",
        )
    ]


def _unread(names: Collection[str]) -> list[Diagnostic]:
    if not names:
        return []
    return [
        Diagnostic(
            "tensor-unread",
            f"no entry reads {_listed(names)} of the checkpoint.",
            hint="give their parameters entries, or write ignore NAME if they mean nothing.",
        )
    ]


def _listed(names: Collection[str]) -> str:
    shown = collapse(sorted(names))
    more = f" and {len(shown) - _SHOWN} more" if len(shown) > _SHOWN else ""
    return ", ".join(f"'{name}'" for name in shown[:_SHOWN]) + more


def _distinct(faults: Iterable[Diagnostic]) -> list[Diagnostic]:
    """Faults at different places: those of other layers repeat what the first one says."""
    seen, found = set(), []
    for fault in faults:
        key = (fault.code, fault.span, fault.message if fault.span is None else "")
        if key not in seen:
            seen.add(key)
            found.append(fault)
    return found
