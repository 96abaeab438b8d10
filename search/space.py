"""Programs with holes: search spaces, their random fillings and their size.

`?[a, b]` and `?[low .. high]` are decided anew in each copy that a `repeat` makes, `?name[...]`
once wherever it stands. A hole in an operator of the program is decided once for that operator.
`shares ?` takes the weights of an earlier unit with the same call, or of none; `reuses ?` takes
feature groups of one.

Owns: what may stand for a hole, drawing it, and counting. Refuses: changing programs that have no
holes (`mutate`), and judging them.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any, TypeVar, cast

from starc.compiler.holes import is_hole, walk
from starc.compiler.options import Options
from starc.compiler.program import choose_model, link, parse_limited
from starc.grammar import nodes
from starc.grammar.copying import changed
from starc.grammar.errors import Diagnostic, StarError
from starc.grammar.source import Source, Span
from starc.search.remembering import per_node

Choose = Callable[[int], int]
"""Draws one of so many options, from 0."""

FEATURE_GROUPS = (("B", "V"), ("B",), ("V",), ("C",))
"""What `reuses ?` may take of an earlier unit: keys and values, keys, values, or queries."""

_NodeT = TypeVar("_NodeT", bound=nodes.Node)


@dataclass(frozen=True)
class Space:
    """A program with holes: its declarations but the model, and the model."""

    source: Source
    others: tuple[nodes.Declaration, ...]
    model: nodes.Model
    operators: Mapping[str, nodes.Operator]

    @property
    def holes(self) -> int:
        """How many holes are written in it, those inside others not counted."""
        own = [d for d in self.others if isinstance(d, nodes.Operator)]
        return sum(is_hole(node) for root in (self.model, *own) for node in walk(root))


def open_space(source: Source, options: Options) -> Space:
    """The space that a program describes; one without holes has a single filling.

    Raises StarError for a program that cannot be parsed or linked, and for ranges that hold no
    whole number.
    """
    program = parse_limited(source, options.limits)
    linked = link(program, options.limits)
    model = choose_model(linked, options)
    others = tuple(d for d in program.declarations if not isinstance(d, nodes.Model))
    space = Space(source, others, model, linked.operators)
    for root in (model, *others):
        for node in every(root):
            if isinstance(node, nodes.Hole):
                options_of(node)
    return space


def sample(space: Space, rng: random.Random) -> nodes.Program:
    """A filling of every hole, each option of a hole as likely as the others."""
    return fill(space, rng.randrange)


def fill(space: Space, choose: Choose) -> nodes.Program:
    """The program that `choose` decides, asked once for each hole in the order of the text."""
    ties = any(
        isinstance(n, nodes.Shares | nodes.Reuses) and is_hole(n) for n in every(space.model)
    )
    filler = _Filler(choose, space.operators, labels=Labels([space.model]), ties=ties)
    settings = tuple(filler.node(setting) for setting in space.model.settings)
    others = tuple(filler.node(declaration) for declaration in space.others)
    backbone = drop_labels(filler.body(space.model.backbone), filler.labels.made)
    model = changed(space.model, settings=settings, backbone=backbone)
    return nodes.Program((*others, model), space.source)


def options_of(hole: nodes.Hole) -> tuple[nodes.Expr | nodes.Parallel, ...]:
    """What may stand for a hole, in order; raises StarError for a range without whole numbers."""
    if hole.low is None or hole.high is None:
        return hole.choices
    low, high = (whole(bound) for bound in (hole.low, hole.high))
    if high < low:
        raise _refusal(f"the range from {low} to {high} is empty.", hole.span)
    if high - low >= 100_000:
        raise _refusal(f"the range from {low} to {high} is too long.", hole.span)
    return tuple(number(n, hole.span) for n in range(low, high + 1))


def number(value: int, span: Span) -> nodes.Expr:
    """A whole number as an expression."""
    size = nodes.Number(str(abs(value)), span=span)
    return nodes.Negate(size, span=span) if value < 0 else size


def whole(bound: nodes.Node) -> int:
    """The whole number that an expression is; raises StarError for any other expression."""
    sign, size = (-1, bound.value) if isinstance(bound, nodes.Negate) else (1, bound)
    if not isinstance(size, nodes.Number) or size.value.denominator != 1:
        raise _refusal("the bounds of a range are whole numbers.", bound.span)
    return sign * int(size.value)


@dataclass
class _Filler:
    """One filling: the decisions of named holes, and the units that ties may name so far."""

    choose: Choose
    operators: Mapping[str, nodes.Operator]
    named: dict[str, tuple[nodes.Hole, int]] = field(default_factory=dict)
    units: list[nodes.Unit] = field(default_factory=list)
    labels: Labels = field(kw_only=True)
    ties: bool = field(kw_only=True)

    def node(self, node: _NodeT) -> _NodeT:
        """A node with every hole in it decided."""
        if not undecided(node):
            return node
        if isinstance(node, nodes.Hole):
            return cast(_NodeT, self.node(self.decide(node)))  # what may stand where it stood
        found: dict[str, Any] = {}
        for f in fields(node):
            value = getattr(node, f.name)
            if isinstance(value, nodes.Node):
                found[f.name] = self.node(value)
            elif isinstance(value, tuple) and any(isinstance(v, nodes.Node) for v in value):
                found[f.name] = tuple(self.node(v) for v in value)
        return changed(node, **found) if found else node

    def decide(self, hole: nodes.Hole) -> nodes.Expr | nodes.Parallel:
        options = options_of(hole)
        if hole.name is None:
            return options[self.choose(len(options))]
        if hole.name not in self.named:
            self.named[hole.name] = hole, self.choose(len(options))
        first, index = self.named[hole.name]
        if first != hole:
            raise _refusal(
                f"the hole '?{hole.name}' has other options elsewhere.",
                hole.span,
                "holes of one name are decided together: give them the same options.",
            )
        return options[index]

    def body(self, layers: Sequence[nodes.Layer]) -> tuple[nodes.Layer, ...]:
        """Layers with every hole decided; repeats whose copies differ are written out."""
        found: list[nodes.Layer] = []
        for layer in layers:
            found += self.layer(layer)
        return tuple(found)

    def layer(self, layer: nodes.Layer) -> list[nodes.Layer]:
        match layer:
            case nodes.Unit():
                return [self.unit(layer)]
            case nodes.Parallel():
                return [self.parallel(layer)]
            case nodes.Repeat():
                return self.repeat(layer)
            case nodes.Loop():
                outer, self.units = self.units, []
                body = self.body(layer.body)
                self.units = outer
                return [changed(layer, count=self.node(layer.count), body=body)]

    def repeat(self, layer: nodes.Repeat) -> list[nodes.Layer]:
        count = self.node(layer.count)
        if not any(decided_anew(node) for part in layer.body for node in every(part)):
            outer, self.units = self.units, []  # labels of a copy are not seen outside it
            body = tuple(self.node(part) for part in layer.body)
            self.units = outer
            return [changed(layer, count=count, body=body)]
        try:
            times = whole(count)
        except StarError as error:
            raise _refusal(
                "the copies of a repeat with holes are counted by a number.", layer.span
            ) from error
        copies: list[nodes.Layer] = []
        for copy in range(1, times + 1):
            suffix = f"_{copy}"
            copies += self.body(relabel(layer.body, partial(_suffixed, suffix)))
        return copies

    def parallel(
        self, layer: nodes.Parallel, ties: tuple[nodes.Modifier, ...] = ()
    ) -> nodes.Parallel:
        """A parallel; `ties` that were left open on it are settled on its branches."""
        body = []
        for branch in layer.body:
            if ties and isinstance(branch, nodes.Unit):
                branch = changed(branch, modifiers=branch.modifiers + ties)
            body += self.layer(branch)
        modifiers = tuple(self.node(modifier) for modifier in layer.modifiers)
        return changed(layer, body=tuple(body), modifiers=modifiers)

    def unit(self, unit: nodes.Unit) -> nodes.Unit | nodes.Parallel:
        chosen = unit.operator
        while isinstance(chosen, nodes.Hole):
            decided = self.decide(chosen)
            if isinstance(decided, nodes.Parallel):
                ties = tuple(m for m in unit.modifiers if is_hole(m))
                settled = tuple(self.node(m) for m in unit.modifiers if not is_hole(m))
                label, modifiers = unit.label or decided.label, decided.modifiers + settled
                return self.parallel(changed(decided, label=label, modifiers=modifiers), ties)
            if not isinstance(decided, nodes.Call | nodes.Hole):
                raise _refusal("a unit is a call of an operator.", decided.span)
            chosen = decided
        filled = changed(unit, operator=self.node(chosen), modifiers=())
        for modifier in unit.modifiers:
            if is_hole(modifier):
                filled = self.tie(modifier, filled)
            else:
                kept = (*filled.modifiers, self.node(modifier))
                filled = changed(filled, modifiers=kept)
        if self.ties:
            filled = changed(filled, label=filled.label or self.labels.fresh("u"))
            self.units.append(filled)
        return filled

    def tie(self, hole: nodes.Node, unit: nodes.Unit) -> nodes.Unit:
        """The unit with an open tie decided: half of the time to none, else to an earlier unit."""
        tie = draw_tie(hole, unit, self.units, self.operators, self.choose)
        return changed(unit, modifiers=(*unit.modifiers, tie)) if tie else unit


def draw_tie(
    hole: nodes.Node,
    unit: nodes.Unit,
    earlier: Sequence[nodes.Unit],
    operators: Mapping[str, nodes.Operator],
    choose: Choose,
) -> nodes.Shares | nodes.Reuses | None:
    """A tie of `unit` to an earlier unit with the same call, or None; `hole` says which kind."""
    same = [u for u in earlier if alike(u.operator, unit.operator)]
    if not same or not choose(2):
        return None
    label = str(same[choose(len(same))].label)
    if isinstance(hole, nodes.Shares):
        return nodes.Shares(("*",), label, span=hole.span)
    groups = feature_groups(unit, operators)
    if not groups:
        return None
    return nodes.Reuses(groups[choose(len(groups))], label, span=hole.span)


def alike(one: nodes.Call | nodes.Hole, other: nodes.Call | nodes.Hole) -> bool:
    """Whether two units call the same, with the same arguments."""
    if one is other:
        return True
    if isinstance(one, nodes.Call) and isinstance(other, nodes.Call):
        return one.function == other.function and one.arguments == other.arguments
    return one == other


def feature_groups(
    unit: nodes.Unit, operators: Mapping[str, nodes.Operator]
) -> list[tuple[str, ...]]:
    """The groups of FEATURE_GROUPS that a unit's operator binds."""
    call = unit.operator
    operator = operators.get(call.function) if isinstance(call, nodes.Call) else None
    bound = {binding.name for binding in operator.body} if operator else set()
    return [group for group in FEATURE_GROUPS if bound.issuperset(group)]


class Labels:
    """Names of units that are free in a program."""

    def __init__(self, roots: Sequence[nodes.Node]) -> None:
        self.taken = {label for root in roots for label in labels_in(root)}
        self.made: set[str] = set()
        self.count = 0

    def fresh(self, stem: str) -> str:
        """A label that nothing has, `stem` and a number."""
        while True:
            self.count += 1
            label = f"{stem}{self.count}"
            if label not in self.taken:
                self.taken.add(label)
                self.made.add(label)
                return label


def drop_labels(body: tuple[nodes.Layer, ...], made: Collection[str]) -> tuple[nodes.Layer, ...]:
    """The layers without those labels of `made` that no other unit names."""
    unused = set(made).difference(*map(mentions_in, body))
    return tuple(
        layer if unused.isdisjoint(labels_in(layer)) else _without(layer, unused) for layer in body
    )


def _without(layer: nodes.Layer, unused: Collection[str]) -> nodes.Layer:
    return rewrite(layer, lambda node: _unlabelled(node, unused))


def relabel(body: tuple[nodes.Layer, ...], rename: Callable[[str], str]) -> tuple[nodes.Layer, ...]:
    """Layers with the labels that they give renamed, in the order of the text, where they are given
    and where named."""
    own = dict.fromkeys(label for layer in body for label in given_in(layer))
    names = {label: rename(label) for label in own}
    if not names:
        return body
    return tuple(rewrite(layer, lambda node: _renamed(node, names)) for layer in body)


@per_node
def given_in(root: nodes.Node) -> tuple[str, ...]:
    """The labels that layers of a tree give themselves, in the order of the text."""
    if isinstance(root, nodes.Unit) and isinstance(root.operator, nodes.Call):
        return () if root.label is None else (root.label,)
    layers = (node for node in every(root) if isinstance(node, nodes.Unit | nodes.Parallel))
    return tuple(dict.fromkeys(layer.label for layer in layers if layer.label is not None))


@per_node
def labels_in(root: nodes.Node) -> frozenset[str]:
    """The labels of a tree, those of ties among them."""
    if isinstance(root, nodes.Model):
        return frozenset[str]().union(*map(labels_in, root.backbone))
    parts = every(root)
    if isinstance(root, nodes.Unit) and isinstance(root.operator, nodes.Call):
        parts = iter((root, *root.modifiers))
    labels = (getattr(node, "label", None) for node in parts)
    return frozenset(label for label in labels if label is not None)


@per_node
def mentions_in(root: nodes.Node) -> frozenset[str]:
    """The words of a tree that may be labels of other layers."""
    return frozenset(word for node in every(root) for word in _mentions(node))


@per_node
def undecided(root: nodes.Node) -> bool:
    """Whether a tree has a hole."""
    if isinstance(root, nodes.Model):
        return any(map(undecided, (*root.settings, *root.backbone)))
    return any(map(is_hole, every(root)))


def _suffixed(suffix: str, label: str) -> str:
    return label + suffix


def _renamed(node: nodes.Node, names: Mapping[str, str]) -> nodes.Node:
    match node:
        case nodes.Unit() | nodes.Parallel() | nodes.Shares() | nodes.Reuses() if (
            node.label in names
        ):
            return changed(node, label=names[str(node.label)])
        case nodes.Member() if node.unit in names:
            return changed(node, unit=names[node.unit])
        case nodes.Name() if node.name in names:  # the stream behind a unit
            return changed(node, name=names[node.name])
    return node


def _unlabelled(node: nodes.Node, unused: Collection[str]) -> nodes.Node:
    if isinstance(node, nodes.Unit | nodes.Parallel) and node.label in unused:
        return changed(node, label=None)
    return node


def _mentions(node: nodes.Node) -> tuple[str, ...]:
    match node:
        case nodes.Shares() | nodes.Reuses():
            return (node.label,) if node.label else ()
        case nodes.Member():
            return (node.unit,)
        case nodes.Name():
            return (node.name,)
    return ()


def every(root: nodes.Node) -> Iterator[nodes.Node]:
    """The nodes of a tree, those inside holes among them, in the order of the text."""
    stack = [root]
    while stack:
        node = stack.pop()
        yield node
        for name in _parts(type(node))[::-1]:
            value = getattr(node, name)
            if isinstance(value, tuple):
                if value and isinstance(value[0], nodes.Node):
                    stack += value[::-1]
            elif isinstance(value, nodes.Node):
                stack.append(value)


_PARTS: dict[type[nodes.Node], tuple[str, ...]] = {}


def _parts(kind: type[nodes.Node]) -> tuple[str, ...]:
    """The fields of a kind of nodes that others may be in."""
    if kind not in _PARTS:
        own = (f for f in fields(kind) if f.compare and "str" not in str(f.type).split())
        _PARTS[kind] = tuple(f.name for f in own)
    return _PARTS[kind]


def rewrite(node: _NodeT, change: Callable[[nodes.Node], nodes.Node]) -> _NodeT:
    """The tree with `change` applied to every node, children first; unchanged parts are kept."""
    other: dict[str, Any] = {}
    for name in _parts(type(node)):
        value = getattr(node, name)
        if isinstance(value, nodes.Node):
            new = rewrite(value, change)
            if new is not value:
                other[name] = new
        elif isinstance(value, tuple) and value and isinstance(value[0], nodes.Node):
            items = tuple([rewrite(v, change) for v in value])
            if any(new is not old for new, old in zip(items, value, strict=True)):
                other[name] = items
    return cast(_NodeT, change(changed(node, **other) if other else node))  # of the same kind


def decided_anew(node: nodes.Node) -> bool:
    """Whether every copy that a repeat makes decides this node for itself."""
    return is_hole(node) and not (isinstance(node, nodes.Hole) and node.name)


def _refusal(message: str, span: Span, hint: str = "") -> StarError:
    return StarError(Diagnostic("bad-hole", message, span, "this hole", hint))
