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
        parameters = [self._owned[name] for name in value.parameters]
        before, now = self.operator.values, self.builder.values
        for new, old in zip(inputs, value.inputs, strict=True):
            type_ = now[new].type
            if type_ is not before[old].type and type_ != before[old].type:
                break
        else:
            return self.builder.keep(value, inputs, parameters)
        return self.builder.emit(
            value.op, inputs, value.attributes, value.span, value.name, parameters
        )

    def run(self, rule: Rule) -> Operator:
        """Visit values in order; `rule(rewriter, value, new inputs)` gives the new id, None copies.

        An operator that nothing changes is returned as the same object.
        """
        new: list[int] = []
        kept = self.builder.values
        unchanged = True  # the new values so far are the old ones
        for value in self.operator.values:
            inputs = value.inputs if unchanged else tuple([new[i] for i in value.inputs])
            id = rule(self, value, inputs)
            if id is None and unchanged and len(kept) == len(new):
                kept.append(value)
                new.append(len(new))
                continue
            unchanged = False
            if id is None:
                id = self.copy(value, inputs)
            elif value.name:
                self.builder.label(id, value.name)
            new.append(id)
        before = self.operator
        if unchanged and _whole(before):
            return before
        outputs = tuple((name, new[id]) for name, id in before.outputs)
        known = {**self._owned, **self.builder.parameters}
        values, outputs, parameters = prune(kept, outputs, known)
        if values == before.values and (outputs, parameters) == (before.outputs, before.parameters):
            return before
        return replace(before, values=values, outputs=outputs, parameters=parameters)


def _whole(operator: Operator) -> bool:
    """Whether the outputs need every value and parameter, which stand in the order of their use."""
    needed = {id for _, id in operator.outputs}.union(*(v.inputs for v in operator.values))
    used = dict.fromkeys(name for value in operator.values for name in value.parameters)
    return len(needed) == len(operator.values) and [*used] == [p.name for p in operator.parameters]


def _parameters(operator: Operator) -> dict[str, Any]:
    return {p.name: p for p in operator.parameters}


def rewrite(
    model: Model, rule: Rule, concerns: Callable[[Operator], bool] = lambda operator: True
) -> Model:
    """The model with every operator rebuilt by a rule, but those that it does not concern."""
    return on_operators(model, lambda operator: rebuilt(operator, rule, concerns))


def on_operators(model: Model, change: Callable[[Operator], Operator]) -> Model:
    """The model with every operator changed; the same object when none is."""
    operators = tuple([change(operator) for operator in model.operators])
    same = all(a is b for a, b in zip(operators, model.operators, strict=True))
    return model if same else replace(model, operators=operators)


def rebuilt(
    operator: Operator, rule: Rule, concerns: Callable[[Operator], bool] = lambda operator: True
) -> Operator:
    """The operator and its experts rebuilt by a rule; the same object when nothing changes."""
    made = Rewriter(operator).run(rule) if concerns(operator) else operator
    if not operator.inner:
        return made
    inner = tuple([rebuilt(expert, rule, concerns) for expert in operator.inner])
    changed = any(a is not b for a, b in zip(inner, operator.inner, strict=True))
    return replace(made, inner=inner) if changed else made
