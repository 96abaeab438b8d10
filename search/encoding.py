"""Programs of a search as points of the box [0, 1)^n, for algorithms that calculate with vectors.

Of a space, a coordinate is a decision at a hole, in the order of the text (fillings.py). Of a
program without holes, a coordinate is a place in its backbone: the first share of it keeps the unit
or parallel that stands there, each other share puts one of the pool in its place, with the label
that others may name; ties that no longer fit are repaired as after a mutation. Points of one cell
are one program; the way back from a program leads to the middle of its cell.

Owns: that mapping. Refuses: vectors themselves (algorithms/dehb.py).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from starc.grammar import nodes
from starc.grammar.errors import StarError
from starc.search.fillings import at, drawn, find
from starc.search.repair import Draft, Rejected, mend
from starc.search.trees import Workshop, places, put
from starc.search.variation import Program, Variation

Point = list[float]

_DRAWS = 16
"""So many fillings say how many decisions there are."""


class Encoding:
    """Points of the programs of one search. `size` is the number of coordinates."""

    def __init__(self, variation: Variation) -> None:
        self.variation = variation
        if variation.holes:
            rng = random.Random("encoding")
            draws = [drawn(variation.space, rng) for _ in range(_DRAWS)]
            self.size = max(len(draw.decisions) for draw in draws)
            return
        assert variation.origin is not None
        self.origin = variation.verified(variation.origin.text)
        self.places = [
            path
            for path, layer in places(self.origin.model.backbone)
            if isinstance(layer, nodes.Unit | nodes.Parallel)
        ]
        self.places = [
            path
            for path in self.places
            if not any(path[: len(p)] == p for p in self.places if len(p) < len(path))
        ]
        self.size = len(self.places)

    def program(self, point: Sequence[float]) -> Program | None:
        """The program in whose cell a point lies; None where it does not verify."""
        try:
            if self.variation.holes:
                return self.variation.check(at(self.variation.space, point).text)
            return self._placed(point)
        except (StarError, Rejected):
            return None

    def point(self, text: str) -> Point | None:
        """The middle of a program's cell; None for a program that no point is."""
        if self.variation.holes:
            found = find(self.variation.space, self.variation.verified(text).program)
            return None if found is None else self._filled_up(found.point)
        origin = self.variation.origin
        assert origin is not None
        same = self.variation.check(text).identity == origin.identity
        return [0.5 / (1 + len(self._pool))] * self.size if same else None

    @property
    def _pool(self) -> tuple[nodes.Unit | nodes.Parallel, ...]:
        return self.variation.pool.valid

    def _filled_up(self, point: Point) -> Point:
        return (point + [0.5] * self.size)[: max(self.size, len(point))]

    def _placed(self, point: Sequence[float]) -> Program:
        """The origin with units of the pool in some of its places."""
        origin, pool, verifier = self.origin, self.variation.pool, self.variation.verifier
        shop = Workshop.of(origin.program, origin.operators, verifier.limits)
        body = origin.model.backbone
        options = 1 + len(self._pool)
        for path, x in zip(self.places, point, strict=False):
            option = min(max(int(x * options), 0), options - 1)
            if not option:
                continue
            entry = self._pool[option - 1]
            new = shop.adopt((entry,), pool.operators, pool.declared)[0]
            old = _at(body, path)
            if isinstance(new, nodes.Unit) and isinstance(old, nodes.Unit):
                new = replace(new, label=old.label)
            body = put(body, path, new)
        draft = Draft(shop, replace(origin.model, backbone=body))
        most = self.variation.mutator.bounds.units
        checked, _ = mend(draft, origin, verifier, most=max(most, origin.units), repair=True)
        return self.variation.check(self.variation.program(checked).text)


def _at(body: Sequence[nodes.Layer], path: Sequence[int]) -> nodes.Layer:
    layer = body[path[0]]
    for index in path[1:]:
        assert not isinstance(layer, nodes.Unit)
        layer = layer.body[index]
    return layer
