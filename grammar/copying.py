"""Quick copies of frozen dataclasses, of which compiling makes thousands.

Owns: `changed`. Refuses: classes with `__slots__` or `__post_init__`, and checking the names.
"""

from __future__ import annotations

from typing import Any, TypeVar

_T = TypeVar("_T")


def changed(thing: _T, **values: Any) -> _T:
    """The same with other values of some fields: `dataclasses.replace` at a tenth of its time.

    What the thing remembers of itself is copied, too, and must not follow from those fields.
    """
    made: _T = object.__new__(type(thing))
    made.__dict__.update(thing.__dict__, **values)
    return made
