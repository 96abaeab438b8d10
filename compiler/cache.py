"""What decoding keeps of past tokens: the smallest cut of a graph of token-local values.

A node is a value of one token; its parents are the values of the same token that it is computed
from. Later tokens need some nodes. Keeping a set of nodes is enough when every path from a node
without parents to a needed node meets the set; the cheapest such set is a minimum vertex cut.

Owns: the cut and the order in which needs of different windows are met. Refuses: which values are
needed, and what a value costs (profile.py says both).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Mapping, Sequence

Parents = Sequence[Sequence[int]]
Residual = dict[int, dict[int, int]]

_SOURCE, _SINK = -1, -2


def min_cut(parents: Parents, cost: Sequence[int | None], sinks: Collection[int]) -> set[int]:
    """The cheapest set of nodes that separates `sinks` from every node without parents.

    `cost` is None for nodes that may not be kept; each sink must be separable. Of several cheapest
    sets it is the one closest to the sinks. A sink or a node without parents may itself be in the
    set.

    Maximum flow by shortest augmenting paths (Edmonds and Karp 1972) over nodes split in two; at
    most O(nodes * edges) augmentations, and graphs of operators have tens of nodes.
    """
    nodes: set[int] = set()
    stack = list(sinks)
    while stack:
        node = stack.pop()
        if node not in nodes:
            nodes.add(node)
            stack.extend(parents[node])
    unlimited = 1 + sum(cost[n] or 0 for n in nodes)
    residual: Residual = {_SOURCE: {}, _SINK: {}}
    for node in nodes:
        residual[2 * node], residual[2 * node + 1] = {}, {}
    for node in nodes:
        price = cost[node]
        _edge(residual, 2 * node, 2 * node + 1, unlimited if price is None else price)
        if not parents[node]:
            _edge(residual, _SOURCE, 2 * node, unlimited)
        for parent in parents[node]:
            _edge(residual, 2 * parent + 1, 2 * node, unlimited)
    for sink in sinks:
        _edge(residual, 2 * sink + 1, _SINK, unlimited)
    while path := _augmenting_path(residual):
        amount = min(residual[a][b] for a, b in path)
        for a, b in path:
            residual[a][b] -= amount
            residual[b][a] += amount
    reaching = _reaching_sink(residual)
    return {n for n in nodes if 2 * n + 1 in reaching and 2 * n not in reaching}


def _edge(residual: Residual, a: int, b: int, capacity: int) -> None:
    residual[a][b] = capacity
    residual[b].setdefault(a, 0)


def _augmenting_path(residual: Residual) -> list[tuple[int, int]]:
    """A shortest path from source to sink along edges with capacity left, or an empty list."""
    before = {_SOURCE: _SOURCE}
    queue = deque((_SOURCE,))
    while queue:
        a = queue.popleft()
        for b, capacity in residual[a].items():
            if capacity > 0 and b not in before:
                before[b] = a
                if b == _SINK:
                    path = []
                    while b != _SOURCE:
                        path.append((before[b], b))
                        b = before[b]
                    return path
                queue.append(b)
    return []


def _reaching_sink(residual: Residual) -> set[int]:
    """Nodes from which the sink can be reached along edges with capacity left."""
    found = {_SINK}
    stack = [_SINK]
    while stack:
        b = stack.pop()
        for a in residual[b]:
            if a not in found and residual[a][b] > 0:
                found.add(a)
                stack.append(a)
    return found


def kept_values(
    parents: Parents, cost: Sequence[int | None], needs: Mapping[int, int]
) -> dict[int, int]:
    """Which nodes to keep, and for how many past tokens each, so that every need can be computed.

    `needs` maps a node to the number of past tokens for which it is needed. Every kept node is one
    ring buffer. Needs of the widest window are met first; narrower ones find what is already kept
    for free.
    """
    kept: dict[int, int] = {}
    price = list(cost)
    for window in sorted(set(needs.values()), reverse=True):
        for node in min_cut(parents, price, [n for n, w in needs.items() if w == window]):
            kept.setdefault(node, window)
            price[node] = 0
    return kept
