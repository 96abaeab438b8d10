"""The plan of the kernel for rotary position encoding of queries and keys in one launch.

Owns: `Rotary`, its tile, its launches, its bytes. Refuses: which rotations meet in one launch
(lower does), other kernels (kernel_plan.py), rendering.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from starc.compiler.kernel_plan import SMALL_SHARED, KernelPlan, Launch, Tile, Work
from starc.grammar.errors import InternalError


@dataclass(frozen=True, kw_only=True)
class Rotary(KernelPlan):
    """Channels of heads turned in pairs by the angles of a table: `heads` of x, `others` of other.

    The first `dims` channels of every head are turned, j with j + dims / 2 where `pairs` is half,
    2 j with 2 j + 1 where it is interleaved; the rest is handed on. `function` is the function of
    the file that does the same in PyTorch.
    """

    template: ClassVar[str] = "kernel/rotary.py.j2"

    function: str
    heads: int
    others: int
    channels: int
    dims: int
    pairs: str = "half"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 2 <= self.dims <= self.channels or self.dims % 2 or self.heads < 1:
            raise InternalError(f"{self.name}: pairs of channels of heads are turned")
        if self.pairs not in ("half", "interleaved"):
            raise InternalError(f"{self.name}: no kernel knows such pairs")

    @property
    def name(self) -> str:
        others = f"_{self.others}" if self.others else ""
        part = f"_{self.dims}" if self.dims < self.channels else ""
        kind = "" if self.pairs == "half" else "interleaved_"
        return f"{kind}rotary_{self.heads}{others}x{self.channels}{part}"

    @property
    def half(self) -> int:
        return self.dims // 2

    @property
    def rest(self) -> int:
        """Channels of a head that are handed on."""
        return self.channels - self.dims

    @property
    def tile(self) -> Tile:
        """Rows, of one token and head each, by pairs: about 2048 numbers, and no more than four
        times as many that are handed on."""
        width = 1 << (self.half - 1).bit_length()
        rows = max(min(1024 // width, 8192 // self.rest_tile), 1)
        return Tile(rows, width, 4, ragged=width != self.half)

    @property
    def rest_tile(self) -> int:
        return 1 << max(self.rest - 1, 0).bit_length()

    def launches(self, element: str, shared: int = SMALL_SHARED) -> tuple[Launch, ...]:
        x, wide, integer = f"*{element}", "*fp32", "i32"
        others = {"p_other": x, "p_turned": x} if self.others else {}
        signature = {"p_x": x, "p_y": x, **others, "p_cos": wide, "p_sin": wide, "tokens": integer}
        names = ("x", "other") if self.others else ("x",)
        strides = [f"{name}_{axis}" for name in names for axis in ("batch", "token", "head")]
        signature |= dict.fromkeys(strides, integer)
        aligned = tuple(strides) if self.channels % 16 == 0 else ()
        return tuple(
            Launch(f"{self.name}_turn", signature, self.tile.warps, aligned, {"back": back})
            for back in (False, True)
        )

    @property
    def fused(self) -> tuple[str, ...]:
        what = f"{self.heads} heads" + (f" and {self.others} heads" if self.others else "")
        return (f"(a cos - b sin, b cos + a sin) for the {self.pairs} pairs of {what}",)

    def work(self, batch: int, tokens: int, size: int) -> tuple[Work, ...]:
        each = batch * tokens * (self.heads + self.others)
        moved = 2 * each * self.channels * size + 8 * tokens * self.half
        return tuple(
            Work(f"{self.name}_turn", operation, 6 * each * self.half, moved, moved)
            for operation in ("forward", "backward")
        )
