"""How many units a backbone has, before any of it is unrolled.

Owns: the limit on units. Refuses: resolving them (resolve.py).
"""

from __future__ import annotations

from collections.abc import Callable

from starc.compiler.faults import error
from starc.grammar import nodes


def count_units(
    body: tuple[nodes.Layer, ...], times: Callable[[nodes.Repeat | nodes.Loop], int], limit: int
) -> tuple[int, int]:
    """Units when repeats are unrolled, and how many of them a token passes, as it does those of a
    loop several times. `times` is the count of a repeat or loop. Raises StarError where a token
    would pass more than `limit` units."""
    total = passed = 0
    for layer in body:
        place = layer.span
        match layer:
            case nodes.Unit():
                total, passed = total + 1, passed + 1
            case nodes.Repeat() | nodes.Loop():
                n, inner = times(layer), count_units(layer.body, times, limit)
                # A body without units still costs its iterations.
                total += max(1, inner[0]) * (n if isinstance(layer, nodes.Repeat) else 1)
                passed += max(1, inner[1]) * n
                place = layer.count.span
            case nodes.Parallel():
                inner = count_units(layer.body, times, limit)
                total, passed = total + inner[0], passed + inner[1]
        if passed > limit:
            raise error(
                "too-many-units",
                f"the backbone unrolls to more than {limit:,} units.",
                place,
                hint="raise the limit with --max-units.",
            )
    return total, passed
