"""Plan of the kernels for long convolutions: Toeplitz blocks of a filter times chunks as columns.

Owns: `LongConvolution` and its launches. Refuses: tiles and the length from which on transforms
are better (kernel_tiles.py), filters of a few taps (kernel_plan.py), rendering.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import ClassVar

from starc.compiler.kernel_plan import SMALL_SHARED, KernelPlan, Launch, Tile, Work
from starc.compiler.kernel_tiles import (
    CONVOLUTION_COLUMNS,
    CONVOLUTION_TILES,
    LONGEST_PRODUCT,
    ConvolutionTile,
)
from starc.grammar.errors import InternalError


@dataclass(frozen=True, kw_only=True)
class LongConvolution(KernelPlan):
    """`y_t = output_gate_t * sum over s of K_s input_gate_{t-s} value_{t-s}`, either gate optional.

    Operands are (batch, T, channels), in which channels / lanes neighbours share a filter; K is
    (taps, lanes). `function` is the function of the file that computes the sum by transforms.
    Gates say what the program gives somewhere; the operator takes None for either, so that one
    section of a file serves all convolutions of these sizes (`joined`).
    """

    template: ClassVar[str] = "kernel/long_convolution.py.j2"
    shared = ("kernel/products.py.j2", "kernel/longest_product.py.j2")

    channels: int
    lanes: int
    output_gate: bool = False
    input_gate: bool = False
    function: str = "long_convolution"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.lanes < 1 or self.channels < self.lanes or self.channels % self.lanes:
            raise InternalError(f"{self.name}: {self.lanes} filters for {self.channels} channels")

    @property
    def name(self) -> str:
        own = self.lanes == self.channels
        sizes = f"{self.channels}" if own else f"{self.lanes}x{self.channels // self.lanes}"
        return f"long_convolution_{sizes}"

    def joined(self, plans: Iterable[KernelPlan]) -> LongConvolution:
        """This plan with the gates of those among `plans` that have its name."""
        same = [x for x in (self, *plans) if isinstance(x, LongConvolution) and x.name == self.name]
        return replace(
            self,
            output_gate=any(x.output_gate for x in same),
            input_gate=any(x.input_gate for x in same),
        )

    @property
    def turned(self) -> Tile:
        """What a program turns, tokens by channels: rows and columns of a sector and more."""
        return Tile(64, 64, 4, ragged=self.channels % 64 != 0)

    @property
    def tiles(self) -> dict[int, ConvolutionTile]:
        """By bytes of an element."""
        return CONVOLUTION_TILES

    @property
    def pad(self) -> int:
        """Sequences are padded to a multiple of this, and filters by it: the longest chunk."""
        return max(max(tile.chunk, tile.lags) for tile in CONVOLUTION_TILES.values())

    @property
    def column_tiles(self) -> tuple[int, int]:
        """Columns of a program's products, for few and for many."""
        return CONVOLUTION_COLUMNS

    @property
    def fused(self) -> tuple[str, ...]:
        source = "input_gate * value" if self.input_gate else "value"
        longest = max(of_size[2] for of_size in LONGEST_PRODUCT.values())
        return (
            f"K * ({source}) as products of blocks, to {longest} taps at most; longer: transforms",
            *(("times output_gate",) if self.output_gate else ()),
        )

    def launches(self, element: str, shared: int = SMALL_SHARED) -> tuple[Launch, ...]:
        x, integer = f"*{element}", "i32"
        tile = CONVOLUTION_TILES[4 if element == "fp32" else 2]
        known = ("p_gate", "p_known", "p_product") if self.output_gate else ()
        returned = ("p_gate", "p_value", "p_product") if self.input_gate else ()
        rows = {"p_filter": "*fp32", "p_rows": x, "taps": integer, "reach": integer}
        turn = {f"p_{name}": x for name in ("x", "gate", "known", "turned", "product")}
        turn |= dict.fromkeys(("length", "tokens", "x_stride", "gate_stride"), integer)
        back = {f"p_{name}": x for name in ("turned", "gate", "value", "y", "product")}
        back |= dict.fromkeys(("length", "tokens", "gate_stride", "value_stride"), integer)
        blocks = {"p_rows": x, "p_u": x, "p_y": x}
        blocks |= dict.fromkeys(("taps", "reach", "tokens", "sequences"), integer)
        lags = {"p_dy": x, "p_u": x, "p_shares": "*fp32"}
        lags |= dict.fromkeys(("tokens", "sequences", "blocks"), integer)
        block = {"copies": tile.copies, "chunk": tile.chunk, "depth": tile.depth}
        precision: dict[str, object] = {"precision": "tf32x3"}
        found = []
        for own in ({"p_gate"} if self.input_gate else set(), set(known)):
            optional = {"p_gate", "p_known", "p_product"} - own
            found.append(self._launch("turn", turn, dict.fromkeys(optional)))
        for own in ({"p_gate"} if self.output_gate else set(), set(returned)):
            optional = {"p_gate", "p_value", "p_product"} - own
            found.append(self._launch("return", back, dict.fromkeys(optional)))
        for backwards in (False, True):
            way: dict[str, object] = {"backwards": backwards}
            found.append(self._launch("rows", rows, {"copies": tile.copies, **way}))
            for columns in self.column_tiles:
                constants = {**block, "columns": columns, **way, **precision}
                found.append(self._launch("blocks", blocks, constants, tile))
        constants = {"width": tile.lags, "columns": tile.lag_columns, **precision}
        return (*found, self._launch("lags", lags, constants, tile))

    def _launch(
        self,
        kernel: str,
        signature: dict[str, str],
        constants: dict[str, object],
        tile: ConvolutionTile | None = None,
    ) -> Launch:
        whole = self.channels % 16 == 0
        aligned = tuple(
            name
            for name in signature
            if name in ("reach", "tokens")
            or (name.endswith("_stride") and whole and name not in constants)
        )
        return Launch(
            f"{self.name}_{kernel}",
            {name: kind for name, kind in signature.items() if name not in constants},
            tile.warps if tile else self.turned.warps,
            aligned,
            constants,
            tile.stages if tile else 3,
            products=tile is not None,
        )

    def work(self, batch: int, tokens: int, size: int) -> tuple[Work, ...]:
        tile = CONVOLUTION_TILES[size]
        padded = -(-tokens // self.pad) * self.pad
        own = size * batch * tokens * self.channels
        turned = size * batch * padded * self.channels
        filter = 4 * tokens * self.lanes
        rows = size * tile.copies * self.lanes * (padded + self.pad)
        shares = 8 * self.lanes * padded
        gates = self.output_gate + self.input_gate
        least = {"forward": (2 + gates) * own + filter, "backward": (3 + 2 * gates) * own}
        least["backward"] += 2 * filter
        sequences = batch * self.channels // self.lanes
        block = self.lanes * self._products(sequences, padded, size)
        lag = self.lanes * sequences * padded * (padded + tile.lags)
        found = []

        def add(kernel: str, operation: str, flops: int, moved: int) -> None:
            found.append(Work(f"{self.name}_{kernel}", operation, flops, moved, least[operation]))

        elements = batch * tokens * self.channels
        source = (1 + self.input_gate) * own + turned
        add("turn", "forward", self.input_gate * elements, source)
        add("rows", "forward", 0, filter + rows)
        add("blocks", "forward", block, 2 * turned + rows)
        add("return", "forward", self.output_gate * elements, turned + (1 + self.output_gate) * own)
        add("turn", "backward", self.input_gate * elements, source)
        known = (own + turned + own) if self.output_gate else 0  # gate, what it met, its gradient
        add("turn", "backward", 2 * self.output_gate * elements, own + known + turned)
        add("rows", "backward", 0, filter + rows)
        add("blocks", "backward", block, 2 * turned + rows)
        add("lags", "backward", lag, 2 * turned + 3 * shares + filter)
        values = 3 * own if self.input_gate else 0
        add("return", "backward", 2 * self.input_gate * elements, turned + values + own)
        return tuple(found)

    def _products(self, sequences: int, padded: int, size: int) -> int:
        """FLOPs of the blocks of one filter: a program makes the steps of its longest column."""
        tile = CONVOLUTION_TILES[size]
        chunks = padded // tile.chunk
        few, many = self.column_tiles
        columns = many if chunks * sequences > few else few
        each = 2 * tile.chunk * tile.depth * columns
        last = (
            min(-(-(start + columns) // sequences), chunks)
            for start in range(0, chunks * sequences, columns)
        )
        return sum(each * (n * tile.chunk // tile.depth) for n in last)
