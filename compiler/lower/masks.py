"""Visible pairs as text: one function of the generated file for each union of masks.

Owns: conditions on the tokens i (row) and j (column). Refuses: what masks mean (visibility.py), and
masks that are computed (dense.py).
"""

from __future__ import annotations

from collections.abc import Iterable

from starc.compiler.lower.functions import Functions
from starc.compiler.visibility import CAUSAL, MASKS, Clause, Mask


def is_written(clause: Clause) -> bool:
    """Whether every mask of a clause is a condition on i and j alone."""
    return all(op in MASKS for op, _ in clause)


def visible_function(functions: Functions, clauses: Iterable[Clause]) -> str:
    """The name of a function (rows, columns, device) -> boolean (rows, columns)."""
    shown = sorted(clauses, key=lambda clause: sorted(map(_order, clause)))
    conditions = [" & ".join(_conditions(clause)) for clause in shown]
    code = " | ".join(f"({c})" if len(shown) > 1 and "&" in c else c for c in conditions)
    words = [" and ".join(_words(clause)) for clause in shown]
    return functions.function(
        "visible", code=code, words=", or ".join(words), rows=any("i" in c for c in conditions)
    )


def _order(mask: Mask) -> tuple[int, Mask]:
    return list(MASKS).index(mask[0]), mask


def _conditions(clause: Clause) -> list[str]:
    causal = CAUSAL in clause
    apart = "i - j" if causal else "(i - j).abs()"
    return [_condition(mask, apart) for mask in sorted(clause, key=_order)]


def _condition(mask: Mask, apart: str) -> str:
    op, sizes = mask
    match op:
        case "causal":
            return "(j <= i)"
        case "band":
            return f"({apart} < {sizes[0]})"
        case "dilated":
            w, r = sizes
            return f"((i - j) % {r} == 0) & ({apart} < {w * r})"
        case "strided":
            return f"((i - j) % {sizes[0]} == 0)"
        case "block":
            return f"(i // {sizes[0]} == j // {sizes[0]})"
        case "summary":
            n, c = sizes
            return f"(j % {n} >= {n - c})"
    return f"(j < {sizes[0]})"


def _words(clause: Clause) -> list[str]:
    found = []
    for op, sizes in sorted(clause, key=_order):
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
