"""Building the values of an operator: types come from the catalog as values are emitted.

Owns: value numbering, and the names of parameters. Refuses: the text of the program.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from starc.compiler.catalog import ENTRIES
from starc.compiler.catalog.transposed import inputs_of, source_of
from starc.compiler.ir import Attribute, Operator, Parameter, Value, made_value
from starc.compiler.naming import Names
from starc.compiler.types import Type
from starc.grammar.copying import changed
from starc.grammar.source import Span


@dataclass
class _Made:
    """What one stage of a binding made: values with parameters, and values to be labelled, each
    with the name that it has inside of the stage (the empty string outside of called operators)."""

    stage: str
    parameters: list[tuple[int, tuple[Parameter, ...], str]] = field(default_factory=list)
    labels: list[tuple[int, str]] = field(default_factory=list)


@dataclass
class _Frame:
    """An operator whose body is being resolved: what the binding at hand made so far, what the
    bindings before it made, and the names that they took."""

    stages: list[_Made] = field(default_factory=list)
    made: _Made = field(default_factory=lambda: _Made(""))
    names: Names = field(default_factory=Names)


class Builder:
    """Values under construction, for the resolver and every pass that rewrites an operator."""

    def __init__(self) -> None:
        self.values: list[Value] = []
        self.parameters: dict[str, Parameter] = {}
        self.inner: list[Operator] = []
        self._frames: list[_Frame] = []
        self._labels: set[str] = set()

    def _frame(self) -> _Frame:
        """The operator whose body is being resolved."""
        if not self._frames:
            self._frames.append(_Frame())
        return self._frames[-1]

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
        if op == "transposed":
            inputs = inputs[0], source_of(self.values, inputs[1])
            arguments = {"n": inputs_of(self.values, inputs[1])}
        types = [self.values[i].type for i in inputs]
        type_ = entry.rule(types, arguments)
        owned = tuple([p.name for p in parameters]) if parameters else ()
        said = tuple(arguments.items())
        value = made_value(op, tuple(inputs), said, type_, name, owned, span)
        id = len(self.values)
        if parameters is not None:
            self.parameters.update({p.name: p for p in parameters})
        elif specs := entry.parameters(types, arguments):
            self._frame().stages.append(_Made(op, [(id, specs, "")]))
        self.values.append(value)
        return id

    def keep(self, value: Value, inputs: tuple[int, ...], parameters: Sequence[Parameter]) -> int:
        """Add a value of another operator over inputs of the types that it had there."""
        self.values.append(value if inputs == value.inputs else value.over(inputs))
        self.parameters.update((p.name, p) for p in parameters)
        return len(self.values) - 1

    def add_inner(self, operator: Operator) -> int:
        """The index of an operator that a value has copies of."""
        if operator not in self.inner:
            self.inner.append(operator)
        return self.inner.index(operator)

    @contextmanager
    def called(self, operator: str) -> Iterator[None]:
        """Resolve the body of an operator that stands as a stage: what it names is named after the
        binding that it is part of."""
        outer = self._frame()
        self._frames.append(_Frame())
        try:
            yield
        finally:
            made = self._frames.pop().made
        made.stage = operator
        outer.stages.append(made)

    def reserve(self, names: Iterable[str]) -> None:
        """Names that values of called operators may not be labelled with."""
        self._labels.update(names)

    def name_parameters(self, binding: str) -> None:
        """Name the parameters that a binding's expression created: after the binding when one stage
        of it has parameters, else after the binding and the stage (`C_dense`, `C_conv`). Those of a
        called operator have their names there behind it (`a_mha_C`, or just `C` for a binding
        without a name)."""
        frame = self._frame()
        several = sum(bool(made.parameters) for made in frame.stages) > 1
        for made in frame.stages:
            base = f"{binding}_{made.stage}" if several or not made.parameters else binding
            base = frame.names.take(base) if made.parameters and base else base
            for id, specs, inner in made.parameters:
                name = frame.names.take(f"{base}_{inner}".lstrip("_")) if inner else base
                frame.made.parameters.append((id, specs, name))
            frame.made.labels += [(id, f"{base}_{inner}".lstrip("_")) for id, inner in made.labels]
        frame.stages.clear()
        if len(self._frames) == 1:
            self._settle(frame.made)

    def _settle(self, made: _Made) -> None:
        """Give the values of the outermost operator their names."""
        for id, specs, name in made.parameters:
            named = [changed(p, name=name + p.name) for p in specs]
            self.parameters.update({p.name: p for p in named})
            owned = tuple([p.name for p in named])
            self.values[id] = changed(self.values[id], parameters=owned)
        for id, wanted in made.labels:
            if not self.values[id].name:
                name, number = wanted, 1
                while name in self._labels:
                    number += 1
                    name = f"{wanted}_{number}"
                self._labels.add(name)
                self.values[id] = changed(self.values[id], name=name)
        made.parameters.clear()
        made.labels.clear()

    def discard_unnamed(self) -> None:
        """Forget parameters of an expression that failed half-way."""
        self._frame().stages.clear()

    def label(self, id: int, name: str) -> None:
        """Remember that a value completes a binding; the first binding of a value keeps it."""
        if len(self._frames) > 1:
            if name != "y":  # the caller's binding names that
                self._frames[-1].made.labels.append((id, name))
        elif not self.values[id].name:
            self.values[id] = changed(self.values[id], name=name)


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
        kept = tuple([_renumbered(values[old], renumbered) for old in order])
    used = dict.fromkeys(name for value in kept for name in value.parameters)
    return (
        kept,
        tuple((name, renumbered[id]) for name, id in outputs),
        tuple(parameters[name] for name in used),
    )


def _renumbered(value: Value, numbers: Mapping[int, int]) -> Value:
    inputs = tuple([numbers[i] for i in value.inputs])
    return value if inputs == value.inputs else value.over(inputs)
