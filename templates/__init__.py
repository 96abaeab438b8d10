"""The one Jinja environment, through which every line of generated code passes.

Owns: where templates lie and how they are read: undefined names are errors, tags leave no line.
Refuses: decisions. A template loops and substitutes what its plan says.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined


@cache
def environment() -> Environment:
    """The environment of all templates; built on first use, since most commands never render."""
    return Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # the output is Python, not HTML
    )


def render(template: str, /, **context: object) -> str:
    """The text of `template`, a path below this folder such as `kernel/gated_product.py.j2`."""
    return environment().get_template(template).render(**context)
