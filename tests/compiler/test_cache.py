"""The smallest cut against all cuts of small graphs."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from starc.compiler.cache import kept_values, min_cut

Graph = tuple[list[tuple[int, ...]], list[int | None], list[int]]


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """Parents, costs and sinks of a graph of up to nine nodes; only nodes that are no sink may be
    forbidden, so that a cut exists."""
    size = draw(st.integers(1, 9))
    parents: list[tuple[int, ...]] = []
    for node in range(size):
        chosen = draw(st.sets(st.integers(0, node - 1), max_size=3)) if node else set()
        parents.append(tuple(sorted(chosen)))
    sinks = sorted(draw(st.sets(st.integers(0, size - 1), min_size=1, max_size=4)))
    cost = [
        draw(st.integers(0, 9) if n in sinks else st.one_of(st.none(), st.integers(0, 9)))
        for n in range(size)
    ]
    return parents, cost, sinks


def separates(parents: list[tuple[int, ...]], cut: set[int], sinks: list[int]) -> bool:
    def open_path(node: int) -> bool:
        if node in cut:
            return False
        return not parents[node] or any(open_path(p) for p in parents[node])

    return not any(open_path(s) for s in sinks)


@given(graphs())
def test_min_cut_is_the_cheapest(graph: Graph) -> None:
    parents, cost, sinks = graph
    allowed = [n for n, c in enumerate(cost) if c is not None]
    cheapest = min(
        sum(cost[n] or 0 for n in chosen)
        for size in range(len(allowed) + 1)
        for chosen in itertools.combinations(allowed, size)
        if separates(parents, set(chosen), sinks)
    )
    cut = min_cut(parents, cost, sinks)
    assert separates(parents, cut, sinks)
    assert all(cost[n] is not None for n in cut)
    assert sum(cost[n] or 0 for n in cut) == cheapest


@given(graphs())
def test_min_cut_prefers_the_sinks(graph: Graph) -> None:
    """Where keeping the sinks is as cheap as anything, the sinks are kept."""
    parents, _, sinks = graph
    cut = min_cut(parents, [1 if n in sinks else len(parents) for n in range(len(parents))], sinks)
    assert cut <= set(sinks)
    assert separates(parents, cut, sinks)


@given(graphs(), st.data())
def test_every_window_is_served(graph: Graph, data: st.DataObject) -> None:
    parents, cost, sinks = graph
    needs = {n: data.draw(st.integers(1, 3)) for n in sinks}
    kept = kept_values(parents, cost, needs)
    for age in (1, 2, 3):
        wanted = [n for n, window in needs.items() if window >= age]
        assert separates(parents, {n for n, window in kept.items() if window >= age}, wanted)
