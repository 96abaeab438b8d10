"""Numbers as people read them. Owns: their spelling. Refuses: computing them."""

from __future__ import annotations

import math

NONE = "\N{EN DASH}"
"""Stands where there is no number."""

_PREFIXES = ("", "k", "M", "G", "T", "P", "E")


def shown(value: float | None, unit: str = "") -> str:
    """A figure in at most four digits: 805 MB, 12.3 k, 1.234; a dash for none."""
    if value is None or not math.isfinite(value):
        return NONE
    suffix = "B" if unit == "bytes" else ""
    size = abs(value)
    if size >= 1e4:
        power = min(len(_PREFIXES) - 1, int(math.log10(size) / 3 + 1e-9))
        return f"{value / 1000**power:.3g} {_PREFIXES[power]}{suffix}".rstrip()
    if float(value).is_integer():
        return f"{value:.0f} {suffix}".rstrip()
    return f"{value:.4g} {suffix}".rstrip()


def plain(name: str) -> str:
    """The name of a figure without underscores."""
    return name.replace("_", " ")


def change(part: float | None) -> str:
    """A relative change in percent, with its sign."""
    if part is None or not math.isfinite(part):
        return NONE
    return f"{100 * part:+.1f} %".replace("-", "\N{MINUS SIGN}")


def duration(seconds: float) -> str:
    """Seconds, minutes, hours or days, whichever reads best."""
    for size, name in ((86_400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size or (name != "days" and seconds >= size):
            return f"{seconds / size:.1f} {name}"
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
