"""Residual formulas to statements: the values of a formula, with the unit's call in their midst.

Owns: how a formula is spelt in the class that holds the unit. Refuses: the unit's call itself, and
the named schemes (backbone.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from starc.compiler.ir import Operator, Value
from starc.compiler.lower.functions import Functions
from starc.compiler.lower.operator import OperatorLowering
from starc.compiler.lower.text import Text
from starc.compiler.plan import Line
from starc.compiler.profile import profile_operator
from starc.compiler.residuals import NORMS


class FormulaLowering(OperatorLowering):
    """Lowers one formula into lines of a class under construction.

    `branch` gives an expression for the unit applied to an expression, and may add statements.
    """

    def __init__(
        self,
        formula: Operator,
        unit: str,
        functions: Functions,
        init: list[Line],
        lines: list[Line],
        branch: Callable[[str], str],
    ) -> None:
        profile = profile_operator(formula)
        super().__init__(_named(formula, unit), "", functions, 0, profile, profile.layout({}))
        self.init, self.lines, self._branch = init, lines, branch

    def run(self) -> None:
        """Adds the statements; the last one is x = ..."""
        for _, id in self.operator.inputs:
            self.texts[id] = Text("x")
        self._taken.add("x")
        self.new_tokens = "x"
        y = self.operator.outputs[0][1]
        for id, value in enumerate(self.values):
            if id not in self.texts:
                self.lower_value(id, value)
        self.lines.append(Line(f"x = {self.texts[y].code}"))

    def _wish(self, id: int) -> str:
        return self.fresh("normed" if self.values[id].op in NORMS else "update")

    def _text(self, id: int, value: Value) -> Text:
        if value.op == "branch":
            return Text(self._branch(self.texts[value.inputs[0]].code))
        return super()._text(id, value)


def _named(formula: Operator, unit: str) -> Operator:
    """The formula with parameters named after its unit: `norm.weight` is `gqa_norm.weight`."""
    return replace(
        formula,
        values=tuple(
            replace(v, parameters=tuple(f"{unit}_{p}" for p in v.parameters))
            for v in formula.values
        ),
        parameters=tuple(replace(p, name=f"{unit}_{p.name}") for p in formula.parameters),
    )
