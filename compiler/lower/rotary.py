"""Rotary encodings of a unit: statements that turn two features by one table become one call.

Owns: which rotations have a kernel, and their statements. Refuses: the tables (modules.py).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from starc.compiler.kernel_norm import LEAST_WIDTH
from starc.compiler.kernel_rotary import Rotary
from starc.compiler.lower.functions import Functions
from starc.compiler.plan import Line


@dataclass(frozen=True)
class Rotation:
    """A call of `function` that turns `operand`, an expression, by the tables `table`."""

    operand: str
    table: str
    function: str
    heads: int
    channels: int
    dims: int
    pairs: str


def call_kernels(
    lines: Sequence[Line], rotations: Mapping[str, Rotation], functions: Functions
) -> list[Line]:
    """Statements `a = rotate(...)` that have a kernel, two that stand together as one.

    `rotations` are known by their text. Those inside of longer expressions stay as they are.
    """
    done: list[Line] = []
    last: tuple[str, Rotation] | None = None
    for line in lines:
        name, _, call = line.text.partition(" = ")
        own = rotations.get(call)
        if own is None or not name.isidentifier() or own.heads * own.channels < LEAST_WIDTH:
            done.append(line)
            last = None
            continue
        if last and _meet(*last, own):
            first, before = last
            kernel = _kernel(functions, before, own)
            text = f"{first}, {name} = {kernel}({before.operand}, {own.operand}, *{own.table})"
            done[-1] = Line(text, _both(done[-1].comment, line.comment, text))
            last = None
            continue
        done.append(Line(f"{name} = {_kernel(functions, own)}({own.operand}, *{own.table})"))
        done[-1] = Line(done[-1].text, line.comment)
        last = name, own
    return done


def _meet(name: str, first: Rotation, second: Rotation) -> bool:
    """Whether both are turned alike, and the second does not read what the first gives."""
    alike = all(
        getattr(first, field) == getattr(second, field)
        for field in ("table", "function", "channels", "dims", "pairs")
    )
    return alike and not re.search(rf"\b{name}\b", second.operand)


def _kernel(functions: Functions, own: Rotation, other: Rotation | None = None) -> str:
    plan = Rotary(
        digest=functions.digest,
        function=own.function,
        heads=own.heads,
        others=other.heads if other else 0,
        channels=own.channels,
        dims=own.dims,
        pairs=own.pairs,
    )
    return functions.kernel(plan)


def _both(first: str, second: str, text: str) -> str:
    """The shapes of both, where they fit behind the statement."""
    shapes = first if first == second else f"{first}, {second}"
    return shapes if first and second and len(text) + len(shapes) < 86 else ""
