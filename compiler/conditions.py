"""Visible pairs as conditions on the tokens i (row) and j (column), in Python's spelling.

Owns: one condition per mask. Refuses: what masks mean (visibility.py) and functions around them
(lower/masks.py, templates/kernel).
"""

from __future__ import annotations

from starc.compiler.visibility import CAUSAL, MASKS, Clause, Mask


def order(mask: Mask) -> tuple[int, Mask]:
    """Where a mask stands among others."""
    return list(MASKS).index(mask[0]), mask


def conditions(clause: Clause, absolute: str = "(i - j).abs()") -> list[str]:
    """Conditions that hold together; `absolute` spells |i - j|. They need no parentheses around
    them next to `&`."""
    apart = "i - j" if CAUSAL in clause else absolute
    return [_condition(mask, apart) for mask in sorted(clause, key=order)]


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
