"""Plan of the kernels of memories: weighted sums of chosen rows of a table, and their gradients.

Owns: `Gather`, its tiles, its launches, its bytes. Refuses: choosing the rows (templates/function),
rendering.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from starc.compiler.kernel_plan import SMALL_SHARED, KernelPlan, Launch, Work
from starc.grammar.errors import InternalError

CACHE = 20 * 2**20
"""Half of the second-level cache of an A100, in bytes: what kernels may read again for free."""


@dataclass(frozen=True, kw_only=True)
class Gather(KernelPlan):
    """`y_t = sum over j of weights_tj * table[rows_tj]` for `reads` rows of a table of `rows` by
    `channels`."""

    template: ClassVar[str] = "kernel/gather.py.j2"
    shared = ("kernel/sorted.py.j2",)

    rows: int
    reads: int
    channels: int

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.rows, self.reads, self.channels) < 1:
            raise InternalError(f"{self.name}: nothing to gather")

    @property
    def name(self) -> str:
        return f"gather_{self.rows}_{self.reads}_{self.channels}"

    @property
    def columns(self) -> int:
        """Channels of a program."""
        return min(max(16, 1 << (self.channels - 1).bit_length()), 512)

    @property
    def together(self) -> int:
        """Rows that a program has in flight."""
        return max(16, min(64, 4096 // self.columns))

    def launches(self, element: str, shared: int = SMALL_SHARED) -> tuple[Launch, ...]:
        x = f"*{element}"
        forward = {"p_rows": "*i64", "p_weights": x, "p_table": x, "p_y": x}
        d_weights = {"p_dy": x, "p_rows": "*i64", "p_table": x, "p_d_weights": x}
        sorted_ = {"p_order": "*i64", "p_bounds": "*i32", "p_weights": x}
        d_table = {"p_dy": x, **sorted_, "p_d_table": x, "dy_stride": "i32"}
        d_weights["dy_stride"] = "i32"
        aligned = ("dy_stride",) if self.channels % 16 == 0 else ()
        return (
            Launch(f"{self.name}_forward", forward, 4, ()),
            Launch(f"{self.name}_d_weights", d_weights, 4, aligned),
            Launch(f"{self.name}_d_table", d_table, 4, aligned),
        )

    @property
    def fused(self) -> tuple[str, ...]:
        return (
            f"sum of weights times {self.reads} of {self.rows} rows",
            "the table's gradient is written once: sorted choices, no zeros before, no atomics",
        )

    def work(self, batch: int, tokens: int, size: int) -> tuple[Work, ...]:
        n = batch * tokens
        row, choices = self.channels * size, n * self.reads
        table, y, places = self.rows * row, n * row, choices * (8 + size)
        met = min(self.rows, choices) * row
        gathered = met if table <= CACHE else choices * row
        shared = y if y <= CACHE else choices * row
        flops = 2 * choices * self.channels
        return tuple(
            Work(f"{self.name}_{end}", end, flops, moved + places, least + places)
            for end, moved, least in (
                ("forward", gathered + y, met + y),
                ("d_weights", gathered + y, met + y),
                ("d_table", shared + table, y + table),
            )
        )
