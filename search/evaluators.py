"""What a program is worth: evaluators, each named on the command line.

    lm                bits per byte of held-out text after a short training (lm.py)
    mad               the score of MAD's synthetic tasks (starc/mad/evaluating.py)
    proxies           figures at initial values, without training (proxies.py)
    screened          lm with proxies as its lowest rung
    static            a made-up function of the program, for tests and demonstrations
    MODULE:FUNCTION   a function of one's own, `(program text, seed) -> figures or a number`

An evaluator is a frozen dataclass that can be pickled: it is made in the driver and evaluates in
worker processes. What it trains must follow from the program's text, the seed and the rung alone.

Owns: the protocol, finding evaluators by name, and the two that need no torch. Refuses: processes.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from starc.grammar.errors import Diagnostic, StarError, suggest
from starc.grammar.parser import parse
from starc.grammar.source import Source
from starc.search.objectives import Objective


class Evaluator(Protocol):
    """Evaluates programs on one or several budgets (`rungs`), the last of which is the full one.

    `figures` are the names of what it gives, None for names that are only known afterwards;
    `quality` is the objective that "quality" stands for.
    """

    @property
    def name(self) -> str: ...

    @property
    def quality(self) -> Objective: ...

    @property
    def figures(self) -> tuple[str, ...] | None: ...

    @property
    def rungs(self) -> int: ...

    def tokens(self, rung: int) -> float:
        """Tokens that a training up to a rung reads, those of lower rungs included; 0 without."""
        ...

    def describe(self) -> dict[str, Any]:
        """Everything that decides the figures, as JSON: part of an evaluation's digest."""
        ...

    def evaluate(
        self, text: str, *, seed: int, rung: int, folder: Path
    ) -> Mapping[str, float] | float:
        """The figures of a program, in a worker process. `folder` stays between rungs.

        Raises whatever it likes; StarErrors `diverged` and `out-of-memory` have a status of their
        own.
        """
        ...

    def probe(self, text: str, *, seed: int, folder: Path) -> Mapping[str, float]:
        """What can be said before a search, in a worker process: `seconds` of a full evaluation.

        Raises what `evaluate` would raise of every program, such as missing data.
        """
        ...


BUILT_IN = {
    "lm": "starc.search.lm:make",
    "mad": "starc.mad.evaluating:make",
    "proxies": "starc.search.proxies:make",
    "screened": "starc.search.proxies:make_screened",
    "static": "starc.search.evaluators:make_static",
}
"""Evaluators by name: who makes one from its options (JSON). Loaded when asked for."""


def make_evaluator(name: str, options: Mapping[str, Any] | None = None) -> Evaluator:
    """The evaluator of that name with its options; raises StarError where there is none."""
    options = dict(options or {})
    if name in BUILT_IN:
        module, _, function = BUILT_IN[name].partition(":")
        make: Callable[..., Evaluator] = getattr(importlib.import_module(module), function)
        known = inspect.signature(make).parameters
        for option in options:
            if option not in known:
                raise _error(
                    "unknown-evaluator-option",
                    f"the evaluator '{name}' has no option '{option}'.",
                    suggest(option, known) or f"it has {', '.join(known) or 'none'}.",
                )
        return make(**options)
    module, colon, function = name.partition(":")
    if not (colon and module and function.isidentifier()):
        raise _error(
            "unknown-evaluator",
            f"there is no evaluator '{name}'.",
            suggest(name, BUILT_IN)
            or f"there are {', '.join(BUILT_IN)}, and module:function for one of your own.",
        )
    if options:
        raise _error(
            "unknown-evaluator-option", "a function of your own has no options.", "leave them out."
        )
    return EntryPoint(name)


def evaluator_digest(evaluator: Evaluator) -> str:
    """SHA-256 of the description, in hexadecimal: equal digests give equal figures."""
    text = json.dumps([evaluator.name, evaluator.describe()], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def evaluation_seed(identity: str, run_seed: int) -> int:
    """The seed of a program's evaluations, below 2**31: of what it means, whoever asks and when."""
    return int.from_bytes(hashlib.sha256(f"{run_seed}:{identity}".encode()).digest()[:4]) >> 1


@dataclass(frozen=True)
class Static:
    """A made-up function of the program: no figure means anything, but they differ and conflict.

    `quality` falls with size and with the variety of operators; `seconds` is how long a full
    evaluation sleeps, `rungs` how many budgets it pretends to have: lower ones are noisier.
    """

    seconds: float = 0.0
    rungs: int = 1

    name = "static"
    quality = Objective("quality")
    figures: tuple[str, ...] = ("quality", "roughness")

    def tokens(self, rung: int) -> float:
        """A share of the full budget, which is 1; halved from rung to rung."""
        return 2.0 ** (rung + 1 - self.rungs) if self.rungs > 1 else 0.0

    def describe(self) -> dict[str, Any]:
        """Its rungs: how long it sleeps changes no figure."""
        return {"rungs": self.rungs, "version": 1}

    def evaluate(self, text: str, *, seed: int, rung: int, folder: Path) -> dict[str, float]:
        """Figures from the words of the program and the seed."""
        if self.seconds:
            time.sleep(self.seconds * 2.0 ** (rung + 1 - self.rungs))
        words = sorted(set(text.replace("(", " ").split()))
        noise = _unit(f"{seed}:{rung}")
        size = math.log(1 + len(text))
        rough = sum(_unit(word) for word in words) / (1 + len(words))
        blur = 0.02 + 0.1 * (self.rungs - 1 - rung)
        return {"quality": 3.0 / size + rough + blur * noise, "roughness": rough}

    def probe(self, text: str, *, seed: int, folder: Path) -> dict[str, float]:
        """It sleeps as long as it was told to."""
        return {"seconds": self.seconds}


def make_static(seconds: float = 0.0, rungs: int = 1) -> Static:
    """The made-up evaluator; raises StarError for numbers that make none."""
    if not (0 <= seconds < math.inf and 1 <= rungs <= 20):
        raise _error(
            "bad-evaluator-option", "static has 1 to 20 rungs and sleeps no less than 0 s."
        )
    return Static(float(seconds), int(rungs))


@dataclass(frozen=True)
class EntryPoint:
    """A function of the user's, `module:function`, called with the program's text and `seed`."""

    target: str

    quality = Objective("quality")
    figures: tuple[str, ...] | None = None
    rungs = 1

    @property
    def name(self) -> str:
        return self.target

    def tokens(self, rung: int) -> float:
        """Nobody knows."""
        return 0.0

    def describe(self) -> dict[str, Any]:
        """Its name: starc cannot see when the function changes."""
        return {"function": self.target}

    def evaluate(
        self, text: str, *, seed: int, rung: int, folder: Path
    ) -> Mapping[str, float] | float:
        """What the function returns."""
        found: Mapping[str, float] | float = self._function()(text, seed)
        return found

    def probe(self, text: str, *, seed: int, folder: Path) -> dict[str, float]:
        """Only whether the function is there: calling it may take hours."""
        parse(Source("<probe>", text))
        self._function()
        return {}

    def _function(self) -> Callable[..., Any]:
        module, _, name = self.target.partition(":")
        try:
            found = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError) as error:
            raise _error(
                "no-such-function",
                f"the evaluator '{self.target}' cannot be loaded: {error}.",
                "the module must be importable from here: set PYTHONPATH.",
            ) from error
        if not callable(found):
            raise _error("no-such-function", f"'{self.target}' is no function.")
        function: Callable[..., Any] = found
        return function


def _unit(text: str) -> float:
    """A number in [0, 1) that follows from the text."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6]) / 2**48


def _error(code: str, message: str, hint: str = "") -> StarError:
    return StarError(Diagnostic(code, message, hint=hint))
