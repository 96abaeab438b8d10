"""Crossover of two programs: runs of layers, units, and parts of operators change owners.

The child has the settings of the first parent. What both declare under one name but mean
differently gets a new name; ties name the units that they named before, or others with the same
call, or are dropped.

Owns: cutting and joining. Refuses: repair (`repair`), and which programs are parents.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from starc.compiler.memo import Body as Resolved
from starc.compiler.types import Type
from starc.grammar import nodes
from starc.grammar.errors import Diagnostic, StarError
from starc.search.operators import body_of, edited, whole_number
from starc.search.pool import Pool
from starc.search.repair import Draft, Rejected, Repairs, mend
from starc.search.site import Bounds, Site
from starc.search.space import every, number, relabel, rewrite
from starc.search.trees import (
    PLACE,
    Body,
    Workshop,
    declared,
    features,
    places,
    plain,
    put,
    ties,
    units,
)
from starc.search.verifying import Checked, Verifier

PATIENCE = 200
"""So many draws in a row that come to nothing, and crossing stops."""

KINDS = ("backbone", "unit", "subtree")
"""Runs of the backbone; one unit in the place of another; a binding in the place of another."""


@dataclass(frozen=True)
class Child:
    """A program of two parents, verified; fields as those of a mutation."""

    checked: Checked
    name: str
    repairs: tuple[str, ...]
    rejected: tuple[tuple[str, str], ...]

    @property
    def program(self) -> nodes.Program:
        return self.checked.program


class Crossing:
    """Crosses programs; `repairs` counts the outcomes of all draws."""

    def __init__(
        self,
        *,
        verifier: Verifier | None = None,
        bounds: Bounds | None = None,
        points: int = 2,
        kinds: Sequence[str] = KINDS,
    ) -> None:
        self.verifier, self.bounds = verifier or Verifier(), bounds or Bounds()
        self.points, self.kinds = points, tuple(kinds)
        self.repairs = Repairs()

    def cross(self, first: nodes.Program, second: nodes.Program, rng: random.Random) -> Child:
        """A child of two programs that means something else than the first.

        Raises StarError for faulty parents, and when PATIENCE draws fail.
        """
        one, other = self.verifier.check(first), self.verifier.check(second)
        rejected: list[tuple[str, str]] = []
        for _ in range(PATIENCE):
            kind = self.kinds[rng.randrange(len(self.kinds))]
            try:
                draft = self._draw(kind, one, other, rng)
                if draft is None:
                    continue
                child, repairs = self._mended(draft, one)
                if child.identity == one.identity:
                    raise Rejected("unchanged")
            except Rejected as reason:
                self.repairs.reject("crossover", "", kind, reason)
                rejected.append((kind, str(reason)))
                continue
            self.repairs.accept("crossover", "", kind, repairs)
            return Child(child, kind, tuple(repairs), tuple(rejected))
        raise StarError(
            Diagnostic(
                "no-valid-mutation",
                f"none of {PATIENCE:,} random children of these two programs verifies.",
                hint="parents of equal width have more in common.",
            )
        )

    def join(
        self,
        first: nodes.Program,
        second: nodes.Program,
        cuts: Sequence[int],
        others: Sequence[int],
    ) -> Child:
        """The child of k-point crossover: layers of the first up to its first cut, of the second
        from its first cut to its second, and so on.

        Cuts are indices into the backbones, in order. Raises Rejected where no repair helps.
        """
        one, other = self.verifier.check(first), self.verifier.check(second)
        draft = _joined(one, other, cuts, others, self.verifier)
        child, repairs = self._mended(draft, one)
        return Child(child, "backbone", tuple(repairs), ())

    def _mended(self, draft: Draft, one: Checked) -> tuple[Checked, list[str]]:
        most = max(self.bounds.units, one.units)
        return mend(draft, one, self.verifier, most=most, repair=True)

    def _draw(self, kind: str, one: Checked, other: Checked, rng: random.Random) -> Draft | None:
        site = Site(one, Pool((), {}, {}), self.bounds, rng, self.verifier)
        if kind == "unit":
            return _unit(site, other)
        if kind == "subtree":
            return _subtree(site, replace(site, checked=other))
        mine, theirs = len(one.model.backbone), len(other.model.backbone)
        points = max(1, min(self.points, mine, theirs))
        cuts = sorted(rng.sample(range(mine + 1), points))
        others = sorted(rng.sample(range(theirs + 1), points))
        return _joined(one, other, cuts, others, self.verifier)


def _joined(
    one: Checked, other: Checked, cuts: Sequence[int], others: Sequence[int], verifier: Verifier
) -> Draft:
    mine, theirs = one.model.backbone, other.model.backbone
    own, foreign = _segments(mine, cuts), _segments(theirs, others)
    kept = tuple(layer for segment in own[::2] for layer in segment)
    taken = tuple(layer for segment in foreign[1::2] for layer in segment)
    shop = Workshop.of(one.program, one.operators, verifier.limits)
    taken = shop.adopt(taken, other.operators, declared(other.program))
    whole = shop.adopt(theirs, other.operators, declared(other.program))
    taken, labelled = _apart(kept, mine, taken, whole)
    kept, more = _apart(taken, whole, kept, mine, rename=False)
    first, second = iter(kept), iter(taken)
    child: list[nodes.Layer] = []
    for index, (a, b) in enumerate(zip(own, foreign, strict=True)):
        source, length = (second, len(b)) if index % 2 else (first, len(a))
        child += [next(source) for _ in range(length)]
    model = replace(one.model, backbone=tuple(child))
    return Draft(shop, model, {**labelled, **more})


def _segments(body: Body, cuts: Sequence[int]) -> list[Body]:
    ends = [0, *cuts, len(body)]
    return [body[a:b] for a, b in pairwise(ends)]


def _labelled(body: Body) -> dict[str, nodes.Layer]:
    return {
        layer.label: layer
        for _, layer in places(body)
        if isinstance(layer, nodes.Unit | nodes.Parallel) and layer.label
    }


def _apart(
    fixed: Body, fixed_whole: Body, moving: Body, whole: Body, rename: bool = True
) -> tuple[Body, dict[str, nodes.Layer]]:
    """Layers whose labels, and mentions of labels, mean nothing else beside the fixed ones.

    A mention of a layer that stays behind keeps its name where the fixed layers have one of that
    name with the same call; else it names what is nowhere, and is settled by the call that the
    mapping holds.
    """
    there, mine, left = _labelled(fixed), _labelled(moving), _labelled(whole)
    taken = set(there) | set(left) | set(_labelled(fixed_whole))
    names: dict[str, str] = {}

    def fresh(label: str) -> str:
        n = 2
        while f"{label}_{n}" in taken:
            n += 1
        taken.add(f"{label}_{n}")
        return f"{label}_{n}"

    if rename:
        names = {label: fresh(label) for label in mine if label in there}
        moving = relabel(moving, lambda label: names.get(label, label))
    lost: dict[str, nodes.Layer] = {}
    renamed: dict[str, str] = {}
    for unit in units(moving):
        mentioned = [str(tie.label) for tie in ties(unit)] + [label for _, label in features(unit)]
        for label in mentioned:
            if label in mine or label in names.values() or label not in left:
                continue
            if label in there and _call(there[label]) != _call(left[label]):
                renamed.setdefault(label, fresh(label))
            lost[renamed.get(label, label)] = left[label]
    if renamed:
        moving = tuple(rewrite(layer, lambda n: _mention(n, renamed)) for layer in moving)
    return moving, lost


def _call(layer: nodes.Layer) -> nodes.Node | None:
    return layer.operator if isinstance(layer, nodes.Unit) else None


def _mention(node: nodes.Node, names: Mapping[str, str]) -> nodes.Node:
    match node:
        case nodes.Shares() | nodes.Reuses() if node.label in names:
            return replace(node, label=names[str(node.label)])
        case nodes.Member() if node.unit in names:
            return replace(node, unit=names[node.unit])
        case nodes.Name() if node.name in names:
            return replace(node, name=names[node.name])
    return node


def _unit(site: Site, other: Checked) -> Draft | None:
    """A whole operator of the other parent in the place of one unit."""
    mine = site.pick(site.units)
    labels = set(_labelled(other.model.backbone))
    theirs = site.pick(
        [
            unit
            for unit in units(other.model.backbone)
            if not any(label in labels for _, label in features(unit))
        ]
    )
    if mine is None or theirs is None:
        return None
    path, unit = mine
    shop = site.shop()
    adopted = shop.adopt((plain(theirs),), other.operators, declared(other.program))[0]
    assert isinstance(adopted, nodes.Unit)
    return site.draft(put(site.backbone, path, replace(adopted, label=unit.label)), shop)


def _subtree(site: Site, there: Site) -> Draft | None:
    """The expression of a binding of equal name and type, T among them, in the place of one."""
    unit = there.pick([u for _, u in there.units if body_of(there, u) is not None])
    if unit is None:
        return None
    donor = body_of(there, unit)
    assert donor is not None

    def change(
        site: Site, node: nodes.Operator, mine: Resolved
    ) -> tuple[nodes.Binding, ...] | None:
        if donor.node is node:
            return None
        fits = []
        for index, binding in enumerate(node.body):
            theirs = next((b for b in donor.node.body if b.name == binding.name), None)
            if theirs is None or theirs.value == binding.value:
                continue
            known = {b.name: _type(mine, b.name) for b in node.body[:index]}
            new = _inlined(theirs.value, donor, known)
            if new is not None and _type(mine, binding.name) == _type(donor, binding.name):
                fits.append((index, new))
        chosen = site.pick(fits)
        if chosen is None:
            return None
        index, new = chosen
        changed = replace(node.body[index], value=new)
        return (*node.body[:index], changed, *node.body[index + 1 :])

    return edited(site, change)


def _type(body: Resolved, name: str) -> Type | None:
    return body.values[body.bindings[name]].type if name in body.bindings else None


def _inlined(
    value: nodes.Expr, donor: Resolved, known: Mapping[str, Type | None]
) -> nodes.Expr | None:
    """An expression with the donor's parameters as numbers; None where it reads what is not known,
    or has another type there."""
    arguments = dict(donor.arguments)
    bound = {b.name for b in donor.node.body}
    parameters = {p.name for p in donor.node.parameters}
    stages = {id(n.stage) for n in every(value) if isinstance(n, nodes.Pipe)}
    for n in every(value):
        if isinstance(n, nodes.Name) and id(n) not in stages:
            if n.name in parameters and n.name not in arguments:
                return None
            if n.name in arguments and whole_number(arguments[n.name]) is None:
                return None
            if n.name in bound and known.get(n.name, ()) != _type(donor, n.name):
                return None

    def change(n: nodes.Node) -> nodes.Node:
        if isinstance(n, nodes.Name) and n.name in arguments:
            return number(whole_number(arguments[n.name]) or 0, PLACE)
        return n

    return rewrite(value, change)
