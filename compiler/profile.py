"""The profile of an operator: its work and its memory as formulas in the length, from structure.

    structure of T                  work per token (forward)           what decoding keeps
    diagonal                        0                                  nothing
    toeplitz, explicit, k taps      2 k c                              delay line: c (k - 1)
    toeplitz, implicit              10 log2(L) c                       V, per past token
    low rank, no nonlinearity       2 h' n p + 2 h n p                 h' n p
    semi-separable                  2 h' n p + 2 h n p                 h' n p
    any other (nonlinear, band)     (2 h n + 2 h p) * visible pairs    B (and A), V, per past token

with c channels of the value, n channels of C and B, p channels of V per head, h heads of the
result and h' heads of B, A and V, which alone write the state. The work of linear mixers is that
of the recurrent form: a rank-one update and a read. The algebra of mixers is distributed: (T1 +
T2) @ V works and remembers like T1 @ V and T2 @ V, and (T1 @ T2) @ V like T1 @ (T2 @ V).
`normalize` of a linear mixer runs it once more on a value of ones. Pointwise work (norms, gates,
softmax) is not counted.

Owns: these formulas and which values are needed per past token. Refuses: the cut (cache.py), names
of units and sums over a model (cost.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from starc.compiler.cache import kept_values
from starc.compiler.catalog import ENTRIES
from starc.compiler.ir import Operator, Value
from starc.compiler.types import Constant, Feature, Filter, Mixer, apply_mixer
from starc.grammar.errors import InternalError

WHOLE = 1 << 62
"""A window longer than any sequence: all past tokens."""

Node = int | None
"""A node of the graph of token-local values; None for what is the same for every token."""


@dataclass(frozen=True, slots=True)
class Work:
    """Floating-point operations of matrix products and convolutions, as coefficients.

    `token`: per token. `position`: per position whatever the batch (filters made from positions).
    `pairs`: (window, causal, operations per visible pair). `spectrum`: channels convolved by FFT.
    `triple`: per pair of tokens and token between them, for a product of two written-out mixers.
    """

    token: int = 0
    position: int = 0
    pairs: tuple[tuple[int, bool, int], ...] = ()
    spectrum: int = 0
    triple: int = 0

    def forward(self, length: int, batch: int) -> int:
        """Operations of one forward pass over (batch, length) tokens."""
        each = self.token * length
        for window, causal, operations in self.pairs:
            each += operations * visible_pairs(length, window, causal)
        if self.spectrum:
            each += round(10 * length * math.log2(length) * self.spectrum)
        if self.triple:
            each += self.triple * length * (length + 1) * (length + 2) // 6
        return batch * each + self.position * length

    def decode(self, length: int, batch: int) -> int:
        """Operations of the step that completes a sequence of `length` tokens.

        Values that are kept are at hand; making others from them again is not counted.
        """
        each = self.token
        for window, _, operations in self.pairs:
            each += operations * min(length, window)
        each += 2 * length * self.spectrum
        each += self.triple * length * (length + 1) // 2
        return batch * each


@dataclass(frozen=True, slots=True)
class Layout:
    """What a unit keeps: `state` elements whatever the length, and values of past tokens.

    `kept` maps a node to (elements, tokens). `demanded` names features of other units that must be
    kept by the unit that computes them, with the number of past tokens.
    """

    state: int
    kept: Mapping[int, tuple[int, int]]
    demanded: tuple[tuple[str, int], ...]

    def elements(self, length: int) -> int:
        """Elements per sequence of `length` tokens."""
        return self.state + sum(n * min(length, window) for n, window in self.kept.values())


@dataclass(frozen=True)
class Profile:
    """`sizes` are the learned parameters (name to elements), the rest is about values.

    Nodes are ids of values, and further numbers for values inside a chain of mixers.
    """

    sizes: Mapping[str, int]
    parameters: int
    work: Work
    state: int
    parents: tuple[tuple[int, ...], ...]
    elements: tuple[int, ...]
    needs: Mapping[int, int]
    stream: frozenset[int]
    inputs: Mapping[str, int]
    outputs: Mapping[str, Node]

    def layout(self, demanded: Mapping[str, int]) -> Layout:
        """What to keep when later units need these outputs for that many past tokens.

        Features that come from other units cost nothing here: the unit that computes them keeps
        them. The stream itself (x, and whatever no matrix product or token mixing separates from
        it) is no candidate unless it is needed as it is: for plain attention that leaves B and V.
        """
        needs = dict(self.needs)
        for name, window in demanded.items():
            node = self.outputs[name]
            if node is not None:
                needs[node] = max(window, needs.get(node, 0))
        cost: list[int | None] = list(self.elements)
        if not self.stream & needs.keys():
            for node in self.stream:
                cost[node] = None
        others = {node: name for name, node in self.inputs.items() if name != "x"}
        for node in others:
            cost[node] = 0
        kept = kept_values(self.parents, cost, needs) if needs else {}
        return Layout(
            self.state,
            {n: (self.elements[n], window) for n, window in kept.items() if n not in others},
            tuple(sorted((others[n], window) for n, window in kept.items() if n in others)),
        )


def visible_pairs(length: int, window: int, causal: bool) -> int:
    """Pairs (i, j) of a sequence with |i - j| < window, and j <= i when causal."""
    width = min(length, window)
    pairs = width * (width + 1) // 2 + (length - width) * width
    return pairs if causal else 2 * pairs - length


def profile_operator(operator: Operator) -> Profile:
    """The profile of a verified operator, in time about linear in its values."""
    walk = _Walk(operator.values)
    sizes = {p.name: p.size for p in operator.parameters if p.learned}
    delayed = sum(walk.elements[node] * steps for node, steps in walk.delays.items())
    return Profile(
        sizes,
        sum(sizes.values()),
        walk.work(),
        walk.state + delayed,
        tuple(walk.parents),
        tuple(walk.elements),
        walk.needs,
        frozenset(walk.stream),
        walk.inputs,
        {name: walk.nodes[id] for name, id in operator.outputs},
    )


DELAYS: dict[str, Callable[[Value], int]] = {
    "conv": lambda value: int((value.attribute("k") - 1) * value.attribute("dilation")),
    "shift": lambda value: int(value.attribute("k")),
}
"""Stages that read earlier tokens of their operand: how many of them."""

RESHAPES = frozenset({"heads", "merge"})
"""Stages whose result is their operand in another shape."""

SEPARABLE = frozenset({"low_rank", "semi_separable", "log_semi_separable"})
"""Mixers that a recurrence computes; their operands are C, then what writes the state."""

POINTWISE_ON_MIXERS = frozenset({"mixer_softmax", "mixer_sigmoid", "mixer_relu", "softcap"})
"""Nonlinear stages that need every T_ij by itself, so that T has to be written out."""


@dataclass(frozen=True, slots=True)
class _Operand:
    """What a mixer acts on; `ones` marks the value of ones that gives row sums."""

    node: Node
    type: Feature | Constant
    ones: bool = False


class _Walk:
    """One pass over the values of an operator. Mixers are followed from the `apply` using them."""

    def __init__(self, values: Sequence[Value]) -> None:
        self.values = values
        self.nodes: list[Node] = []
        self.parents: list[tuple[int, ...]] = []
        self.elements: list[int] = []
        self.stream: set[int] = set()
        self.inputs: dict[str, int] = {}
        self.needs: dict[int, int] = {}
        self.delays: dict[int, int] = {}
        self.pairs: dict[tuple[int, bool], int] = {}
        self.token = self.position = self.spectrum = self.triple = self.state = 0
        self._written: set[tuple[int, int, bool, bool]] = set()
        for value in values:
            self.nodes.append(self._visit(value))

    def work(self) -> Work:
        pairs = tuple((window, causal, n) for (window, causal), n in self.pairs.items())
        return Work(self.token, self.position, pairs, self.spectrum, self.triple)

    # --- the graph of token-local values ------------------------------------------------------

    def _visit(self, value: Value) -> Node:
        if isinstance(value.type, Mixer):
            return None
        if value.op == "apply":
            mixer, operand = value.inputs
            return self._apply(mixer, self._operand(operand), WHOLE, False)
        entry = ENTRIES[value.op]
        types = [self.values[i].type for i in value.inputs]
        flops = int(entry.flops(types, dict(value.attributes), 1))
        if not isinstance(value.type, Feature):
            self.position += flops
            return None
        self.token += flops
        if value.op == "input":
            return self._input(str(value.attribute("name")), value.type)
        parents = [n for n in (self.nodes[i] for i in value.inputs) if n is not None]
        if value.op in DELAYS:
            for parent in parents:
                self._delay(parent, DELAYS[value.op](value))
            return self._node(value.type, ())
        if not entry.local:
            raise InternalError(f"no rule says what {value.op!r} keeps of past tokens")
        if value.op in RESHAPES:
            return self.nodes[value.inputs[0]]
        node = self._local(value.type, parents)
        if not flops and node is not None and self.stream.issuperset(parents):
            if self.elements[node] >= min(self.elements[p] for p in parents):
                self.stream.add(node)
        return node

    def _input(self, name: str, type_: Feature) -> int:
        node = self._node(type_, ())
        self.inputs[name] = node
        if name == "x":
            self.stream.add(node)
        return node

    def _node(self, type_: Feature | Constant, parents: tuple[int, ...]) -> int:
        self.parents.append(parents)
        self.elements.append(type_.heads * type_.channels)
        return len(self.parents) - 1

    def _local(self, type_: Feature | Constant, parents: Sequence[Node]) -> Node:
        """A node computed from these at the same token; None when all of them are constant."""
        found = tuple(dict.fromkeys(p for p in parents if p is not None))
        return self._node(type_, found) if found else None

    def _operand(self, id: int) -> _Operand:
        type_ = self.values[id].type
        if not isinstance(type_, Feature | Constant):
            raise InternalError(f"a mixer acts on %{id}, which is no feature")
        return _Operand(self.nodes[id], type_)

    def _need(self, node: Node, window: int) -> None:
        if node is not None:
            self.needs[node] = max(window, self.needs.get(node, 0))

    def _delay(self, node: Node, steps: int) -> None:
        """One delay line per value serves every stage that looks back at it."""
        if node is not None:
            self.delays[node] = max(steps, self.delays.get(node, 0))

    # --- mixers that act on a value -----------------------------------------------------------

    def _apply(self, id: int, operand: _Operand, window: int, masked: bool) -> Node:
        """T @ V for the mixer `id`, seen through masks of that width; the node of the result."""
        mixer = self.values[id]
        inputs = mixer.inputs
        type_ = apply_mixer(_mixer(mixer), operand.type)
        match mixer.op:
            case "diagonal":
                return self._local(type_, [self.nodes[inputs[0]], operand.node])
            case "row_scale":
                result = self._apply(inputs[1], operand, window, masked)
                return self._local(type_, [self.nodes[inputs[0]], result])
            case "mixer_add" | "mixer_subtract":
                parts = [self._apply(i, operand, window, masked) for i in inputs]
                return self._local(type_, parts)
            case "mixer_negate" | "mixer_scale":
                return self._apply(inputs[0], operand, window, masked)
            case "causal":
                masked = masked or not _mixer(self.values[inputs[0]]).causal
                return self._apply(inputs[0], operand, window, masked)
            case "band":
                narrow = min(window, mixer.attribute("w"))
                return self._apply(inputs[0], operand, narrow, masked)
            case "normalize":
                ones = _Operand(None, Constant(1, 1), ones=True)
                total = self._apply(inputs[0], ones, WHOLE, False)
                result = self._apply(inputs[0], operand, window, masked)
                return self._local(type_, [total, result])
            case "compose":
                left, right = inputs
                free = "diagonal" in (self.values[left].op, self.values[right].op)
                if free or (window == WHOLE and not masked):
                    inner = self._apply(right, operand, window, masked)
                    between = apply_mixer(_mixer(self.values[right]), operand.type)
                    return self._apply(left, _Operand(inner, between), window, masked)
                return self._written_out(id, operand, window, masked)
            case "toeplitz":
                return self._convolve(inputs[0], operand, type_, window)
            case op if op in SEPARABLE and window == WHOLE:
                return self._recur(inputs, operand, type_)
            case op if op in SEPARABLE or op in POINTWISE_ON_MIXERS:
                return self._written_out(id, operand, window, masked)
            case op:
                raise InternalError(f"no rule says what the mixer {op!r} costs")

    def _convolve(self, filter: int, operand: _Operand, type_: Feature, window: int) -> Node:
        taps, channels = self.values[filter].type, type_.heads * type_.channels
        if not isinstance(taps, Filter):
            raise InternalError(f"a Toeplitz mixer is made of %{filter}, which is no filter")
        if taps.length is not None:
            reach = min(taps.length, window)
            self.token += 2 * reach * channels
            self._delay(operand.node, reach - 1)
        else:
            self._need(operand.node, window)
            if window == WHOLE:
                self.spectrum += channels
            else:
                self._pair(window, True, 2 * channels)
        return self._node(type_, ())

    def _recur(self, inputs: Sequence[int], operand: _Operand, type_: Feature) -> Node:
        """A linear recurrence: B and A write a state of n x p per head, C reads it."""
        c, *writers = (self._operand(i).type for i in inputs)
        heads = max(operand.type.heads, *(w.heads for w in writers))
        n = max(w.channels for w in writers)
        p = operand.type.channels
        self.state += heads * n * p
        self.token += 2 * heads * n * p + 2 * type_.heads * max(n, c.channels) * p
        return self._node(type_, ())

    # --- mixers written out, one number per visible pair -----------------------------------------

    def _pair(self, window: int, causal: bool, operations: int) -> None:
        self.pairs[window, causal] = self.pairs.get((window, causal), 0) + operations

    def _written_out(self, id: int, operand: _Operand, window: int, masked: bool) -> Node:
        """T is made entry by entry: the value and what makes the entries are kept per token."""
        mixer = _mixer(self.values[id])
        type_ = apply_mixer(mixer, operand.type)
        causal = masked or mixer.causal
        # A mask outside of a nonlinearity hides entries that softmax or normalize still has to see.
        inside = window if mixer.linear else WHOLE
        self._entries(id, inside, causal, True)
        if not operand.ones:
            reach = min(window, self._reach(id))
            self._need(operand.node, reach)
            self._pair(reach, causal, 2 * type_.heads * operand.type.channels)
        return self._node(type_, ())

    def _reach(self, id: int) -> int:
        """The widest band of visible entries: masks narrow it, sums take the wider one."""
        value = self.values[id]
        inner = [self._reach(i) for i in value.inputs if isinstance(self.values[i].type, Mixer)]
        match value.op:
            case "diagonal":
                return 1
            case "band":
                return min(inner[0], int(value.attribute("w")))
            case "compose":
                return min(WHOLE, sum(inner) - 1)
        return max(inner, default=WHOLE)

    def _entries(self, id: int, window: int, causal: bool, first: bool) -> None:
        """Count the entries T_ij of a mixer and need what they read at past tokens.

        `first` says that the rows of this mixer are rows of the whole, so that what belongs to row
        i (C, a factor of the row) is read at the newest token only.
        """
        if (id, window, causal, first) in self._written:
            return
        self._written.add((id, window, causal, first))
        value = self.values[id]
        inputs = value.inputs
        match value.op:
            case op if op in SEPARABLE:
                for i in inputs[1:] if first else inputs:
                    self._need(self.nodes[i], window)
                channels = max(self._operand(i).type.channels for i in inputs)
                self._pair(window, causal, 2 * _mixer(value).heads * channels)
            case "diagonal":
                if not first:
                    self._need(self.nodes[inputs[0]], window)
            case "row_scale":
                if not first:
                    self._need(self.nodes[inputs[0]], window)
                self._entries(inputs[1], window, causal, first)
            case "compose":
                left, right = inputs
                self._entries(left, window, causal, first)
                if self.values[left].op == "diagonal":
                    self._entries(right, window, causal, first)
                else:
                    self._entries(right, window, causal, False)
                    if self.values[right].op != "diagonal":
                        self.triple += 2 * _mixer(value).heads
            case "band":
                self._entries(inputs[0], min(window, int(value.attribute("w"))), causal, first)
            case "toeplitz":
                pass
            case _:
                for i in inputs:
                    self._entries(i, window, causal, first)


def _mixer(value: Value) -> Mixer:
    if not isinstance(value.type, Mixer):
        raise InternalError(f"{value.op!r} stands where a mixer must")
    return value.type
