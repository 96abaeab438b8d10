"""Building the values of an operator: types come from the catalog as values are emitted.

Owns: value numbering, and the names of parameters. Refuses: the text of the program.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from starc.compiler.catalog import ENTRIES
from starc.compiler.ir import Attribute, Parameter, Value
from starc.compiler.naming import Names
from starc.compiler.types import Type
from starc.grammar.source import Span


class Builder:
    """Values under construction, for the resolver and every pass that rewrites an operator."""

    def __init__(self) -> None:
        self.values: list[Value] = []
        self.parameters: dict[str, Parameter] = {}
        self._unnamed: list[tuple[int, tuple[Parameter, ...]]] = []
        self._names = Names()

    def type(self, id: int) -> Type:
        return self.values[id].type

    def emit(
        self,
        op: str,
        inputs: Sequence[int] = (),
        attributes: Mapping[str, Any] | Iterable[tuple[str, Attribute]] = (),
        span: Span | None = None,
        name: str = "",
        parameters: Sequence[Parameter] | None = None,
    ) -> int:
        """Add a value and return its id; raises Problem when the catalog's type rule does.

        Parameters of the operation stay unnamed until `name_parameters`, unless they are given.
        """
        entry = ENTRIES[op]
        arguments = dict(attributes)
        types = [self.values[i].type for i in inputs]
        type_ = entry.rule(types, arguments)
        owned = tuple(p.name for p in parameters or ())
        value = Value(op, tuple(inputs), tuple(arguments.items()), type_, name, owned, span)
        id = len(self.values)
        if parameters is not None:
            self.parameters.update({p.name: p for p in parameters})
        elif specs := entry.parameters(types, arguments):
            self._unnamed.append((id, specs))
        self.values.append(value)
        return id

    def keep(self, value: Value, inputs: tuple[int, ...], parameters: Sequence[Parameter]) -> int:
        """Add a value of another operator over inputs of the types that it had there."""
        self.values.append(value if inputs == value.inputs else value.over(inputs))
        self.parameters.update((p.name, p) for p in parameters)
        return len(self.values) - 1

    def name_parameters(self, binding: str) -> None:
        """Name the parameters that a binding's expression created: after the binding when one stage
        of it has parameters, else after the binding and the stage (`C_dense`, `C_conv`)."""
        for id, specs in self._unnamed:
            wanted = binding
            if len(self._unnamed) > 1:
                wanted = f"{binding}_{self.values[id].op}"
            base = self._names.take(wanted)
            named = [replace(p, name=base + p.name) for p in specs]
            self.parameters.update({p.name: p for p in named})
            self.values[id] = replace(self.values[id], parameters=tuple(p.name for p in named))
        self._unnamed.clear()

    def discard_unnamed(self) -> None:
        """Forget parameters of an expression that failed half-way."""
        self._unnamed.clear()

    def label(self, id: int, name: str) -> None:
        """Remember that a value completes a binding; the first binding of a value keeps it."""
        if not self.values[id].name:
            self.values[id] = replace(self.values[id], name=name)


def prune(
    values: Sequence[Value],
    outputs: Sequence[tuple[str, int]],
    parameters: Mapping[str, Parameter],
) -> tuple[tuple[Value, ...], tuple[tuple[str, int], ...], tuple[Parameter, ...]]:
    """Keep what the outputs need, in order, renumbered."""
    needed: set[int] = set()
    stack = [id for _, id in outputs]
    while stack:
        id = stack.pop()
        if id not in needed:
            needed.add(id)
            stack.extend(values[id].inputs)
    order = sorted(needed)
    renumbered = {old: new for new, old in enumerate(order)}
    if len(order) == len(values):
        kept = tuple(values)
    else:
        kept = tuple(
            values[old].over(tuple(renumbered[i] for i in values[old].inputs)) for old in order
        )
    used = dict.fromkeys(name for value in kept for name in value.parameters)
    return (
        kept,
        tuple((name, renumbered[id]) for name, id in outputs),
        tuple(parameters[name] for name in used),
    )
