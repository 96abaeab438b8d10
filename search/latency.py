"""How long a program takes per token on this device, as a figure of any evaluator.

    decode_latency   seconds of one token at batch 1 at the end of `length` tokens: the lower
                     quartile of single steps with a cache, as `forward` does them, without
                     torch.compile

On a CPU it is processor time of one thread, which other work on the machine changes little; on
other devices it is the time until the device is done. It is measured, so it differs a little from
run to run: a search with it goes on exactly after an interruption, as what was measured is kept,
but does not repeat to the last digit.

Owns: the measurement, and the evaluator that adds it to another's figures. Refuses: times that need
no device (objectives.py has the roofline).
"""

from __future__ import annotations

import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starc.compiler.driver import compile_program
from starc.compiler.options import Options
from starc.grammar.errors import Diagnostic, StarError
from starc.grammar.source import Source
from starc.search.evaluators import Evaluator
from starc.search.objectives import MEASURED, Objective

STEPS = 24
"""Single tokens that are timed."""

_PIECE = 1024


def decode_latency(text: str, *, length: int | None, device: str = "cpu", seed: int = 0) -> float:
    """Seconds per token of a program's text, at initial values, behind `length` - 1 tokens (None:
    its context).

    Raises StarError for a program that does not decode, cannot be compiled, or needs too much
    memory.
    """
    import torch

    from starc.runtime.device import memory_errors
    from starc.runtime.loader import load, unload

    module = load(compile_program(Source("<program>", text), Options(format=False)).text)
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad(), memory_errors():
            torch.manual_seed(seed)
            model: Any = module.Model().to(device).eval()
            whole = length or module.CONFIG["context"]
            tokens: torch.Tensor = torch.randint(module.CONFIG["vocab"], (1, whole), device=device)
            try:
                cache = model.init_cache(1, whole)
            except ValueError as error:
                raise StarError(Diagnostic("cannot-decode", f"{error}.")) from error
            steps = min(STEPS, whole)
            before, last = tokens[:, : whole - steps], tokens[:, whole - steps :]
            for piece in torch.split(before, _PIECE, dim=1) if whole > steps else ():
                model.hidden(piece, cache)  # without logits, which would take most of the memory
            times = []
            for token in torch.split(last, 1, dim=1):
                began = _now(device)
                model(token, cache)
                times.append(_now(device) - began)
            return sorted(times)[len(times) // 4]  # what disturbs makes longer, never shorter
    finally:
        unload(module)


def _now(device: str) -> float:
    if device == "cpu":
        return time.process_time()
    import torch

    torch.accelerator.synchronize()
    return time.perf_counter()


@dataclass(frozen=True)
class Timed:
    """The figures of another evaluator, and `decode_latency` on its device at `decoded` tokens."""

    evaluator: Evaluator
    decoded: int | None

    @property
    def name(self) -> str:
        return self.evaluator.name

    @property
    def quality(self) -> Objective:
        return self.evaluator.quality

    @property
    def figures(self) -> tuple[str, ...] | None:
        known = self.evaluator.figures
        return None if known is None else (*known, *MEASURED)

    @property
    def rungs(self) -> int:
        return self.evaluator.rungs

    @property
    def device(self) -> str:
        """Where the other one trains, as it says; else the CPU."""
        return str(getattr(self.evaluator, "device", "cpu"))

    @property
    def length(self) -> int | None:
        """Tokens of a sequence in training, where the other one trains."""
        found: int | None = getattr(self.evaluator, "length", None)
        return found

    def tokens(self, rung: int) -> float:
        return self.evaluator.tokens(rung)

    def describe(self) -> dict[str, Any]:
        """The other's recipe, the length, and the machine: another one has other times."""
        place = self.device if self.device == "cpu" else _device_name(self.device)
        timing = {"length": self.decoded, "device": place, "machine": platform.processor()}
        return {**self.evaluator.describe(), "decode_latency": {**timing, "version": 1}}

    def evaluate(self, text: str, *, seed: int, rung: int, folder: Path) -> dict[str, float]:
        """The time first: a program that does not decode is not trained."""
        if self.device == "cpu":
            import torch

            torch.set_num_threads(1)  # processor time of several would add up
        latency = decode_latency(text, length=self.decoded, device=self.device, seed=seed)
        found = self.evaluator.evaluate(text, seed=seed, rung=rung, folder=folder)
        known = found if not isinstance(found, int | float) else {"quality": float(found)}
        return {**known, "decode_latency": latency}

    def probe(self, text: str, *, seed: int, folder: Path) -> dict[str, float]:
        """The other's, and the time that this one adds."""
        began = time.monotonic()
        decode_latency(text, length=self.decoded, device=self.device, seed=seed)
        took = time.monotonic() - began
        found = dict(self.evaluator.probe(text, seed=seed, folder=folder))
        if "seconds" in found:
            found["seconds"] += took
        return found


def timed(evaluator: Evaluator, names: Sequence[str], length: int | None) -> Evaluator:
    """The evaluator, with what of `names` must be measured."""
    return Timed(evaluator, length) if set(names) & set(MEASURED) else evaluator


def _device_name(device: str) -> str:
    import torch

    return torch.cuda.get_device_name(device) if device.startswith("cuda") else device
