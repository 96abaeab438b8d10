"""The plan of attention for one token: its keys are divided among programs, and results merged.

Owns: what that template needs beside the plan of attention. Refuses: whole sequences
(kernel_attention.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from starc.compiler.kernel_attention import AttentionPlan, FusedAttention, padded
from starc.compiler.kernel_plan import SMALL_SHARED, Launch, Work

LARGEST_SPLIT = 64


@dataclass(frozen=True, kw_only=True)
class AttentionStep(AttentionPlan):
    """One query (batch, 1, c_heads, sum of parts) over all keys at hand.

    Keys are `parts` side by side, each in a tensor of its own (batch, S, b_heads, part). Values are
    a tensor like them, or the part of the keys that `value_part` says, which is then read once:
    that is multi-head latent attention. `whole` names the kernel for whole sequences that computes
    the same.
    """

    template: ClassVar[str] = "kernel/attention_step.py.j2"
    shared = (
        "kernel/attention_operands.py.j2",
        "kernel/attention_splits.py.j2",
    )

    parts: tuple[int, ...]
    value_part: int = -1
    whole: str = ""

    @property
    def name(self) -> str:
        if self.whole:
            return f"{self.whole}_step"
        number = f"_{self.variant}" if self.variant > 1 else ""
        return f"latent_attention_{self.heads}x{sum(self.parts)}{number}"

    @property
    def own_value(self) -> bool:
        return self.value_part < 0

    @property
    def key_names(self) -> list[str]:
        return ["B"] if len(self.parts) == 1 else [f"B{k}" for k in range(len(self.parts))]

    @property
    def key_parts(self) -> list[tuple[str, int, int]]:
        """(name, channels, padded channels) of each part of the keys."""
        names = [name.lower() for name in self.key_names]
        return [(x, part, padded(part)) for x, part in zip(names, self.parts, strict=True)]

    def offset(self, name: str) -> int:
        """Where the channels of a part begin in the query."""
        return sum(self.parts[: self.key_names.index(name.upper())])

    @property
    def product(self) -> str:
        """Operands of the product of queries and keys; a further part is what it adds to."""
        first, *rest = (f"c_{x}, tl.trans({x})" for x, _, _ in self.key_parts)
        for pair in rest:
            first = f"{first}, tl.dot({pair}, input_precision=precision)"
        return first

    @property
    def v_depth(self) -> int:
        return padded(self.v_channels)

    @property
    def members(self) -> int:
        """Query heads of one program, padded to what a product of matrices takes."""
        return min(padded(self.group), 64)

    @property
    def member_blocks(self) -> int:
        return -(-self.group // self.members)

    @property
    def columns(self) -> int:
        """Keys of a tile."""
        widest = sum(depth for _, _, depth in self.key_parts) + self.own_value * self.v_depth
        return 64 if widest <= 128 else 32 if widest <= 320 else 16

    @property
    def warps(self) -> int:
        return 8 if self.members > 32 or self.v_depth > 128 else 4

    @property
    def fused(self) -> tuple[str, ...]:
        once = () if self.own_value else ("keys are read once for their values, too",)
        return (*super().fused, "one query, keys divided among programs", *once)

    def launches(self, element: str, shared: int = SMALL_SHARED) -> tuple[Launch, ...]:
        own, number = f"*{element}", "i32"
        lower = [x for x, _, _ in self.key_parts] + (["v"] if self.own_value else [])
        pointers = {f"p_{x}": own for x in ("c", *lower)}
        inner = {f"p_{name}": "*fp32" for name in self.terms if name != "sink"}
        top = {"p_top": "*fp32"} if self.softmax else {}
        mass = {"p_mass": "*fp32"} if self.kept else {}
        sink = {"p_sink": "*fp32"} if self.sink else {}
        sizes = {"count": number, "keys": number, "splits": number}
        axes = [f"{x}_{axis}" for x in ("c", *lower) for axis in ("batch", "token", "head")]
        even = all(n % 16 == 0 for n in (*self.parts, self.v_channels))
        parts = {**pointers, **inner, "p_part": "*fp32", **top, **mass, **sizes}
        parts |= dict.fromkeys(axes, number)
        merge = {"p_part": "*fp32", **top, **mass, **sink, "p_y": own}
        constants: dict[str, object] = {"columns": self.columns, "precision": "tf32"}
        return (
            Launch(
                f"{self.name}_parts",
                parts,
                self.warps,
                tuple(axes) if even else (),
                constants,
                2,
                products=True,
                few_rows=self.members < 64,
            ),
            Launch(
                f"{self.name}_merge",
                {**merge, "count": number, "splits": number},
                4,
                (),
                {"most": LARGEST_SPLIT},
            ),
        )

    def work(self, batch: int, tokens: int, size: int) -> tuple[Work, ...]:
        pairs = batch * self.heads * self.pairs(1, tokens)
        read = self.pairs(1, tokens) * batch * size
        kept = read * (
            self.b_heads * sum(self.parts) + self.own_value * self.v_heads * self.v_channels
        )
        ends = batch * self.heads * size * (sum(self.parts) + self.v_channels)
        terms = 4 * batch * self.heads * tokens * len(self.key_terms)
        part = 4 * batch * self.heads * (self.v_channels + 2) * 8
        least = kept + ends + terms
        flops = 2 * pairs * (sum(self.parts) + self.v_channels)
        return (
            Work(f"{self.name}_parts", "step", flops, kept + ends + terms + part, least),
            Work(f"{self.name}_merge", "step", 0, part, least),
        )


def step_of(plan: FusedAttention) -> AttentionStep:
    """The kernel for single tokens that belongs to one for whole sequences."""
    return AttentionStep(
        digest=plan.digest,
        heads=plan.heads,
        c_heads=plan.c_heads,
        b_heads=plan.b_heads,
        v_heads=plan.v_heads,
        v_channels=plan.v_channels,
        stages=plan.stages,
        clauses=plan.clauses,
        weights=plan.weights,
        floor=plan.floor,
        sink=plan.sink,
        parts=(plan.channels,),
        whole=plan.name,
    )
