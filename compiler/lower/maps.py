"""Feature maps and learned activations: calls of functions and modules of the generated file.

Owns: their statements, as a table by operation. Refuses: projections and norms (modules.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from starc.compiler.ir import Value
from starc.compiler.lower import text
from starc.compiler.lower.modules import Lowering, module_name
from starc.compiler.lower.text import Text
from starc.compiler.plan import Line

if TYPE_CHECKING:
    from starc.compiler.lower.operator import OperatorLowering


def _quick_gelu(o: OperatorLowering, value: Value) -> Text:
    return text.call(o.functions.function("quick_gelu"), o.texts[value.inputs[0]])


def _shuffle(o: OperatorLowering, value: Value) -> Text:
    groups = text.method(
        o.tensor(value.inputs[0]), "unflatten", "-1", f"({value.attribute('g')}, -1)"
    )
    return text.method(Text(f"{groups.code}.mT"), "flatten", "-2")


def _taylor(o: OperatorLowering, value: Value) -> Text:
    name = o.functions.function("taylor", order=value.attribute("order"))
    return text.call(name, o.tensor(value.inputs[0]))


def _polynomial(o: OperatorLowering, value: Value) -> Text:
    name, sizes = module_name(o, value), str(value.attribute("k"))
    if value.op == "polynorm":
        sizes += f", eps={text.number(value.attribute('eps'))}"
    o.functions.function("module/polynomial", "Polynomial")
    o.init.append(Line(f"self.{name} = Polynomial({sizes})"))
    return text.call(f"self.{name}", o.tensor(value.inputs[0]))


def _hedgehog(o: OperatorLowering, value: Value) -> Text:
    name, type_ = module_name(o, value), o.type(value.inputs[0])
    o.functions.function("module/hedgehog", "Hedgehog")
    sizes = f'{type_.heads}, {type_.channels}, "{value.attribute("activation")}"'
    o.init.append(Line(f"self.{name} = Hedgehog({sizes})"))
    return o.own_layout(text.call(f"self.{name}", o.tokens(value.inputs[0])), value.type)


LOWERINGS: dict[str, Lowering] = {
    "quick_gelu": _quick_gelu,
    "shuffle": _shuffle,
    "taylor": _taylor,
    "polyrelu": _polynomial,
    "polynorm": _polynomial,
    "hedgehog": _hedgehog,
}
