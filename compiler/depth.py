"""What looks at the stream along depth: averages over blocks, and read-outs of several depths.

    weighted(scheme, block = 1, dilation = 1, period = 1)    DenseFormer, arXiv 2402.02622
    readout = last | weighted(every = 1) | attend(heads = 1, every = 1, norm = rmsnorm)

Both count the layers that the stream passes: units, parallels and loops, each once.

Owns: these settings, and the marks that they leave on layers. Refuses: what a single layer does to
the stream (residuals.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING

from starc.compiler.arguments import one_of
from starc.compiler.catalog.entry import Argument, Entry, Role, choice, size
from starc.compiler.expressions import Expressions
from starc.compiler.faults import error, hole_error
from starc.compiler.ir import Average, Layer, Readout, Repeat
from starc.compiler.residuals import NORMS, default_norm
from starc.compiler.types import Constant
from starc.grammar import nodes
from starc.grammar.errors import suggest
from starc.grammar.source import Span

if TYPE_CHECKING:
    from starc.compiler.settings import Settings


def _options(word: str, *arguments: Argument) -> Entry:
    return Entry(word, Role.SOURCE, "", lambda i, a: Constant(1, 1), (), arguments)


READOUTS = {
    "last": _options("last"),
    "weighted": _options("weighted", size("every", 1)),
    "attend": _options("attend", size("heads", 1), size("every", 1), choice("norm", *NORMS)),
}
_AVERAGE = Entry(
    "weighted",
    Role.FUNCTION,
    "",
    lambda i, a: Constant(1, 1),
    ("scheme",),
    (size("block", 1), size("dilation", 1), size("period", 1)),
)


def is_weighted(expr: nodes.Expr) -> bool:
    """Whether a model's residual averages over depth, around another scheme."""
    name = expr.function if isinstance(expr, nodes.Call) else getattr(expr, "name", None)
    return name == "weighted" and isinstance(expr, nodes.Call | nodes.Name)


def resolve_average(
    expr: nodes.Expr, expressions: Expressions
) -> tuple[nodes.Expr, tuple[int, Average]]:
    """The scheme inside of weighted(...), and (layers of a block, average)."""
    arguments = list(expr.arguments) if isinstance(expr, nodes.Call) else []
    inner: nodes.Expr = nodes.Name("pre", span=expr.span)
    if arguments and arguments[0].name in (None, "scheme"):
        inner = arguments.pop(0).value
    found = expressions.bind(_AVERAGE, tuple(arguments), expr.span)
    return inner, (found["block"], Average(0, found["dilation"], found["period"]))


def resolve_readout(expr: nodes.Expr, expressions: Expressions) -> tuple[int, Readout]:
    """(layers between the depths that are read, read-out), its number of depths still open."""
    if isinstance(expr, nodes.Hole):
        raise hole_error(expr)
    word = expr.function if isinstance(expr, nodes.Call) else getattr(expr, "name", None)
    if not isinstance(expr, nodes.Call | nodes.Name) or word not in READOUTS:
        near = suggest(word, READOUTS) if word else ""
        message = f"'readout' must be {one_of(READOUTS)}."
        raise error("wrong-argument", message, expr.span, hint=near)
    arguments = expr.arguments if isinstance(expr, nodes.Call) else ()
    found = expressions.bind(READOUTS[word], arguments, expr.span)
    if word == "last":
        return 0, Readout()
    norm = default_norm(found["norm"]) if word == "attend" else None
    heads = found.get("heads", 1)
    width = Fraction(expressions.number(nodes.Name("width", span=expr.span), "the width"))
    if width % heads:
        raise error(
            "width-not-divisible",
            f"'heads = {heads}' does not divide the {width} channels of the stream.",
            expr.span,
        )
    return found["every"], Readout(word, 0, heads, norm)


def along_depth(
    layers: tuple[Layer, ...], settings: Settings
) -> tuple[tuple[Layer, ...], Average | None, Readout]:
    """The layers with the marks that averages and the read-out leave on them, and what these are
    now that the layers are known."""
    average = None
    if settings.average:
        place = settings.places["residual"]
        every, average = settings.average
        if settings.residual.hyper:
            raise error(
                "wrong-argument", "'weighted' averages one stream, 'hyper' has several.", place
            )
        blocks = _blocks(every, layers, "'weighted'", place)
        layers = _Marker(every, "average").layers(layers)
        average = replace(average, blocks=blocks)
    every, readout = settings.readout
    if every:
        place = settings.places["readout"]
        if settings.residual.hyper:
            message = "this read-out sees one stream at each depth, 'hyper' has several."
            raise error("wrong-argument", message, place)
        depths = 1 + _blocks(every, layers, "the read-out", place)
        layers = _Marker(every, "depth").layers(layers)
        readout = replace(readout, depths=depths)
    return layers, average, readout


def _blocks(every: int, layers: tuple[Layer, ...], what: str, span: Span) -> int:
    """How many blocks of `every` layers there are; refuses a rest, which nothing would read."""
    total = sum(1 for _ in _passed(layers))
    if total % every:
        raise error(
            "bad-number",
            f"{what} takes {every} layers at a time, but the stream passes {total}.",
            span,
            hint="units, parallels and loops on the stream count as one layer each.",
        )
    return total // every


def _passed(layers: tuple[Layer, ...]) -> Iterator[Layer]:
    """The layers that the stream passes, repeats unrolled."""
    for layer in layers:
        if isinstance(layer, Repeat):
            for body in layer.bodies:
                yield from _passed(body)
        else:
            yield layer


class _Marker:
    """Marks every `every`-th layer that the stream passes."""

    def __init__(self, every: int, word: str) -> None:
        self.every, self.word, self.passed = every, word, 0

    def layers(self, layers: tuple[Layer, ...]) -> tuple[Layer, ...]:
        return tuple(map(self._layer, layers))

    def _layer(self, layer: Layer) -> Layer:
        if isinstance(layer, Repeat):
            return replace(layer, bodies=tuple(map(self.layers, layer.bodies)))
        self.passed += 1
        if self.passed % self.every:
            return layer
        return replace(layer, marks=(*layer.marks, self.word))
