"""What names of an operator stand for while it is resolved: numbers, values, or a fault.

Owns: results, and looking into what an operator gave (`a.V`). Refuses: evaluating expressions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from starc.compiler.faults import error
from starc.compiler.numbers import Numeric
from starc.grammar import nodes
from starc.grammar.errors import suggest


@dataclass(frozen=True)
class Ref:
    """A value of the operator under construction."""

    id: int


@dataclass(frozen=True)
class Poison:
    """The result of a binding that failed: whatever reads it stays silent."""


class Poisoned(Exception):
    """Raised on reading a failed binding, so that one fault gives one diagnostic."""


Result = Numeric | Ref


@dataclass(frozen=True)
class Opened:
    """An operator that stood as a stage, and the names inside of it."""

    node: nodes.Operator
    names: Mapping[str, Result | Poison]


def member(expr: nodes.Member, whole: Result | None, opened: Mapping[int, Opened]) -> Result:
    """`a.V`: a binding of the operator that made `a`; `whole` is `a`, None where nothing is."""
    if whole is None:
        raise error(
            "unknown-name",
            f"'{expr.unit}.{expr.name}' is a feature of another unit.",
            expr.span,
            "not visible in an operator",
            "declare a parameter 'f: feature' and pass the feature in the backbone.",
        )
    inside = opened.get(whole.id) if isinstance(whole, Ref) else None
    if inside is None:
        raise error(
            "wrong-type",
            f"'{expr.unit}' is not what an operator gave, so nothing in it has a name.",
            expr.span,
            hint=f"{expr.unit} = x |> my_op(...) makes {expr.unit}.V the V of 'my_op'.",
        )
    own = [b.name for b in inside.node.body]
    if expr.name not in own:
        raise error(
            "unknown-name",
            f"operator '{inside.node.name}' binds nothing named '{expr.name}'.",
            expr.span,
            "unknown",
            suggest(expr.name, own) or f"it binds {', '.join(own)}.",
        )
    result = inside.names[expr.name]
    if isinstance(result, Poison):
        raise Poisoned
    return result
