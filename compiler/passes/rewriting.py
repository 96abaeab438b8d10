"""Rewriting an operator value by value.

Owns: the walk and the renumbering. Refuses: any particular rewrite.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from starc.compiler.builder import Builder, prune
from starc.compiler.ir import Model, Operator, Value
from starc.compiler.types import Type

Rule = Callable[["Rewriter", Value, tuple[int, ...]], int | None]


class Rewriter:
    """An operator being rebuilt: `emit` adds values to the new one."""

    def __init__(self, operator: Operator) -> None:
        self.operator = operator
        self._owned = _parameters(operator)
        self.builder = Builder()
        self.seen: dict[object, int] = {}

    def type(self, id: int) -> Type:
        return self.builder.type(id)

    def value(self, id: int) -> Value:
        """A value of the new operator."""
        return self.builder.values[id]

    def emit(self, op: str, inputs: tuple[int, ...], like: Value, **attributes: Any) -> int:
        """A new value that stands for (part of) `like`."""
        return self.builder.emit(op, inputs, attributes, like.span)

    def copy(self, value: Value, inputs: tuple[int, ...]) -> int:
        """The same value over new inputs."""
        parameters = tuple(self._owned[name] for name in value.parameters)
        before = self.operator.values
        if all(self.type(n) == before[o].type for n, o in zip(inputs, value.inputs, strict=True)):
            return self.builder.keep(value, inputs, parameters)
        return self.builder.emit(
            value.op, inputs, value.attributes, value.span, value.name, parameters
        )

    def run(self, rule: Rule) -> Operator:
        """Visit values in order; `rule(rewriter, value, new inputs)` gives the new id, None copies.

        An operator that nothing changes is returned as the same object.
        """
        new: list[int] = []
        for value in self.operator.values:
            inputs = tuple(new[i] for i in value.inputs)
            id = rule(self, value, inputs)
            if id is None:
                id = self.copy(value, inputs)
            elif value.name:
                self.builder.label(id, value.name)
            new.append(id)
        before = self.operator
        outputs = tuple((name, new[id]) for name, id in before.outputs)
        values, outputs, parameters = prune(
            self.builder.values, outputs, {**self._owned, **self.builder.parameters}
        )
        if values == before.values and (outputs, parameters) == (before.outputs, before.parameters):
            return before
        return replace(before, values=values, outputs=outputs, parameters=parameters)


def _parameters(operator: Operator) -> dict[str, Any]:
    return {p.name: p for p in operator.parameters}


def rewrite(model: Model, rule: Rule) -> Model:
    """The model with every operator rebuilt by a rule."""
    operators = tuple(_rebuilt(operator, rule) for operator in model.operators)
    return replace(model, operators=operators)


def _rebuilt(operator: Operator, rule: Rule) -> Operator:
    """The operator and its experts rebuilt by a rule; the same object when nothing changes."""
    inner = tuple(_rebuilt(expert, rule) for expert in operator.inner)
    rebuilt = Rewriter(operator).run(rule)
    changed = any(a is not b for a, b in zip(inner, operator.inner, strict=True))
    return replace(rebuilt, inner=inner) if changed else rebuilt
