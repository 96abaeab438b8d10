"""Plans of kernels: everything a kernel template needs to know, sizes included, decided and frozen.

Owns: one dataclass per kernel template, the tiles that follow from the sizes of a program, and the
order in which the sections of a generated file stand (`sections`).
Refuses: rendering (emit does), choosing where a kernel applies (lower does), torch and triton.

A later kernel is one more template under `templates/kernel/` and one more plan here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import ClassVar

from starc.compiler.kernel_activation import ACTIVATIONS, Activation
from starc.grammar.errors import InternalError

MAX_TAPS = 16
"""Longest filter of `GatedConvolution`; longer ones are work for matrix products or an FFT."""

MAX_ACTIVATED_TAPS = 4
"""Longest filter with a nonlinearity behind it: the backward pass filters again what all taps meet,
from `2 taps - 1` values that it holds in registers; with 8 taps it spills."""


@dataclass(frozen=True)
class Tile:
    """What one Triton program computes: `rows` tokens by `columns` channels, run by `warps` warps.

    `ragged` says that the last tile hangs over the channels, which then need a mask. Rows always
    need one, since the number of tokens is known only at run time.
    """

    rows: int
    columns: int
    warps: int
    ragged: bool


@dataclass(frozen=True)
class Launch:
    """One Triton kernel of a generated file with the argument types of a launch, in Triton's words.

    `aligned` names the integers that are divisible by 16 whenever the channels are, as Triton finds
    out at each launch; without it there are no 128-bit accesses. `constants` are the values of
    `tl.constexpr` arguments, `products` says that there are matrix products, which belong on tensor
    cores, `few_rows` that they have too few rows for four warps at once, so that memory binds them.
    `label` names it in reports where one kernel is launched in several ways.
    """

    kernel: str
    signature: dict[str, str]
    warps: int
    aligned: tuple[str, ...]
    constants: dict[str, object] = field(default_factory=dict)
    stages: int = 3
    products: bool = False
    few_rows: bool = False
    label: str = ""


@dataclass(frozen=True)
class Work:
    """What one launch does: FLOPs of matrix products (2 a multiplication with its addition), or of
    all arithmetic where there is none, and bytes.

    `moved` are the bytes that its loads and stores take from memory and bring there, where what
    several programs read at the same time is read once, and from the second-level cache after that.
    `least` are those of operands and results of the `operation`, each once, whatever number of
    launches it is divided into.
    """

    kernel: str
    operation: str
    flops: int
    moved: int
    least: int


SMALL_SHARED = 99 * 1024
"""Shared memory of one program in bytes, on the smallest of the GPUs with 128-bit accesses and
tensor cores for bfloat16 (sm_86, sm_89, sm_120); an AMD gfx942 has 64 KiB."""


CACHED = 20 * 2**20
"""Bytes that stay in the second-level cache between kernels that follow each other: half of that of
an A100 (40 MB; an H100 has 50, an RTX 4090 72, an MI300X 256 in its third-level one)."""

PROCESSORS = 108
"""Of an A100, for which bytes are counted."""


def is_cached(size: int, programs: int) -> bool:
    """Whether a sequence divided into parts, of `size` bytes and `programs` programs each, goes
    through several kernels a slice at a time, which CACHED holds. Where less than half of the
    processors had work, it does not (`cached_slices_of_chunks` in templates/kernel/slices.py.j2).
    """
    return 2 * (CACHED // size) * programs >= PROCESSORS


@dataclass(frozen=True, kw_only=True)
class KernelPlan:
    """What all kernels share.

    `digest` is the program's, in hexadecimal; its head is part of every operator's name, so that
    programs that differ never meet in one process. `template` is rendered with the plan as
    `kernel`; the templates in `shared` hold functions that it calls, and stand once in a file.
    """

    template: ClassVar[str]
    digest: str

    @property
    def shared(self) -> tuple[str, ...]:
        return ()

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[0-9a-f]{8,}", self.digest):
            raise InternalError(f"kernel plan: {self.digest!r} is not a digest of 8 or more digits")

    @property
    def namespace(self) -> str:
        """Namespace of the custom operators."""
        return f"starc_{self.digest[:8]}"

    @property
    def name(self) -> str:
        """The function that model code calls, and the custom operator behind it."""
        raise NotImplementedError

    @property
    def class_name(self) -> str:
        """`name` in camel case, for the autograd function of the CPU path."""
        words = re.sub(r"(?<=\d)_(?=\d)", "x", self.name).split("_")  # 768_3 reads 768x3
        return "".join(word.capitalize() for word in words)

    def launches(self, element: str, shared: int = SMALL_SHARED) -> tuple[Launch, ...]:
        """The Triton kernels, launched on operands of type `element` (`fp32`, `fp16`, `bf16`) on a
        device with so much shared memory for one program, in bytes."""
        raise NotImplementedError

    @property
    def fused(self) -> tuple[str, ...]:
        """What the kernel does, in words or formulas: the operation first."""
        raise NotImplementedError

    def work(self, batch: int, tokens: int, size: int) -> tuple[Work, ...]:
        """What each launch does for so many sequences of so many tokens, elements of `size`
        bytes."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class ChannelPlan(KernelPlan):
    """A kernel whose operands are tensors (..., channels) that share their rows.

    `packed` operands come side by side in one tensor (..., n channels), as a fused projection
    yields them. The CPU path then writes their gradients in place rather than concatenating them.
    """

    channels: int
    packed: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.channels < 1:
            raise InternalError(f"{self.name}: no channels")
        if self.packed and len(self.operands) == 1:
            raise InternalError(f"{self.name}: a single operand has nothing to be packed with")

    @property
    def operands(self) -> tuple[str, ...]:
        """Names of the operands, in the order of arguments and, when packed, of channels."""
        raise NotImplementedError

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the tensors that hold the operands: the operands, or the one packed tensor."""
        return ("_".join(self.operands),) if self.packed else self.operands

    @property
    def width(self) -> int:
        """Channels of each input."""
        return self.channels * (len(self.operands) if self.packed else 1)

    @property
    def tile(self) -> Tile:
        raise NotImplementedError

    @property
    def column_tiles(self) -> int:
        return -(-self.channels // self.tile.columns)

    def _launch(self, suffix: str, *arguments: tuple[str, str]) -> Launch:
        signature = dict(arguments)
        strides = tuple(name for name in signature if name.endswith("_stride"))
        aligned = strides if self.channels % 16 == 0 else ()
        return Launch(f"{self.name}_{suffix}", signature, self.tile.warps, aligned)


@dataclass(frozen=True, kw_only=True)
class GatedProduct(ChannelPlan):
    """`y = f(gate) * value`: every `diagonal(f(x)) @ V` with a pointwise f."""

    template: ClassVar[str] = "kernel/gated_product.py.j2"

    activation: str

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.activation not in ACTIVATIONS:
            raise InternalError(f"{self.name}: no kernel knows the nonlinearity")

    @property
    def name(self) -> str:
        packed = "packed_" if self.packed else ""
        return f"{packed}gated_product_{self.activation}_{self.channels}"

    @property
    def operands(self) -> tuple[str, ...]:
        return ("gate", "value")

    @property
    def function(self) -> Activation:
        return ACTIVATIONS[self.activation]

    @property
    def formula(self) -> str:
        """The product for a reader."""
        gate = "gate" if self.activation == "identity" else f"{self.activation}(gate)"
        return f"{gate} * value"

    @property
    def tile(self) -> Tile:
        return _tile(self.channels, elements=2048, columns=512, warps=4)

    def launches(self, element: str, shared: int = SMALL_SHARED) -> tuple[Launch, ...]:
        pointer, integer = f"*{element}", "i32"
        reads = {f"p_{x}": pointer for x in self.operands}
        writes = {f"p_d_{x}": pointer for x in self.operands}
        strides = {f"{x}_stride": integer for x in self.operands}
        forward = {**reads, "p_y": pointer, "rows": integer, **strides}
        sizes = {"rows": integer, "dy_stride": integer, **strides}
        backward = {"p_dy": pointer, **reads, **writes, **sizes}
        return (
            self._launch("forward", *forward.items()),
            self._launch("backward", *backward.items()),
        )

    @property
    def fused(self) -> tuple[str, ...]:
        return (self.formula,)

    def work(self, batch: int, tokens: int, size: int) -> tuple[Work, ...]:
        elements = batch * tokens * self.channels
        return (
            Work(f"{self.name}_forward", "forward", 8 * elements, *(3 * elements * size,) * 2),
            Work(f"{self.name}_backward", "backward", 16 * elements, *(5 * elements * size,) * 2),
        )


@dataclass(frozen=True, kw_only=True)
class GatedConvolution(ChannelPlan):
    """`y = C * f(causal_filter(B * V, K) + b)`: `diagonal(C) @ toeplitz(K) @ diagonal(B) @ V`.

    K is an explicit filter (channels, taps). Either gate may be missing, C being the
    `output_gate` and B the `input_gate`; without both this is a plain depthwise convolution, the
    stage `conv`. So may the bias b (channels,) and the nonlinearity f.
    """

    template: ClassVar[str] = "kernel/gated_convolution.py.j2"
    shared = ("kernel/causal_filter.py.j2",)

    taps: int
    output_gate: bool = True
    input_gate: bool = True
    bias: bool = False
    activation: str = "identity"

    def __post_init__(self) -> None:
        super().__post_init__()
        most = MAX_ACTIVATED_TAPS if self.activated else MAX_TAPS
        if not 1 <= self.taps <= most:
            raise InternalError(f"{self.name}: the kernel takes 1 to {most} taps")
        if self.activation not in ACTIVATIONS:
            raise InternalError(f"{self.name}: no kernel knows the nonlinearity")

    @property
    def activated(self) -> bool:
        return self.activation != "identity"

    @property
    def plain(self) -> bool:
        """Whether nothing stands behind the filter but a gate."""
        return not (self.bias or self.activated)

    @property
    def function(self) -> Activation:
        return ACTIVATIONS[self.activation]

    @property
    def parameters(self) -> tuple[str, ...]:
        """What is the same for all tokens."""
        return ("filter", "bias") if self.bias else ("filter",)

    @property
    def name(self) -> str:
        packed = "packed_" if self.packed else ""
        gates = {
            (True, True): "gated",
            (True, False): "output_gated",
            (False, True): "input_gated",
            (False, False): "causal",
        }[self.output_gate, self.input_gate]
        behind = "_biased" * self.bias + f"_{self.activation}" * self.activated
        return f"{packed}{gates}_convolution_{self.channels}_{self.taps}{behind}"

    @property
    def operands(self) -> tuple[str, ...]:
        there = {"output_gate": self.output_gate, "input_gate": self.input_gate, "value": True}
        return tuple(name for name, is_there in there.items() if is_there)

    @property
    def inputs(self) -> tuple[str, ...]:
        return ("features",) if self.packed else self.operands

    @property
    def source(self) -> str:
        """What the filter runs over."""
        return "input_gate * value" if self.input_gate else "value"

    @property
    def filtered(self) -> str:
        """What the filter gives, as PyTorch."""
        return f"causal_filter({self.source}, filter)" + " + bias" * self.bias

    @property
    def formula(self) -> str:
        """The result, as PyTorch."""
        mixed = self.filtered
        if self.activated:
            mixed = f"{self.activation}({mixed})"
        elif self.bias and self.output_gate:
            mixed = f"({mixed})"
        return f"output_gate * {mixed}" if self.output_gate else mixed

    @property
    def tile(self) -> Tile:
        # Narrow and tall: the rows that neighbours read twice, and the filter's shares, grow rarer.
        if self.plain and (self.taps <= 4 or len(self.operands) > 1):
            return _tile(self.channels, elements=2048, columns=64, warps=4)
        # With both gates what is ahead of the nonlinearity is held too: 64 rows of float32 spill.
        crowded = self.activated and len(self.operands) > 2
        return _tile(self.channels, elements=2048 if crowded else 4096, columns=64, warps=8)

    def launches(self, element: str, shared: int = SMALL_SHARED) -> tuple[Launch, ...]:
        pointer, integer = f"*{element}", "i32"
        reads = {**{f"p_{x}": pointer for x in self.operands}, "p_taps": "*fp32"}
        reads |= {"p_bias": "*fp32"} if self.bias else {}
        writes = {f"p_d_{x}": pointer for x in self.operands}
        sizes = {"tokens": integer, "tiles": integer}
        strides = {f"{x}_stride": integer for x in self.operands}
        forward = {**reads, "p_y": pointer, **sizes, **strides}
        shares = {"p_share": "*fp32", **sizes, "dy_stride": integer}
        backward = {"p_dy": pointer, **reads, **writes, **shares, **strides}
        return (
            self._launch("forward", *forward.items()),
            self._launch("backward", *backward.items()),
        )

    @property
    def fused(self) -> tuple[str, ...]:
        return (self.formula,)

    def work(self, batch: int, tokens: int, size: int) -> tuple[Work, ...]:
        elements, operands = batch * tokens * self.channels, len(self.operands)
        row_tiles = batch * -(-tokens // self.tile.rows)
        # Neighbouring tiles read up to `taps - 1` rows of the filtered operands twice, and each
        # leaves its share of the filter's gradient.
        again = batch * -(-tokens // self.tile.rows) * (self.taps - 1) * self.channels * size
        filtered = 1 + self.input_gate
        shares = 4 * row_tiles * (self.taps + self.bias) * self.channels
        forward, backward = ((n * elements * size) for n in (operands + 1, 2 * operands + 1))
        # Behind a nonlinearity, what the filter gave to later tokens is computed again.
        ahead = (1 + self.output_gate + filtered * self.activated) * again
        slopes = 2 * self.taps * self.taps * self.activated
        return (
            Work(
                f"{self.name}_forward",
                "forward",
                (2 * self.taps + 2) * elements,
                forward + filtered * again,
                forward,
            ),
            Work(
                f"{self.name}_backward",
                "backward",
                (6 * self.taps + 4 + slopes) * elements,
                backward + filtered * again + ahead + shares,
                backward,
            ),
        )


def sections(plans: Iterable[KernelPlan]) -> Iterator[tuple[str, KernelPlan | None]]:
    """(template, plan) of each section that the kernels of one file need, in the order they stand.

    Empty where there is no kernel. Equal plans give one section; shared sections come once, first.
    """
    distinct = tuple(dict.fromkeys(plans))
    if not distinct:
        return
    yield "kernel/header.py.j2", None
    for template in dict.fromkeys(name for plan in distinct for name in plan.shared):
        yield template, None
    for plan in distinct:
        yield plan.template, plan


def _tile(channels: int, *, elements: int, columns: int, warps: int) -> Tile:
    """A tile of about `elements` elements, at most `columns` wide.

    A width that divides the channels needs no mask. Where the largest such power of two is too
    small for wide accesses, the width that leaves the fewest lanes idle is taken, and the larger
    of two equals.
    """
    divisor = channels & -channels
    if divisor >= min(64, columns):
        width = min(divisor, columns)
    else:
        powers = [power for power in (16, 32, 64, 128, 256, 512) if power <= columns]
        width = min(powers, key=lambda power: (-(-channels // power) * power, -power))
    return Tile(max(elements // width, 1), width, warps, ragged=channels % width != 0)
