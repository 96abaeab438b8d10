"""Rotary encodings of a unit: statements that turn two features by one table become one call.

Owns: which rotations have a kernel, and their statements. Refuses: the tables (modules.py).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from starc.compiler.kernel_norm import LEAST_WIDTH
from starc.compiler.kernel_rotary import Rotary
from starc.compiler.lower.functions import Functions
from starc.compiler.plan import Line

LINE_ROOM = 86
"""Characters that a statement and its comment may take together."""


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
    rest: str
    """What follows the call."""


def call_kernels(
    lines: Sequence[Line], rotations: Mapping[str, Rotation], functions: Functions
) -> list[Line]:
    """Statements `a = rotate(...)` that have a kernel, two that stand together as one.

    `rotations` are known by their text. Those inside of longer expressions stay as they are.
    """
    found: list[list[tuple[Line, str, Rotation]] | Line] = []
    for line in lines:
        name, _, call = line.text.rpartition("\n")[2].partition(" = ")  # below a comment, if any
        own = rotations.get(call)
        if own is None or not name.isidentifier():
            found.append(line)
        elif found and isinstance(found[-1], list) and _meet(found[-1], own):
            found[-1].append((line, name, own))
        else:
            found.append([(line, name, own)])
    done = []
    for part in found:
        done += [part] if isinstance(part, Line) else _statements(part, functions)
    return done


def _statements(together: Sequence[tuple[Line, str, Rotation]], functions: Functions) -> list[Line]:
    """One rotation, or two by one table."""
    plans = [own for _, _, own in together]
    first = plans[0]
    if sum(own.heads * own.channels for own in plans) < LEAST_WIDTH:
        return [line for line, _, _ in together]
    plan = Rotary(
        digest=functions.digest,
        function=first.function,
        heads=first.heads,
        others=plans[1].heads if len(plans) > 1 else 0,
        channels=first.channels,
        dims=first.dims,
        pairs=first.pairs,
    )
    names = ", ".join(name for _, name, _ in together)
    operands = ", ".join(own.operand for own in plans)
    text = f"{names} = {functions.kernel(plan)}({operands}, *{first.table})"
    if len(plans) == 1:
        above, lines, _ = together[0][0].text.rpartition("\n")
        return [Line(f"{above}{lines}{text}{first.rest}", together[0][0].comment)]
    comments = ", ".join(dict.fromkeys(line.comment for line, _, _ in together))
    rest = [Line(f"{name} = {name}{own.rest}") for _, name, own in together if own.rest]
    return [Line(text, "" if rest or len(text) + len(comments) > LINE_ROOM else comments), *rest]


def _meet(before: Sequence[tuple[Line, str, Rotation]], own: Rotation) -> bool:
    """Whether a rotation is like the one before it, and does not read what that gives."""
    if len(before) > 1:
        return False
    _, name, first = before[0]
    alike = replace(own, operand="", heads=1, rest="") == replace(
        first, operand="", heads=1, rest=""
    )
    return alike and not re.search(rf"\b{name}\b", own.operand)
