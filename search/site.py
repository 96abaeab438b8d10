"""What a mutation sees of a program, and what it may do.

Owns: the situation of an operation. Refuses: operations themselves.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TypeVar

from starc.grammar import nodes
from starc.search.pool import Pool
from starc.search.repair import Draft
from starc.search.trees import Body, Path, Workshop, places
from starc.search.verifying import Checked, Verifier

_T = TypeVar("_T")


@dataclass(frozen=True)
class Bounds:
    """How far programs may grow: `units` with repeats unrolled, `branches` of a parallel, and
    the longest `run` of layers that is moved at once."""

    units: int = 64
    branches: int = 4
    run: int = 4


@dataclass(frozen=True)
class Site:
    """A program to change. With `constrained` an operation draws only from what is valid here."""

    checked: Checked
    pool: Pool
    bounds: Bounds
    rng: random.Random
    verifier: Verifier
    constrained: bool = True

    @property
    def model(self) -> nodes.Model:
        return self.checked.model

    @property
    def backbone(self) -> Body:
        return self.checked.model.backbone

    def shop(self) -> Workshop:
        """The program's declarations, to be added to."""
        return Workshop.of(self.checked.program, self.checked.operators, self.verifier.limits)

    def draft(
        self,
        body: Body,
        shop: Workshop | None = None,
        labelled: Mapping[str, nodes.Layer] | None = None,
    ) -> Draft:
        """The program with another backbone."""
        model = replace(self.model, backbone=body)
        return Draft(shop or self.shop(), model, labelled or {})

    def pick(self, items: Sequence[_T]) -> _T | None:
        """One of the items; None when there are none."""
        return items[self.rng.randrange(len(items))] if items else None

    @cached_property
    def places(self) -> list[tuple[Path, nodes.Layer]]:
        """All layers with their paths, in the order of the text."""
        return list(places(self.backbone))

    @cached_property
    def units(self) -> list[tuple[Path, nodes.Unit]]:
        """Units whose operator is called, with their paths."""
        return [(path, u) for path, u in self.places if isinstance(u, nodes.Unit)]

    def chance(self, one_in: int = 2) -> bool:
        return not self.rng.randrange(one_in)


@dataclass(frozen=True)
class Operation:
    """A kind of mutation; `draw` gives None where it has nothing to change."""

    name: str
    level: str
    draw: Callable[[Site], Draft | None] = field(repr=False)
    weight: int = 1
