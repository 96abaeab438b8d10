"""What is known of syntax nodes by their identity: nodes never change, and programs of a search
share most of them.

Owns: the lifetime of what is remembered. Refuses: what there is to know.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import TypeVar

from starc.grammar import nodes

_NodeT = TypeVar("_NodeT", bound=nodes.Node)
_T = TypeVar("_T")
_MOST = 20_000
"""So many nodes, which are kept alive, and everything is forgotten."""


def per_node(find: Callable[[_NodeT], _T]) -> Callable[[_NodeT], _T]:
    """A function of one node that looks at the same node once."""
    known: dict[int, tuple[_NodeT, _T]] = {}

    @wraps(find)
    def found(node: _NodeT) -> _T:
        hit = known.get(id(node))
        if hit is None:
            if len(known) >= _MOST:
                known.clear()
            hit = known[id(node)] = node, find(node)
        return hit[1]

    return found
