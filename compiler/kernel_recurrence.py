"""Plans of kernels for recurrences: linear attention and state space models in chunks.

Owns: `Recurrence`, its tiles, and its launches. Refuses: other kernels (kernel_plan.py), rendering.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from starc.compiler.kernel_plan import SMALL_SHARED, KernelPlan, Launch, Work, is_cached


@dataclass(frozen=True)
class Options:
    """How a kernel is launched: `warps` of a program, `stages` of its software pipeline."""

    warps: int
    stages: int

    def __str__(self) -> str:
        return f"num_warps={self.warps}, num_stages={self.stages}"


@dataclass(frozen=True, kw_only=True)
class Recurrence(KernelPlan):
    """`y_i = C_i . h_i` with the state `h_i = exp(A_i) h_{i-1} + B_i V_i'`, divided where `floor`
    is given by `max(|the same for values of one|, floor)`.

    `function` is the function of the file that computes it in PyTorch. C and B have `groups` heads
    here, V and y `heads`; `c_heads`, `b_heads`, `v_heads` and `state_heads` are those that the
    function's arguments come with. `decay` is none, scalar (one A per head) or diagonal.
    """

    template: ClassVar[str] = "kernel/recurrence.py.j2"

    function: str
    decay: str
    heads: int
    groups: int
    channels: int
    values: int
    decay_heads: int = 0
    c_heads: int
    b_heads: int
    v_heads: int
    state_heads: int
    floor: float | None = None
    chunk: int = 64

    @property
    def name(self) -> str:
        return self.function

    @property
    def shared(self) -> tuple[str, ...]:
        diagonal = ("kernel/decayed_scores.py.j2",) if self.decay == "diagonal" else ()
        return ("kernel/products.py.j2", "kernel/slices.py.j2", *diagonal)

    @property
    def repeats(self) -> tuple[tuple[str, int, int], ...]:
        """Operands whose heads are repeated: their names, the heads they have, those they get."""
        counts = (
            ("C", self.c_heads, self.groups),
            ("B", self.b_heads, self.groups),
            ("V", self.v_heads, self.heads),
        )
        return tuple(x for x in counts if x[1] != x[2])

    @property
    def sizes(self) -> dict[str, tuple[int, int]]:
        """Heads and channels of the operands, in the order of the operator's arguments."""
        found = {"C": (self.groups, self.channels)}
        if self.decay != "none":
            channels = self.channels if self.decay == "diagonal" else 1
            found["A"] = (self.decay_heads, channels)
        return {**found, "B": (self.groups, self.channels), "V": (self.heads, self.values)}

    @property
    def steps(self) -> bool:
        """Whether a kernel takes single steps: every head has a state of its own."""
        return self.state_heads == self.heads

    @property
    def key_tile(self) -> int:
        return min(power(self.channels), 64)

    @property
    def value_tile(self) -> int:
        return min(power(self.values), 64)

    @property
    def key_tiles(self) -> int:
        return -(-self.channels // self.key_tile)

    @property
    def value_tiles(self) -> int:
        return -(-self.values // self.value_tile)

    @property
    def gradient_tile(self) -> int:
        """Channels of keys whose gradients one program sums; fewer where much is held besides."""
        if self.decay == "diagonal":
            return 16
        return min(self.key_tile, 32) if self.groups < self.heads else self.key_tile

    @property
    def gradient_tiles(self) -> int:
        return -(-self.channels // self.gradient_tile)

    @property
    def part(self) -> int:
        """Chunks of a part of the sequence. The forward pass keeps the state ahead of each, where
        the backward pass, which takes the last part first, begins: a tenth of the bytes of
        operands and y at most. It is in float32 where rows are divided."""
        state = self.heads * self.state_size * (1 if self.floor is None else 2)
        return -(-10 * state // (self.chunk * (self._row("c") + self._row("v")) * 2))

    def part_elements(self, backwards: bool) -> int:
        """Elements of operands, results and states that the kernels of a part of one of `groups`
        heads read or write."""
        own = self.heads // self.groups
        keys, values, states = 2 * self.channels, own * self.values, own * self.channels
        met = own * self.chunk if self.decay == "diagonal" else 0
        token = (2 * keys + 3 * values) if backwards else (keys + 2 * values)
        y = values if backwards and self.floor is not None else 0
        states *= self.values * (2 if backwards else 1)
        return self.part * (self.chunk * (token + y + met) + states)

    def part_numbers(self, backwards: bool) -> int:
        """The same in float32: decays, and what divides the rows."""
        own = self.heads // self.groups
        decays = {"none": 0, "scalar": own, "diagonal": own * self.channels}[self.decay]
        decays *= 2 if backwards else 1
        sums = 0 if self.floor is None else own * (1 + self.channels // self.chunk)
        return self.part * self.chunk * (decays + 2 * sums)

    @property
    def score_tile(self) -> int:
        """Channels of which scores with a decay per channel are summed at a time."""
        return 16

    @property
    def levels(self) -> int:
        """Halvings of a chunk down to one token."""
        return self.chunk.bit_length() - 1

    @property
    def state_width(self) -> int:
        """Columns of a state in the cache: of values, and one more that divides them."""
        return self.values + (self.floor is not None)

    @property
    def state_size(self) -> int:
        return self.channels * self.state_width

    @property
    def whole_key(self) -> int:
        return power(self.channels)

    @property
    def step_tile(self) -> int:
        """Channels of values that one program of a step takes, about 4096 numbers of a state."""
        return max(16, min(power(self.values), 4096 // self.whole_key))

    @property
    def step_tiles(self) -> int:
        return 1 if self.floor is not None else -(-self.values // self.step_tile)

    @property
    def options(self) -> dict[str, Options]:
        """How each kernel is launched."""
        several = self.groups < self.heads and self.decay != "diagonal"
        # Rows that are not aligned are read by the element: addresses take registers as well.
        full = self.values % 16 != 0 and self.key_tile * self.value_tile == 4096
        return {
            "states": Options(8 if full else 4, 2 if self.decay == "diagonal" else 3),
            "scores": Options(8, 1),
            "outputs": Options(4, 2),
            "keys": Options(4 if several else 8, 2),
            "quotient": Options(4, 1),
            "step": Options(4, 1),
        }

    def launches(self, element: str, shared: int = SMALL_SHARED) -> tuple[Launch, ...]:
        x, wide, integer = f"*{element}", "*fp32", "i32"
        a = {"p_a": wide} if self.decay != "none" else {}
        normalised = self.floor is not None
        sizes = {name: integer for name in ("offset", "start", "tokens", "chunks")}

        def strides(*names: str) -> dict[str, str]:
            own = {f"{name}_stride": integer for name in names}
            if not a:
                own.pop("a_stride", None)
            return own

        found = []
        for backwards in (False, True):
            sums = {"p_norm": wide, "p_weights": wide, "p_sums": wide} if normalised else {}
            constants: dict[str, object] = {"backwards": backwards}
            if backwards:
                constants["p_kept"] = None
            elif normalised:
                constants |= {"p_norm": None, "p_weights": None}
            signature = {"p_keys": x, **a, "p_values": x, "p_first": wide, "p_states": x}
            signature |= {"p_last": wide, "p_kept": wide if normalised else x, **sums, **sizes}
            signature |= strides("kept", "keys", "a", "values")
            found.append(self._launch("states", signature, constants))
            norm = {"p_sums": wide, "p_norm": wide} if normalised else {}
            constants = {"backwards": backwards}
            if normalised and backwards:
                constants["p_sums"] = None
            scores = {"p_scores": x} if self.decay == "diagonal" else {}
            signature = {"p_rows": x, **a, "p_columns": x, "p_values": x, "p_states": x, **scores}
            signature |= {**norm, "p_y": x, **sizes, **strides("rows", "a", "columns", "values")}
            found.append(self._launch("outputs", signature, constants))
        if self.decay == "diagonal":
            signature = {"p_c": x, **a, "p_b": x, "p_scores": x, **sizes}
            found.append(self._launch("scores", {**signature, **strides("c", "a", "b")}, {}))
        if normalised:
            signature = {"p_dy": x, "p_y": x, "p_norm": wide, "p_d_norm": wide, **sizes}
            found.append(self._launch("quotient", {**signature, **strides("dy")}, {}))
        norm = {f"p_{name}": wide for name in ("norm", "d_norm", "sums", "d_sums")}
        norm = norm if normalised else {}
        da = {"p_da": wide} if a else {}
        signature = {"p_c": x, **a, "p_b": x, "p_v": x, "p_dy": x, "p_before": x, "p_behind": x}
        signature |= {**norm, "p_dc": x, **da, "p_db": x, **sizes}
        found.append(self._launch("keys", {**signature, **strides("c", "a", "b", "v", "dy")}, {}))
        if self.steps:
            signature = {"p_c": x, **a, "p_b": x, "p_v": x, "p_state": wide, "p_y": x}
            found.append(self._launch("step", {**signature, **strides("c", "a", "b", "v")}, {}))
        return tuple(found)

    @property
    def fused(self) -> tuple[str, ...]:
        decay = {"none": "", "scalar": "exp(A_i) ", "diagonal": "diagonal(exp(A_i)) "}[self.decay]
        state = f"C_i . h_i, h_i = {decay}h_(i-1) + B_i V_i' in chunks of {self.chunk}"
        return (state, *(("division by the sums of rows",) if self.floor is not None else ()))

    def work(self, batch: int, tokens: int, size: int) -> tuple[Work, ...]:
        count, chunks = batch * tokens, -(-tokens // self.chunk)
        c = b = size * count * self.groups * self.channels
        v = size * count * self.heads * self.values
        a = 4 * count * self._row("a")
        states = size * batch * chunks * self.heads * self.channels * self.values
        wide = size if self.floor is None else 4
        kept = wide * batch * (-(-chunks // self.part) - 1) * self.heads * self.state_size
        scores = size * count * self.heads * self.chunk
        n, p, q = self.channels, self.values, self.chunk
        diagonal = self.decay == "diagonal"
        pairs = (2 * self.levels if diagonal else 2) * q * n  # FLOPs of scores, of a token and head
        each = count * self.heads
        norm = 0 if self.floor is None else 4 * each
        # Gradients of decays come from several programs, which leave them to a sum.
        da = 4 * each * (self.channels if diagonal else self.gradient_tiles)
        da += da + a if self.decay_heads != self.heads or (da > 4 * each and not diagonal) else 0
        da = da if a else 0
        least = {
            "forward": c + a + b + 2 * v + norm,
            "backward": 2 * (c + a + b + v) + v + (v + norm if norm else 0),
        }
        found = []

        def add(kernel: str, operation: str, flops: int, first: int, again: int) -> None:
            """A launch: bytes that nothing before it moved, and those that the cache may hold."""
            programs = self.part * self.heads // self.groups * self.value_tiles
            part = self.part_elements(operation == "backward") * size
            part += 4 * self.part_numbers(operation == "backward")
            moved = first if is_cached(part, programs) else first + again
            kernel = f"{self.name}_{kernel}"
            found.append(Work(kernel, operation, flops * each, moved, least[operation]))

        state = 2 * n * p
        inside = state + 2 * q * p + (0 if diagonal else pairs)
        add("states", "forward", state, b + a + v + kept, states)
        if diagonal:
            add("scores", "forward", pairs, c, a + b + scores)
        again = a + v + states + (c + scores if diagonal else b)
        add("outputs", "forward", inside, v + norm + (0 if diagonal else c), again)
        add("states", "backward", state, b + a + v + kept, states)
        if norm:
            add("quotient", "backward", 0, 2 * v + norm, norm)
        add("states", "backward", state, c + (0 if norm else v), a + states + (v if norm else 0))
        if diagonal:
            add("scores", "backward", pairs, 0, c + a + b + scores)
        again = a + b + v + states + norm + (scores if diagonal else c)
        add("outputs", "backward", inside, v, again)
        again = c + a + b + 2 * (v + states + norm)
        add("keys", "backward", 2 * q * p + 4 * n * p + 2 * pairs, c + b + da, again)
        if self.steps:
            state = 8 * batch * self.heads * self.state_size
            moved = batch * size * (2 * self.groups * n + 2 * self.heads * p) + state
            flops = 4 * batch * self.heads * n * p
            found.append(Work(f"{self.name}_step", "step", flops, moved, moved))
        return tuple(found)

    def _launch(
        self, kernel: str, signature: dict[str, str], constants: dict[str, object]
    ) -> Launch:
        own = self.options[kernel]
        products = kernel not in ("step", "quotient")
        if products:
            constants = {**constants, "precision": "tf32x3"}
        aligned = tuple(
            name
            for name in signature
            if name.endswith("_stride") and self._row(name.removesuffix("_stride")) % 16 == 0
        )
        kept = {name: kind for name, kind in signature.items() if name not in constants}
        return Launch(
            f"{self.name}_{kernel}",
            kept,
            own.warps,
            aligned,
            constants,
            own.stages,
            products=products,
        )

    def _row(self, operand: str) -> int:
        """Elements of a token in an operand."""
        if operand in ("v", "dy", "values"):
            return self.heads * self.values
        if operand == "kept":
            return self.heads * self.state_size
        if operand == "a":
            return self.decay_heads * (self.channels if self.decay == "diagonal" else 1)
        return self.groups * self.channels


def power(size: int) -> int:
    """The least power of two that is not below `size`, 16 at least: the least of a product."""
    return max(16, 1 << (size - 1).bit_length())
