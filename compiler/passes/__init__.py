"""Passes: valid IR in, valid IR out. The order is read here.

Each pass is a pure function Model -> Model; `verify` runs after every one.
"""

from __future__ import annotations

from collections.abc import Callable

from starc.compiler.ir import Model
from starc.compiler.passes.canonicalize import canonicalize
from starc.compiler.passes.common import common_subexpressions, drop_unused
from starc.compiler.passes.fuse import fuse_projections
from starc.compiler.passes.infer import infer
from starc.compiler.passes.select import select
from starc.compiler.passes.share import share

PIPELINE: tuple[tuple[str, Callable[[Model], Model]], ...] = (
    ("share", share),  # ties refer to parameters by name: settle them while names are the program's
    (
        "canonicalize",
        canonicalize,
    ),  # the algebra of mixers becomes sums of chains over one structure
    ("infer", infer),  # which transitions have logarithms: needs chains, feeds select
    ("common_subexpressions", common_subexpressions),  # after rewriting, which makes equal values
    ("drop_unused", drop_unused),  # transitions replaced by their logarithms are unread now
    ("fuse_projections", fuse_projections),  # after drop_unused, so that no dead rows are stacked
    ("select", select),  # last: algorithms hide the structure that the others read
)
