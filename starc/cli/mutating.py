"""`starc mutate`: programs that differ a little from one, or a table of what that takes.

Owns: what is printed. Refuses: mutating (`search`).
"""

from __future__ import annotations

import random

from starc.cli import complain, files
from starc.compiler.options import Options
from starc.grammar import nodes
from starc.grammar.library import read_source
from starc.grammar.printer import format_program
from starc.search.mutate import Mutator, opened
from starc.search.repair import outcomes
from starc.search.site import Bounds


def mutate_command(
    file: str,
    options: Options,
    *,
    count: int,
    seed: int,
    level: str | None,
    constrained: bool,
    units: int,
    table: bool,
    output: str,
) -> None:
    """Print mutations of a program, each of the program itself; with `table`, their outcomes in
    both modes, each mutation of the one before and every tenth of the program again."""
    rng = random.Random(seed)
    program, pool, verifier = opened(read_source(file), options, rng)
    bounds = Bounds(units=units)
    if table:
        found: list[Mutator] = []
        for mode in (True, False):
            mutator = Mutator(pool, verifier=verifier, bounds=bounds, constrained=mode)
            walk(mutator, program, random.Random(seed), count, level)
            found.append(mutator)
        files.write_text(output, outcomes([mutator.repairs for mutator in found]))
        return
    mutator = Mutator(pool, verifier=verifier, bounds=bounds, constrained=constrained)
    texts: list[str] = []
    for place in range(1, count + 1):
        change = mutator.mutate(program, rng, level=level)
        repaired = f" ({', '.join(change.repairs)})" if change.repairs else ""
        heading = "" if count == 1 else f"# --- mutation {place} of {count}\n"
        texts.append(heading + format_program(change.program))
        complain(
            f"{place}: {change.level}, {change.name}{repaired}; "
            f"{len(change.rejected)} draws before it were rejected\n"
        )
    files.write_text(output, "".join(texts))


def walk(
    mutator: Mutator, program: nodes.Program, rng: random.Random, count: int, level: str | None
) -> None:
    """Mutate a program `count` times, starting from it again every ten times."""
    current = program
    for step in range(count):
        current = program if step % 10 == 0 else current
        current = mutator.mutate(current, rng, level=level).program
