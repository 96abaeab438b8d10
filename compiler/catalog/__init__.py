"""The catalog: every operation of the language, one table entry each.

Owns: looking an operation up by its key in the IR or by its spelling in a program. Refuses: meaning
beyond an entry's.
"""

from __future__ import annotations

from collections.abc import Sequence

from starc.compiler.catalog.algorithms import ALGORITHMS
from starc.compiler.catalog.backbone import BACKBONE
from starc.compiler.catalog.entry import Entry, Role
from starc.compiler.catalog.filters import FILTERS
from starc.compiler.catalog.maps import MAPS
from starc.compiler.catalog.mixers import MIXERS
from starc.compiler.catalog.pointwise import POINTWISE
from starc.compiler.catalog.position import POSITION
from starc.compiler.catalog.routing import ROUTING
from starc.compiler.catalog.scores import SCORES
from starc.compiler.catalog.stages import STAGES
from starc.compiler.catalog.transitions import TRANSITIONS
from starc.compiler.catalog.transposed import TRANSPOSED
from starc.compiler.types import Mixer, Type

ENTRIES: dict[str, Entry] = {
    entry.op: entry
    for entry in (
        *POINTWISE,
        *MAPS,
        *POSITION,
        *STAGES,
        *FILTERS,
        *ROUTING,
        *MIXERS,
        *TRANSITIONS,
        *SCORES,
        *ALGORITHMS,
        *TRANSPOSED,
        *BACKBONE,
    )
}

_WRITTEN = [entry for entry in ENTRIES.values() if entry.role is not Role.INTERNAL]
_FEATURE_STAGES = {e.name: e for e in _WRITTEN if e.role is Role.STAGE}
_MIXER_STAGES = {e.name: e for e in _WRITTEN if e.role is Role.MIXER_STAGE}
_CONSTRUCTORS = {e.name: e for e in _WRITTEN if e.role in (Role.FUNCTION, Role.SOURCE)}

NAMES = frozenset(e.name for e in _WRITTEN)
"""Spellings of all operations."""


def find_stage(name: str, operand: Type) -> Entry | None:
    """The stage of that spelling for an operand of that type; `softmax` differs for mixers."""
    tables = (_MIXER_STAGES, _FEATURE_STAGES)
    first, second = tables if isinstance(operand, Mixer) else tables[::-1]
    return first.get(name) or second.get(name)


def find_function(name: str) -> Entry | None:
    """The function, filter, constant or mixer constructor of that spelling."""
    return _CONSTRUCTORS.get(name)


def is_stage(name: str) -> bool:
    return name in _FEATURE_STAGES or name in _MIXER_STAGES


def is_pointwise(name: str) -> bool:
    """Whether a stage of that spelling acts on every number on its own."""
    entry = _FEATURE_STAGES.get(name)
    return entry is not None and entry.pointwise


def names(roles: Sequence[Role]) -> list[str]:
    """Spellings of all operations with one of the roles, for suggestions and documentation."""
    return sorted({e.name for e in _WRITTEN if e.role in roles})
