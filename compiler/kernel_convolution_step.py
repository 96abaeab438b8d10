"""Plan of the kernel for a step of a gated convolution: one token, and the values before it.

Owns: `ConvolutionStep` and its launch. Refuses: whole sequences (kernel_plan.py), rendering.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from starc.compiler.kernel_plan import SMALL_SHARED, GatedConvolution, KernelPlan, Launch, Work


@dataclass(frozen=True, kw_only=True)
class ConvolutionStep(KernelPlan):
    """A token of `of`, whose filter reads `past` gated values of a cache, rolled in place.

    Values of the cache are (batch, past, channels), the newest last.
    """

    template: ClassVar[str] = "kernel/convolution_step.py.j2"
    shared = ("kernel/steps.py.j2",)

    of: GatedConvolution
    past: int

    @property
    def name(self) -> str:
        return f"{self.of.name}_step"

    @property
    def channels(self) -> int:
        return self.of.channels

    @property
    def operands(self) -> tuple[str, ...]:
        return self.of.operands

    @property
    def inputs(self) -> tuple[str, ...]:
        return self.of.inputs

    @property
    def packed(self) -> bool:
        return self.of.packed

    @property
    def tile(self) -> int:
        """Channels of a program: few, so that one sequence keeps several multiprocessors busy."""
        return 128

    @property
    def tiles(self) -> int:
        return -(-self.channels // self.tile)

    def launches(self, element: str, shared: int = SMALL_SHARED) -> tuple[Launch, ...]:
        reads = {f"p_{x}": f"*{element}" for x in self.operands}
        bias = {"p_bias": "*fp32"} if self.of.bias else {}
        own = {"p_taps": "*fp32", **bias, "p_past": f"*{element}", "p_y": f"*{element}"}
        strides = {f"{x}_stride": "i32" for x in self.operands}
        aligned = tuple(strides) if self.channels % 16 == 0 else ()
        return (Launch(self.name, {**reads, **own, **strides}, 1, aligned),)

    @property
    def fused(self) -> tuple[str, ...]:
        rolled = f"rolls {self.past} values of the cache in place"
        return (f"one token of {self.of.formula}", rolled)

    def work(self, batch: int, tokens: int, size: int) -> tuple[Work, ...]:
        channels = batch * self.channels
        least = size * channels * (len(self.operands) + 1 + 2 * self.past)
        least += 4 * (self.of.taps + self.of.bias) * self.channels
        return (Work(self.name, "step", (2 * self.of.taps + 2) * channels, least, least),)
