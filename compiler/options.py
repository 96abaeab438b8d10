"""Everything that may change what the compiler does, in one frozen value.

Owns: options and their limits. Refuses: reading files or the environment.
"""

from __future__ import annotations

from dataclasses import dataclass, field

VERSION = "0.1.0"
"""The version that generated files name (a test compares it with the package's)."""


@dataclass(frozen=True)
class Limits:
    """Bounds on what a program may ask for; each is an error with a code of its own."""

    units: int = 4096
    parameters: int = 10**12
    characters: int = 1_000_000
    nesting: int = 100
    depth: int = 50
    values: int = 10_000


@dataclass(frozen=True)
class Options:
    """`overrides` are (setting, expression) pairs such as ("width", "128")."""

    model: str | None = None
    overrides: tuple[tuple[str, str], ...] = ()
    format: bool = True
    print_after: tuple[str, ...] = ()
    limits: Limits = field(default_factory=Limits)
