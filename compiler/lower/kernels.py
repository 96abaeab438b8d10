"""Operations with a Triton kernel behind them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starc.compiler import catalog
from starc.compiler.ir import Value
from starc.compiler.lower import text
from starc.compiler.lower.text import Text

if TYPE_CHECKING:
    from starc.compiler.lower.operator import OperatorLowering


def gated_product(o: OperatorLowering, value: Value) -> Text:
    """activation(gate) * value."""
    gate, factor = (o.texts[i] for i in value.inputs)
    activation = value.attribute("activation")
    tanh = activation == "gelu_tanh"
    pattern = catalog.ENTRIES["gelu" if tanh else activation].torch
    bent = text.template(pattern, [gate], {"approximate": "tanh" if tanh else "none"})
    return text.infix("*", bent, factor)
