"""The one Jinja environment, through which every line of generated code passes.

Owns: where templates lie and how they are read: undefined names are errors, tags leave no line.
Refuses: decisions. A template loops and substitutes what its plan says.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from functools import cache
from importlib.util import cache_from_source
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemBytecodeCache, FileSystemLoader, StrictUndefined
from jinja2.bccache import Bucket

_FOLDER = Path(__file__).parent
_SYNTAX: dict[str, Any] = {
    "trim_blocks": True,
    "lstrip_blocks": True,
    "keep_trailing_newline": True,
}


class _Compiled(FileSystemBytecodeCache):
    """Compiled templates, kept where Python keeps its compiled modules and under the same terms.

    Compiling them takes longer than all other stages of a first compilation together.
    """

    def get_source_checksum(self, source: str) -> str:
        return super().get_source_checksum(f"{_SYNTAX}\n{source}")

    def dump_bytecode(self, bucket: Bucket) -> None:
        if sys.dont_write_bytecode:
            return
        with suppress(OSError):  # an installation that may not be written to goes without
            Path(self.directory).mkdir(parents=True, exist_ok=True)
            super().dump_bytecode(bucket)


@cache
def environment() -> Environment:
    """The environment of all templates; built on first use, since most commands never render."""
    return Environment(
        loader=FileSystemLoader(_FOLDER),
        bytecode_cache=_Compiled(str(Path(cache_from_source(__file__)).parent)),
        undefined=StrictUndefined,
        autoescape=False,  # the output is Python, not HTML
        **_SYNTAX,
    )


def render(template: str, /, **context: object) -> str:
    """The text of `template`, a path below this folder such as `kernel/gated_product.py.j2`."""
    return environment().get_template(template).render(**context)
