"""Bodies of the operators of one model, from memory where they were resolved before.

Owns: what a body depends on. Refuses: resolving one (instance.py), and which ones (resolve.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction

from starc.compiler.calls import Surroundings
from starc.compiler.instance import Request, instantiate, with_features
from starc.compiler.memo import PLACE, Body, Key, Memo
from starc.compiler.numbers import Numeric
from starc.compiler.options import Limits
from starc.compiler.results import Poisoned
from starc.compiler.settings import Settings
from starc.grammar import nodes
from starc.grammar.errors import Diagnostic, StarError
from starc.grammar.source import Source


@dataclass
class Bodies:
    """What the units of a model see around them; `context` says in short what `numbers` are, but
    for the depth."""

    settings: Settings
    numbers: Mapping[str, Numeric]
    context: int
    operators: Mapping[str, nodes.Operator]
    source: Source
    limits: Limits
    warn: Callable[[Diagnostic], None]
    memo: Memo
    failed: set[Key] = field(default_factory=set)

    def body(self, request: Request, layer: int) -> Body:
        """The operator's body for these arguments; raises Poisoned where that failed before."""
        bodies = self.memo.bodies
        types = tuple(sorted((name, feature.type) for name, feature in request.features.items()))
        arguments = tuple(sorted(request.arguments.items()))
        key = (id(request.node), arguments, types, self.context)
        here = (*key, layer, self.numbers["depth"])
        for k in (key, here):
            if k in self.failed:
                raise Poisoned
            known = bodies.get(k)
            if known and self.called_alike(known):
                return known
        body = self._derived(request, arguments) or self._instantiated(request, layer, key)
        place = () if PLACE.isdisjoint(body.uses) else here[-2:]
        # A default that is written out makes no difference.
        called = tuple(id(node) for _, node in body.calls)
        full = (id(request.node), body.arguments, types, self.context, called, "full", *place)
        body = bodies.setdefault(full, body)
        bodies[*key, *place] = body
        return body

    def called_alike(self, body: Body) -> bool:
        """Whether the operators that a remembered body called are what their names mean here."""
        return not body.calls or all(self.operators.get(n) is node for n, node in body.calls)

    def _derived(self, request: Request, arguments: Key) -> Body | None:
        """The body made of the one that has bindings of its own where this has features."""
        bound = {b.name for b in request.node.body}
        taken = {name: f for name, f in request.features.items() if name in bound}
        types = [(name, f.type) for name, f in request.features.items() if name not in bound]
        key = (id(request.node), arguments, tuple(sorted(types)), self.context)
        own = self.memo.bodies.get(key) if taken else None
        return with_features(own, taken) if own else None

    def _instantiated(self, request: Request, layer: int, key: Key) -> Body:
        numbers = {**self.numbers, "layer": Fraction(layer)}
        # A unit experts(...) is written in the backbone, where the model's own numbers are read.
        own = self.settings.own if request.node.name == "experts" else {}
        around = Surroundings(
            numbers,
            self.operators,
            self.source,
            self.limits,
            self.warn,
            own,
            self.settings.causal,
        )
        try:
            return instantiate(request, around)
        except (StarError, Poisoned):
            self.failed.add(key)
            raise
