"""Backbones as trees with places, and operators that move between programs.

A place is a path: the index of a layer in its body, body by body from the backbone down.

Owns: finding and replacing layers, making syntax from text, copies and declarations of operators.
Refuses: choosing what to change.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

from starc.compiler.options import Limits
from starc.compiler.program import file_scope
from starc.grammar import nodes
from starc.grammar.copying import changed
from starc.grammar.errors import StarError
from starc.grammar.parser import parse
from starc.grammar.source import Source, Span
from starc.search.remembering import per_node
from starc.search.space import every, number, rewrite, whole

Path = tuple[int, ...]
Body = tuple[nodes.Layer, ...]
_NodeT = TypeVar("_NodeT", bound=nodes.Node)

PLACE = Span(Source("<mutation>", ""), 0, 0)
"""Where new syntax stands."""


def places(body: Body, path: Path = ()) -> Iterator[tuple[Path, nodes.Layer]]:
    """All layers with their paths, outer ones first, in the order of the text."""
    for index, layer in enumerate(body):
        yield (*path, index), layer
        if not isinstance(layer, nodes.Unit):
            yield from places(layer.body, (*path, index))


def units(body: Body) -> Iterator[nodes.Unit]:
    """All units in the order of the text."""
    for layer in body:
        if isinstance(layer, nodes.Unit):
            yield layer
        else:
            yield from units(layer.body)


def at(body: Body, path: Path) -> nodes.Layer:
    """The layer at a path."""
    for index in path[:-1]:
        layer = body[index]
        assert not isinstance(layer, nodes.Unit)
        body = layer.body
    return body[path[-1]]


def put(body: Body, path: Path, *new: nodes.Layer, count: int = 1) -> Body:
    """The body with `count` layers from a path on replaced by others."""
    first, *rest = path
    if rest:
        outer = body[first]
        assert not isinstance(outer, nodes.Unit)
        new = (changed(outer, body=put(outer.body, tuple(rest), *new, count=count)),)
        count = 1
    return (*body[:first], *new, *body[first + count :])


def sequences(body: Body) -> Iterator[tuple[Path, Body]]:
    """The bodies whose layers follow each other, with the paths of the layers that hold them."""
    yield (), body
    for path, layer in places(body):
        if isinstance(layer, nodes.Repeat | nodes.Loop):
            yield path, layer.body


def holder(body: Body, path: Path) -> nodes.Layer | None:
    """The layer that holds the one at a path; None for the backbone itself."""
    return at(body, path[:-1]) if len(path) > 1 else None


def count_of(layer: nodes.Repeat | nodes.Loop) -> int | None:
    """The count of a repeat or loop that is written as a number."""
    try:
        return whole(layer.count)
    except StarError:
        return None


def size(body: Body) -> int:
    """Units of a body, repeats unrolled; counts that are computed are taken as 1."""
    return sum(map(_size, body))


@per_node
def _size(layer: nodes.Layer) -> int:
    if isinstance(layer, nodes.Unit):
        return 1
    times = (count_of(layer) or 1) if isinstance(layer, nodes.Repeat) else 1
    return size(layer.body) * times


# --- what units name ---------------------------------------------------------------------------


@per_node
def features(unit: nodes.Unit) -> tuple[tuple[nodes.Argument, str], ...]:
    """Arguments of a unit that may be features of earlier units, and the labels that they name."""
    found: list[tuple[nodes.Argument, str]] = []
    if isinstance(unit.operator, nodes.Call):
        for argument in unit.operator.arguments:
            if isinstance(argument.value, nodes.Member):
                found.append((argument, argument.value.unit))
            elif isinstance(argument.value, nodes.Name):
                found.append((argument, argument.value.name))
    return tuple(found)


@per_node
def ties(unit: nodes.Unit) -> tuple[nodes.Shares | nodes.Reuses, ...]:
    """What a unit takes from others by its modifiers."""
    return tuple(m for m in unit.modifiers if isinstance(m, nodes.Shares | nodes.Reuses))


@per_node
def mentioned(unit: nodes.Unit) -> tuple[str, ...]:
    """The words of a unit that may be labels of earlier ones."""
    return (*(str(tie.label) for tie in ties(unit)), *(label for _, label in features(unit)))


def plain(layer: nodes.Unit | nodes.Parallel) -> nodes.Unit | nodes.Parallel:
    """A unit, or a parallel of units, without labels and modifiers."""
    if isinstance(layer, nodes.Unit):
        if layer.label is None and not layer.modifiers:
            return layer
        return changed(layer, label=None, modifiers=())
    body = tuple(plain(b) if isinstance(b, nodes.Unit | nodes.Parallel) else b for b in layer.body)
    return changed(layer, label=None, modifiers=(), body=body)


# --- syntax ------------------------------------------------------------------------------------


@lru_cache(maxsize=1024)
def _parsed(text: str) -> nodes.Expr:
    declared = parse(Source("<mutation>", f"operator o() {{ y = {text} }}")).declarations[0]
    assert isinstance(declared, nodes.Operator)
    return declared.body[0].value


def expression(text: str, **parts: nodes.Node) -> nodes.Expr:
    """The expression that a text is, with expressions in the place of names."""
    parsed = _parsed(text)
    if not parts:
        return parsed
    return rewrite(parsed, lambda n: parts.get(n.name, n) if isinstance(n, nodes.Name) else n)


def literal(value: int) -> nodes.Expr:
    """A whole number."""
    return number(value, PLACE)


def parts(chain: nodes.Expr) -> tuple[nodes.Expr, list[nodes.Call | nodes.Name | nodes.Hole]]:
    """What a pipe begins with, and its stages."""
    stages: list[nodes.Call | nodes.Name | nodes.Hole] = []
    while isinstance(chain, nodes.Pipe):
        stages.append(chain.stage)
        chain = chain.value
    return chain, stages[::-1]


def piped(value: nodes.Expr, stages: Iterable[nodes.Expr]) -> nodes.Expr:
    """A value sent through stages."""
    for stage in stages:
        assert isinstance(stage, nodes.Call | nodes.Name | nodes.Hole)
        value = nodes.Pipe(value, stage, span=PLACE)
    return value


def stage_name(stage: nodes.Node) -> str:
    """The operation that a stage, or a call, is."""
    if isinstance(stage, nodes.Call):
        return stage.function
    return stage.name if isinstance(stage, nodes.Name) else ""


def moved(node: _NodeT, span: Span) -> _NodeT:
    """The tree with every part at one place, as the text there had made it."""
    found: dict[str, Any] = {}
    for name, value in node.__dict__.items():
        if isinstance(value, Span):
            found[name] = span
        elif isinstance(value, nodes.Node):
            found[name] = moved(value, span)
        elif isinstance(value, tuple) and value and isinstance(value[0], nodes.Node):
            found[name] = tuple([moved(v, span) for v in value])
    return changed(node, **found)


def once(root: _NodeT, old: nodes.Node, new: nodes.Node) -> _NodeT:
    """The tree with one node, found by its identity, replaced."""
    return rewrite(root, lambda node: new if node is old else node)


# --- declarations ------------------------------------------------------------------------------

Declared = dict[str, nodes.Use | nodes.Operator]
"""What a program declares beside its models, by name."""


def declared(program: nodes.Program) -> Declared:
    """The operators of a program, as it declares them."""
    found: Declared = {}
    for declaration in program.declarations:
        if isinstance(declaration, nodes.Use):
            found[declaration.path[-1]] = declaration
        elif isinstance(declaration, nodes.Operator):
            found[declaration.name] = declaration
    return found


@per_node
def called(node: nodes.Node) -> tuple[str, ...]:
    """Names that a tree calls, or names as stages: operators among them."""
    found = [stage_name(n) for n in every(node) if isinstance(n, nodes.Call | nodes.Name)]
    return tuple(dict.fromkeys(found))


@dataclass
class Workshop:
    """The declarations of a program under change, and the source that its new ones belong to."""

    declared: Declared
    operators: dict[str, nodes.Operator]
    source: Source
    limits: Limits

    @classmethod
    def of(
        cls, program: nodes.Program, operators: Mapping[str, nodes.Operator], limits: Limits
    ) -> Workshop:
        return cls(declared(program), dict(operators), program.source, limits)

    def fresh(self, name: str) -> str:
        """A name for a copy of an operator."""
        stem = name.rstrip("0123456789")
        stem = stem[:-1] if stem.endswith("_") and stem != name else name
        n = 2
        while f"{stem}_{n}" in self.declared:
            n += 1
        return f"{stem}_{n}"

    def own(self, name: str, node: nodes.Operator, body: Sequence[nodes.Binding]) -> str:
        """Declare an operator of this program, with the callees it brings; the name it has."""
        names: dict[str, str] = {}
        if node.span.source != self.source:
            names = self._callees(node)
        operator = changed(node, name=name, body=tuple(body))
        return self._declare(_here(operator, names, self.source))

    def _declare(self, node: nodes.Operator) -> str:
        self.declared[node.name] = self.operators[node.name] = node
        return node.name

    def variant(self, node: nodes.Operator, body: Sequence[nodes.Binding]) -> str:
        """The name of an operator of this program with another body: one that says the same, or a
        new one."""
        name = self.fresh(node.name)
        made = _here(changed(node, name=name, body=tuple(body)), {}, self.source)
        for known, other in self.operators.items():
            here = isinstance(self.declared.get(known), nodes.Operator)
            if here and other.body == made.body and changed(other, name=name) == made:
                return known
        if node.span.source == self.source:
            return self._declare(made)
        return self.own(name, node, body)

    def _callees(self, node: nodes.Operator) -> dict[str, str]:
        """Operators of another file that an operator of it calls are declared here as well."""
        scope = file_scope(node.span.source, self.limits)
        bound = {b.name for b in node.body} | {p.name for p in node.parameters}
        names: dict[str, str] = {}
        for callee in called(node):
            if callee not in scope or callee in bound or callee == node.name:
                continue
            there = scope[callee]
            if self.operators.get(callee) is there:
                continue
            name = self.fresh(callee) if callee in self.declared else callee
            names[callee] = self.own(name, there, there.body)
        return names

    def adopt(self, body: Body, theirs: Mapping[str, nodes.Operator], uses: Declared) -> Body:
        """Layers of another program with all that they call declared here.

        An operator of a name that means another one here gets a new name.
        """
        names: dict[str, str] = {}
        for unit in units(body):
            for name in called(unit.operator):
                if name in names or name not in theirs:
                    continue
                names[name] = self._adopted(name, theirs, uses)
        other = {old: new for old, new in names.items() if old != new}
        return tuple(_recalled(layer, other) for layer in body) if other else body

    def _adopted(self, name: str, theirs: Mapping[str, nodes.Operator], uses: Declared) -> str:
        node, mine = theirs[name], self.operators.get(name)
        if mine is node or (mine == node and self.declared.get(name) == uses.get(name)):
            return name
        use = uses.get(name)
        if isinstance(use, nodes.Use) and use.path[0] == "std" and name not in self.declared:
            self.declared[name], self.operators[name] = use, node
            return name
        copies = [n for n, o in self.operators.items() if changed(o, name=name) == node]
        if copies and node.span.source == self.source:
            return copies[0]
        new = self.fresh(name) if name in self.declared else name
        if isinstance(use, nodes.Operator):  # it calls what its program declares
            self.operators[new] = self.declared[new] = node  # taken, while callees are adopted
            names = {
                callee: self._adopted(callee, theirs, uses)
                for callee in called(node)
                if callee in theirs and callee not in {b.name for b in node.body}
            }
            node = _here(changed(node, name=new), names, self.source)
            self.operators[new] = self.declared[new] = node
            return new
        return self.own(new, node, node.body)

    def program(self, model: nodes.Model) -> nodes.Program:
        """The program of these declarations and a model, without what nothing calls."""
        wanted = _wanted(model, self.operators, self.source)
        kept = [node for name, node in self.declared.items() if name in wanted]
        kept.sort(key=lambda node: isinstance(node, nodes.Operator))
        return nodes.Program((*kept, model), self.source)


class _Here:
    """Operators and their bindings as one source has them: the same object for the same words, so
    that what is known of it is known again."""

    def __init__(self, source: Source) -> None:
        self.place = Span(source, 0, 0)
        self.seen: dict[int, tuple[nodes.Binding, nodes.Binding]] = {}  # what stood elsewhere
        self.bindings: dict[nodes.Binding, nodes.Binding] = {}
        self.operators: dict[tuple[object, ...], nodes.Operator] = {}

    def operator(self, node: nodes.Operator) -> nodes.Operator:
        """The operator as it is here."""
        body = tuple(map(self.binding, node.body))
        key = node.name, node.parameters, node.doc, tuple(map(id, body))
        if key not in self.operators:
            head = moved(changed(node, body=()), self.place)
            self.operators[key] = changed(head, body=body)
        return self.operators[key]

    def binding(self, node: nodes.Binding) -> nodes.Binding:
        """One binding as it is here."""
        known = self.seen.get(id(node))
        if known is None:
            made = moved(node, self.place)
            made = self.bindings.setdefault(made, made)
            self.seen[id(node)] = known = node, made
            self.seen[id(made)] = made, made
        return known[1]


_MOST = 4096
"""So many operators of one source, and all of them are forgotten."""

_sources: dict[Source, _Here] = {}


def _here(node: nodes.Operator, names: Mapping[str, str], source: Source) -> nodes.Operator:
    """An operator as one of this source, with operators called by other names."""
    here = _sources.get(source)
    if here is None or len(here.operators) >= _MOST:
        if len(_sources) >= 64:
            _sources.clear()
        _sources[source] = here = _Here(source)
    return here.operator(_recalled(node, names))


def _recalled(node: _NodeT, names: Mapping[str, str]) -> _NodeT:
    """The tree with operators called by other names."""

    def change(n: nodes.Node) -> nodes.Node:
        if isinstance(n, nodes.Call) and n.function in names:
            return changed(n, function=names[n.function])
        if isinstance(n, nodes.Pipe) and stage_name(n.stage) in names:
            if isinstance(n.stage, nodes.Name):
                return changed(n, stage=changed(n.stage, name=names[n.stage.name]))
        return n

    return rewrite(node, change) if names else node


def _wanted(
    model: nodes.Model, operators: Mapping[str, nodes.Operator], source: Source
) -> set[str]:
    """The operators that a model needs, with all that these call."""
    found: set[str] = set()
    left = {name for setting in model.settings for name in called(setting.value)}
    left.update(*map(_needed, model.backbone))
    while left:
        name = left.pop()
        if name in found or name not in operators:
            continue
        found.add(name)
        if operators[name].span.source == source:  # others call what their own files declare
            left.update(called(operators[name]))
    return found


@per_node
def _needed(layer: nodes.Layer) -> tuple[str, ...]:
    """What the units of a layer call, and its residuals."""
    found: list[str] = []
    if isinstance(layer, nodes.Unit):
        call = layer.operator
        if isinstance(call, nodes.Call) and call.function != "experts":
            found.append(call.function)  # arguments are numbers and features
        else:
            found += called(call)
    else:
        for inner in layer.body:
            found += _needed(inner)
    if isinstance(layer, nodes.Unit | nodes.Parallel):
        for modifier in layer.modifiers:
            if isinstance(modifier, nodes.With):
                found += called(modifier.value)
    return tuple(found)


def pick(rng: random.Random, items: Sequence[Any]) -> Any:
    """One of the items; None when there are none."""
    return items[rng.randrange(len(items))] if items else None
