"""Long convolutions with what stands around them: gates on either side, and a skip term.

    output_gate * (K * u + D * u) with u = input_gate * value, each part optional

becomes one call, of a function that has a kernel on GPUs: D joins the first tap of K. Behind a
cache, u is what the cache keeps.

Owns: which values a convolution takes in, and its call. Refuses: kernels (templates), filters of a
few taps (lower/kernels.py), what a cache keeps (past.py).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from starc.compiler.catalog.filters import modes
from starc.compiler.ir import Value
from starc.compiler.kernel_long_convolution import LongConvolution
from starc.compiler.lower import text
from starc.compiler.lower.text import Text
from starc.compiler.plan import Line
from starc.compiler.types import Constant, Feature, Filter, Mixer, lanes_of
from starc.compiler.work import WHOLE

if TYPE_CHECKING:
    from starc.compiler.lower.operator import OperatorLowering

CONVOLUTIONS = ("long_convolution", "modal_convolution")


@dataclass(frozen=True)
class Fused:
    """Values by id: the convolution, the one that has the result, and what is taken in."""

    convolution: int
    root: int
    output_gate: int | None = None
    gate_and_value: tuple[int, int] | None = None
    skip: int | None = None
    inside: frozenset[int] = frozenset()
    """Values between these, which nothing else reads."""


def find(o: OperatorLowering) -> dict[int, Fused]:
    """What every convolution of an operator takes in, by the value that has its result."""
    found: dict[int, Fused] = {}
    for id, value in enumerate(o.values):
        if value.op in CONVOLUTIONS and (fused := _grow(o, id)):
            if value.inputs[1] not in found:  # else it is the result of the one before, gated
                fused = _with_input_gate(o, fused, value.inputs[1])
            found[fused.root] = fused
    return found


def _grow(o: OperatorLowering, id: int) -> Fused | None:
    kernel, v = o.values[id].inputs
    type_, filter_ = o.values[v].type, o.values[kernel].type
    assert isinstance(filter_, Filter)
    if not isinstance(type_, Feature) or type_ != o.values[id].type or id in o.past.long:
        return None
    if filter_.lanes not in (type_.heads, type_.heads * type_.channels):
        return None
    return _with_output_gate(o, _with_skip(o, Fused(id, id), v, filter_.lanes))


def _only_reader(o: OperatorLowering, id: int) -> int | None:
    """The value that alone reads another, where neither stands among those of past tokens."""
    if o.uses[id] != 1 or len(o.readers(id)) != 1:
        return None
    (reader,) = o.readers(id)
    return None if reader in o.past.long else reader


def _with_skip(o: OperatorLowering, fused: Fused, v: int, lanes: int) -> Fused:
    reader = _only_reader(o, fused.root)
    if reader is None or o.values[reader].op != "add" or lanes != o.width(v):
        return fused
    (other,) = (i for i in o.values[reader].inputs if i != fused.root)
    product = o.values[other]
    if product.op != "multiply" or v not in product.inputs or o.uses[other] != 1:
        return fused
    skips = [i for i in product.inputs if i != v and isinstance(o.values[i].type, Constant)]
    if len(skips) != 1 or o.width(skips[0]) != lanes or product.type != o.values[v].type:
        return fused
    inside = fused.inside | {fused.root, other}
    return replace(fused, root=reader, skip=skips[0], inside=inside)


def _with_output_gate(o: OperatorLowering, fused: Fused) -> Fused:
    reader = _only_reader(o, fused.root)
    if reader is None or not _is_product(o, reader):
        return fused
    (gate,) = (i for i in o.values[reader].inputs if i != fused.root)
    inside = fused.inside | {fused.root}
    return replace(fused, root=reader, output_gate=gate, inside=inside)


def _with_input_gate(o: OperatorLowering, fused: Fused, v: int) -> Fused:
    readers = 1 if fused.skip is None else 2
    if not _is_product(o, v) or o.uses[v] != readers or v in o.past.long:
        return fused
    a, b = o.values[v].inputs
    return replace(fused, gate_and_value=(a, b), inside=fused.inside | {v})


def _is_product(o: OperatorLowering, id: int) -> bool:
    """Whether a value is the product of two features of one shape."""
    value = o.values[id]
    types = [o.values[i].type for i in value.inputs]
    return value.op == "multiply" and types[0] == types[1] and isinstance(types[0], Feature)


def lower(o: OperatorLowering, fused: Fused) -> Text:
    """The result of a convolution with all that it takes in."""
    value = o.values[fused.convolution]
    kernel, v = value.inputs
    type_, modal = o.type(v), value.op == "modal_convolution"
    plan = LongConvolution(
        digest=o.functions.digest,
        channels=type_.heads * type_.channels,
        lanes=o.filter(kernel).lanes,
        output_gate=fused.output_gate is not None,
        input_gate=fused.gate_and_value is not None,
        function=o.functions.function("long_convolution"),
    )
    function = o.functions.kernel(plan)
    gate = None if fused.output_gate is None else o.texts[fused.output_gate]
    if not modal and fused.gate_and_value is None:
        seen = _seen(o, value)
        return _call(function, _taps(o, fused, known=True), seen, o.length, gate)
    result = o.new_local(o.values[fused.root].name or o.destiny(fused.root) or "convolved")
    rows = _taps(o, fused, known=False)
    if fused.gate_and_value is None:
        whole = _call(function, rows, o.texts[v], o.length, gate)
    else:
        first, second = (o.texts[i] for i in fused.gate_and_value)
        whole = _call(function, rows, second, o.length, gate, first)
        o.texts[v] = text.infix("*", first, second)
    before = len(o.lines)
    if not modal:
        seen = _seen(o, value)
        behind = _call(function, _taps(o, fused, known=True), seen, o.length, gate)
    else:
        behind = _modal_behind(o, fused, gate)
    lines, o.lines[before:] = [line.text for line in o.lines[before:]], []
    branches = [f"{result} = {whole.code}"], [*lines, f"{result} = {behind.code}"]
    shown = ["\n".join("    " + x for line in b for x in line.split("\n")) for b in branches]
    o.lines.append(Line(f"if cache is None:\n{shown[0]}\nelse:\n{shown[1]}"))
    return Text(result)


def _call(function: str, *arguments: Text | str | None) -> Text:
    """A call in which what is None stays away behind the last argument that is not."""
    last = max(i for i, x in enumerate(arguments) if x is not None)
    return text.call(function, *("None" if x is None else x for x in arguments[: last + 1]))


def _seen(o: OperatorLowering, value: Value) -> Text:
    """What a convolution runs over, with the tokens before that are kept."""
    kernel, v = value.inputs
    if o.filter(kernel).length is not None:
        return o.past.delayed(v)
    o.look_back(v, value.attribute("taps") or WHOLE)
    return o.past.history(v, o.span)


def _taps(o: OperatorLowering, fused: Fused, known: bool) -> Text:
    """The filter over all tokens at hand, or over those of a sequence without a cache."""
    value = o.values[fused.convolution]
    kernel, v = value.inputs
    limit = None if value.op == "modal_convolution" else value.attribute("taps")
    rows = taps(o, kernel, v, limit, known)
    if fused.skip is None:
        return rows
    return text.call(o.functions.function("with_skip"), rows, o.texts[fused.skip])


def taps(o: OperatorLowering, kernel: int, v: int, limit: int | None, known: bool = True) -> Text:
    """A filter as (taps, ...), its lanes laid over the trailing axes of V; of the tokens at hand,
    which a cache may have, or of the new ones."""
    filter_, type_ = o.filter(kernel), o.type(v)
    heads, channels = lanes_of(Mixer(filter_.lanes, flat=True), type_.heads, type_.channels)
    if filter_.length is None:
        length = o.columns if known else o.length
        shown = f"min({length}, {limit})" if limit else length
        if known:
            cached = f'cache and cache["{o.past.filter(kernel)}"]'
            rows = text.call(o.functions.function("taps_of"), o.texts[kernel], shown, cached)
        else:
            rows = text.call(o.texts[kernel].atom, shown)
    else:
        own = o.texts[kernel].code
        rows = text.method(
            Text(f"{own}[:, :{limit}]" if limit and limit < filter_.length else own), "t"
        )
    if type_.heads == 1:
        return rows
    if channels > 1:
        return text.method(rows, "unflatten", "-1", f"({heads}, {channels})")
    return text.method(rows, "unsqueeze", "-1")


def _modal_behind(o: OperatorLowering, fused: Fused, gate: Text | None) -> Text:
    """A sum of exponentials behind the state of a cache."""
    value = o.values[fused.convolution]
    _, v = value.inputs
    if fused.skip is not None and fused.gate_and_value is not None:
        o.texts[v] = o.assign(o.fresh(o.values[v].name or "u"), o.texts[v], o.type(v))
    result = modal(o, value)
    if fused.skip is not None:
        result = text.infix("+", result, text.infix("*", o.texts[fused.skip], o.texts[v]))
    return result if gate is None else text.infix("*", gate, result)


def modal(o: OperatorLowering, value: Value) -> Text:
    """modal_convolution: by transforms, or behind a state."""
    kernel, v = value.inputs
    for helper in ("long_convolution", "toeplitz_matrix"):
        o.functions.function(helper)
    name = o.functions.function("modal_convolution")
    own = o.texts[v] if isinstance(o.type(v), Feature) else o.own_layout(o.tokens(v), value.type)
    type_, attributes = o.type(v), dict(o.values[kernel].attributes)
    parts = 1 if attributes["init"] == "real" else 2
    state = o.past.state(type_.heads * type_.channels, modes(attributes), parts)
    return text.call(name, o.texts[kernel], own, state)
