"""Plans of kernels for normalisation: of the stream with what a unit adds to it, and of heads.

Owns: `NormKernel`, its tiles, its launches, its bytes. Refuses: which norms get one (lower does),
other kernels (kernel_plan.py), rendering.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from starc.compiler.kernel_plan import SMALL_SHARED, KernelPlan, Launch, Tile, Work
from starc.grammar.errors import InternalError

MAX_CHANNELS = 8192
"""Most channels of a row that one program holds in registers, in its backward pass too."""

LEAST_WIDTH = 256
"""Channels of a stream from which on a kernel is worth its lines: below, launches take the time,
not bytes."""

PROGRAMS = 256
"""Programs of the backward pass at most: each leaves one row of the weight's gradient."""

KINDS = ("rms", "layer", "l2")
WEIGHTS = ("learned", "offset", "own", "none")


@dataclass(frozen=True, kw_only=True)
class NormKernel(KernelPlan):
    """`y = norm(x)`, or with a `residual` `total = x + more` and `y = norm(total)`.

    `kind` is rms (x over its root mean square), layer (less its mean, over its deviation) or l2
    (over its length). `weight` is learned (times weight), offset (times 1 + weight), own (times one
    weight for each head) or none. x is (..., channels), or (..., heads, channels) with several
    `heads`.
    """

    template: ClassVar[str] = "kernel/norm.py.j2"

    kind: str
    channels: int
    weight: str = "learned"
    bias: bool = False
    heads: int = 1
    residual: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.channels <= MAX_CHANNELS or self.heads < 1:
            raise InternalError(f"{self.name}: the kernel takes 1 to {MAX_CHANNELS} channels")
        if self.kind not in KINDS or self.weight not in WEIGHTS:
            raise InternalError(f"{self.name}: no kernel knows the norm")
        if self.residual and self.heads > 1:
            raise InternalError(f"{self.name}: the stream has no heads")
        if self.bias and self.weight == "none":
            raise InternalError(f"{self.name}: a bias comes with a weight")

    @property
    def name(self) -> str:
        added = "add_" if self.residual else ""
        weight = {"learned": "", "none": "plain_"}.get(self.weight, f"{self.weight}_")
        biased = "biased_" if self.bias else ""
        heads = f"{self.heads}x" if self.heads > 1 else ""
        return f"{added}{weight}{biased}{self.kind}_norm_{heads}{self.channels}"

    @property
    def weights(self) -> tuple[str, ...]:
        """The parameters among the operands."""
        return (*(("weight",) if self.weight != "none" else ()), *(("bias",) if self.bias else ()))

    @property
    def weight_shape(self) -> tuple[int, ...]:
        own = self.weight == "own" and self.heads > 1
        return (self.heads, self.channels) if own else (self.channels,)

    @property
    def tile(self) -> Tile:
        """Whole rows, about 2048 channels; long ones with more warps."""
        width = max(16, 1 << (self.channels - 1).bit_length())
        warps = min(max(4, width // 512), 32)
        return Tile(max(2048 // width, 1), width, warps, ragged=width != self.channels)

    @property
    def programs(self) -> int:
        """Programs of the backward pass for each head, at most."""
        return max(PROGRAMS // self.heads, 1)

    def launches(self, element: str, shared: int = SMALL_SHARED) -> tuple[Launch, ...]:
        x, wide = f"*{element}", "*fp32"
        weights = {f"p_{name}": wide for name in self.weights}
        more = {"p_more": x} if self.residual else {}
        total = {"p_total": x} if self.residual else {}
        strides = ("x_stride", "more_stride") if self.residual else ("x_stride",)
        forward = {"p_x": x, **more, **weights, **total, "p_y": x, "eps": "fp32", "rows": "i32"}
        forward |= dict.fromkeys(strides, "i32")
        d_total = {"p_d_total": x} if self.residual else {}
        strides = ("dy_stride", *(("d_total_stride",) if self.residual else ()), "x_stride")
        shares = {f"p_{name}_share": wide for name in self.weights}
        backward = {"p_dy": x, **d_total, "p_x": x, **dict(list(weights.items())[:1])}
        backward |= {"p_dx": x, **shares, "eps": "fp32", "rows": "i32", "steps": "i32"}
        backward |= dict.fromkeys(strides, "i32")
        return (self._launch("forward", forward), self._launch("backward", backward))

    def _launch(self, suffix: str, signature: dict[str, str]) -> Launch:
        whole = self.heads * self.channels % 16 == 0
        aligned = tuple(x for x in signature if x.endswith("_stride") and whole)
        return Launch(f"{self.name}_{suffix}", signature, self.tile.warps, aligned)

    @property
    def formula(self) -> str:
        read = "total" if self.residual else "x"
        centred = f"({read} - mean)" if self.kind == "layer" else read
        norm = {"rms": "rms", "layer": "deviation", "l2": "length"}[self.kind]
        weight = {"none": "", "offset": " * (1 + weight)"}.get(self.weight, " * weight")
        return f"{centred} / {norm}{weight}{' + bias' if self.bias else ''}"

    @property
    def fused(self) -> tuple[str, ...]:
        return (f"y = {self.formula}", *(("total = x + more",) if self.residual else ()))

    def work(self, batch: int, tokens: int, size: int) -> tuple[Work, ...]:
        rows = batch * tokens
        elements = rows * self.heads * self.channels
        forward, backward = (4, 4) if self.residual else (2, 3)
        tiles = -(-rows // self.tile.rows)
        each = min(tiles, self.programs) * self.heads * self.channels
        shares = 4 * len(self.weights) * each
        return (
            Work(
                f"{self.name}_forward", "forward", 6 * elements, *(forward * elements * size,) * 2
            ),
            Work(
                f"{self.name}_backward",
                "backward",
                12 * elements,
                backward * elements * size + shares,
                backward * elements * size,
            ),
        )
