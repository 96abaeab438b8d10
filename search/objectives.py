"""What a search asks for: objectives, constraints, and the figures that need no training.

    quality             what the evaluator says of a program: see its `quality`
    parameters, active_parameters, flops_forward, flops_train, flops_prefill, flops_decode,
    cache_bytes, state_elements, fixed_state_elements
                        as in compiler/cost.py, of one sequence of `length` tokens
    units               units of the backbone, repeats unrolled
    roofline_prefill@DEVICE, roofline_decode@DEVICE
                        seconds at least: the larger of operations by peak rate and bytes by
                        bandwidth (Williams et al. 2009), of a named device

    decode_latency      seconds of one token, measured on the evaluator's device: see latency.py

Any other name is a figure that the evaluator gives. `min:` and `max:` before a name turn it.

Owns: their names, signs and units, parsing them, penalties and violations. Refuses: evaluating, and
importing torch.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from starc.compiler.cost import CostModel, CostReport
from starc.grammar.errors import Diagnostic, StarError, suggest
from starc.search.verifying import Checked

PENALTY = 1e30
"""An objective that has no value; finite, as sorting by dominance puts NaN first."""

FAILED = 1e6
"""The violation of a program whose evaluation failed: worse than constraints that are missed."""

UNITS = {
    "parameters": "",
    "active_parameters": "",
    "flops_forward": "FLOPs",
    "flops_train": "FLOPs",
    "flops_prefill": "FLOPs",
    "flops_decode": "FLOPs",
    "cache_bytes": "bytes",
    "state_elements": "",
    "fixed_state_elements": "",
    "units": "",
}
"""Figures that need no training, and their units of measurement."""

DEVICES = {
    "a100": (312e12, 2.039e12),
    "h100": (989e12, 3.35e12),
    "h200": (989e12, 4.8e12),
    "mi300x": (1307e12, 5.3e12),
    "rtx4090": (165e12, 1.008e12),
}
"""Peak of dense bfloat16 products in operations a second, and bandwidth in bytes a second, as their
vendors state them (SXM variants)."""

MEASURED = ("decode_latency",)
"""Figures that any evaluator's worker measures if they are asked for."""

ROOFLINES = ("roofline_prefill", "roofline_decode")
_NAME = re.compile(r"[A-Za-z_][\w.@-]*")
_SCALES = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "B": 1e9, "T": 1e12}


@dataclass(frozen=True)
class Objective:
    """A figure to be made small (`sign` 1) or large (-1); `unit` is for people."""

    name: str
    sign: int = 1
    unit: str = ""

    @property
    def static(self) -> bool:
        """Whether it is known without training."""
        return is_static(self.name)

    def value(self, figures: Mapping[str, float]) -> float:
        """The number to be made small; the penalty where there is none."""
        found = figures.get(self.name, math.nan)
        return self.sign * found if math.isfinite(found) else PENALTY

    def __str__(self) -> str:
        return self.name if self.sign > 0 else f"max:{self.name}"


QUALITY = Objective("quality")


@dataclass(frozen=True)
class Constraint:
    """`name op bound`, op "<=" or ">="."""

    name: str
    op: str
    bound: float

    @property
    def static(self) -> bool:
        """Whether it can be checked before training."""
        return is_static(self.name)

    def violation(self, figures: Mapping[str, float]) -> float:
        """By how much it is missed, relative to the bound; 0 where it is met, FAILED without the
        figure."""
        found = figures.get(self.name, math.nan)
        if not math.isfinite(found):
            return FAILED
        excess = found - self.bound if self.op == "<=" else self.bound - found
        return max(0.0, excess) / (abs(self.bound) or 1.0)

    def __str__(self) -> str:
        return f"{self.name} {self.op} {self.bound:g}"


def is_static(name: str) -> bool:
    """Whether a figure needs no training."""
    return name in UNITS or name.partition("@")[0] in ROOFLINES


def parse_objectives(text: str, quality: Objective = QUALITY) -> tuple[Objective, ...]:
    """The objectives of a list such as "quality,cache_bytes"; `quality` is the evaluator's own.

    Raises StarError for names that cannot be any, one given twice, and an empty list.
    """
    found: list[Objective] = []
    for part in text.split(","):
        sense, colon, name = part.strip().rpartition(":")
        if not _NAME.fullmatch(name) or (colon and sense not in ("min", "max")):
            raise _error(
                "bad-objective",
                f"'{part.strip()}' is no objective.",
                "write quality,cache_bytes; min: and max: may stand before a name.",
            )
        _check_device(name)
        plain = quality if name == quality.name else Objective(name, 1, unit_of(name))
        if colon:
            plain = Objective(name, 1 if sense == "min" else -1, plain.unit)
        if any(known.name == name for known in found):
            raise _error("bad-objective", f"the objective '{name}' is given twice.")
        found.append(plain)
    return tuple(found)


def check_names(names: Sequence[str], given: Sequence[str] | None) -> None:
    """Refuse figures that neither costs nor the evaluator have; `given` None: it may give any."""
    if given is None:
        return
    known = [*UNITS, *MEASURED, *given]
    for name in names:
        if not is_static(name) and name not in known:
            raise _error(
                "unknown-objective",
                f"there is no figure '{name}'.",
                suggest(name, known) or f"there are {', '.join(known)}.",
            )


def parse_constraint(text: str) -> Constraint:
    """A constraint such as "parameters <= 90M"; k, M, G (or B) and T are powers of a thousand.

    Raises StarError for anything else, and for a bound that no program meets.
    """
    match = re.fullmatch(r"\s*(\S+?)\s*(<=|>=)\s*([-+\d.eE_,]+)\s*([kMGBT]?)\s*", text)
    try:
        if not match or not _NAME.fullmatch(match[1]):
            raise ValueError
        bound = float(match[3].replace(",", "").replace("_", "")) * _SCALES[match[4]]
        if not math.isfinite(bound):
            raise ValueError
    except ValueError:
        raise _error(
            "bad-constraint", f"'{text}' is no constraint.", 'write "parameters <= 90M".'
        ) from None
    _check_device(match[1])
    made = Constraint(match[1], match[2], bound)
    if made.static and made.op == "<=" and bound < 0:
        raise _error("impossible-constraint", f"no program meets '{made}': it is never negative.")
    return made


def check_constraints(constraints: Sequence[Constraint]) -> None:
    """Refuse constraints that contradict each other."""
    for low in constraints:
        for high in constraints:
            if low.name == high.name and (low.op, high.op) == (">=", "<="):
                if low.bound > high.bound:
                    raise _error(
                        "impossible-constraint", f"no program meets both '{low}' and '{high}'."
                    )


def violation(constraints: Sequence[Constraint], figures: Mapping[str, float]) -> float:
    """The sum of what constraints are missed by."""
    return sum(constraint.violation(figures) for constraint in constraints)


def unit_of(name: str) -> str:
    """The unit of a figure that is not the evaluator's own."""
    seconds = name.partition("@")[0] in ROOFLINES or name in MEASURED
    return "s" if seconds else UNITS.get(name, "")


def static_figures(
    checked: Checked,
    *,
    length: int | None = None,
    dtype: str = "bf16",
    costs: CostModel | None = None,
) -> dict[str, float]:
    """All figures of a program that need no training, for one sequence of `length` tokens (None:
    its context) and a cache in `dtype`; `costs` remembers operators between calls."""
    report = (costs or CostModel()).report(checked.ir, length=length, dtype=dtype)
    figures = {name: float(getattr(report, name)) for name in UNITS if name != "units"}
    figures["units"] = float(checked.units)
    for device in DEVICES:
        for name, seconds in zip(ROOFLINES, _roofline(report, device), strict=True):
            figures[f"{name}@{device}"] = seconds
    return figures


def _roofline(report: CostReport, device: str) -> tuple[float, float]:
    """Seconds that reading a prompt, and the step behind it, take at the least.

    Bytes are those behind the intensities of compiler/cost.py.
    """
    peak, bandwidth = DEVICES[device]
    pairs = (
        (report.flops_prefill, report.intensity_prefill),
        (report.flops_decode, report.intensity_decode),
    )
    prefill, decode = (
        max(flops / peak, flops / intensity / bandwidth) if intensity else 0.0
        for flops, intensity in pairs
    )
    return prefill, decode


def _check_device(name: str) -> None:
    figure, at, device = name.partition("@")
    if (figure in ROOFLINES or at) and (figure not in ROOFLINES or device not in DEVICES):
        raise _error(
            "unknown-objective",
            f"there is no figure '{name}'.",
            suggest(name, [f"{f}@{d}" for f in ROOFLINES for d in DEVICES])
            or f"rooflines are of {', '.join(DEVICES)}: write roofline_decode@h100.",
        )


def _error(code: str, message: str, hint: str = "") -> StarError:
    return StarError(Diagnostic(code, message, hint=hint))
