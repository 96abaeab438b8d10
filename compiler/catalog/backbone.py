"""Operations of the formulas by which units meet the stream (residuals.py)."""

from __future__ import annotations

from starc.compiler.catalog.entry import Arguments, Entry, Inputs, Role, feature_of
from starc.compiler.types import Type


def _branch(inputs: Inputs, arguments: Arguments) -> Type:
    return feature_of(inputs[0], "f")


BACKBONE = (Entry("branch", Role.INTERNAL, "the unit of a residual formula", _branch),)
