"""The plan of fused attention: weights of pairs of tokens that are never written down.

    score  = scale C_i . B_j, then soft-caps and terms in their order
    weight = softmax, sigmoid, relu or the score itself, of visible pairs; normalised or not
    y_i    = sum over j of weight_ij V_j

Owns: what one template needs to know of all of these, how the visible pairs become loops over
blocks of keys, and tiles. Refuses: which programs get the kernel (lower/attention.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

from starc.compiler.conditions import conditions, order
from starc.compiler.kernel_plan import CACHED, SMALL_SHARED, KernelPlan, Launch, Work
from starc.compiler.kernel_tiles import LANES_OF_STRIDE, AttentionTile, attention_tiles
from starc.compiler.visibility import CAUSAL, Clause, Mask
from starc.grammar.errors import InternalError

WEIGHTS = ("softmax", "sigmoid", "relu", "linear")
WIDEST = 256
"""Channels of keys or values that a tile can hold."""

TERMS = {"alibi": "slope", "bias": "bias", "decay": "total"}
"""Stages that add an operand to scores, and its name. `total` is the sum of decays so far."""

PER_QUERY = ("slope", "total", "sink")
PER_KEY = ("bias", "total")

MASKED = -1.0e30
"""A maximum to begin with: finite, so that a row that saw nothing yet has no inf - inf."""


@dataclass(frozen=True)
class Pairs:
    """One clause of the visible pairs as a loop over keys, or over queries in the gradient of keys.

    `clause` is in coordinates of a lane where tokens come in lanes. Pairs that an earlier loop took
    are left out: `excluded`. `compact` says that keys are counted by their place among those that a
    `summary` shows; `jump` that blocks of keys lie so many tokens apart.
    """

    clause: Clause
    excluded: tuple[Clause, ...] = ()
    compact: tuple[int, int] | None = None
    jump: int = 0

    @property
    def condition(self) -> str:
        """Which pairs i, j of a tile count, beside those outside of the sequence; "" for all."""
        shown = conditions(self.clause, "tl.abs(i - j)")
        hidden = [" & ".join(conditions(c, "tl.abs(i - j)")) for c in self.excluded]
        return " & ".join([*shown, *(f"~({c})" for c in hidden)])

    def size(self, op: str) -> int:
        """The size of a mask of the clause: the smallest, or 0 where there is none."""
        found = [_extent(mask) for mask in self.clause if mask[0] == op]
        return min(found, default=0)

    @property
    def causal(self) -> bool:
        return CAUSAL in self.clause

    @property
    def band(self) -> int:
        """A window |i - j| < band, or 0."""
        return min((w for w in (self.size("band"), self.size("dilated")) if w), default=0)


def _extent(mask: tuple[str, tuple[int, ...]]) -> int:
    op, sizes = mask
    return sizes[0] * sizes[1] if op == "dilated" else sizes[0] if sizes else 1


@dataclass(frozen=True, kw_only=True)
class AttentionPlan(KernelPlan):
    """What attention over whole sequences and for one token share.

    Operands have c_heads, b_heads and v_heads heads, which divide `heads`. `stages` act on
    C_i . B_j in this order: ("scale", s), ("softcap", c), and terms times a factor. `clauses` are
    the visible pairs. Rows are divided by max(|sum of weights|, floor) where there is a floor. A
    `sink` takes part in the softmax and has no value. `variant` tells functions of a file apart.
    """

    heads: int
    c_heads: int
    b_heads: int
    v_heads: int
    v_channels: int
    stages: tuple[tuple[str, float], ...]
    clauses: tuple[Clause, ...]
    weights: str = "softmax"
    floor: float | None = None
    sink: bool = False
    variant: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        keys = self.key_heads
        counts = (self.c_heads, keys, self.b_heads, self.v_heads)
        if any(self.heads % n for n in counts) or keys % self.b_heads or keys % self.v_heads:
            raise InternalError(f"{self.name}: head counts do not divide one another")
        if self.weights not in WEIGHTS or not self.clauses:
            raise InternalError(f"{self.name}: no kernel knows these weights")
        if (self.sink and not self.softmax) or (self.floor and self.softmax):
            raise InternalError(f"{self.name}: a sink belongs to a softmax, a floor to no softmax")

    @property
    def key_heads(self) -> int:
        """Heads of keys and values together; one program reads them for all that share them."""
        return max(self.b_heads, self.v_heads)

    @property
    def group(self) -> int:
        """Query heads that share keys and values."""
        return self.heads // self.key_heads

    @property
    def scale(self) -> float:
        """The factor of C_i . B_j before any other stage."""
        first = self.stages[:1]
        return first[0][1] if first and first[0][0] == "scale" else 1.0

    @property
    def later(self) -> tuple[tuple[str, float], ...]:
        """The stages behind the scale."""
        return self.stages[self.stages[:1] == (("scale", self.scale),) :]

    @property
    def terms(self) -> tuple[str, ...]:
        """Names of the operands that are one number per token and head."""
        found = dict.fromkeys(TERMS[op] for op, _ in self.stages if op in TERMS)
        return (*found, "sink") if self.sink else tuple(found)

    @property
    def query_terms(self) -> tuple[str, ...]:
        return tuple(name for name in self.terms if name in PER_QUERY)

    @property
    def key_terms(self) -> tuple[str, ...]:
        return tuple(name for name in self.terms if name in PER_KEY)

    @property
    def softmax(self) -> bool:
        return self.weights == "softmax"

    @property
    def kept(self) -> bool:
        """Whether the forward pass leaves a number per row for the backward pass: the logarithm of
        the softmax's sum, or the sum of the weights."""
        return self.softmax or self.floor is not None

    # --- lanes, and loops over the visible pairs ------------------------------------------------

    @cached_property
    def lane(self) -> int:
        """Tokens that see each other are a multiple of this apart: every lane is a sequence of its
        own, and blocks are made of its tokens."""
        if len(self.clauses) > 1:
            return 1
        steps = {_step(mask) for mask in self.clauses[0]} - {1}
        known = all(mask[0] in ("causal", "band", "dilated", "strided") for mask in self.clauses[0])
        return steps.pop() if known and len(steps) == 1 else 1

    @property
    def loops(self) -> tuple[Pairs, ...]:
        """The loops that together meet every visible pair once."""
        clauses = sorted((_in_lane(c, self.lane) for c in self.clauses), key=_narrowest)
        return tuple(
            Pairs(clause, tuple(clauses[:k]), _compact(clause), _jump(clause))
            for k, clause in enumerate(clauses)
        )

    @property
    def seen(self) -> str:
        """The visible pairs as PyTorch, or "" for all."""
        parts = [" & ".join(conditions(c)) for c in self.clauses]
        if "" in parts:
            return ""
        return " | ".join(f"({c})" if len(parts) > 1 and "&" in c else c for c in parts)

    # --- words and numbers ----------------------------------------------------------------------

    @property
    def formula(self) -> str:
        """The weights for a reader."""
        score = f"{self.scale!r} C_i . B_j"
        for op, number in self.later:
            factor = "" if number == 1 else f"{number!r} "
            match op:
                case "scale":
                    score = f"{number!r} ({score})"
                case "softcap":
                    score = f"{number!r} tanh(({score}) / {number!r})"
                case "alibi":
                    score += f" - {factor}slope_i |i - j|"
                case "bias":
                    score += f" + {factor}bias_j"
                case "decay":
                    score += f" + {factor}(total_i - total_j)"
        weight = score if self.weights == "linear" else f"{self.weights}({score})"
        return weight if self.floor is None else f"normalize({weight})"

    @property
    def shown(self) -> str:
        """The visible pairs for a reader."""
        return (
            self.seen.replace("(i - j).abs()", "|i - j|")
            .replace(" & ", " and ")
            .replace(" | ", " or ")
            or "all"
        )

    @property
    def fused(self) -> tuple[str, ...]:
        found = [f"sum_j {self.formula} V_j", f"over {self.shown}"]
        if self.sink:
            found.append("with a sink")
        if self.group > 1:
            found.append(f"{self.group} query heads read keys and values once")
        if self.lane > 1:
            found.append(f"in {self.lane} lanes")
        return tuple(found)

    def pairs(self, queries: int, keys: int) -> int:
        """Visible pairs of one head, as far as loops over blocks can tell."""
        total = 0.0
        for loop in self.loops:
            wide = keys / self.lane
            seen = wide
            if loop.band:
                seen = min(seen, loop.band * (1 if loop.causal else 2))
            for op in ("block", "first"):
                if loop.size(op):
                    seen = min(seen, loop.size(op))
            if loop.compact:
                seen = seen * loop.compact[1] / loop.compact[0]
            if loop.jump:
                seen = seen / max(loop.jump / 128, 1)
            halved = loop.causal and not loop.band and queries == keys
            total += queries * seen * (0.5 if halved else 1)
        return int(total)

    @property
    def gathers(self) -> dict[str, str]:
        """Shapes of operands for docstrings."""
        return {
            "slope": f"slope (batch, T, {self.heads}, 1)",
            "bias": f"bias (batch, S, {self.heads}, 1)",
            "total": f"total (batch, S, {self.heads}, 1)",
            "sink": f"sink (batch, T, {self.heads}, 1)",
        }


def _step(mask: tuple[str, tuple[int, ...]]) -> int:
    op, sizes = mask
    return sizes[1] if op == "dilated" else sizes[0] if op == "strided" else 1


def _in_lane(clause: Clause, lane: int) -> Clause:
    """A clause between tokens that are counted along a lane."""
    if lane == 1:
        return clause
    found = set()
    for op, sizes in clause:
        match op:
            case "band":
                found.add(("band", (-(-sizes[0] // lane),)))
            case "dilated":
                found.add(("band", (sizes[0],)))
            case "causal":
                found.add((op, sizes))
    return frozenset(found)


def _narrowest(clause: Clause) -> tuple[bool, list[tuple[int, Mask]]]:
    """Windows come first, clauses that show a few tokens of many last."""
    few = any(op in ("first", "summary", "strided") for op, _ in clause)
    return few, sorted(map(order, clause))


def _compact(clause: Clause) -> tuple[int, int] | None:
    sizes = [mask[1] for mask in clause if mask[0] == "summary"]
    return (sizes[0][0], sizes[0][1]) if len(sizes) == 1 else None


def _jump(clause: Clause) -> int:
    """How far apart blocks of keys lie, where a block of queries sees one of every few."""
    found = [sizes[0] for op, sizes in clause if op == "strided"]
    others = {op for op, _ in clause} - {"strided"}
    far = len(found) == 1 and found[0] >= LANES_OF_STRIDE
    return found[0] if far and others == {"causal"} else 0


@dataclass(frozen=True, kw_only=True)
class FusedAttention(AttentionPlan):
    """Attention over whole sequences, forward and backward: C (B, T, c_heads, channels), B and V of
    S >= T tokens that end at the newest one."""

    template: ClassVar[str] = "kernel/attention.py.j2"
    shared = ("kernel/attention_operands.py.j2", "kernel/tuning.py.j2")

    channels: int

    def __post_init__(self) -> None:
        super().__post_init__()
        if max(self.channels, self.v_channels) > WIDEST:
            raise InternalError(f"{self.name}: heads of more than {WIDEST} channels")

    @property
    def name(self) -> str:
        number = f"_{self.variant}" if self.variant > 1 else ""
        return f"fused_{self.weights}_attention_{self.heads}x{self.channels}{number}"

    @property
    def steps(self) -> bool:
        """Whether single tokens are decoded: then a kernel of their own follows (see `step_of`)."""
        return all(CAUSAL in clause for clause in self.clauses)

    @property
    def depth(self) -> int:
        """Channels of a tile of queries or keys."""
        return padded(self.channels)

    @property
    def v_depth(self) -> int:
        return padded(self.v_channels)

    @property
    def tiles(self) -> dict[str, dict[int, tuple[tuple[int, AttentionTile], ...]]]:
        """For each kernel and size of an element: (least shared memory in bytes, tile), the best
        first."""
        wide = max(self.depth, self.v_depth)
        return {
            kernel: {
                size: attention_tiles(kernel, wide, size, kernel == "keys" and self.group > 1)
                for size in (2, 4)
            }
            for kernel in ("forward", "queries", "keys")
        }

    def launches(self, element: str, shared: int = SMALL_SHARED) -> tuple[Launch, ...]:
        size = 4 if element == "fp32" else 2
        own, number = f"*{element}", "i32"
        operands = {"p_c": own, "p_b": own, "p_v": own}
        terms = {f"p_{name}": "*fp32" for name in self.terms}
        kept = {"p_kept": "*fp32"} if self.kept else {}
        delta = {"p_delta": "*fp32"} if self.kept else {}
        strides = {f"{x}_{axis}": number for x in "cbv" for axis in ("batch", "token", "head")}
        sizes = {"queries": number, "keys": number}
        y = {"p_y": own} if self.kept else {}
        d_queries = {f"p_d_{name}": "*fp32" for name in self.query_terms if name != "sink"}
        d_keys = {f"p_d_{name}_key": "*fp32" for name in self.key_terms}
        inner = {k: v for k, v in terms.items() if k != "p_sink"}
        signatures = {
            "forward": {**operands, **terms, "p_y": own, **kept, **sizes, **strides},
            "queries": {
                **{"p_dy": own, **y, **kept, **operands, **inner},
                **{"p_dc": own, **d_queries, **delta, "first": number, **sizes, **strides},
            },
            "keys": {
                **{"p_dy": own, **kept, **delta, **operands, **inner},
                **{"p_db": own, "p_dv": own, **d_keys, "first": number, **sizes, **strides},
            },
        }
        even = self.channels % 16 == 0 and self.v_channels % 16 == 0
        found = []
        for kernel, signature in signatures.items():
            tile = next(t for least, t in self.tiles[kernel][size] if shared >= least)
            constants: dict[str, object] = {
                "rows": tile.rows,
                "columns": tile.columns,
                "precision": "tf32",
            }
            found.append(
                Launch(
                    f"{self.name}_{kernel}",
                    signature,
                    tile.warps,
                    tuple(strides) if even else (),
                    constants,
                    tile.stages,
                    products=True,
                )
            )
        return tuple(found)

    def work(self, batch: int, tokens: int, size: int) -> tuple[Work, ...]:
        per_pair = 2 * batch * self.heads * self.pairs(tokens, tokens)
        n, p, every = self.channels, self.v_channels, batch * tokens
        c = every * self.heads * n * size
        y = every * self.heads * p * size
        b = every * self.b_heads * n * size
        v = every * self.v_heads * p * size
        given = every * self.c_heads * n * size
        numbers = 4 * every * self.heads
        kept = numbers if self.kept else 0
        terms = numbers * len(self.terms)
        forward = given + b + v + terms + y + kept
        slopes = numbers * sum(name not in ("sink", "total") for name in self.query_terms)
        queries = y * (1 + self.kept) + kept + given + b + v + terms + c + kept + slopes
        # The same heads went through the other kernel just before, if the cache holds them.
        again = y + 2 * kept + given + b + v + terms
        head = (self.group + 1) * tokens * (n + p) * size
        keys = b + v + numbers * len(self.key_terms) + (again if head > CACHED else 0)
        backward = y * (1 + self.kept) + kept + 2 * (given + b + v + terms)
        return (
            Work(f"{self.name}_forward", "forward", per_pair * (n + p), forward, forward),
            Work(f"{self.name}_queries", "backward", per_pair * (2 * n + p), queries, backward),
            Work(f"{self.name}_keys", "backward", per_pair * (2 * n + 2 * p), keys, backward),
        )


def padded(channels: int) -> int:
    """The power of two, 16 or more, that channels are padded to in a tile."""
    return max(16, 1 << (channels - 1).bit_length())
