"""Plans of kernels: everything a kernel template needs to know, sizes included, decided and frozen.

Owns: one dataclass per kernel template, the block sizes that follow from the sizes of a program, and
the order in which the sections of a generated file stand (`sections`).
Refuses: rendering (emit does), choosing where a kernel applies (lower does), torch and triton.

A later kernel is one more template under `templates/kernel/` and one more `KernelPlan` here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar

from starc.compiler.kernel_activation import ACTIVATIONS, Activation
from starc.grammar.errors import InternalError

MAX_TAPS = 16
"""Longest filter of `GatedConvolution`; beyond it the work is a matrix product's or an FFT's."""


@dataclass(frozen=True)
class Block:
    """The tile of one Triton program: `rows` tokens by `columns` channels, run by `warps` warps.

    `ragged` says whether the last tile hangs over the channels, so that they need a mask. Rows
    always need one: the number of tokens is known only at run time.
    """

    rows: int
    columns: int
    warps: int
    ragged: bool


@dataclass(frozen=True)
class Launch:
    """One Triton kernel of a generated file with the types of a launch, as Triton spells them.

    `aligned` are the integer arguments that a launch on contiguous operands finds divisible by 16,
    which is what permits 128-bit accesses.
    """

    kernel: str
    signature: tuple[tuple[str, str], ...]
    warps: int
    aligned: tuple[str, ...]


@dataclass(frozen=True)
class KernelPlan:
    """What all kernels share. `digest` is the program's, in hex; its head names the operators."""

    template: ClassVar[str]
    shared: ClassVar[tuple[str, ...]] = ()
    """Templates whose text the fragment calls; each stands once in a file."""

    digest: str

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[0-9a-f]{8,}", self.digest):
            raise InternalError(
                f"kernel plan: {self.digest!r} is no digest of 8 hex digits or more"
            )

    @property
    def namespace(self) -> str:
        """Namespace of the custom operators: programs that differ never meet in one process."""
        return f"starc_{self.digest[:8]}"

    @property
    def name(self) -> str:
        """The function that model code calls, and the custom operator behind it."""
        raise NotImplementedError

    @property
    def class_name(self) -> str:
        """`name` in camel case, for the autograd function."""
        return "".join(part.capitalize() for part in self.name.split("_"))

    def launches(self, element: str) -> tuple[Launch, ...]:
        """The kernels as launched on operands of type `element` (`fp32`, `fp16`, `bf16`)."""
        raise NotImplementedError


@dataclass(frozen=True)
class GatedProduct(KernelPlan):
    """`y = f(gate) * value`: every `diagonal(f(x)) @ V`.

    `channels` is the last axis of both operands. `packed` operands are the two halves of one
    tensor (..., 2 channels), gate first, as one fused projection yields them: the gradient is then
    written in place rather than concatenated.
    """

    template: ClassVar[str] = "kernel/gated_product.py.j2"

    activation: str
    channels: int
    packed: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.activation not in ACTIVATIONS:
            raise InternalError(
                f"gated product: no kernel knows the nonlinearity '{self.activation}'"
            )
        if self.channels < 1:
            raise InternalError(f"gated product: {self.channels} channels")

    @property
    def name(self) -> str:
        stem = f"gated_product_{self.activation}_{self.channels}"
        return f"packed_{stem}" if self.packed else stem

    @property
    def function(self) -> Activation:
        return ACTIVATIONS[self.activation]

    @property
    def linear(self) -> bool:
        """Whether the gate is used as it is."""
        return self.activation == "identity"

    @property
    def block(self) -> Block:
        return _block(self.channels, elements=2048, columns=512, warps=4)

    @property
    def column_blocks(self) -> int:
        return -(-self.channels // self.block.columns)

    def launches(self, element: str) -> tuple[Launch, ...]:
        pointer = f"*{element}"
        inputs = ("gate_value",) if self.packed else ("gate", "value")
        strides = tuple((f"{name}_stride", "i32") for name in inputs)
        read = tuple((f"p_{name}", pointer) for name in inputs)
        written = tuple((f"p_d_{name}", pointer) for name in inputs)
        y, rows = ("p_y", pointer), ("rows", "i32")
        aligned = tuple(name for name, _ in strides) if self.channels % 16 == 0 else ()
        return (
            Launch(f"{self.name}_forward", (*read, y, rows, *strides), self.block.warps, aligned),
            Launch(
                f"{self.name}_backward",
                (("p_dy", pointer), *read, *written, rows, ("dy_stride", "i32"), *strides),
                self.block.warps,
                ("dy_stride", *aligned) if aligned else (),
            ),
        )


@dataclass(frozen=True)
class GatedConvolution(KernelPlan):
    """`y = C * causal_filter(B * V, K)`: `diagonal(C) @ toeplitz(K) @ diagonal(B) @ V`.

    K is an explicit filter (channels, taps); C (`output_gate`) and B (`input_gate`) may be left
    out. `packed` operands are the thirds (or halves) of one tensor (batch, tokens, n channels), in
    the order output gate, input gate, value.
    """

    template: ClassVar[str] = "kernel/gated_convolution.py.j2"
    shared: ClassVar[tuple[str, ...]] = ("kernel/causal_filter.py.j2",)

    channels: int
    taps: int
    output_gate: bool = True
    input_gate: bool = True
    packed: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.channels < 1 or not 1 <= self.taps <= MAX_TAPS:
            raise InternalError(f"gated convolution: {self.channels} channels, {self.taps} taps")
        if self.packed and len(self.operands) == 1:
            raise InternalError("gated convolution: a single operand cannot be packed")

    @property
    def name(self) -> str:
        gates = {
            (True, True): "gated",
            (True, False): "output_gated",
            (False, True): "input_gated",
            (False, False): "causal",
        }[self.output_gate, self.input_gate]
        stem = f"{gates}_convolution_{self.channels}_{self.taps}"
        return f"packed_{stem}" if self.packed else stem

    @property
    def operands(self) -> tuple[str, ...]:
        """Names of the (batch, tokens, channels) operands, in the order of arguments."""
        gates = (
            ("output_gate", self.output_gate),
            ("input_gate", self.input_gate),
            ("value", True),
        )
        return tuple(name for name, there in gates if there)

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the tensors that hold the operands."""
        return ("features",) if self.packed else self.operands

    @property
    def block(self) -> Block:
        return _block(self.channels, elements=2048, columns=128, warps=4)

    @property
    def column_blocks(self) -> int:
        return -(-self.channels // self.block.columns)

    def launches(self, element: str) -> tuple[Launch, ...]:
        pointer = f"*{element}"
        read = tuple((f"p_{name}", pointer) for name in self.inputs)
        written = tuple((f"p_d_{name}", pointer) for name in self.inputs)
        strides = tuple((f"{name}_stride", "i32") for name in self.inputs)
        sizes = (("tokens", "i32"), ("tiles", "i32"))
        filters = ("p_filter", "*fp32")
        aligned = tuple(name for name, _ in strides) if self.channels % 16 == 0 else ()
        return (
            Launch(
                f"{self.name}_forward",
                (*read, filters, ("p_y", pointer), *sizes, *strides),
                self.block.warps,
                aligned,
            ),
            Launch(
                f"{self.name}_backward",
                (
                    ("p_dy", pointer),
                    *read,
                    filters,
                    *written,
                    ("p_partial", "*fp32"),
                    *sizes,
                    ("dy_stride", "i32"),
                    *strides,
                ),
                self.block.warps,
                ("dy_stride", *aligned) if aligned else (),
            ),
        )


def sections(plans: Iterable[KernelPlan]) -> Iterator[tuple[str, KernelPlan | None]]:
    """(template, plan) of each section that the kernels of one file need, in the order they stand.

    Empty when there is no kernel. Equal plans give one section; shared sections come once, first.
    """
    distinct = tuple(dict.fromkeys(plans))
    if not distinct:
        return
    yield "kernel/header.py.j2", None
    for template in dict.fromkeys(name for plan in distinct for name in plan.shared):
        yield template, None
    for plan in distinct:
        yield plan.template, plan


def _block(channels: int, *, elements: int, columns: int, warps: int) -> Block:
    """A tile of about `elements` elements, at most `columns` wide.

    A width that divides the channels needs no mask. Where the largest such power of two is too
    small for wide accesses, the width that leaves the fewest idle lanes is taken, the larger of
    two equals.
    """
    divisor = channels & -channels
    if divisor >= min(64, columns):
        width = min(divisor, columns)
    else:
        powers = [power for power in (16, 32, 64, 128, 256, 512) if power <= columns]
        width = min(powers, key=lambda power: (-(-channels // power) * power, -power))
    rows = max(elements // width, 1)
    return Block(rows=rows, columns=width, warps=warps, ragged=channels % width != 0)
