"""The plan of the kernel for cross-entropy: a loss without the logits of all tokens at once.

Owns: `CrossEntropy`, its chunks, its launches, its bytes. Refuses: which programs get one (lower
does), other kernels (kernel_plan.py), rendering.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from starc.compiler.kernel_plan import CACHED, PROCESSORS, SMALL_SHARED, KernelPlan, Launch, Work
from starc.grammar.errors import InternalError

LEAST_VOCAB = 4096
"""Entries from which on logits are worth not keeping: fewer take about as much as the stream."""

WHOLE_ROW = 32768
"""Entries of a row of logits that one program holds in registers, half as many with a cap: its
slope needs the logits again. Found by compiling: none spills on sm_90."""

BLOCK = 8192
"""Entries that a program takes at a time of a longer row, which it reads twice: the second time
from the second-level cache, since there are no more programs than that holds rows."""

LOGITS = {"cpu": 2**24, "cuda": 2**29}
"""Logits that exist at once: 64 MiB in float32, and 1 GiB in bfloat16. Every chunk of tokens adds
to the whole gradient of the read-out, which pays from some thousand tokens on a GPU."""


@dataclass(frozen=True, kw_only=True)
class CrossEntropy(KernelPlan):
    """The mean of `-log softmax(f(head(x)))[target]` over targets that count.

    f is a scale, then a soft cap `cap tanh(z / cap)`, each optional.
    """

    template: ClassVar[str] = "kernel/cross_entropy.py.j2"

    @property
    def shared(self) -> tuple[str, ...]:
        return () if self.whole else ("kernel/cached_rows.py.j2",)

    width: int
    vocab: int
    scale: float = 1.0
    softcap: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.width < 1 or self.vocab < 2:
            raise InternalError(f"{self.name}: nothing to choose from")

    @property
    def name(self) -> str:
        return f"cross_entropy_{self.vocab}"

    @property
    def stride(self) -> int:
        """Elements from a row of logits to the next, so that all rows are aligned."""
        return -(-self.vocab // 16) * 16

    @property
    def whole(self) -> bool:
        """Whether a program holds all of a row, and reads it once."""
        return self.vocab <= (WHOLE_ROW if self.softcap is None else WHOLE_ROW // 2)

    @property
    def block(self) -> int:
        return max(16, 1 << (self.stride - 1).bit_length()) if self.whole else BLOCK

    @property
    def warps(self) -> int:
        # Found by compiling: loops over a longer row spill with 32 entries a thread, those with a
        # cap with 16.
        halves = not self.whole and self.softcap is None
        return min(max(4, self.block // (512 if halves else 1024)), 16)

    def tokens(self, device: str) -> int:
        """Tokens of a chunk at most."""
        return max(LOGITS[device] // self.vocab, 256)

    def launches(self, element: str, shared: int = SMALL_SHARED) -> tuple[Launch, ...]:
        signature = {"p_logits": f"*{element}", "p_targets": "*i64", "p_losses": "*fp32"}
        signature["ignore_index"] = "i32"
        if not self.whole:
            signature["rows"] = "i32"
        kernel, constants = f"{self.name}_tokens", {"gradients": True}
        return (Launch(kernel, signature, self.warps, (), dict(constants)),)

    @property
    def formula(self) -> str:
        """Logits from a read-out z, as PyTorch."""
        z = "z" if self.scale == 1 else f"z * {self.scale!r}"
        if self.softcap is None:
            return z
        inner = z if self.scale == 1 else f"({z})"
        return f"{self.softcap!r} * torch.tanh({inner} / {self.softcap!r})"

    @property
    def fused(self) -> tuple[str, ...]:
        more = () if self.formula == "z" else (f"logits = {self.formula}",)
        return (
            "-log softmax(logits)[target] and its gradient in the place of the logits",
            *more,
            f"matrix products are cuBLAS's, {self.tokens('cuda')} tokens at a time",
        )

    def work(self, batch: int, tokens: int, size: int) -> tuple[Work, ...]:
        elements = batch * tokens * self.vocab
        least = 2 * elements * size + 12 * batch * tokens
        # A quarter of the processors are as few programs as may wait for the cache.
        cached = 4 * (CACHED // (self.stride * size)) >= PROCESSORS
        again = 0 if self.whole or cached else elements * size
        return (Work(f"{self.name}_tokens", "loss", 10 * elements, least + again, least),)
