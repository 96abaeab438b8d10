"""Plans of kernels for heads of one channel: selective scans and gated linear recurrences.

Owns: `Scan`, its tiles, and its launches. Refuses: heads of several channels
(kernel_recurrence.py), rendering.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from starc.compiler.kernel_plan import SMALL_SHARED, KernelPlan, Launch, Work

TILE = 4096
"""Numbers of a tile, tokens by heads by channels of a state: 16 in each lane of eight warps."""


@dataclass(frozen=True, kw_only=True)
class Scan(KernelPlan):
    """`y_i = C_i . h_i` with `h_i = exp(A_i) h_{i-1} + B_i V_i` for heads of one channel.

    `reads` and `writes` say what C and B are: `one` (no operand), `shared` by all heads, or each
    head's `own`. With `factored` the log decay is A_i times a slope (heads, channels), which spares
    a tensor of tokens by heads by channels; else A has `decay_channels`, 1 or `channels`.
    """

    template: ClassVar[str] = "kernel/scan.py.j2"
    shared = ("kernel/products.py.j2", "kernel/join_steps.py.j2")

    function: str
    heads: int
    channels: int
    reads: str
    writes: str
    factored: bool
    decay_channels: int
    repeats: tuple[tuple[str, int], ...] = ()

    @property
    def name(self) -> str:
        return self.function

    @property
    def whole(self) -> int:
        """Channels of a state, up to a power of two."""
        return 1 << (self.channels - 1).bit_length()

    @property
    def tile(self) -> int:
        """Heads of one program."""
        return max(1, min(1 << (self.heads - 1).bit_length(), 128, TILE // 16 // self.whole))

    @property
    def chunk(self) -> int:
        """Tokens that are scanned at a time."""
        return max(16, min(64, TILE // self.tile // self.whole))

    @property
    def tiles(self) -> int:
        return -(-self.heads // self.tile)

    @property
    def warps(self) -> int:
        return 8

    @property
    def operands(self) -> tuple[str, ...]:
        there = {
            "C": self.reads != "one",
            "A": True,
            "slope": self.factored,
            "B": self.writes != "one",
            "V": True,
        }
        return tuple(name for name, is_there in there.items() if is_there)

    @property
    def sizes(self) -> dict[str, tuple[int, int]]:
        """Heads and channels of the operands, in the order of the operator's arguments."""
        h, n = self.heads, self.channels
        all = {
            "C": (1 if self.reads == "shared" else h, n),
            "A": (h, self.decay_channels),
            "slope": (h, n),
            "B": (1 if self.writes == "shared" else h, n),
            "V": (h, 1),
        }
        return {name: all[name] for name in self.operands}

    @property
    def steps(self) -> bool:
        return True

    @property
    def gradients(self) -> tuple[str, ...]:
        """Names of the operands' gradients in the launch of the backward pass."""
        return tuple("d_slope" if x == "slope" else f"d{x}" for x in self.operands)

    def launches(self, element: str, shared: int = SMALL_SHARED) -> tuple[Launch, ...]:
        x, wide, integer = f"*{element}", "*fp32", "i32"
        kinds = {"C": x, "A": wide, "slope": wide, "B": x, "V": x}
        reads = {f"p_{name.lower()}": kinds[name] for name in self.operands}
        partly = {"C": self.reads == "shared", "B": self.writes == "shared"}
        writes = {
            f"p_d_{name.lower()}": wide if partly.get(name) else kinds[name]
            for name in self.operands
        }
        strides = {f"{name.lower()}_stride": integer for name in self.operands if name != "slope"}
        sizes = {"tokens": integer, "chunks": integer}
        forward = {**reads, "p_first": wide, "p_states": wide, "p_y": x, "p_last": wide}
        backward = {"p_dy": x, **reads, "p_states": wide, "p_d_last": wide, **writes}
        backward |= {"p_d_first": wide, **sizes, "dy_stride": integer, **strides}
        step = {**reads, "p_state": wide, "p_y": x, "tokens": integer, **strides}
        return (
            self._launch("forward", {**forward, **sizes, **strides}),
            self._launch("backward", backward),
            self._launch("step", step),
        )

    def _launch(self, kernel: str, signature: dict[str, str]) -> Launch:
        aligned = tuple(name for name in signature if self._aligned(name))
        return Launch(f"{self.name}_{kernel}", signature, self.warps, aligned)

    def _aligned(self, name: str) -> bool:
        operand = name.removesuffix("_stride")
        if operand == name:
            return False
        kinds = {"c": self.reads, "b": self.writes}
        own = kinds.get(operand, "own") == "own"
        many = operand in kinds or (operand == "a" and self.decay_channels > 1)
        return (self.heads if own else 1) * (self.channels if many else 1) % 16 == 0

    @property
    def fused(self) -> tuple[str, ...]:
        decay = "exp(A_i slope)" if self.factored else "exp(A_i)"
        c = "sum of h_i" if self.reads == "one" else "C_i . h_i"
        b = "V_i" if self.writes == "one" else "B_i V_i"
        return (f"{c}, h_i = {decay} h_(i-1) + {b}, {self.chunk} tokens at a time",)

    def work(self, batch: int, tokens: int, size: int) -> tuple[Work, ...]:
        count, h, n = batch * tokens, self.heads, self.channels
        heads = {"one": 0, "shared": 1, "own": h}
        c, b = (size * count * heads[kind] * n for kind in (self.reads, self.writes))
        v, a = size * count * h, 4 * count * h * self.decay_channels
        slope = 4 * h * n if self.factored else 0
        states = 4 * batch * -(-tokens // self.chunk) * h * n
        forward, read = c + a + slope + b + 2 * v, c + a + slope + b + 2 * v
        kinds = (self.reads, self.writes)
        partial = 4 * count * n * (self.tiles - 1) * kinds.count("shared")
        backward = read + c + a + slope + b + v
        each = count * h * n
        step = size * batch * (2 * h + (heads[self.reads] + heads[self.writes]) * n)
        step += 4 * batch * h * (self.decay_channels + 2 * n) + slope
        operations = ("forward", 8 * each, forward + states, forward), (
            "backward",
            24 * each,
            backward + states + partial,
            backward,
        )
        return (
            *(Work(f"{self.name}_{o}", o, f, moved, least) for o, f, moved, least in operations),
            Work(f"{self.name}_step", "step", 6 * batch * h * n, step, step),
        )
