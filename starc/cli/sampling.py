"""`starc sample`: from a space to programs on the terminal or in a folder.

Owns: what is printed and where files go. Refuses: drawing (`search`).
"""

from __future__ import annotations

import random
from pathlib import Path

from starc.cli import complain, files
from starc.compiler.options import Options
from starc.grammar.errors import Diagnostic, StarError
from starc.grammar.library import read_source
from starc.search.counting import count
from starc.search.sampling import draw
from starc.search.space import open_space


def count_command(space: str, options: Options) -> None:
    """Print how many programs a space holds."""
    print(count(open_space(read_source(space), options)))


def sample_command(
    space: str, options: Options, *, count: int, seed: int, folder: str | None
) -> None:
    """Print programs one after the other, or write each to its own file in `folder`."""
    opened = open_space(read_source(space), options)
    rng = random.Random(seed)
    path = None if folder is None else _folder(folder)
    rejected = 0
    for place in range(1, count + 1):
        drawn = draw(opened, rng, options.limits)
        rejected += drawn.rejected
        if path is not None:
            files.write_text(str(path / f"{opened.model.name}_{place:04}.star"), drawn.text)
            continue
        heading = "" if count == 1 else f"# --- program {place} of {count}\n"
        files.write_text(files.STANDARD, heading + drawn.text)
    where = "" if path is None else f", written to {path}"
    complain(
        f"{opened.holes} holes, seed {seed}: {count} programs{where}; {rejected} fillings before "
        "them did not verify\n"
    )


def _folder(name: str) -> Path:
    path = Path(name)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise StarError(
            Diagnostic("cannot-write", f"cannot make the folder '{name}': {reason}.")
        ) from error
    return path
