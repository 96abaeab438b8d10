"""The walk over an operator's values that finds what they cost and what decoding must keep.

One rule per structure; profile.py's table has the formulas. Values are visited in order and mixers
followed from the `apply`, or the algorithm, that uses them, so that the profile is the same before
and after the passes.

Owns: which values are needed per past token, and the work of every operation. Refuses: the cut
(cache.py) and sums over a model (cost.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from starc.compiler.catalog import ENTRIES
from starc.compiler.gates import has_logarithm, stabilised
from starc.compiler.ir import Value
from starc.compiler.types import Constant, Feature, Filter, Mixer, Problem, Transition, apply_mixer
from starc.compiler.visibility import ALL, MASKS, Seen, own_mask, value_also, visible
from starc.compiler.work import WHOLE, Work
from starc.grammar.errors import InternalError

Node = int | None
"""A node of the graph of token-local values; None for what is the same for every token."""

DELAYS: dict[str, Callable[[Value], int]] = {
    "conv": lambda value: int((value.attribute("k") - 1) * value.attribute("dilation")),
    "shift": lambda value: int(value.attribute("k")),
}
"""Stages that read earlier tokens of their operand: how many of them."""

FROM_OUTSIDE = frozenset({"embedded", "position", "lookup"})
"""Features that come from the tokens and not from the stream."""

RESHAPES = frozenset({"heads", "merge"})
"""Stages whose result is their operand in another shape."""

ALGORITHMS = frozenset(
    """attention banded_attention linear_attention scalar_recurrence diagonal_recurrence
    signed_recurrence delta_recurrence dplr_recurrence scan short_convolution long_convolution
    modal_convolution
    gated_convolution""".split()
)
"""What `select` puts in the place of `apply`: the profile of a model is the same before and
after."""

SEPARABLE = frozenset("""low_rank semi_separable log_semi_separable dplr_semi_separable
    delta_semi_separable""".split())
"""Mixers that a recurrence computes; their operands are C, then what writes the state."""

LOW_RANK_STEPS: dict[str, Callable[[Value], int]] = {
    "householder": lambda value: 1,
    "dplr": lambda value: 1,
    "delta_semi_separable": lambda value: 1,
    "delta_recurrence": lambda value: 1,
    "dplr_semi_separable": lambda value: (len(value.inputs) - 2) // 3,
    "dplr_recurrence": lambda value: (len(value.inputs) - 3) // 3,
}
"""Parts of a transition that read the state along one vector and write it along another."""

READS_ROWS = frozenset({"mixer_softmax", "normalize", "standardize", "select"})
"""Stages by which an entry depends on all visible ones of its row."""

TERMS = frozenset({"bias", "decay", "alibi", "relative", "sink"})
"""Stages that add a feature to scores; `bias` and `decay` read it by key."""

WRITTEN_OUT = (
    frozenset({"mixer_sigmoid", "mixer_relu", "softcap", "toeplitz", "mixer_multiply", "static"})
    | READS_ROWS
    | TERMS
)
"""Mixers that need every T_ij by itself, so that T has to be written out."""


@dataclass(frozen=True, slots=True)
class _Operand:
    """What a mixer acts on."""

    node: Node
    type: Feature | Constant


class Walk:
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
        self.spans: dict[int, int] = {}
        self._wanted: dict[Node, int] = {}
        self.pairs: dict[tuple[int, int, bool], int] = {}
        self.token = self.position = self.spectrum = self.triple = self.state = 0
        self.modal = 0, 0
        self._written: set[tuple[int, Seen, bool, bool]] = set()
        self._scored: set[tuple[object, ...]] = set()
        self._first: list[int] = []  # of equal values, which passes merge, the first one
        self._applied: dict[tuple[int, Node, Feature | Constant, Seen, bool], Node] = {}
        known: dict[object, int] = {}
        for id, value in enumerate(values):
            inputs = tuple([self._first[i] for i in value.inputs])
            first = known.setdefault((value.op, inputs, value.attributes, value.parameters), id)
            self._first.append(first)
            self.nodes.append(self._visit(value) if first == id else self.nodes[first])

    def work(self) -> Work:
        pairs = tuple((*kind, n) for kind, n in self.pairs.items())
        return Work(self.token, self.position, pairs, self.spectrum, self.triple, self.modal)

    # --- the graph of token-local values ------------------------------------------------------

    def _visit(self, value: Value) -> Node:
        if isinstance(value.type, Mixer | Transition):
            return None
        if value.op == "apply":
            mixer, operand = value.inputs
            return self._apply(mixer, self._operand(operand), ALL, False)
        if value.op in ALGORITHMS:
            return self._algorithm(value)
        entry = ENTRIES[value.op]
        types = [self.values[i].type for i in value.inputs]
        flops = int(entry.flops(types, dict(value.attributes), 1))
        if not isinstance(value.type, Feature):
            self.position += flops
            return None
        self.token += flops
        if value.op == "input":
            return self._input(str(value.attribute("name")), value.type)
        if value.op in FROM_OUTSIDE:
            return self._node(value.type, ())
        parents = [n for n in (self.nodes[i] for i in value.inputs) if n is not None]
        if value.op in DELAYS:
            for parent in parents:
                self._delay(parent, DELAYS[value.op](value))
            return self._node(value.type, ())
        if value.op in ("ema", "stabilized"):  # one number per channel; a running maximum
            averages = value.type.heads * value.type.channels if value.op == "ema" else 0
            self.state += averages or value.type.heads
            self.token += 4 * averages
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
        if node is not None and window > 1:  # the newest token is at hand
            self.needs[node] = max(window, self.needs.get(node, 0))

    def _delay(self, node: Node, steps: int) -> None:
        """One delay line per value serves every stage that looks back at it."""
        if node is not None:
            self.delays[node] = max(steps, self.delays.get(node, 0))

    # --- mixers that act on a value -----------------------------------------------------------

    def _apply(self, id: int, operand: _Operand, seen: Seen, masked: bool) -> Node:
        """T @ V for the mixer `id`, seen through masks; the node of the result.

        What is made twice, also of parts of a sum or a product, is made once.
        """
        key = self._first[id], operand.node, operand.type, seen, masked
        if operand.node is None or key not in self._applied:
            self._applied[key] = self._follow(id, operand, seen, masked)
        return self._applied[key]

    def _follow(self, id: int, operand: _Operand, seen: Seen, masked: bool) -> Node:
        mixer = self.values[id]
        inputs = mixer.inputs
        type_ = apply_mixer(_mixer(mixer), operand.type)
        type_is_causal = _mixer(mixer).causal
        match mixer.op:
            case "diagonal" | "low_rank" if "summary" in seen.positional and (
                mixer.op == "diagonal" or seen.band == 1
            ):
                return self._chosen_tokens(operand, type_)
            case "diagonal":
                return self._local(type_, [self.nodes[inputs[0]], operand.node])
            case "row_scale":
                result = self._apply(inputs[1], operand, seen, masked)
                return self._local(type_, [self.nodes[inputs[0]], result])
            case "mixer_add" | "mixer_subtract":
                if not all(_fits(self.values[i], operand.type) for i in inputs):
                    return self._written_out(id, operand, seen, masked)
                parts = [self._apply(i, operand, seen, masked) for i in inputs]
                return self._local(type_, parts)
            case "mixer_negate" | "mixer_scale":
                return self._apply(inputs[0], operand, seen, masked)
            case "causal":
                masked = masked or not _mixer(self.values[inputs[0]]).causal
                return self._apply(inputs[0], operand, seen, masked)
            case op if op in MASKS and not value_also(mixer):
                return self._apply(inputs[0], operand, seen.within(own_mask(mixer)), masked)
            case "normalize" if (
                seen == ALL and type_is_causal and (chain := self._linear_chain(inputs[0]))
            ):
                self.state += self._running_maximum(chain)
                return self._recur(chain, operand, type_, sums=True)
            case "normalize":
                return self._written_out(id, operand, seen, masked)
            case "compose":
                left, right = inputs
                outer = self.values[left].op == "diagonal"  # one diagonal does without the masks
                free = outer or self.values[right].op == "diagonal"
                if free or (seen == ALL and not masked):
                    inner = self._apply(right, operand, seen if outer else ALL, masked)
                    between = apply_mixer(_mixer(self.values[right]), operand.type)
                    return self._apply(
                        left, _Operand(inner, between), ALL if outer else seen, masked
                    )
                return self._written_out(id, operand, seen, masked)
            case "toeplitz" if seen.window is not None:
                return self._convolve(inputs[0], operand, type_, seen.window)
            case "low_rank" if seen.band == 1:  # C_i . B_i
                return self._local(type_, [*(self.nodes[i] for i in inputs), operand.node])
            case op if op in SEPARABLE and seen == ALL and (masked or type_is_causal):
                return self._recur(mixer, operand, type_)
            case "mixer_multiply" if seen == ALL and self._decayed(mixer):
                return self._recur(mixer, operand, type_)
            case op if op in SEPARABLE or op in WRITTEN_OUT or op in MASKS:
                return self._written_out(id, operand, seen, masked)
            case op:
                raise InternalError(f"no rule says what the mixer {op!r} costs")

    def _chosen_tokens(self, operand: _Operand, type_: Feature) -> Node:
        """The diagonal of a mixer at some positions, written out to count them."""
        self._need(operand.node, WHOLE)
        self._pair(Seen(1, ((1, 1),)), True, 2 * type_.heads * operand.type.channels)
        self.spans[len(self.nodes)] = WHOLE
        return self._node(type_, ())

    def _convolve(self, filter: int, operand: _Operand, type_: Feature, window: int) -> Node:
        taps, channels = self.values[filter].type, type_.heads * type_.channels
        if not isinstance(taps, Filter):
            raise InternalError(f"a Toeplitz mixer is made of %{filter}, which is no filter")
        if taps.length is not None:
            reach = min(taps.length, window)
            self.token += 2 * reach * channels
            self._delay(operand.node, reach - 1)
        elif self.values[filter].op == "ssm" and window == WHOLE:
            states = channels * int(self.values[filter].attribute("order"))
            self.state += states
            self.modal = self.modal[0] + channels, self.modal[1] + 4 * states
        else:
            self._need(operand.node, window)
            if window == WHOLE:
                self.spectrum += channels
            else:
                self._pair(Seen(window, ((window, 1),)), True, 2 * channels)
        return self._node(type_, ())

    def _linear_chain(self, id: int) -> Value | None:
        """The linear mixer under scales and a causal mask, if it is one that a state can run."""
        value = self.values[id]
        while value.op in ("mixer_scale", "causal"):
            value = self.values[value.inputs[0]]
        late = dict(value.attributes).get("read") == "before"
        return value if self._decayed(value) or (value.op in SEPARABLE and not late) else None

    def _running_maximum(self, chain: Value) -> int:
        """The numbers by which `infer` keeps an exponential gate from overflow."""
        if chain.op not in ("semi_separable", "mixer_multiply"):
            return 0
        (_, a, *b), _ = self._parts(chain)
        if not b or not has_logarithm(self.values, a):
            return 0
        return next((s[1] for i in b if (s := stabilised(self.values, a, i))), 0)

    def _decayed(self, value: Value) -> list[int]:
        """The parts C, a, B, b of low_rank(C, B) * semi_separable(c, a, b) where that is a
        recurrence: canonicalize says when."""
        if value.op != "mixer_multiply":
            return []
        left, right = (self.values[i] for i in value.inputs)
        for score, decay in ((left, right), (right, left)):
            while score.op == "causal":
                score = self.values[score.inputs[0]]
            if score.op != "low_rank" or decay.op != "semi_separable":
                continue
            types = [self.values[i].type for i in (*score.inputs, *decay.inputs)]
            parts = [t for t in types if isinstance(t, Feature | Constant)]
            narrow = len(parts) == 5 and all(t.channels == 1 for t in parts[2:])
            if narrow and len({t.heads for t in parts} - {1}) < 2:
                if decay.attribute("read") == "after":
                    return [score.inputs[0], decay.inputs[1], score.inputs[1], decay.inputs[2]]
        return []

    def _parts(self, value: Value) -> tuple[list[int], int]:
        """The features that make up a separable mixer, C first, and its low-rank steps."""
        if decayed := self._decayed(value):
            return decayed, 0
        ids: list[int] = []
        steps = LOW_RANK_STEPS[value.op](value) if value.op in LOW_RANK_STEPS else 0
        for i in value.inputs:
            part = self.values[i]
            if isinstance(part.type, Transition):
                inner, more = self._parts(part)
                ids, steps = ids + inner, steps + more
            else:
                ids.append(i)
        return ids, steps

    def _recur(self, mixer: Value, operand: _Operand, type_: Feature, sums: bool = False) -> Node:
        """A linear recurrence: B and A write a state of n x p per head, C reads it.

        With `sums` the state has a column more, for the sums of the rows of T. Every low-rank step
        of the transition reads the state once more, and writes it once more.
        """
        ids, steps = self._parts(mixer)
        if mixer.op in ALGORITHMS:
            ids = ids[:-1]  # the last one is V
        c, *writers = (self._operand(i).type for i in ids)
        heads = type_.heads if steps else max(operand.type.heads, *(w.heads for w in writers))
        n = max(c.channels, *(w.channels for w in writers))
        p = operand.type.channels + sums
        self.state += heads * n * p
        self.token += (2 + 4 * steps) * heads * n * p + 2 * type_.heads * max(n, c.channels) * p
        return self._node(type_, ())

    def _algorithm(self, value: Value) -> Node:
        """What `select` put in the place of `apply`."""
        type_ = value.type
        assert isinstance(type_, Feature)
        match value.op:
            case name if name in ("linear_attention", "scan") or name.endswith("_recurrence"):
                sums = dict(value.attributes).get("floor") is not None
                return self._recur(value, self._operand(value.inputs[-1]), type_, sums)
            case "attention" | "banded_attention" as op:
                query, key, content = (self._operand(i) for i in value.inputs)
                window = value.attribute("band") if op == "banded_attention" else WHOLE
                seen = Seen(window, ((window, 1),))
                self._need(key.node, window)
                self._need(content.node, window)
                scores = *(self._first[i] for i in value.inputs[:2]), value.attributes
                if scores not in self._scored:  # two values may meet the same weights
                    self._scored.add(scores)
                    heads = max(query.type.heads, key.type.heads)
                    channels = max(query.type.channels, key.type.channels)
                    self._pair(seen, True, 2 * heads * channels)
                self._pair(seen, True, 2 * type_.heads * content.type.channels)
            case "short_convolution" | "long_convolution" | "modal_convolution":
                kernel, operand = value.inputs
                taps = value.attribute("taps") if value.op != "modal_convolution" else None
                return self._convolve(kernel, self._operand(operand), type_, taps or WHOLE)
            case "gated_convolution":
                kernel, *operands = value.inputs
                gate = operands.pop(0) if value.attribute("output_gate") else None
                inner = self.nodes[operands[-1]]
                if len(operands) == 2:
                    inner = self._local(type_, [self.nodes[i] for i in operands])
                taps = value.attribute("taps")
                result = self._convolve(kernel, _Operand(inner, type_), type_, taps)
                return result if gate is None else self._local(type_, [self.nodes[gate], result])
        return self._node(type_, ())

    # --- mixers written out, one number per visible pair -----------------------------------------

    def _pair(self, seen: Seen, causal: bool, operations: int) -> None:
        for window, step in seen.spans:
            kind = window, step, causal
            self.pairs[kind] = self.pairs.get(kind, 0) + operations

    def _written_out(self, id: int, operand: _Operand, seen: Seen, masked: bool) -> Node:
        """T is made entry by entry: the value and what makes the entries are kept per token."""
        mixer = _mixer(self.values[id])
        type_ = apply_mixer(mixer, operand.type)
        causal = masked or mixer.causal
        left = seen.within(visible(self.values, id))
        if self._holds_static(id):  # its columns are positions: all tokens stay at hand
            seen = left = ALL
        self._wanted = {operand.node: left.reach}
        self._entries(id, seen, causal, True)
        self._pair(left, causal, 2 * type_.heads * operand.type.channels)
        # Rows of T and the value they meet have to be of one length.
        span = max(self._wanted.values())
        for node in self._wanted:
            self._need(node, span)
        self.spans[len(self.nodes)] = span
        return self._node(type_, ())

    def _holds_static(self, id: int) -> bool:
        value = self.values[id]
        parts = (i for i in value.inputs if isinstance(self.values[i].type, Mixer))
        return value.op == "static" or any(map(self._holds_static, parts))

    def _want(self, id: int, window: int) -> None:
        node = self.nodes[id]
        self._wanted[node] = max(window, self._wanted.get(node, 0))

    def _sums_rows(self, id: int) -> bool:
        """Whether a stage of the mixer sums over rows, so that it needs them whole."""
        value = self.values[id]
        return value.op in READS_ROWS or any(
            self._sums_rows(i) for i in value.inputs if isinstance(self.values[i].type, Mixer)
        )

    def _entries(self, id: int, seen: Seen, causal: bool, first: bool) -> None:
        """Count the entries T_ij of a mixer and need what they read at past tokens.

        `first` says that the rows of this mixer are rows of the whole, so that what belongs to row
        i (C, a factor of the row) is read at the newest token only.
        """
        id = self._first[id]
        if (id, seen, causal, first) in self._written:
            return
        self._written.add((id, seen, causal, first))
        value = self.values[id]
        inputs = value.inputs
        match value.op:
            case "low_rank" if first and seen.band == 1:  # a diagonal of C_i . B_i
                pass
            case op if op in SEPARABLE:
                parts, _ = self._parts(value)
                for i in parts[1:] if first else parts:
                    self._want(i, seen.reach)
                channels = max(self._operand(i).type.channels for i in parts)
                self._pair(seen, causal, 2 * _mixer(value).heads * channels)
            case op if op in MASKS:
                # Rows of earlier tokens reach further back than their masks.
                narrower = seen.within(visible(self.values, id)) if first else seen
                while self.values[id].op in MASKS:
                    id = self.values[id].inputs[0]
                self._entries(id, narrower, causal, first)
            case "select" if len(inputs) > 1:
                self._entries(inputs[0], seen.within(visible(self.values, id)), causal, first)
                self._entries(inputs[1], ALL, causal, first)
            case op if op in READS_ROWS:  # masks outside do not change what is read inside
                self._entries(inputs[0], ALL if first else seen, causal, first)
            case op if op in TERMS:
                if op in ("bias", "decay") or not first:
                    self._want(inputs[1], seen.reach)
                self._entries(inputs[0], seen, causal, first)
            case "diagonal":
                if not first:
                    self._want(inputs[0], seen.reach)
            case "row_scale":
                if not first:
                    self._want(inputs[0], seen.reach)
                self._entries(inputs[1], seen, causal, first)
            case "compose":
                left, right = inputs
                seen = (ALL if self._sums_rows(id) else seen).within(visible(self.values, id))
                self._entries(left, seen, causal, first)
                self._entries(right, seen, causal, False)
                if "diagonal" not in (self.values[left].op, self.values[right].op):
                    self.triple += 2 * _mixer(value).heads
            case "toeplitz" | "static":
                pass
            case _:
                for i in inputs:
                    self._entries(i, seen, causal, first)


def _fits(mixer: Value, operand: Feature | Constant) -> bool:
    """Whether a part of a sum acts on a value alone: the sum may have more heads."""
    try:
        apply_mixer(_mixer(mixer), operand)
    except Problem:
        return False
    return True


def _mixer(value: Value) -> Mixer:
    if not isinstance(value.type, Mixer):
        raise InternalError(f"{value.op!r} stands where a mixer must")
    return value.type
