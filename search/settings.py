"""What a search is asked for, in one frozen value: all that decides what it finds.

How fast it finds it is not here: the number of workers, the engine and a shared cache change
nothing of a result.

Owns: settings, their defaults, presets and JSON, and the text of options. Refuses: carrying out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from starc.grammar.errors import Diagnostic, StarError, suggest

Option = bool | int | float | str
_SCALES = {"k": 10**3, "M": 10**6, "G": 10**9, "B": 10**9, "T": 10**12}


@dataclass(frozen=True)
class Settings:
    """A search of `space`, the text of a program with or without holes, that stands alone.

    `model` and `overrides` are those of compiler.options.Options. Of `generations` (batches of
    `population` proposals) and `evaluations` (full ones) one is the budget. Steady, up to `window`
    proposals (0: as many as the population) are made before the oldest of them must have its
    result. `seconds` and `memory` (bytes) limit an evaluation; one whose worker crashed is tried
    `retries` times more. Figures that need no training are those of `length` tokens (None: each
    program's context) and a cache in `dtype`. `units` bounds programs, `points` are cuts of a
    crossover. `seed_programs` are (name, text) pairs.
    """

    space: str
    name: str = "space.star"
    model: str | None = None
    overrides: tuple[tuple[str, str], ...] = ()
    algorithm: str = "nsga2"
    algorithm_options: Mapping[str, Option] = field(default_factory=dict)
    population: int = 16
    generations: int | None = None
    evaluations: int | None = None
    steady: bool = False
    window: int = 0
    objectives: tuple[str, ...] = ("quality",)
    constraints: tuple[str, ...] = ()
    evaluator: str = "lm"
    evaluator_options: Mapping[str, Option] = field(default_factory=dict)
    seed: int = 0
    seed_programs: tuple[tuple[str, str], ...] = ()
    seconds: float | None = None
    memory: int | None = None
    retries: int = 1
    length: int | None = None
    dtype: str = "bf16"
    units: int = 64
    points: int = 2
    constrained: bool = True

    def to_json(self) -> dict[str, Any]:
        """Everything; `of_json` is the way back."""
        return asdict(self)

    @classmethod
    def of_json(cls, content: Mapping[str, Any]) -> Settings:
        """The settings that `to_json` gave; raises TypeError for anything else."""
        known = {f.name: content[f.name] for f in fields(cls) if f.name in content}
        for name in ("objectives", "constraints"):
            known[name] = tuple(known.get(name, ()))
        for name in ("overrides", "seed_programs"):
            known[name] = tuple((str(a), str(b)) for a, b in known.get(name, ()))
        return cls(**known)

    def checked(self) -> Settings:
        """These settings; raises StarError for numbers that make no search."""
        for name, value, least in (
            ("population", self.population, 2),
            ("generations", self.generations, 1),
            ("evaluations", self.evaluations, 1),
            ("window", self.window, 0),
            ("seconds", self.seconds, 0.0),
            ("memory", self.memory, 1 << 20),
            ("retries", self.retries, 0),
            ("units", self.units, 1),
            ("points", self.points, 1),
            ("length", self.length, 1),
        ):
            if value is not None and not least <= value < 2**63:
                raise _error("bad-search-setting", f"{name} {value:g} is less than {least:g}.")
        if self.window and self.window < 2:
            raise _error("bad-search-setting", "a window of 1 keeps one worker busy at most.")
        if (self.generations is None) == (self.evaluations is None):
            raise _error(
                "bad-search-setting",
                "a search has a budget of generations or of evaluations.",
                "give one of --generations and --evaluations.",
            )
        return self


PRESETS: dict[str, dict[str, Any]] = {
    "star": {
        "algorithm": "nsga2",
        "algorithm_options": {"crossover": 1.0, "mutation": 0.1, "tournament": 2},
        "population": 16,
        "generations": 18,
        "steady": False,
        "points": 2,
    }
}
"""Settings by name. `star` is the paper's (arXiv 2411.17800): what it says of its two elites is
NSGA-II's survival, where parents compete with their children."""


def preset(name: str) -> dict[str, Any]:
    """The settings that a preset makes; raises StarError where there is none of that name."""
    if name not in PRESETS:
        raise _error(
            "unknown-preset",
            f"there is no preset '{name}'.",
            suggest(name, PRESETS) or f"there is {', '.join(PRESETS)}.",
        )
    return dict(PRESETS[name])


def parse_named(text: str) -> tuple[str, dict[str, Option]]:
    """A name with options, such as "nsga2,mutation=0.2"; k, M, G (or B) and T are powers of 1000.

    Raises StarError for an option without a value, or given twice.
    """
    name, *parts = (part.strip() for part in text.split(","))
    options: dict[str, Option] = {}
    for part in parts:
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not (key and equals and value) or key in options:
            raise _error(
                "bad-option",
                f"'{part}' gives no option of '{name}' a value"
                + (" of its own." * (key in options) or "."),
                "write nsga2,mutation=0.2,tournament=4.",
            )
        options[key] = parse_option(value)
    return name, options


def parse_option(text: str) -> Option:
    """true, false, a number, or else the text itself."""
    if text in ("true", "false"):
        return text == "true"
    match = re.fullmatch(r"([-+]?[\d_]*\.?[\d_]*(?:[eE][-+]?\d+)?)([kMGBT]?)", text)
    try:
        if match and match[2]:
            scaled = float(match[1]) * _SCALES[match[2]]
            return int(scaled) if scaled == int(scaled) else scaled
        return int(text)
    except (ValueError, OverflowError):
        pass
    try:
        return float(text)
    except ValueError:
        return text


def differing(recorded: Settings, given: Mapping[str, Any]) -> list[str]:
    """What was given (None: nothing) and is not what was recorded, in words."""
    found = []
    for name, value in given.items():
        known = getattr(recorded, name)
        if isinstance(value, Sequence) and not isinstance(value, str):
            value = tuple(tuple(v) if isinstance(v, list) else v for v in value)
        if value is not None and value != known:
            shown = {"space", "seed_programs"}
            found.append(
                f"another {name}" if name in shown else f"{name} {_said(known)}, not {_said(value)}"
            )
    return found


def extended(settings: Settings, given: Mapping[str, Any]) -> Settings:
    """The settings with another budget of the same kind."""
    changes = {name: given[name] for name in ("generations", "evaluations") if given.get(name)}
    changes = {name: value for name, value in changes.items() if getattr(settings, name)}
    return replace(settings, **changes)


def _said(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "none"
    if isinstance(value, Mapping):
        return ", ".join(f"{k}={v}" for k, v in value.items()) or "no options"
    return str(value)


def _error(code: str, message: str, hint: str = "") -> StarError:
    return StarError(Diagnostic(code, message, hint=hint))
