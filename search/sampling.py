"""Random programs of a space that verify.

Owns: drawing until a program has no errors, and saying how many draws had. Refuses: repairing them.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from starc.compiler.driver import check_program
from starc.compiler.options import Limits, Options
from starc.grammar.errors import Diagnostic, StarError
from starc.grammar.printer import format_program
from starc.grammar.source import Source
from starc.search.space import Space, sample

PATIENCE = 1000
"""So many fillings in a row that do not verify, and drawing stops."""


@dataclass(frozen=True)
class Drawn:
    """A program as text, and how many fillings before it did not verify."""

    text: str
    rejected: int


def draw(space: Space, rng: random.Random, limits: Limits | None = None) -> Drawn:
    """A random filling that verifies; fillings that do not are drawn again.

    Raises StarError, with what is wrong with the last one, when none of PATIENCE does.
    """
    options = Options(model=space.model.name, limits=limits or Limits())
    for rejected in range(PATIENCE):
        text = format_program(sample(space, rng))
        try:
            check_program(Source(space.source.name, text), options)
        except StarError as failure:
            last = failure
        else:
            return Drawn(text, rejected)
    refusal = Diagnostic(
        "no-valid-filling",
        f"none of {PATIENCE:,} random fillings of this space verifies; what follows is wrong with "
        "the last one.",
        hint="narrow the options of its holes.",
    )
    raise StarError([refusal, *last.diagnostics[:3]])
