"""Visible pairs as text: one function of the generated file for each union of masks.

Owns: conditions on the tokens i (row) and j (column). Refuses: what masks mean (visibility.py), and
masks that are computed (dense.py).
"""

from __future__ import annotations

from collections.abc import Iterable

from starc.compiler.conditions import conditions, order
from starc.compiler.lower.functions import Functions
from starc.compiler.visibility import MASKS, Clause


def is_written(clause: Clause) -> bool:
    """Whether every mask of a clause is a condition on i and j alone."""
    return all(op in MASKS for op, _ in clause)


def visible_function(functions: Functions, clauses: Iterable[Clause]) -> str:
    """The name of a function (rows, columns, device) -> boolean (rows, columns)."""
    shown = sorted(clauses, key=lambda clause: sorted(map(order, clause)))
    parts = [" & ".join(conditions(clause)) for clause in shown]
    code = " | ".join(f"({c})" if len(shown) > 1 and "&" in c else c for c in parts)
    words = [" and ".join(_words(clause)) for clause in shown]
    return functions.function(
        "visible", code=code, words=", or ".join(words), rows=any("i" in c for c in parts)
    )


def _words(clause: Clause) -> list[str]:
    found = []
    for op, sizes in sorted(clause, key=order):
        match op:
            case "causal":
                found.append("j <= i")
            case "band":
                found.append(f"|i - j| < {sizes[0]}")
            case "dilated":
                found.append(f"|i - j| one of the first {sizes[0]} multiples of {sizes[1]}")
            case "strided":
                found.append(f"i - j a multiple of {sizes[0]}")
            case "block":
                found.append(f"i and j in one block of {sizes[0]}")
            case "summary":
                found.append(f"j in the last {sizes[1]} of a block of {sizes[0]}")
            case "first":
                found.append(f"j < {sizes[0]}")
    return found
