"""Mixers without an algorithm of their own: the matrix is written out as it is defined.

A matrix has a row for each new token and a column for each token at hand, of which the new ones are
the last; before the first cached token these are the same. The right factor of a product needs the
rows of all tokens. A matrix carries the set of pairs that are visible; entries outside are zeroed
when they would count.

Owns: statements for constructors and the algebra of mixers. Refuses: stages on them (scores.py).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from starc.compiler.ir import Value
from starc.compiler.lower import fused, scores, text, transitions
from starc.compiler.lower.masks import is_written, visible_function
from starc.compiler.lower.text import Text
from starc.compiler.plan import Line
from starc.compiler.types import Feature, Mixer, lanes_of
from starc.compiler.visibility import Clause, Visible, visible

if TYPE_CHECKING:
    from starc.compiler.lower.operator import OperatorLowering


@dataclass(frozen=True)
class Matrix:
    """A text of shape (B or 1, heads * channels, rows, S).

    `clean` when invisible entries are zero, `bent` when no mask can show the others any more, since
    a function went over all of them. There are T rows, or S where `every` token has one. `flat`:
    heads are lanes of a filter. `sink` (B or 1, heads, rows or 1, 1) is a score for the softmax.
    """

    text: Text
    heads: int
    visible: Visible
    every: bool
    clean: bool = True
    bent: bool = False
    channels: int = 1
    flat: bool = False
    sink: Text | None = None

    def to(self, heads: int, channels: int) -> Matrix:
        """This matrix for a value of so many heads and channels; one head and channel broadcast."""
        have, each = self.heads, self.channels
        if self.flat:
            have, each = lanes_of(Mixer(have, flat=True), heads, channels)
        own = self.text
        if (have, each) == (1, 1):
            return replace(self, flat=False)
        if each == 1:
            own = repeat(own, have, heads, HEADS) if channels == 1 or have == 1 else own
            if channels > 1 and have > 1:
                own = text.method(repeat(own, have, heads, HEADS), *_times(channels))
            each, have = (channels, heads) if have > 1 else (1, 1)
        elif have != heads:
            own = text.method(own, "unflatten", HEADS, f"({have}, {each})")
            own = text.method(own, "repeat_interleave", str(heads // have), "dim=-4")
            own = text.method(own, "flatten", "-4, -3")
            have = heads
        return replace(self, text=own, heads=have, channels=each, flat=False)


HEADS = "-3"
"""The axis of heads in a matrix."""


def _times(channels: int) -> tuple[str, str, str]:
    return "repeat_interleave", str(channels), f"dim={HEADS}"


def apply(o: OperatorLowering, value: Value) -> Text:
    """T @ V with T written out."""
    mixer, v = value.inputs
    o.look_back(v, o.past.profile.spans[o.values.index(value)])
    type_ = value.type
    assert isinstance(type_, Feature)
    if (known := fused.attention(o, value)) is not None:
        return known
    m = clean(o, matrix(o, mixer, False))
    own = repeat(o.history(v), o.type(v).heads, type_.heads, "2")
    if not m.flat and m.channels == 1:
        weights = repeat(m.text, m.heads, type_.heads, HEADS)
        product = text.infix("@", weights, text.method(own, "transpose", "1, 2"))
        return o.own_layout(text.method(product, "transpose", "1, 2"), type_)
    own_lanes = (m.heads, m.channels)
    if m.flat:
        own_lanes = lanes_of(Mixer(m.heads, flat=True), type_.heads, type_.channels)
    m = m.to(type_.heads, type_.channels if own_lanes[1] > 1 else 1)
    if m.channels == 1:  # one matrix serves all channels of a head
        product = text.infix("@", m.text, text.method(own, "transpose", "1, 2"))
        return o.own_layout(text.method(product, "transpose", "1, 2"), type_)
    if o.type(v).channels != type_.channels:
        own = text.method(own, "expand", f"-1, -1, {type_.heads}, {type_.channels}")
    elif o.type(v).heads == 1 and type_.heads > 1:
        own = text.method(own, "expand", f"-1, -1, {type_.heads}, -1")
    lanes = text.method(text.method(own, "flatten", "2"), "transpose", "1, 2")
    product = text.infix("@", m.text, text.method(lanes, "unsqueeze", "3"))
    product = text.method(text.method(product, "squeeze", "3"), "transpose", "1, 2")
    split = text.method(product, "unflatten", "2", f"({type_.heads}, {type_.channels})")
    return o.own_layout(split, type_)


def expand(value: Text, have: int, want: int) -> Text:
    """A value (B, tokens, heads, channels) whose one head serves several."""
    return text.method(value, "expand", f"-1, -1, {want}, -1") if have == 1 < want else value


def repeat(value: Text, have: int, want: int, axis: str) -> Text:
    """Heads repeated up to a count; one head broadcasts."""
    if have in (1, want):
        return value
    return text.method(value, "repeat_interleave", str(want // have), f"dim={axis}")


def assign(o: OperatorLowering, value: Value, result: Text, heads: int, every: bool) -> Text:
    """A local that holds a matrix."""
    wanted = o.fresh("T" if value.op != "low_rank" else "scores")
    if value.name and not every and o.is_unused(value.name):
        wanted = value.name
    return o.assign(wanted, result, None, f"(B, {heads}, {_rows(every)}, S)")


def _rows(every: bool) -> str:
    return "S" if every else "T"


def seen(o: OperatorLowering, pairs: Visible, every: bool, heads: int) -> Text | None:
    """A boolean that broadcasts to (B, heads, rows, S), or None when everything is visible."""
    if pairs.everything:
        return None
    key = (pairs, every, heads if _computed(pairs) else 1, o.columns)
    if key not in o.masks:
        written = [c for c in pairs.clauses if is_written(c)]
        parts = [_written(o, written, every)] if written else []
        for clause in sorted(set(pairs.clauses) - set(written), key=repr):
            plain = frozenset(m for m in clause if is_written(frozenset({m})))
            terms = [_written(o, [plain], every)] if plain else []
            for op, sizes in sorted(clause - plain, key=repr):
                if op == "select":
                    terms.append(scores.chosen(o, sizes[0], every, heads))
                else:
                    terms.append(_linked(o, sizes[0], sizes[1], every, heads))
            parts.append(_joined("&", terms))
        result = _joined("|", parts)
        shape = f"(B, {heads}, {_rows(every)}, S)" if key[2] > 1 else f"({_rows(every)}, S)"
        o.masks[key] = o.assign(o.fresh("seen"), result, None, shape)
    return o.masks[key]


def _computed(pairs: Visible) -> bool:
    """Whether a mask differs by head, since a `select` takes part in it."""
    return any(
        op == "select" or (op == "linked" and any(map(_computed, sizes)))
        for clause in pairs.clauses
        for op, sizes in clause
    )


def _joined(operator: str, parts: list[Text]) -> Text:
    if len(parts) == 1:
        return parts[0]
    return Text(f" {operator} ".join(p.atom for p in parts), text.SUM)


def _written(o: OperatorLowering, clauses: list[Clause], every: bool) -> Text:
    function = visible_function(o.functions, clauses)
    rows = o.columns if every else o.rows
    return text.call(function, rows, o.columns, f"{o.reference}.device")


def _linked(o: OperatorLowering, left: Visible, right: Visible, every: bool, heads: int) -> Text:
    """Pairs that a product of two mixers sees: some token links them."""
    sides = [seen(o, left, every, heads), seen(o, right, True, heads)]
    rows = o.columns if every else o.rows
    shapes = (f"{rows}, {o.columns}", f"{o.columns}, {o.columns}")
    ones = [
        (
            text.method(side, "float")
            if side is not None
            else Text(f"torch.ones({shape}, device={o.reference}.device)")
        )
        for side, shape in zip(sides, shapes, strict=True)
    ]
    return Text(f"{text.infix('@', *ones).code} > 0", 0)


def clean(o: OperatorLowering, m: Matrix) -> Matrix:
    """The matrix with zeros where nothing is visible."""
    mask = seen(o, m.visible, m.every, m.heads * m.channels)
    if m.clean or mask is None:
        return replace(m, clean=True)
    return replace(m, text=text.method(m.text, "masked_fill", f"~{mask.atom}", "0"), clean=True)


def matrix(o: OperatorLowering, id: int, every: bool) -> Matrix:
    """The matrix of a mixer, with a row for each new token or for every token."""
    value = o.values[id]
    key = (id, every, o.columns)
    if key not in o.matrices:
        found = _build(o, id, value, every)
        if o.uses[id] > 1 and not found.text.code.isidentifier():
            lanes = found.heads * found.channels
            found = replace(found, text=assign(o, value, found.text, lanes, every))
        o.matrices[key] = found
    return o.matrices[key]


def row_values(o: OperatorLowering, id: int, every: bool, channels: int | None = None) -> Text:
    """A value that belongs to rows, of the new tokens or of all: (B, rows, heads, channels)."""
    return o.history(id, channels) if every else o.tokens(id, channels)


def _build(o: OperatorLowering, id: int, value: Value, every: bool) -> Matrix:
    pairs = visible(o.values, id)
    type_ = value.type
    assert isinstance(type_, Mixer)
    match value.op:
        case "low_rank":
            return _low_rank(o, value, type_, pairs, every)
        case "semi_separable" | "log_semi_separable" if value.attribute("read") == "after":
            return _semi_separable(o, value, type_, pairs, every)
        case op if op.endswith("semi_separable"):
            written = transitions.matrix(o, value, every)
            named = assign(o, value, written, type_.heads, every)
            return Matrix(named, type_.heads, pairs, every)
        case "toeplitz":
            return _toeplitz(o, value, pairs, every)
        case "static":
            return _static(o, value, pairs, every)
        case "diagonal":
            own = text.method(row_values(o, value.inputs[0], every), "flatten", "2")
            function = o.functions.function("diagonal_matrix")
            result = text.call(function, text.method(own, "transpose", "1, 2"), o.columns)
            f = o.type(value.inputs[0])
            return Matrix(result, f.heads, pairs, every, channels=f.channels)
        case "row_scale":
            return _row_scale(o, value, type_, every)
        case "mixer_add" | "mixer_subtract" | "mixer_multiply" | "compose":
            return _algebra(o, value, type_, pairs, every)
    return scores.stage(o, value, pairs, every)


def _toeplitz(o: OperatorLowering, value: Value, pairs: Visible, every: bool) -> Matrix:
    name = o.functions.function("toeplitz_matrix")
    kernel = o.filter(value.inputs[0])
    own = o.texts[value.inputs[0]]
    if kernel.length is None:
        own = text.method(text.call(own.code, o.columns), "t")
    result = text.call(name, own, o.columns if every else o.rows, o.columns)
    return Matrix(result, kernel.lanes, pairs, every, flat=True)


def _static(o: OperatorLowering, value: Value, pairs: Visible, every: bool) -> Matrix:
    """The rows of the new tokens, which are the last of all."""
    p = o.parameter(value)
    line = Line(f"self.{p.name} = nn.Parameter({text.initial(p.init, p.shape)})")
    if line not in o.init:
        o.init.append(line)
    first = "" if every else f"{text.infix('-', Text(o.columns, text.SUM), Text(o.rows)).code} "
    result = Text(f"self.{p.name}[:, {first}: {o.columns}, : {o.columns}]")
    return Matrix(result, p.shape[0], pairs, every, clean=False)


def _low_rank(
    o: OperatorLowering, value: Value, type_: Mixer, pairs: Visible, every: bool
) -> Matrix:
    c, b = value.inputs
    n = max(o.width(c), o.width(b))
    left = repeat(row_values(o, c, every, n), o.type(c).heads, type_.heads, "2")
    right = repeat(o.history(b, n), o.type(b).heads, type_.heads, "2")
    products = text.infix(
        "@", text.method(left, "transpose", "1, 2"), text.method(right, "permute", "0, 2, 3, 1")
    )
    return Matrix(assign(o, value, products, type_.heads, every), type_.heads, pairs, every)


def _semi_separable(
    o: OperatorLowering, value: Value, type_: Mixer, pairs: Visible, every: bool
) -> Matrix:
    c, a, b = value.inputs
    n = max(o.width(c), o.width(b), o.width(a))
    name = o.functions.function(
        "semi_separable_matrix", logarithmic=value.op == "log_semi_separable"
    )
    operands = (
        repeat(row_values(o, c, every, n), o.type(c).heads, type_.heads, "2"),
        repeat(o.history(a), o.type(a).heads, type_.heads, "2"),
        repeat(o.history(b, n), o.type(b).heads, type_.heads, "2"),
    )
    result = assign(o, value, text.call(name, *operands), type_.heads, every)
    return Matrix(result, type_.heads, pairs, every)


def _row_scale(o: OperatorLowering, value: Value, type_: Mixer, every: bool) -> Matrix:
    f, inner = value.inputs
    m, factor = matrix(o, inner, every), o.type(f)
    rows = row_values(o, f, every)
    if (factor.heads, factor.channels) != (1, 1) and (m.flat or factor.channels > 1):
        m = m.to(type_.heads, type_.channels)
        rows = repeat(rows, factor.heads, type_.heads, "2")
        if (factor.heads, factor.channels) != (type_.heads, type_.channels):
            rows = text.method(rows, "expand", f"-1, -1, {type_.heads}, {type_.channels}")
        rows = text.method(text.method(rows, "flatten", "2"), "unsqueeze", "3")
        m = replace(m, heads=type_.heads, channels=type_.channels)
    elif m.channels > 1:
        m = m.to(type_.heads, m.channels)
        if factor.heads > 1:
            rows = _each_channel(repeat(rows, factor.heads, type_.heads, "2"), m.channels)
    elif not m.flat:
        heads = max(m.heads, factor.heads)
        rows = repeat(rows, factor.heads, heads, "2")
        m = replace(m, text=repeat(m.text, m.heads, heads, HEADS), heads=heads)
    scaled = text.infix("*", text.method(rows, "transpose", "1, 2"), m.text)
    return replace(m, text=scaled)


def _each_channel(rows: Text, channels: int) -> Text:
    return text.method(rows, "repeat_interleave", str(channels), "dim=2")


def _algebra(
    o: OperatorLowering, value: Value, type_: Mixer, pairs: Visible, every: bool
) -> Matrix:
    first, second = value.inputs
    left = clean(o, matrix(o, first, every))
    right = clean(o, matrix(o, second, every or value.op == "compose"))
    flat = left.flat and right.flat
    if flat:
        heads = max(left.heads, right.heads)
        sides = [m.text for m in (left, right)]
    else:
        heads = type_.heads
        sides = [m.to(heads, type_.channels).text for m in (left, right)]
    signs = {"mixer_add": "+", "mixer_subtract": "-", "mixer_multiply": "*", "compose": "@"}
    operator = signs[value.op]
    result = text.infix(operator, *sides)
    return Matrix(result, heads, pairs, every, channels=type_.channels, flat=flat)
