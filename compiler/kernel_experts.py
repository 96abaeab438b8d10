"""Plan of the kernels of routed experts: grouped matrix products over sorted assignments.

An assignment is a token with one of the experts that were chosen for it. Sorted by expert they lie
in segments, of which programs take tiles; nothing waits for sizes that only the device knows.

Owns: `ExpertProducts`, its tiles, its launches, its bytes. Refuses: which experts get them (lower
does), routers, rendering.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from starc.compiler.kernel_activation import ACTIVATIONS, Activation
from starc.compiler.kernel_plan import SMALL_SHARED, KernelPlan, Launch, Work
from starc.grammar.errors import InternalError

MAX_EXPERTS = 1024
"""Experts whose segments every program looks through."""

FEW = 32
"""Assignments an expert below which tiles are low: memory binds, and rows of zeros cost time."""

CACHE = 20 * 2**20
"""Half of the second-level cache of an A100, in bytes: what kernels may read again for free."""

TOGETHER = 8
"""Tiles of rows whose programs stand side by side, so that they share what they read of weights."""


@dataclass(frozen=True)
class ProductTile:
    """`rows` by `columns` of a product, summed over `depth` at a time, by `warps` warps with loads
    `stages` deep in flight."""

    rows: int
    columns: int
    depth: int
    warps: int
    stages: int

    @property
    def text(self) -> str:
        return f"({self.rows}, {self.columns}, {self.depth}, {self.warps}, {self.stages})"


TILES = {2: ProductTile(128, 128, 64, 8, 3), 4: ProductTile(64, 64, 32, 8, 2)}
"""By the bytes of an element. They fit every device: 96 KiB, and 64 KiB on AMD, where one stage is
kept in registers."""

LOW = {2: ProductTile(16, 64, 64, 4, 4), 4: ProductTile(16, 64, 32, 4, 3)}
"""The same for few assignments."""


@dataclass(frozen=True, kw_only=True)
class ExpertProducts(KernelPlan):
    """`sum over the chosen e of gate_e * (f(x U_e) * (x W_e)) D_e`, with biases or without.

    U and W are the halves of the first map, (2 hidden, width); not `gated`, f(x U_e) stands alone.
    Every token has `top` of `experts` experts. D is (out, hidden).
    """

    template: ClassVar[str] = "kernel/experts.py.j2"
    shared = ("kernel/products.py.j2", "kernel/sorted.py.j2", "kernel/assignments.py.j2")

    experts: int
    top: int
    width: int
    hidden: int
    out: int
    activation: str
    gated: bool
    bias: tuple[bool, bool] = (False, False)
    """Of the first map and of the second."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.activation not in ACTIVATIONS:
            raise InternalError(f"{self.name}: no kernel knows the nonlinearity")
        if not 1 <= self.top <= self.experts <= MAX_EXPERTS:
            raise InternalError(f"{self.name}: {self.top} of {self.experts} experts")

    @property
    def name(self) -> str:
        gated = "gated_" if self.gated else ""
        biased = {(False, False): "", (True, True): "biased_"}
        bias = biased.get(self.bias, f"biased_{'first' if self.bias[0] else 'second'}_")
        out = f"_{self.out}" if self.out != self.width else ""
        sizes = f"{self.experts}_{self.top}_{self.width}_{self.hidden}{out}"
        return f"{bias}{gated}{self.activation}_experts_{sizes}"

    @property
    def function(self) -> Activation:
        return ACTIVATIONS[self.activation]

    @property
    def first_width(self) -> int:
        """Channels that the first map gives."""
        return self.hidden * (1 + self.gated)

    @property
    def padded_experts(self) -> int:
        return max(16, 1 << (self.experts - 1).bit_length())

    @property
    def together(self) -> int:
        return TOGETHER

    @property
    def few(self) -> int:
        return FEW

    @property
    def in_place(self) -> bool:
        """Whether weights may be read where they lie: accesses of them stay aligned."""
        return self.width % 16 == 0 and self.hidden % 16 == 0

    def tile(self, size: int, low: bool = False) -> ProductTile:
        return (LOW if low else TILES)[size]

    def hidden_columns(self, tile: ProductTile) -> int:
        """Columns of the first product: two sums where there is a gate."""
        return max(tile.columns // 2, 16) if self.gated else tile.columns

    @property
    def formula(self) -> str:
        f = f"{self.activation}(x U + a)" if self.bias[0] else f"{self.activation}(x U)"
        inner = (f"{f} * (x W + b)" if self.bias[0] else f"{f} * (x W)") if self.gated else f
        inner = inner.replace("identity(x U)", "(x U)")
        outer = f"({inner}) D"
        return f"gate * ({outer} + c)" if self.bias[1] else f"gate * {outer}"

    @property
    def fused(self) -> tuple[str, ...]:
        return (
            f"sum of {self.formula} over {self.top} of {self.experts} experts, none dropped",
            "rows of tokens are gathered by the first product, "
            + ("whose end multiplies halves and gates" if self.gated else "whose end has the gate"),
            "every sum has one order: assignments are sorted, and there are no atomics",
        )

    # --- launches -------------------------------------------------------------------------------

    def launches(self, element: str, shared: int = SMALL_SHARED) -> tuple[Launch, ...]:
        size = 4 if element == "fp32" else 2
        found = [self._hidden(element, self.tile(size)), self._outputs(element, self.tile(size))]
        found.append(self._hidden(element, self.tile(size, low=True), low=True))
        found.append(self._outputs(element, self.tile(size, low=True), low=True))
        if self.top > 1:
            sizes = {"p_parts": f"*{element}", "p_y": f"*{element}", "tokens": "i32"}
            found.append(Launch("sum_of_parts", sizes, 4, (), {"k": self.top, "width": self.out}))
        return (*found, *self._backward(element, self.tile(size)))

    def _constants(self, tile: ProductTile, columns: int) -> dict[str, object]:
        return {
            "rows": tile.rows,
            "columns": columns,
            "depth": tile.depth,
            "precision": "tf32x3",
        }

    def _made(
        self, end: str, signature: dict[str, str], tile: ProductTile, columns: int, low: bool
    ) -> Launch:
        strides = tuple(x for x in signature if x.endswith("_stride"))
        return Launch(
            f"{self.name}_{end}",
            signature,
            tile.warps,
            strides if self.width % 16 == 0 and self.out % 16 == 0 else (),
            self._constants(tile, columns),
            tile.stages,
            products=True,
            few_rows=low,
            label=f"{self.name}_{end}_of_few" if low else "",
        )

    def _hidden(self, element: str, tile: ProductTile, low: bool = False) -> Launch:
        x = f"*{element}"
        bias = {"p_bias": x} if self.bias[0] else {}
        signature = {"p_x": x, "p_weight": x, "p_offsets": "*i64", **bias, "p_gates": x}
        signature |= {"p_order": "*i64", "p_bounds": "*i32", "p_first": x, "p_hidden": x}
        signature |= {"x_stride": "i32"}
        made = self._made("hidden", signature, tile, self.hidden_columns(tile), low)
        made.constants["keep"] = not low
        return made

    def _outputs(self, element: str, tile: ProductTile, low: bool = False) -> Launch:
        x = f"*{element}"
        bias = {"p_bias": x, "p_gates": x} if self.bias[1] else {}
        signature = {"p_hidden": x, "p_weight": x, "p_offsets": "*i64", **bias}
        signature |= {"p_order": "*i64", "p_bounds": "*i32", "p_parts": x}
        return self._made("outputs", signature, tile, tile.columns, low)

    def _backward(self, element: str, tile: ProductTile) -> tuple[Launch, ...]:
        x, wide = f"*{element}", "*fp32"
        places = {"p_order": "*i64", "p_bounds": "*i32"}
        weight = {"p_weight": x, "p_offsets": "*i64"}
        bias = {"p_bias": x} if self.bias[1] else {}
        hidden = {"p_dy": x, **weight, **bias, "p_gates": x, **places, "p_first": x}
        hidden |= {"p_d_first": x, "p_share": wide, "dy_stride": "i32", "count": "i32"}
        d_inputs = {"p_d_first": x, **weight, **places, "p_parts": x}
        d_up = {"p_d_first": x, "p_x": x, **places, "p_d_weight": x}
        d_up |= {"p_d_bias": x} if self.bias[0] else {}
        d_down = {"p_dy": x, "p_hidden": x, **places, "p_d_weight": x}
        d_down |= {"p_gates": x, "p_d_bias": x} if self.bias[1] else {}
        return (
            self._made("d_hidden", hidden, tile, max(tile.columns // 2, 16), False),
            self._made("d_inputs", d_inputs, tile, tile.columns, False),
            self._made("d_first", d_up | {"x_stride": "i32"}, tile, tile.columns, False),
            self._made("d_second", d_down | {"dy_stride": "i32"}, tile, tile.columns, False),
        )

    # --- bytes ----------------------------------------------------------------------------------

    def work(self, batch: int, tokens: int, size: int) -> tuple[Work, ...]:
        n, k, d, o = batch * tokens, self.top, self.width, self.out
        m, h, f = n * k, self.hidden, self.first_width
        tile = self.tile(size)
        up, down = self.experts * f * d * size, self.experts * o * h * size
        places = 8 * m

        def gathered(channels: int) -> int:
            """What reading rows of tokens takes: once, if the cache keeps them for the others."""
            rows = n * channels * size
            return rows if rows <= CACHE else k * rows

        def shared(weights: int) -> int:
            """What reading weights takes: once an expert, if the cache keeps those of one."""
            if weights // self.experts <= CACHE:
                return weights
            rows = -(-m // (self.experts * tile.rows * TOGETHER))
            return max(rows, 1) * weights

        def summed(channels: int) -> int:
            """What parts take, one for each assignment, that are summed for each token."""
            if k == 1:
                return 0
            parts = m * channels * size
            return parts if parts <= CACHE else 2 * parts

        hidden, first, y, x = m * h * size, m * f * size, n * o * size, n * d * size
        shares = 4 * m * -(-h // max(tile.columns // 2, 16))
        pair = f"{self.name}_"
        found = [
            (f"{pair}hidden", 2 * m * d * f, gathered(d) + shared(up), x + up, hidden + first),
            (f"{pair}outputs", 2 * m * h * o, shared(down) + summed(o), down, hidden + y),
            (f"{pair}d_hidden", 2 * m * h * o, gathered(o) + shared(down), y + down, 2 * first),
            (f"{pair}d_inputs", 2 * m * d * f, shared(up) + summed(d), up, first + x),
            (f"{pair}d_first", 2 * m * d * f, gathered(d), x, first + up),
            (f"{pair}d_second", 2 * m * h * o, gathered(o), y, hidden + down),
        ]
        more = {f"{pair}d_hidden": shares}
        launched = [
            Work(
                kernel,
                kernel.removeprefix(pair),
                flops,
                moved + both + places + more.get(kernel, 0),
                least + both + places,
            )
            for kernel, flops, moved, least, both in found
        ]
        if k > 1:  # counted with the product that is ahead of it
            launched.append(Work("sum_of_parts", "outputs", m * o, 0, launched[1].least))
        return tuple(launched)
