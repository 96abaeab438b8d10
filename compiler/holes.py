"""Finding what is undecided in a program: the holes of a model and of the operators it names.

Owns: walking syntax trees. Refuses: filling them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields

from starc.compiler.faults import HOLE_HINT
from starc.grammar import nodes
from starc.grammar.errors import Diagnostic

_SHOWN = 8


def holes_left(model: nodes.Model, operators: Mapping[str, nodes.Operator]) -> Diagnostic | None:
    """One diagnostic that shows the holes of a model, outermost ones only; None without holes."""
    named = {n.function for n in walk(model) if isinstance(n, nodes.Call)}
    used = [operators[name] for name in sorted(named) if name in operators]
    spans = [n.span for root in (model, *used) for n in walk(root) if is_hole(n)]
    if not spans:
        return None
    spans.sort(key=lambda span: (span.source is not model.span.source, span.start))
    count = "a hole is" if len(spans) == 1 else f"{len(spans)} holes are"
    return Diagnostic(
        "hole-left",
        f"{count} left: this program is a search space, not an architecture.",
        spans[0],
        "undecided",
        HOLE_HINT,
        tuple((span, "undecided") for span in spans[1:_SHOWN]),
    )


def is_hole(node: nodes.Node) -> bool:
    """Whether a node is undecided itself: a hole, or a tie left open."""
    tie = isinstance(node, nodes.Shares | nodes.Reuses) and node.label is None
    return tie or isinstance(node, nodes.Hole)


def walk(root: nodes.Node) -> Iterator[nodes.Node]:
    """The nodes of a tree, but none inside a hole."""
    stack: list[object] = [root]
    while stack:
        item = stack.pop()
        if isinstance(item, tuple):
            stack.extend(item)
        elif isinstance(item, nodes.Node):
            yield item
            if not isinstance(item, nodes.Hole):
                stack.extend(getattr(item, f.name) for f in fields(item) if f.compare)
