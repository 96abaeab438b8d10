"""Small programs for tests of the compiler: an operator body around which a model is written."""

from __future__ import annotations

from starc.compiler.driver import resolve_source
from starc.compiler.ir import Model
from starc.compiler.options import Options
from starc.compiler.passes import PIPELINE
from starc.compiler.printer import print_model
from starc.compiler.verify import verify
from starc.grammar.source import Source

MODEL = """
model m {
    vocab = 11  width = 8  context = 16  residual = none
    backbone { f() }
}
"""


def with_body(body: str, model: str = MODEL, parameters: str = "") -> Source:
    """A program whose operator f has the given bindings."""
    return Source("test.star", f"operator f({parameters}) {{\n{body}\n}}\n{model}")


def run_until(source: Source, last: str) -> Model:
    """The model after the pass named `last` ("resolve" for none)."""
    model, _ = resolve_source(source, Options())
    verify(model, "resolve")
    if last == "resolve":
        return model
    for name, run in PIPELINE:
        model = run(model)
        verify(model, name)
        if name == last:
            return model
    raise ValueError(last)


def values(model: Model, operator: str = "f") -> list[str]:
    """The value lines of an operator, as the IR printer writes them, without types and names."""
    text = print_model(model)
    block = text.split(f"operator {operator}(", 1)[1].split("\n\n", 1)[0]
    lines = [line.strip() for line in block.splitlines()[1:]]
    return [line.split(" : ")[0] for line in lines if line.startswith(("%", "return"))]
