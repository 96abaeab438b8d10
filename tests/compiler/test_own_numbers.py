"""A model's own numbers: read in the backbone, also inside experts(...), and nowhere else."""

from __future__ import annotations

from starc.compiler.driver import compile_program
from starc.compiler.options import Options
from starc.grammar.source import Source

PROGRAM = """\
use std.channel.swiglu
model m {
    vocab = 16  width = 8  context = 8
    layers = 1  n = 2  hidden = 16  scale = 1/3
    residual = x + scale * f(x)
    backbone { repeat layers { experts(swiglu(hidden = hidden), n = n, top = n) } }
}
"""


def digest(*overrides: tuple[str, str]) -> str:
    options = Options(overrides=overrides, format=False)
    return compile_program(Source("program.star", PROGRAM), options).digest


def test_they_are_what_they_stand_for() -> None:
    written_out = PROGRAM.replace("layers = 1  n = 2  hidden = 16  scale = 1/3", "")
    for name, value in {"layers": "1", "hidden": "16", "scale": "1/3"}.items():
        written_out = written_out.replace(f"= {name}", f"= {value}").replace(
            f"repeat {name}", f"repeat {value}"
        )
    written_out = written_out.replace("scale *", "1/3 *").replace("= n", "= 2")
    options = Options(format=False)
    assert digest() == compile_program(Source("program.star", written_out), options).digest


def test_they_can_be_set() -> None:
    assert len({digest(), digest(("n", "3")), digest(("layers", "2")), digest(("scale", "1"))}) == 4
    assert digest(("n", "2")) == digest()
