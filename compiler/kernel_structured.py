"""Plans of kernels for recurrences with structured transitions: the delta rule, and diagonal plus
low rank.

Owns: `Structured`, its tiles, and its launches. Refuses: scalar and diagonal transitions
(kernel_recurrence.py), rendering.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from starc.compiler.kernel_plan import SMALL_SHARED, KernelPlan, Launch, Work, is_cached
from starc.compiler.kernel_recurrence import Options, power

WIDEST = 256
"""Channels of keys: a program holds a state of all of them by a tile of values."""

SMALLEST = 64 * 1024
"""Shared memory of AMD's GPUs, in bytes: nothing is loaded ahead there."""


@dataclass(frozen=True, kw_only=True)
class Structured(KernelPlan):
    """`y_i = C_i . h_i` with a state whose transitions are structured, in chunks.

    With `delta`, `h_i = w_i h_{i-1} + beta_i B_i (V_i - B_i . w_i h_{i-1})'` (arXiv 2406.06484,
    2412.06464, 2510.26692), else `h_i = (w_i + a_i b_i') h_{i-1} + B_i V_i'` (2503.14456), in
    `steps_of_token` steps w + a b' for each token (2502.10297). `decay` says what the logarithm of
    w is: none, scalar (one per head) or diagonal. `function` is the function of the file that
    computes it in PyTorch, `counts` the heads that its operands come with.
    """

    template: ClassVar[str] = "kernel/structured.py.j2"

    function: str
    delta: bool
    decay: str
    heads: int
    channels: int
    values: int
    counts: tuple[int, ...]
    steps_of_token: int = 1
    chunk: int = 64

    @property
    def name(self) -> str:
        return self.function

    @property
    def shared(self) -> tuple[str, ...]:
        diagonal = ("kernel/decayed_scores.py.j2",) if self.decay == "diagonal" else ()
        own = ("products", "slices", "triangular_inverse")
        return (*(f"kernel/{name}.py.j2" for name in own), *diagonal)

    @property
    def sizes(self) -> dict[str, tuple[int, int]]:
        """Heads and channels of the operands, in the order of the operator's arguments."""
        n = self.channels
        widths = {"C": n}
        if self.decay != "none":
            widths["A"] = n if self.decay == "diagonal" else 1
        widths |= {"B": n, "beta": 1} if self.delta else {"left": n, "right": n, "B": n}
        return {name: (self.heads, width) for name, width in {**widths, "V": self.values}.items()}

    @property
    def operands(self) -> tuple[str, ...]:
        return tuple(self.sizes)

    @property
    def of_steps(self) -> tuple[str, ...]:
        """Operands that every step of a token has its own of."""
        return tuple(x for x in ("A", "left", "right") if x in self.sizes)

    @property
    def repeats(self) -> tuple[tuple[str, int], ...]:
        """Operands whose heads are repeated, and how often."""
        pairs = zip(self.operands, self.counts, strict=True)
        return tuple((name, self.heads // has) for name, has in pairs if has != self.heads)

    @property
    def steps(self) -> bool:
        return True

    @property
    def key_tile(self) -> int:
        return min(power(self.channels), 64)

    @property
    def factor_tile(self) -> int:
        return min(power(self.channels), 32) if self.decay == "diagonal" else self.key_tile

    @property
    def value_tile(self) -> int:
        return min(power(self.values), 64)

    @property
    def value_tiles(self) -> int:
        return -(-self.values // self.value_tile)

    @property
    def whole_key(self) -> int:
        return power(self.channels)

    @property
    def state_tile(self) -> int:
        """Values of the states that one program passes on."""
        return max(16, min(self.value_tile, 8192 // self.whole_key))

    @property
    def state_tiles(self) -> int:
        return -(-self.values // self.state_tile)

    @property
    def pair_tile(self) -> int:
        """Values of which gradients of scores are summed at a time."""
        return self.value_tile

    @property
    def gradient_tile(self) -> int:
        """Channels of keys whose gradients one program sums."""
        if self.decay == "diagonal":
            return 16
        return min(self.key_tile, 32)

    @property
    def gradient_tiles(self) -> int:
        return -(-self.channels // self.gradient_tile)

    @property
    def sum_tile(self) -> int:
        """Values over which those gradients are summed at a time."""
        return min(self.value_tile, 32) if self.decay == "scalar" else self.value_tile

    @property
    def part(self) -> int:
        """Chunks of a part of the sequence, ahead of each of which the forward pass keeps the
        state: a tenth of the bytes of operands and y at most."""
        n, p = self.channels, self.values
        return -(-10 * n * p // (self.chunk * (self._keys * n + 2 * p)))

    @property
    def _keys(self) -> int:
        """Operands with the channels of a key."""
        return 2 if self.delta else 4

    @property
    def _kept_keys(self) -> int:
        """Rows of keys that a slice exchanges: w, and what is decayed beforehand."""
        return 1 if self.decay != "diagonal" else 3 if self.delta else 4

    def part_elements(self, backwards: bool) -> int:
        """Elements of operands, results and what is exchanged, of a part of a head."""
        n, p, ways = self.channels, self.values, 2 if backwards else 1
        squares = 2 if self.delta else 5
        values = (5 if self.delta else 6) if backwards else 3
        token = (self._keys * ways + self._kept_keys) * n + squares * self.chunk + values * p
        return self.part * (self.chunk * (token + self.delta) + ways * n * p)

    def part_numbers(self, backwards: bool) -> int:
        """The same in float32."""
        ways = 2 if backwards else 1
        decays = {"none": 0, "scalar": 1, "diagonal": self.channels}[self.decay]
        return self.part * (self.chunk * (self.chunk + ways * decays) + self.channels)

    @property
    def levels(self) -> int:
        """Halvings of a chunk down to one token."""
        return self.chunk.bit_length() - 1

    @property
    def step_tile(self) -> int:
        """Channels of values that one program of a step takes, about 4096 numbers of a state."""
        return max(16, min(power(self.values), 4096 // self.whole_key))

    @property
    def step_tiles(self) -> int:
        return -(-self.values // self.step_tile)

    @property
    def options(self) -> dict[str, Options]:
        """How each kernel is launched."""
        diagonal = self.decay == "diagonal"
        return {
            "scores": Options(8 if diagonal else 4, 1 if diagonal else 2),
            "solve": Options(1, 1),
            "factors": Options(8 if diagonal else 4, 2),
            "states": Options(8 if self.whole_key > 64 and not diagonal else 4, 2),
            "outputs": Options(4, 2),
            "pairs": Options(8, 2),
            "keys": Options(8, 2),
            "step": Options(4, 1),
        }

    @property
    def arguments(self) -> dict[str, tuple[str, ...]]:
        """Run-time arguments of each kernel, in order."""
        low, diagonal, scalar = not self.delta, self.decay == "diagonal", self.decay == "scalar"
        there = {
            "a": scalar or diagonal,
            "a_of_row": scalar,
            "beta": self.delta,
            "beta_of_row": self.delta and not diagonal,
            "low": low,
            "diagonal": diagonal,
            "beta_kept": self.delta and diagonal,
            "low_kept": low and diagonal,
            "shares": scalar or self.delta,
        }

        def only(words: str) -> tuple[str, ...]:
            """The words but those that a bracket before them, such as [a], leaves out."""
            found = []
            for word in words.replace("SLICE", "offset start tokens chunks").split():
                condition, _, name = word.rpartition("]")
                if not condition or there[condition[1:]]:
                    found.append(name)
            return tuple(found)

        return {name: only(words) for name, words in _ARGUMENTS.items()}

    def launches(self, element: str, shared: int = SMALL_SHARED) -> tuple[Launch, ...]:
        alone: dict[str, object] = {"p_added_scores": None, "p_added": None}
        stateless = {"p_rows": None, "p_states": None, **alone}
        results: dict[str, object] = {"given": False, "result": True}
        handed_on: dict[str, object] = {"given": True, "result": False}
        found = [
            self._launch("scores", element, {"late": False}),
            self._launch("scores", element, {"late": True}, {"p_scores": "*fp32"}),
            self._launch("solve", element),
            self._launch("factors", element),
            self._launch("states", element, {"backwards": False, **self._no_more}),
            self._launch("states", element, {"backwards": True, "p_kept": None}),
            self._launch(
                "outputs",
                element,
                {"backwards": False, **results, **(alone if self.delta else {})},
            ),
            self._launch("outputs", element, {"backwards": True, **handed_on, **stateless}),
        ]
        if not self.delta:
            found.append(self._launch("outputs", element, {"backwards": True, **results}))
        found += [self._launch(name, element) for name in ("pairs", "keys", "step")]
        if shared <= SMALLEST:
            found = [replace(launch, stages=1) for launch in found]
        return tuple(found)

    @property
    def _no_more(self) -> dict[str, object]:
        """The delta rule writes nothing besides what solves the system."""
        return {"p_more": None, "p_values": None} if self.delta else {}

    def _launch(
        self,
        kernel: str,
        element: str,
        constants: dict[str, object] | None = None,
        types: dict[str, str] | None = None,
    ) -> Launch:
        constants, own = dict(constants or {}), self.options[kernel]
        if kernel != "step":
            constants["precision"] = "tf32x3"
        signature = {
            name: (
                "i32" if not name.startswith("p_") else "*fp32" if name in _WIDE else f"*{element}"
            )
            for name in self.arguments[kernel]
            if name not in constants
        }
        aligned = tuple(
            name
            for name in signature
            if name.endswith("_stride") and self._row(name.removesuffix("_stride")) % 16 == 0
        )
        return Launch(
            f"{self.name}_{kernel}",
            {**signature, **(types or {})},
            own.warps,
            aligned,
            constants,
            own.stages,
            products=kernel != "step",
            few_rows=kernel == "solve",
        )

    def _row(self, operand: str) -> int:
        """Elements of a token in an operand."""
        if operand in ("v", "dy", "values", "added"):
            return self.heads * self.values
        if operand == "kept":
            return self.heads * self.channels * self.values
        if operand == "beta" or (operand == "a" and self.decay == "scalar"):
            return self.heads
        return self.heads * self.channels

    @property
    def fused(self) -> tuple[str, ...]:
        w = {"none": "", "scalar": "exp(A_i) ", "diagonal": "diagonal(exp(A_i)) "}[self.decay]
        if self.delta:
            step = f"h_i = {w}h_(i-1) + beta_i B_i (V_i - B_i . {w}h_(i-1))"
        else:
            step = f"h_i = ({w or '1 '}+ a_i b_i') h_(i-1) + B_i V_i'"
        more = f"{self.steps_of_token} steps of a state for each token"
        rest: tuple[str, ...] = ("triangular systems of a chunk by blocks of 16, in float32",)
        rest += (more,) if self.steps_of_token > 1 else ()
        return (f"C_i . h_i, {step} in chunks of {self.chunk}", *rest)

    def work(self, batch: int, tokens: int, size: int) -> tuple[Work, ...]:
        tokens *= self.steps_of_token
        count, q, n, p = batch * tokens * self.heads, self.chunk, self.channels, self.values
        diagonal, delta = self.decay == "diagonal", self.delta
        chunks = -(-tokens // q)
        key, v, pairs = size * count * n, size * count * p, size * count * q
        a = 4 * count * {"none": 0, "scalar": 1, "diagonal": n}[self.decay]
        beta = size * count * delta
        states = size * batch * self.heads * chunks * n * p
        kept = size * batch * self.heads * (-(-chunks // self.part) - 1) * n * p
        matrices = 1 if delta else 2  # of scores, and as many of systems
        given = self._keys * key + a + beta + v
        met = (2 * self.levels if diagonal else 2) * q * n
        decayed = (1 if delta else 2) * key if diagonal else 0  # read for what is decayed
        # Gradients of decays and of beta come from several programs, which leave them to a sum.
        sums = (2 * self.gradient_tiles + 1) * 4 * count if self.gradient_tiles > 1 else 4 * count
        shares = sums * ((self.decay == "scalar") + delta)
        least = {"forward": given + v, "backward": 2 * given + v}
        found = []

        def add(kernel: str, operation: str, flops: int, first: int, again: int) -> None:
            """A launch: bytes that nothing before it moved, and those that the cache may hold."""
            part = self.part_elements(operation == "backward") * size
            part += 4 * self.part_numbers(operation == "backward")
            cached = is_cached(part, self.part * self.value_tiles)
            moved = first if cached else first + again
            kernel = f"{self.name}_{kernel}"
            found.append(Work(kernel, operation, flops * count, moved, least[operation]))

        for operation in ("forward", "backward"):
            add("scores", operation, met, 2 * key + a + beta, pairs)
            more = 0 if delta else key
            add("scores", operation, met, more, 2 * key - more + a + beta + pairs * 4 // size)
            if not delta:
                add("scores", operation, met, key, key + a + pairs)
                add("scores", operation, met, 0, 2 * key + a + pairs)
            add("solve", operation, 2 * 16 * q, 0, pairs * (4 // size + 1))
            again = pairs * (1 if delta else 3) + 2 * key + a + v
            again += decayed + (self._kept_keys - 1) * key
            flops = 2 * q * (n + p) + (0 if delta else 2 * q * q)
            add("factors", operation, flops, v, again)
            again = 2 * key + (0 if delta else key + v) + 2 * v + states
            add("states", operation, 4 * n * p + (0 if delta else 2 * n * p), kept, again)
            if operation == "forward":
                again = key + states + matrices * (pairs + v)
                add("outputs", operation, 2 * n * p + matrices * 2 * q * p, v, again)
        add("outputs", "backward", 2 * q * p, v, pairs + v)
        add("states", "backward", 6 * n * p, 0, 3 * key + 3 * v + states)
        result = v if delta else 0  # what solves the transposed system is the gradient of values
        add("outputs", "backward", 2 * q * p, result, pairs + 2 * v - result)
        if not delta:
            again = key + states + 2 * (pairs + v)
            add("outputs", "backward", 2 * n * p + 4 * q * p, v, again)
        again = (2 + matrices) * v + 2 * matrices * pairs
        add("pairs", "backward", 4 * matrices * q * p, 0, again)
        own = self._keys * key + a + beta
        results = self._keys * key + (a if diagonal else 0) + shares
        products = 2 * n * p * (3 if delta else 4) + 4 * matrices * met
        add("keys", "backward", products, results, own + again + 2 * states)
        once = batch * self.heads
        state = 8 * once * n * p
        vectors = size * once * ((2 if self.delta else 2 + 2 * self.steps_of_token) * n + 2 * p)
        decays = (
            self.steps_of_token * 4 * once * {"none": 0, "scalar": 1, "diagonal": n}[self.decay]
        )
        moved = state + vectors + decays + size * once * self.delta
        flops = (6 if self.delta else 4 + 4 * self.steps_of_token) * once * n * p
        found.append(Work(f"{self.name}_step", "step", flops, moved, moved))
        return tuple(found)


_WIDE = {"p_a", "p_first", "p_last", "p_rho", "p_da", "p_d_beta", "p_system", "p_state"}
"""Arguments in float32 whatever the operands are."""

_ARGUMENTS = {
    "scores": "p_rows [a]p_a p_columns [beta]p_beta p_scores SLICE rows_stride [a]a_stride "
    "columns_stride [beta]beta_stride",
    "solve": "p_system p_inverse SLICE",
    "factors": "p_inverse [low]p_scores p_reads [a]p_a [beta_kept]p_beta [low_kept]p_columns "
    "[diagonal]p_c [low_kept]p_b p_v p_w p_u [low]p_through [diagonal]p_kept [diagonal]p_since "
    "[low_kept]p_added [diagonal]p_rho SLICE reads_stride [a]a_stride [beta_kept]beta_stride "
    "[low_kept]columns_stride [diagonal]c_stride [low_kept]b_stride v_stride",
    "states": "p_reads p_writes p_u p_more p_values [diagonal]p_rho [a_of_row]p_a "
    "[beta_of_row]p_beta p_first p_z p_states p_last p_kept SLICE kept_stride reads_stride "
    "writes_stride more_stride values_stride [a_of_row]a_stride [beta_of_row]beta_stride",
    "outputs": "p_rows [a_of_row]p_a p_states p_scores p_values p_added_scores p_added p_y SLICE "
    "rows_stride [a_of_row]a_stride values_stride added_stride",
    "pairs": "p_dy p_x p_z [low]p_v p_d_scores p_d_system [low]p_d_values [low]p_d_added SLICE "
    "dy_stride [low]v_stride",
    "keys": "p_c p_right [low]p_left [low]p_b [a]p_a [beta]p_beta [low]p_v p_dy p_x p_z p_before "
    "p_behind p_d_scores p_d_system [low]p_d_values [low]p_d_added p_dc p_d_right [beta]p_d_beta "
    "[low]p_d_left [low]p_db [a]p_da SLICE c_stride right_stride [low]left_stride [low]b_stride "
    "[a]a_stride [beta]beta_stride dy_stride [low]v_stride",
    "step": "p_c [low]p_left p_right [low]p_b [a]p_a [beta]p_beta p_v p_state p_y c_stride "
    "[low]left_stride right_stride [low]b_stride [a]a_stride [beta]beta_stride v_stride",
}
"""Run-time arguments; one in brackets is there where the plan has what the brackets say. SLICE is
where the programs of a launch begin, and how far they go."""
