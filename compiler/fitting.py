"""A program of a wanted number of parameters, for comparisons at equal size.

Owns: the search for a width. Refuses: making programs of a width (resize.py) and counting
(cost.py).
"""

from __future__ import annotations

from dataclasses import dataclass

from starc.compiler.cost import cost_report
from starc.compiler.driver import resolve_source
from starc.compiler.options import Options
from starc.compiler.resize import resize
from starc.grammar.errors import Diagnostic, StarError
from starc.grammar.source import Source

STEPS = (64, 32, 16, 8, 4, 2)
"""Widths are multiples of the coarsest of these that is fine enough."""


@dataclass(frozen=True)
class Fitted:
    """A program, its width and its parameters, tied ones counted once."""

    source: Source
    width: int
    parameters: int


def fit_parameters(
    source: Source,
    options: Options,
    *,
    parameters: int,
    units: int | None = None,
    repeat: int | None = None,
    vocab: int | None = None,
    context: int | None = None,
    embedding: bool = True,
    tolerance: float = 0.02,
) -> Fitted:
    """The program at the width with which its parameters come nearest to `parameters`.

    Widths are multiples of 64; where those miss by more than `tolerance` of the target, of 32, and
    so on down to 2. Depth is set by `units` or `repeat` as in `resize`; without `embedding` token
    and position tables and the read-out do not count. Raises StarError `cannot-resize` when even
    the narrowest program is larger than twice the target, and whatever is wrong with the program.
    """
    if parameters < 1 or not tolerance > 0:
        raise _error("a size must be positive.", "for example --parameters 1_000_000.")
    base = resize(source, options, units=units, repeat=repeat, vocab=vocab, context=context)
    plain = Options(format=options.format, limits=options.limits)
    search = _Search(base, plain, embedding)
    low, high = 0, STEPS[0]
    while search.count(high) < parameters:
        low, high = high, 2 * high
    best: Fitted | None = None
    for step in STEPS:
        low, high = low // step * step, -(-high // step) * step
        while high - low > step:
            middle = (low + high) // 2 // step * step
            if search.count(middle) < parameters:
                low = middle
            else:
                high = middle
        for width in (low, high):
            if width and (found := search.at(width)):
                nearer = best is None or _off(found, parameters) < _off(best, parameters)
                best = found if nearer else best
        if best and _off(best, parameters) <= tolerance:
            break
    if best is None or best.parameters > 2 * parameters:
        least = f"{best.parameters:,}" if best else "no"
        raise _error(
            f"no width gives about {parameters:,} parameters: the nearest program has {least}.",
            "try fewer units, a smaller vocabulary or more parameters.",
        )
    return best


class _Search:
    def __init__(self, base: Source, options: Options, embedding: bool) -> None:
        self._base, self._options, self._embedding = base, options, embedding
        self._known: dict[int, Fitted | None] = {}

    def at(self, width: int) -> Fitted | None:
        """The program of a width and its count; None where no program of it passes the checks."""
        if width not in self._known:
            try:
                program = resize(self._base, self._options, width=width)
            except StarError as failure:
                if any(d.code != "cannot-resize" for d in failure.diagnostics):
                    raise
                self._known[width] = None
            else:
                count = count_parameters(program, self._options, embedding=self._embedding)
                self._known[width] = Fitted(program, width, count)
        return self._known[width]

    def count(self, width: int) -> int:
        """Parameters at a width, or at the next one that has a program."""
        for candidate in range(width, 2 * width + 1, 2):
            if found := self.at(candidate):
                return found.parameters
        raise _error(f"no program of width {width} to {2 * width} passes the checks.", "")


def count_parameters(source: Source, options: Options, *, embedding: bool = True) -> int:
    """Parameters of a program, tied ones once; without `embedding` those of its units alone."""
    report = cost_report(resolve_source(source, options)[0], length=1)
    if embedding:
        return report.parameters
    return sum(unit.parameters for unit in report.units)


def _off(found: Fitted, wanted: int) -> float:
    return abs(found.parameters / wanted - 1)


def _error(message: str, hint: str) -> StarError:
    return StarError(Diagnostic("cannot-resize", message, hint=hint))
