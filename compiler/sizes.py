"""Which numbers of a program follow its width or its context, read off where they are used.

    heads       counts of heads: they follow the width, so that a head keeps its size
    size        channels between maps, ranks, lanes of filters: they follow the width
    head-size   channels of a head: kept, unless not even one head would be left
    state       channels of a recurrence's keys: kept
    blocks      blocks of a block-diagonal map or of a norm: kept if they still divide
    tokens      windows, blocks and strides of tokens: they follow the context

A parameter of an operator has the role of the place that its number reaches, through other
operators if need be: `heads(n)` makes n a count of heads, whatever its name. All other numbers
(taps, experts, bases of rotations) have no role and stay.

Owns: the roles of numbers. Refuses: choosing new ones (resize.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum

from starc.compiler import catalog
from starc.compiler.catalog.entry import Entry, Role
from starc.compiler.holes import walk
from starc.grammar import nodes


class Use(IntEnum):
    """What a number is for. Of several uses the least one holds."""

    HEADS = 0
    STATE = 1
    HEAD_SIZE = 2
    SIZE = 3
    TOKENS = 4
    BLOCKS = 5


_SINKS = {
    ("heads", "n"): Use.HEADS,
    ("static", "heads"): Use.HEADS,
    ("param", "heads"): Use.HEADS,
    ("attend", "heads"): Use.HEADS,
    ("dense", "n"): Use.SIZE,
    ("dense", "rank"): Use.SIZE,
    ("lookup", "d"): Use.SIZE,
    ("explicit", "channels"): Use.SIZE,
    ("implicit", "channels"): Use.SIZE,
    ("ssm", "channels"): Use.SIZE,
    ("headwise", "n"): Use.HEAD_SIZE,
    ("rope", "dims"): Use.HEAD_SIZE,
    ("dense", "groups"): Use.BLOCKS,
    ("conv", "groups"): Use.BLOCKS,
    ("groupnorm", "groups"): Use.BLOCKS,
    ("shuffle", "g"): Use.BLOCKS,
    ("static", "n"): Use.TOKENS,
    ("band", "w"): Use.TOKENS,
    ("dilated", "w"): Use.TOKENS,
    ("strided", "n"): Use.TOKENS,
    ("block", "n"): Use.TOKENS,
    ("summary", "n"): Use.TOKENS,
    ("summary", "c"): Use.TOKENS,
    ("select", "top"): Use.TOKENS,
    ("select", "block"): Use.TOKENS,
}

_MIXERS = {"semi_separable": (3, Use.STATE), "low_rank": (2, Use.HEAD_SIZE)}
"""How many operands of a mixer meet over channels, and what the number of those is."""

# Options of settings that are no stages of the catalog, in their order.
_OPTIONS = {"attend": ("heads", "every", "norm")}

Operators = Callable[[nodes.Operator], Mapping[str, nodes.Operator]]
"""The operators that the body of one may call."""


@dataclass(frozen=True)
class Place:
    """A number with a role: `expr` as written, in the `group` of numbers that must fit together.

    A group is a call of a unit, the body of an operator, or the settings of the model ("").
    """

    group: str
    use: Use
    expr: nodes.Expr


class Roles:
    """The roles of the parameters of operators, each found once."""

    def __init__(self, scope: Operators) -> None:
        self._scope = scope
        self._known: dict[int, _Reader] = {}

    def of(self, node: nodes.Operator) -> Mapping[str, Use]:
        """The roles of an operator's parameters; one without a role is missing."""
        return self._read(node).uses_of({p.name for p in node.parameters})

    def _read(self, node: nodes.Operator) -> _Reader:
        reader = self._known.get(id(node))
        if reader is None:  # noted before it is read, for an operator that calls itself
            reader = self._known[id(node)] = _Reader(self, self._scope(node))
            reader.bindings = {b.name: b.value for b in node.body}
            for binding in node.body:
                reader.visit(binding.value)
            reader.settle()
        return reader

    def places(self, node: nodes.Operator) -> Iterator[Place]:
        """The numbers in the text of an operator: in its body, and defaults of its parameters."""
        reader = self._read(node)
        for expr, use in reader.literals:
            yield Place(node.name, use, expr)
        uses = reader.uses_of({p.name for p in node.parameters} | set(reader.bindings))
        for parameter in node.parameters:
            if parameter.default is not None and parameter.name in uses:
                yield Place(node.name, uses[parameter.name], parameter.default)
        for name, value in reader.bindings.items():
            if name in uses and is_number(value):
                yield Place(node.name, uses[name], value)

    def model(self, model: nodes.Model, operators: Mapping[str, nodes.Operator]) -> Iterator[Place]:
        """The numbers in the text of a model: settings of its own, and arguments of its units."""
        settings = _Reader(self, operators)
        for i, layer in enumerate(n for n in walk(model) if isinstance(n, nodes.Unit)):
            reader = _Reader(self, operators)
            if isinstance(layer.operator, nodes.Call):
                reader.unit(layer.operator)
            reader.settle()
            for expr, use in reader.literals:
                yield Place(f"unit {i}", use, expr)
            settings.merge(reader)
        for node in walk(model):
            if isinstance(node, nodes.Setting | nodes.With):
                settings.visit(node.value)
        settings.settle()
        own = {s.name: s.value for s in model.settings}
        for name, use in settings.uses_of(set(own)).items():
            yield Place("", use, own[name])
        for expr, use in settings.literals:
            yield Place("", use, expr)


class _Reader:
    """Walks expressions and notes the uses of names and of written-out numbers."""

    def __init__(self, roles: Roles, operators: Mapping[str, nodes.Operator]) -> None:
        self.roles, self.operators = roles, operators
        self.bindings: Mapping[str, nodes.Expr] = {}
        self.literals: list[tuple[nodes.Expr, Use]] = []
        self._uses: dict[str, Use] = {}
        self._sums: list[tuple[nodes.Expr, Use]] = []
        self._contracted: dict[int, tuple[Use, bool]] = {}

    def uses_of(self, names: set[str]) -> dict[str, Use]:
        return {name: use for name, use in self._uses.items() if name in names}

    def merge(self, other: _Reader) -> None:
        for name, use in other._uses.items():
            self._note(name, use)

    def _note(self, name: str, use: Use) -> None:
        self._uses[name] = min(use, self._uses.get(name, use))

    # --- what stands where ------------------------------------------------------------------------

    def visit(self, expr: nodes.Expr) -> None:
        match expr:
            case nodes.Pipe():
                self.visit(expr.value)
                if isinstance(expr.stage, nodes.Call):
                    self._call(expr.stage, piped=True)
            case nodes.Call():
                self._call(expr, piped=False)
            case nodes.Binary():
                self.visit(expr.left)
                self.visit(expr.right)
            case nodes.Negate():
                self.visit(expr.value)

    def unit(self, call: nodes.Call) -> None:
        """A call of an operator, without an operand."""
        node = self.operators.get(call.function)
        if node is None:
            for argument in call.arguments:  # the operator of experts(op(...), ...)
                if isinstance(argument.value, nodes.Call):
                    self.unit(argument.value)
            return
        uses = self.roles.of(node)
        for position, argument in enumerate(call.arguments):
            name = argument.name
            if name is None:
                name = next((p.name for p in node.parameters[position : position + 1]), "")
            if name in uses:
                self._number(argument.value, uses[name])

    def _call(self, call: nodes.Call, piped: bool) -> None:
        if call.function in self.operators:
            if not piped and call.arguments:
                self.visit(call.arguments[0].value)
                call = nodes.Call(
                    call.function, call.arguments[1:], name_span=call.name_span, span=call.span
                )
            self.unit(call)
            return
        if call.function == "experts":
            self.unit(call)
            return
        for argument in call.arguments:
            self.visit(argument.value)
        if call.function in _MIXERS:
            count, use = _MIXERS[call.function]
            for argument in call.arguments[:count]:
                self._contract(argument.value, use, False, set())
        named = dict(_named(call, piped))
        for name, value in named.items():
            place = (call.function, name)
            if place == ("param", "channels"):
                use_: Use | None = Use.SIZE if _is_one(named.get("heads")) else Use.HEAD_SIZE
            elif place == ("select", "top") and "block" in named:
                use_ = None  # a number of blocks, which are as many at any context
            else:
                use_ = _SINKS.get(place)
            if use_ is not None and not (call.function == "param" and _is_product(value)):
                self._number(value, use_)

    def _contract(self, expr: nodes.Expr, use: Use, split: bool, seen: set[str]) -> None:
        """Mark the maps that make the channels over which a mixer sums, `split` into heads."""
        match expr:
            case nodes.Name() if expr.name in self.bindings and expr.name not in seen:
                seen.add(expr.name)
                self._contract(self.bindings[expr.name], use, split, seen)
            case nodes.Binary():
                self._contract(expr.left, use, split, seen)
                self._contract(expr.right, use, split, seen)
            case nodes.Negate():
                self._contract(expr.value, use, split, seen)
            case nodes.Call() if not _sizes(expr.function):
                for argument in expr.arguments:
                    self._contract(argument.value, use, split, seen)
            case nodes.Pipe():
                stage = expr.stage.function if isinstance(expr.stage, nodes.Call) else ""
                if stage == "dense" or stage in self.operators:
                    assert isinstance(expr.stage, nodes.Call)
                    for argument in expr.stage.arguments:
                        self._contracted[id(argument.value)] = use, split
                else:
                    self._contract(expr.value, use, split or stage == "heads", seen)

    # --- what a number is made of -----------------------------------------------------------------

    def _number(self, expr: nodes.Expr, use: Use) -> None:
        self._sums.append((expr, use))

    def settle(self) -> None:
        """Give names their uses, once all places are known: heads first, they tell sizes apart."""
        for expr, use in self._sums:
            if use is Use.HEADS:
                self._heads(expr)
        for expr, use in self._sums:
            if use is Use.SIZE and id(expr) in self._contracted:
                contracted, split = self._contracted[id(expr)]
                # The channels of all heads together are a size like any other.
                use = contracted if not split or _is_product(expr) else use
            if is_number(expr) or any(isinstance(n, nodes.Name) for n in walk(expr)):
                self.literals.append((expr, use))
            if use is not Use.HEADS:
                self._factors(expr, use)

    def _heads(self, expr: nodes.Expr) -> None:
        match expr:
            case nodes.Name():
                self._note(expr.name, Use.HEADS)
            case nodes.Binary("*"):
                self._heads(expr.left)
                self._heads(expr.right)
            case nodes.Binary("/"):  # heads(inner / head)
                for node in walk(expr.right):
                    if isinstance(node, nodes.Name):
                        self._note(node.name, Use.HEAD_SIZE)

    def _factors(self, expr: nodes.Expr, use: Use) -> None:
        match expr:
            case nodes.Name():
                self._note(expr.name, use)
            case nodes.Binary("+" | "-"):
                self._factors(expr.left, use)
                self._factors(expr.right, use)
            case nodes.Binary("*"):
                factors = [n.name for n in walk(expr) if isinstance(n, nodes.Name)]
                if use is Use.SIZE and any(self._uses.get(f) is Use.HEADS for f in factors):
                    use = Use.HEAD_SIZE
                self._factors(expr.left, use)
                self._factors(expr.right, use)
            case nodes.Binary("/"):
                self._factors(expr.left, use)
            case nodes.Call():
                for argument in expr.arguments:
                    self._factors(argument.value, use)


def is_number(expr: nodes.Expr) -> bool:
    """Whether an expression is written with numbers alone."""
    found = list(walk(expr))
    kinds = nodes.Number | nodes.Binary | nodes.Negate | nodes.Call | nodes.Argument
    calls = [n for n in found if isinstance(n, nodes.Call) and n.function in catalog.NAMES]
    return all(isinstance(n, kinds) for n in found) and not calls


def _is_one(expr: nodes.Expr | None) -> bool:
    return isinstance(expr, nodes.Number) and expr.value == 1


def _is_product(expr: nodes.Expr) -> bool:
    return isinstance(expr, nodes.Binary) and expr.operator == "*"


def _sizes(name: str) -> bool:
    return any(function == name for function, _ in _SINKS)


def _entries(name: str) -> Iterator[Entry]:
    for entry in catalog.ENTRIES.values():
        if entry.name == name and entry.role is not Role.INTERNAL:
            yield entry


def _named(call: nodes.Call, piped: bool) -> list[tuple[str, nodes.Expr]]:
    """The compile-time arguments of a call of the catalog by name."""
    entry = next(_entries(call.function), None)
    if entry is None:
        names: tuple[str, ...] = _OPTIONS.get(call.function, ())
        operands = 0
    else:
        names = tuple(a.name for a in entry.arguments)
        operands = len(entry.operands) if entry.role is not Role.SOURCE else 0
        operands -= 1 if piped and operands else 0
    found: list[tuple[str, nodes.Expr]] = []
    position = -operands
    for argument in call.arguments:
        if argument.name is not None:
            found.append((argument.name, argument.value))
            continue
        if 0 <= position < len(names):
            found.append((names[position], argument.value))
        position += 1
    return found
