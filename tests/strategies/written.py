"""What a drawn operator is: its text, its parameters and what it binds."""

from __future__ import annotations

from dataclasses import dataclass, field

from starc.compiler.types import Feature, Type
from tests.strategies.text import Draws

BINDINGS = (
    "C B V T K A u z q a_long_name D F torch self forward weight lambda class None training print "
    "_hidden __x x1 scale_ norm True h T_ float state bias modules parameters type def c d"
).split()
"""Names that programs may bind; several mean something to Python or to torch."""


@dataclass(frozen=True)
class Formal:
    """A parameter of an operator with the texts that calls may give for it."""

    name: str
    kind: str | None
    values: tuple[str, ...]
    default: str | None
    feature: Feature | None = None

    def text(self) -> str:
        kind = f" : {self.kind}" if self.kind else ""
        return f"{self.name}{kind}" + (f" = {self.default}" if self.default else "")


@dataclass
class Written:
    """An operator: its text, its parameters and the features that it binds."""

    name: str
    formals: list[Formal] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    bound: dict[str, Type] = field(default_factory=dict)
    doc: str = ""

    def text(self) -> str:
        formals = " , ".join(f.text() for f in self.formals)
        return f"operator {self.name} ( {formals} ) {{ {self.doc} {' '.join(self.lines)} }}"

    def call(self, draws: Draws) -> str:
        """The operator as a stage: `name(arguments)`, some of them left to their defaults."""
        formals = [f for f in self.formals if f.default is None or draws.chance(2)]
        given = [f"{f.name} = {draws.pick(*f.values)}" for f in formals]
        return f"{self.name}({' , '.join(given)})"

    def weighted(self) -> list[str]:
        """Bindings whose own expression has weights."""
        owners = ("dense(", "plicit(", "headwise(", "conv(", "gain")
        lines = (line.partition(" = ") for line in self.lines)
        return [name for name, _, text in lines if any(owner in text for owner in owners)]

    def features(self) -> dict[str, Feature]:
        return {n: t for n, t in self.bound.items() if isinstance(t, Feature) and n != "y"}
