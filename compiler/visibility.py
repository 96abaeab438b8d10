"""Which pairs of tokens a mixer sees: unions of intersections of masks, read from an operator.

    Visible = Clause | Clause | ...      a pair is visible when all masks of some clause show it
    Clause  = mask & mask & ...          the empty clause shows every pair
    Mask    = (operation, sizes)         ("band", (8,)), ("causal", ()), ...

Two masks are made of more than sizes: ("linked", (left, right)), what a product of two mixers sees,
and ("select", (id,)), the entries that a `select` keeps.

Owns: the algebra of masks and how far they reach. Refuses: their text (lower/masks.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from starc.compiler.ir import Value
from starc.compiler.types import Mixer
from starc.compiler.work import WHOLE

Mask = tuple[str, tuple[Any, ...]]
Clause = frozenset[Mask]

MASKS: dict[str, tuple[str, ...]] = {
    "causal": (),
    "band": ("w",),
    "dilated": ("w", "r"),
    "strided": ("n",),
    "block": ("n",),
    "summary": ("n", "c"),
    "first": ("n",),
}
"""Masks made of sizes, and the names of these in the catalog."""

OWN_TOKEN = frozenset({"causal", "band", "dilated", "strided", "block", "select"})
"""Masks by which a token always sees itself."""

POSITIONAL = frozenset({"block", "summary", "first", "select"})
"""Masks that count tokens from the first one, which a window of the last tokens would lose."""

CAUSAL: Mask = ("causal", ())


@dataclass(frozen=True)
class Visible:
    """A union of clauses. `reachable` is what even a mask with `also` cannot add to."""

    clauses: frozenset[Clause] = frozenset({frozenset()})
    reachable: Clause = frozenset()

    def masked(self, mask: Mask) -> Visible:
        """The pairs that a further mask leaves."""
        bound = self.reachable | {mask} if mask == CAUSAL else self.reachable
        return Visible(_fewest(clause | {mask} for clause in self.clauses), bound)

    def also(self, mask: Mask) -> Visible:
        """These pairs and those that a mask shows."""
        return Visible(_fewest((*self.clauses, self.reachable | {mask})), self.reachable)

    def union(self, other: Visible) -> Visible:
        clauses = _fewest((*self.clauses, *other.clauses))
        return Visible(clauses, self.reachable & other.reachable)

    def both(self, other: Visible) -> Visible:
        clauses = _fewest(a | b for a in self.clauses for b in other.clauses)
        return Visible(clauses, self.reachable | other.reachable)

    @property
    def everything(self) -> bool:
        return frozenset() in self.clauses

    @property
    def own_token(self) -> bool:
        """Whether a token certainly sees itself, so that no row is empty."""
        return any(all(_own_token(mask) for mask in clause) for clause in self.clauses)

    @property
    def reach(self) -> int:
        """A window that holds every visible pair: |i - j| < reach."""
        return max(_clause_reach(clause) for clause in self.clauses)

    @property
    def positional(self) -> frozenset[str]:
        """The masks that count tokens from the first one."""
        return frozenset[str]().union(*(_positional(mask) for c in self.clauses for mask in c))

    @property
    def spans(self) -> tuple[tuple[int, int], ...]:
        """(window, step) for each clause: it shows at most every step-th token of a window."""
        return tuple(sorted(_span(clause) for clause in self.clauses))


def _fewest(clauses: Sequence[Clause] | Iterator[Clause] | Any) -> frozenset[Clause]:
    """Clauses without those that others contain."""
    found = set(clauses)
    return frozenset(c for c in found if not any(other < c for other in found))


def _own_token(mask: Mask) -> bool:
    op, sizes = mask
    return all(side.own_token for side in sizes) if op == "linked" else op in OWN_TOKEN


def _positional(mask: Mask) -> frozenset[str]:
    op, sizes = mask
    if op == "linked":
        return frozenset[str]().union(*(side.positional for side in sizes))
    return frozenset({op}) & POSITIONAL


def _clause_reach(clause: Clause) -> int:
    if any(map(_positional, clause)):
        return WHOLE
    return min(map(_reach, clause), default=WHOLE)


def _reach(mask: Mask) -> int:
    op, sizes = mask
    match op:
        case "band":
            return int(sizes[0])
        case "dilated":
            return int((sizes[0] - 1) * sizes[1] + 1)
        case "linked":
            return int(min(WHOLE, sizes[0].reach + sizes[1].reach - 1))
    return WHOLE


def _span(clause: Clause) -> tuple[int, int]:
    window, step = WHOLE, 1
    for mask in clause:
        op, sizes = mask
        window = min(window, _reach(mask))
        if op in ("block", "first"):
            window = min(window, sizes[0])
        elif op == "strided":
            step = max(step, sizes[0])
        elif op == "dilated":
            step = max(step, sizes[1])
        elif op == "summary":
            step = max(step, sizes[0] // sizes[1])
        elif op == "select":
            window = min(window, sizes[1])
    return window, step


class Seen(NamedTuple):
    """What masks above a mixer leave of it: its band, (window, step) of the tokens that count in
    its work, and those masks that count tokens from the first one."""

    band: int = WHOLE
    spans: tuple[tuple[int, int], ...] = ((WHOLE, 1),)
    positional: frozenset[str] = frozenset()

    def within(self, pairs: Visible) -> Seen:
        """What is left of this behind masks."""
        spans = {(min(a, w), max(b, s)) for a, b in self.spans for w, s in pairs.spans}
        positional = self.positional | pairs.positional
        return Seen(min(self.band, pairs.reach), tuple(sorted(spans)), positional)

    @property
    def reach(self) -> int:
        """How far back it is read: from the first token on, where tokens are counted from it."""
        return WHOLE if self.positional else self.band

    @property
    def window(self) -> int | None:
        """The window, where nothing but a band narrows this."""
        return self.reach if self.spans == ((self.reach, 1),) else None


ALL = Seen()


def visible(values: Sequence[Value], id: int) -> Visible:
    """What a mixer of an operator sees."""
    value = values[id]
    match value.op:
        case "low_rank":
            return Visible()
        case "diagonal":
            return Visible().masked(CAUSAL).masked(("band", (1,)))
        case "mixer_add" | "mixer_subtract":
            left, right = (visible(values, i) for i in value.inputs)
            return left.union(right)
        case "compose":
            left, right = (visible(values, i) for i in value.inputs)
            linked = Visible().masked(("linked", (left, right)))
            causal = isinstance(value.type, Mixer) and value.type.causal
            return linked.masked(CAUSAL) if causal else linked
        case "select":
            inner = visible(values, value.inputs[0])
            return inner.masked(("select", (id, value.attribute("top") * value.attribute("block"))))
        case op if op in MASKS:
            inner, mask = visible(values, value.inputs[0]), _mask(value)
            return inner.also(mask) if value_also(value) else inner.masked(mask)
    mixers = [i for i in value.inputs if isinstance(values[i].type, Mixer)]
    if not mixers:  # semi-separable, Toeplitz, ...: causal by structure
        return Visible().masked(CAUSAL)
    found = [visible(values, i) for i in mixers]
    while len(found) > 1:  # a product entry by entry
        found.append(found.pop().both(found.pop()))
    return found[0]


def _mask(value: Value) -> Mask:
    return value.op, tuple(value.attribute(name) for name in MASKS[value.op])


def own_mask(value: Value) -> Visible:
    """What a mask alone shows."""
    return Visible().masked(_mask(value))


def value_also(value: Value) -> bool:
    """Whether a mask adds the pairs it shows to those that were visible."""
    return value.op == "first" or bool(dict(value.attributes).get("also", False))
