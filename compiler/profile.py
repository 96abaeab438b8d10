"""The profile of an operator: its work and its memory as formulas in the length, from structure.

    structure of T                  work per token (forward)           what decoding keeps
    diagonal                        0                                  nothing
    toeplitz, explicit, k taps      2 k c                              delay line: c (k - 1)
    toeplitz, implicit              10 log2(L) c                       V, per past token
    toeplitz, ssm                   10 log2(L) c, 4 c order in a step  c order
    low rank, no nonlinearity       2 h' n p + 2 h n p                 h' n p
    semi-separable                  2 h' n p + 2 h n p                 h' n p
    each low-rank step of A         4 h' n p                           nothing more
    any other (nonlinear, band)     (2 h n + 2 h p) * visible pairs    B (and A), V, per past token

with c channels of the value, n channels of C and B, p channels of V per head, h heads of the
result and h' heads of B, A and V, which alone write the state. The work of linear mixers is that
of the recurrent form: a rank-one update and a read. The algebra of mixers is distributed: (T1 +
T2) @ V works and remembers like T1 @ V and T2 @ V, and (T1 @ T2) @ V like T1 @ (T2 @ V).
`normalize` of a linear mixer adds a value of ones, whose column of the state sums rows.
Pointwise work (norms, gates, softmax) is not counted.

Owns: these formulas and which values are needed per past token. Refuses: the cut (cache.py), names
of units and sums over a model (cost.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from starc.compiler.cache import kept_values
from starc.compiler.catalog import ENTRIES
from starc.compiler.ir import Operator
from starc.compiler.walk import Node, Walk
from starc.compiler.work import Work


@dataclass(frozen=True, slots=True)
class Layout:
    """What a unit keeps: states and delay lines whatever the length, and values of past tokens.

    `state` and `delayed` count elements. `kept` maps a node to (elements, tokens). `demanded` names
    features of other units that must be kept by the unit that computes them, with the number of
    past tokens; `offered` are those of this unit that later ones need.
    """

    state: int
    delayed: int
    kept: Mapping[int, tuple[int, int]]
    demanded: tuple[tuple[str, int], ...]
    offered: tuple[tuple[str, int], ...] = ()

    @property
    def fixed(self) -> int:
        """Elements per sequence of any length."""
        return self.state + self.delayed

    def elements(self, length: int) -> int:
        """Elements per sequence of `length` tokens."""
        return self.fixed + sum(n * min(length, window) for n, window in self.kept.values())


@dataclass(frozen=True)
class Profile:
    """`sizes` are the learned parameters (name to elements), `idle` those elements of them that a
    token does not use; the rest is about values.

    Nodes are values of one token, stages that only reshape left out, and further ones inside a
    chain of mixers; `nodes` gives that of each value of the operator. `state` counts the elements
    of recurrences, `delays` the tokens that delay lines keep, by node, and
    `spans` how many tokens back a matrix that is written out reaches, by value.
    """

    sizes: Mapping[str, int]
    parameters: int
    idle: Mapping[str, int]
    work: Work
    state: int
    parents: tuple[tuple[int, ...], ...]
    elements: tuple[int, ...]
    needs: Mapping[int, int]
    delays: Mapping[int, int]
    stream: frozenset[int]
    inputs: Mapping[str, int]
    outputs: Mapping[str, Node]
    nodes: tuple[Node, ...]
    spans: Mapping[int, int]

    def layout(self, demanded: Mapping[str, int], streams: frozenset[str] = frozenset()) -> Layout:
        """What to keep when later units need these outputs for that many past tokens.

        Features that come from other units cost nothing here: the unit that computes them keeps
        them; those in `streams`, which are the stream behind another unit, are kept here. The
        stream itself (x, and whatever no matrix product or token mixing separates from it) is no
        candidate unless it is needed as it is: for plain attention that leaves B and V.
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
        others = {n: name for name, n in self.inputs.items() if name not in ("x", *streams)}
        for node in others:
            cost[node] = 0
        kept = kept_values(self.parents, cost, needs) if needs else {}
        return Layout(
            self.state,
            sum(self.elements[node] * steps for node, steps in self.delays.items()),
            {n: (self.elements[n], window) for n, window in kept.items() if n not in others},
            tuple(sorted((others[n], window) for n, window in kept.items() if n in others)),
            tuple(sorted(demanded.items())),
        )


def profile_operator(operator: Operator) -> Profile:
    """The profile of a verified operator, in time about linear in its values."""
    walk = Walk(operator.values)
    sizes = {p.name: p.size for p in operator.parameters if p.learned}
    return Profile(
        sizes,
        sum(sizes.values()),
        _idle(operator),
        walk.work(),
        walk.state,
        tuple(walk.parents),
        tuple(walk.elements),
        walk.needs,
        walk.delays,
        frozenset(walk.stream),
        walk.inputs,
        {name: walk.nodes[id] for name, id in operator.outputs},
        tuple(walk.nodes),
        walk.spans,
    )


def _idle(operator: Operator) -> dict[str, int]:
    """The elements of parameters that a token does not use, by name."""
    found = {}
    for value in operator.values:
        types = [operator.values[i].type for i in value.inputs]
        if idle := ENTRIES[value.op].idle(types, dict(value.attributes)):
            owner = value if value.parameters else operator.values[value.inputs[-1]]
            found.update(dict.fromkeys(owner.parameters, idle))
    return found
