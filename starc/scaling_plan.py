"""What a scaling law trains: models, tokens and operations for every compute budget.

Owns: families of sizes, budgets as trainings, and how long those take on a device. Refuses:
training (scaling.py), fits (runtime/scaling_law.py), and loading torch.

A family is one program at many widths (compiler/resize.py). Its depth follows the width: a unit
for every `ASPECT` channels, four at least, and never less than one of every motif. For a budget C,
sizes lie evenly in log around the one whose tokens are `RATIO` times its parameters if a token
costs six operations a parameter (N = sqrt(C / 6 / RATIO), arXiv 2203.15556); tokens are C over the
exact operations of training on a token (compiler/cost.py: three forward passes).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from starc.compiler.cost import cost_report
from starc.compiler.driver import resolve_source
from starc.compiler.options import Options
from starc.compiler.resize import count_units, resize
from starc.grammar.errors import Diagnostic, StarError, suggest
from starc.grammar.source import Source

ASPECT = 32
"""Channels of width per unit: 24 units at width 768, as in GPT-2."""

RATIO = 20.0
"""Tokens per parameter in the middle of a family."""

FEWEST_UNITS = 4
FEWEST_STEPS = 10
"""Trainings of fewer steps are left out: they are mostly warm-up."""

STEPS = 300
"""Steps of the training in the middle of a family; they decide the tokens of a step."""

LARGEST_STEP = 2**20
"""Tokens of a step at most."""


@dataclass(frozen=True)
class Device:
    """A device by its peak rate of dense bfloat16 products, operations a second, and the share of
    it that training is assumed to reach."""

    name: str
    peak: float
    utilisation: float

    def seconds(self, flops: float) -> float:
        return flops / (self.peak * self.utilisation)


DEVICES = {
    d.name.lower(): d
    for d in (
        Device("A100", 312e12, 0.45),
        Device("H100", 989e12, 0.40),
        Device("H200", 989e12, 0.40),
        Device("B200", 2250e12, 0.35),
        Device("MI300X", 1307e12, 0.30),
        Device("L40S", 362e12, 0.35),
        Device("RTX 4090", 165e12, 0.40),
    )
}
"""Peaks from data sheets, without sparsity. Utilisation is an assumption, not a measurement: what
well-tuned training of dense transformers reports; small models reach less."""


def find_device(name: str) -> Device:
    """The device of a name; raises StarError for one that is not in the table."""
    found = DEVICES.get(name.lower())
    if found is None:
        known = ", ".join([*(d.name for d in DEVICES.values()), "cpu"])
        raise StarError(
            Diagnostic(
                "no-device",
                f"there is no device '{name}' in the table of peak rates.",
                hint=suggest(name, known.split(", ")) or f"it has {known}.",
            )
        )
    return found


@dataclass(frozen=True)
class Size:
    """A program at one width, with what a sequence of the training length costs.

    `flops` are operations of training per token, `state` the elements that decoding keeps.
    """

    source: Source
    model: str
    width: int
    units: int
    parameters: int
    flops: float
    state: int


@dataclass(frozen=True)
class Training:
    """One training of a plan: a size, and how many steps of how many tokens."""

    budget: float
    size: Size
    batch: int
    length: int
    steps: int

    @property
    def tokens(self) -> int:
        return self.steps * self.batch * self.length

    @property
    def flops(self) -> float:
        """Operations of the training; the budget but for the rounding of steps."""
        return self.tokens * self.size.flops

    @property
    def place(self) -> str:
        """The folder of its run, below that of the whole."""
        return f"{self.size.model}/{spelt(self.budget)}/{self.size.width}x{self.size.units}"

    def as_dict(self) -> dict[str, Any]:
        size = {k: v for k, v in asdict(self.size).items() if k not in ("source", "flops")}
        return {
            "budget": self.budget,
            **size,
            "flops_per_token": self.size.flops,
            "batch": self.batch,
            "length": self.length,
            "steps": self.steps,
            "tokens": self.tokens,
            "flops": self.flops,
        }


@dataclass(frozen=True)
class Request:
    """What a plan is made for. `span` is how many times larger the largest of `sizes` is."""

    budgets: Sequence[float]
    sizes: int = 5
    span: float = 16.0
    vocab: int = 256
    length: int = 256
    batch: int | None = None
    aspect: int = ASPECT
    ratio: float = RATIO

    def check(self) -> None:
        """Refuse what cannot be planned."""
        wrong = ""
        if not self.budgets or any(not (0 < b < math.inf) for b in self.budgets):
            wrong = "budgets are positive numbers of operations."
        elif not 1 < self.span < math.inf or not 0 < self.ratio < math.inf:
            wrong = "the span must be above 1, and the ratio positive."
        if wrong:
            raise StarError(
                Diagnostic("bad-budget", wrong, hint="for example --budgets 1e17,3e17,1e18.")
            )


class Family:
    """One program at the widths that are asked for, each made once."""

    def __init__(self, source: Source, options: Options, request: Request) -> None:
        self._source, self._options, self._request = source, options, request
        self._known: dict[int, Size | None] = {}
        self._plain = replace(options, model=None, overrides=())

    def at(self, step: int) -> Size | None:
        """The program at a place of the grid of widths; None where it has none that is legal."""
        if step not in self._known:
            self._known[step] = self._made(width_at(step))
        return self._known[step]

    def _made(self, width: int) -> Size | None:
        request = self._request
        try:
            source = resize(
                self._source,
                self._options,
                width=width,
                units=max(FEWEST_UNITS, round(width / request.aspect)),
                vocab=request.vocab,
                context=request.length,
            )
        except StarError as failure:
            if any(d.code != "cannot-resize" for d in failure.diagnostics):
                raise
            return None
        model, _ = resolve_source(source, self._plain)
        report = cost_report(model, length=request.length)
        return Size(
            source,
            model.name,
            width,
            count_units(source, self._plain),
            report.parameters,
            report.flops_train / request.length,
            report.state_elements,
        )

    def nearest(self, parameters: float, taken: Sequence[Size]) -> Size | None:
        """The size nearest to a number of parameters that is not taken yet."""
        low, high = 0, 1
        while (size := self._next(high)) and size.parameters < parameters:
            low, high = high, 2 * high
        while high - low > 1:
            middle = (low + high) // 2
            size = self._next(middle)
            if size and size.parameters < parameters:
                low = middle
            else:
                high = middle
        around = [self.at(i) for i in range(max(0, low - 2), high + 3)]
        free = [s for s in around if s and all(s.width != t.width for t in taken)]
        return min(free, key=lambda s: abs(math.log(s.parameters / parameters)), default=None)

    def _next(self, step: int) -> Size | None:
        """The size at a place of the grid, or at the next one that has one."""
        return next((s for i in range(step, step + 8) if (s := self.at(i))), None)


def width_at(step: int) -> int:
    """The grid of widths: multiples of 8 up to 64, of 16 up to 256, of 32 up to 1,024, then 64."""
    for start, end, by in ((8, 64, 8), (64, 256, 16), (256, 1024, 32)):
        count = (end - start) // by
        if step < count:
            return start + step * by
        step -= count
    return 1024 + 64 * step


def plan_family(source: Source, options: Options, request: Request) -> list[Training]:
    """The trainings of one program, by budget and size. Raises StarError for a program at fault,
    and `bad-budget` where a budget allows no training."""
    request.check()
    family = Family(source, options, request)
    found: list[Training] = []
    for budget in sorted(request.budgets):
        trainings = _trainings(family, budget, request)
        if not trainings:
            raise StarError(
                Diagnostic(
                    "bad-budget",
                    f"a budget of {spelt(budget)} operations allows no training of "
                    f"{FEWEST_STEPS} steps.",
                    hint="give larger budgets, or a smaller --batch or --length.",
                )
            )
        found += trainings
    return found


def _trainings(family: Family, budget: float, request: Request) -> list[Training]:
    middle = math.sqrt(budget / 6 / request.ratio)
    batch = request.batch or _batch(budget, middle, request)
    sizes: list[Size] = []
    for i in range(request.sizes):
        share = i / (request.sizes - 1) - 0.5 if request.sizes > 1 else 0.0
        size = family.nearest(middle * request.span**share, sizes)
        if size:
            sizes.append(size)
    found = []
    for size in sorted(sizes, key=lambda s: s.parameters):
        steps = round(budget / (size.flops * batch * request.length))
        if steps >= FEWEST_STEPS:
            found.append(Training(budget, size, batch, request.length, steps))
    return found


def _batch(budget: float, parameters: float, request: Request) -> int:
    """Sequences of a step, the same for all sizes of a budget: a power of two."""
    tokens = min(LARGEST_STEP, budget / (6 * parameters) / STEPS)
    return int(2 ** max(0, round(math.log2(tokens / request.length))))


def spelt(budget: float) -> str:
    """A budget as it is written: 1e+18 as 1e18."""
    return f"{budget:.6g}".replace("e+", "e")


def parse_budgets(text: str) -> list[float]:
    """Numbers between commas, or `first:last:count` evenly in log; raises StarError."""
    try:
        if ":" in text:
            first, last, count = text.split(":")
            return _spaced(float(first), float(last), int(count))
        return [float(part) for part in text.split(",")]
    except (ValueError, ZeroDivisionError, OverflowError) as error:
        raise StarError(
            Diagnostic(
                "bad-budget",
                f"'{text}' is no list of budgets.",
                hint="for example --budgets 1e17,3e17,1e18, or 1e17:1e19:5 for five between.",
            )
        ) from error


def _spaced(first: float, last: float, count: int) -> list[float]:
    if not (0 < first < last < math.inf and 2 <= count <= 100):
        raise ValueError
    return [float(f"{first * (last / first) ** (i / (count - 1)):.3g}") for i in range(count)]


Rate = Callable[[Training], float]
"""Seconds that a training takes on a device."""


def hours(trainings: Sequence[Training], seconds: Rate) -> float:
    """Hours of all trainings, one after the other."""
    return sum(seconds(t) for t in trainings) / 3600
