"""What a mutation may put into a backbone.

Owns: the pool of units of a space, or of a program. Refuses: choosing where they go.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from starc.compiler.genome import CLASSES
from starc.compiler.holes import is_hole
from starc.compiler.program import link
from starc.grammar import nodes
from starc.grammar.errors import StarError
from starc.grammar.source import Source
from starc.search.space import Space, every, options_of
from starc.search.trees import (
    PLACE,
    Body,
    Declared,
    Workshop,
    declared,
    features,
    pick,
    places,
    plain,
    units,
)
from starc.search.verifying import Checked, Verifier


@dataclass(frozen=True)
class Pool:
    """Units, and parallels of units, without labels and ties; numbers in them may be holes.

    `valid` are those that verify alone in a model of the program that the pool was made for, each
    of their holes filled somehow.
    """

    entries: tuple[nodes.Unit | nodes.Parallel, ...]
    operators: Mapping[str, nodes.Operator]
    declared: Declared
    valid: tuple[nodes.Unit | nodes.Parallel, ...] = ()

    def draw(self, rng: random.Random, shop: Workshop, constrained: bool) -> nodes.Layer | None:
        """A random entry, its holes filled and its operators declared; None if there is none."""
        chosen = pick(rng, self.valid if constrained else self.entries)
        if chosen is None:
            return None
        return shop.adopt((_filled(chosen, rng),), self.operators, self.declared)[0]


def pool_of_program(checked: Checked, verifier: Verifier) -> Pool:
    """The distinct calls of a program that need no other unit, and STAR's LIV classes."""
    found: dict[nodes.Node, nodes.Unit | nodes.Parallel] = {}
    for _, layer in places(checked.model.backbone):
        if isinstance(layer, nodes.Unit):
            entry = plain(layer)
            found.setdefault(entry, entry)
    for entry in _classes():
        found.setdefault(entry, entry)
    operators, uses = dict(checked.operators), dict(declared(checked.program))
    for name, (use, operator) in _standard(verifier).items():
        if name not in operators:
            operators[name], uses[name] = operator, use
    own = _labels(checked.model.backbone)
    entries = [e for e in found.values() if not _names(e, own)]
    return _valid(Pool(tuple(entries), operators, uses), checked, verifier)


def pool_of_space(space: Space, checked: Checked, verifier: Verifier) -> Pool:
    """The options of the units of a space, for programs that are drawn from it."""
    found: dict[nodes.Node, nodes.Unit | nodes.Parallel] = {}
    for unit in units(space.model.backbone):
        for entry in _options(unit):
            found.setdefault(entry, entry)
    program = nodes.Program((*space.others, space.model), space.source)
    own = _labels(space.model.backbone)
    entries = [e for e in found.values() if not _names(e, own)]
    pool = Pool(tuple(entries), space.operators, declared(program))
    return _valid(pool, checked, verifier)


def _options(unit: nodes.Unit) -> Iterator[nodes.Unit | nodes.Parallel]:
    """What may stand for a unit, holes for units decided in every way."""
    if not isinstance(unit.operator, nodes.Hole):
        yield plain(unit)
        return
    for option in options_of(unit.operator):
        if isinstance(option, nodes.Parallel):
            yield plain(option)
        elif isinstance(option, nodes.Call | nodes.Hole):
            yield from _options(replace(unit, operator=option))


def _filled(node: nodes.Node, rng: random.Random) -> nodes.Unit | nodes.Parallel:
    """An entry with its holes decided, those of one name alike."""
    from starc.search.space import rewrite

    named: dict[str, nodes.Node] = {}

    def decide(n: nodes.Node) -> nodes.Node:
        while isinstance(n, nodes.Hole):
            options = options_of(n)
            chosen = options[rng.randrange(len(options))]
            n = named.setdefault(n.name, chosen) if n.name else chosen
        return n

    if any(is_hole(n) for n in every(node)):
        node = rewrite(node, decide)
    assert isinstance(node, nodes.Unit | nodes.Parallel)
    return node


def _valid(pool: Pool, checked: Checked, verifier: Verifier) -> Pool:
    """The pool with those entries known that verify alone."""
    valid = [e for e in pool.entries if _stands_alone(e, pool, checked, verifier)]
    return replace(pool, valid=tuple(valid))


def _stands_alone(
    entry: nodes.Unit | nodes.Parallel, pool: Pool, checked: Checked, verifier: Verifier
) -> bool:
    rng = random.Random(0)
    for _ in range(8 if any(is_hole(n) for n in every(entry)) else 1):
        shop = Workshop.of(checked.program, checked.operators, verifier.limits)
        body = shop.adopt((_filled(entry, rng),), pool.operators, pool.declared)
        try:
            verifier.check(shop.program(replace(checked.model, backbone=body)))
        except StarError:
            continue
        return True
    return False


def _labels(body: Body) -> set[str]:
    found = {getattr(layer, "label", None) for _, layer in places(body)}
    return {label for label in found if label}


def _names(entry: nodes.Unit | nodes.Parallel, own: set[str]) -> bool:
    """Whether an entry takes a feature of another unit."""
    inner = (entry,) if isinstance(entry, nodes.Unit) else units(entry.body)
    return any(label in own for unit in inner for _, label in features(unit))


def _classes() -> list[nodes.Unit | nodes.Parallel]:
    found: list[nodes.Unit | nodes.Parallel] = []
    for known in CLASSES.values():
        call = nodes.Call(known.operator, (), name_span=PLACE, span=PLACE)
        unit = nodes.Unit(None, call, span=PLACE)
        both = nodes.Parallel(None, "difference", (unit, unit), span=PLACE)
        found.append(both if known.differential else unit)
    return found


def _standard(verifier: Verifier) -> dict[str, tuple[nodes.Use, nodes.Operator]]:
    names = dict.fromkeys(known.operator for known in CLASSES.values())
    uses = [nodes.Use(("std", "star", name), span=PLACE) for name in names]
    linked = link(nodes.Program(tuple(uses), Source("<pool>", "")), verifier.limits)
    return {use.path[-1]: (use, linked.operators[use.path[-1]]) for use in uses}
