"""Mixers without an algorithm of their own: the matrix is written out as it is defined.

A matrix has a row for each new token and a column for each token at hand, of which the new ones are
the last; before the first cached token these are the same. The right factor of a product needs the
rows of all tokens. A matrix carries the set of pairs that are visible; entries outside are zeroed
when they would count.

Owns: statements for the stages and algebra of mixers. Refuses: matrices per channel, which `select`
never leaves and a mask over a product of such mixers would need.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from starc.compiler.ir import Value
from starc.compiler.lower import text, transitions
from starc.compiler.lower.text import Text
from starc.compiler.types import Feature, Mixer
from starc.grammar.errors import Diagnostic, StarError

if TYPE_CHECKING:
    from starc.compiler.lower.operator import OperatorLowering


@dataclass(frozen=True)
class Visible:
    """A union of masks, each (causal, band); band 0 is unbounded. None stands for all pairs."""

    masks: frozenset[tuple[bool, int]] | None = None

    def within(self, causal: bool, band: int) -> Visible:
        old = self.masks if self.masks is not None else frozenset({(False, 0)})
        narrowed = {(c or causal, min(b or band, band or b)) for c, b in old}
        return Visible(frozenset(narrowed))

    def union(self, other: Visible) -> Visible:
        if self.masks is None or other.masks is None:
            return Visible()
        return Visible(self.masks | other.masks)


@dataclass(frozen=True)
class Matrix:
    """A text of shape (B or 1, heads, rows, S); `clean` when invisible entries are zero.

    There are T rows, or S where `every` token has one.
    """

    text: Text
    heads: int
    visible: Visible
    clean: bool
    every: bool


def apply(o: OperatorLowering, value: Value) -> Text:
    """T @ V with T written out."""
    mixer, v = value.inputs
    o.look_back(v, o.past.profile.spans[o.values.index(value)])
    matrix = _clean(o, _matrix(o, mixer, False))
    assert isinstance(value.type, Feature)
    own = _heads(o.history(v), o.type(v).heads, value.type.heads)
    weights = _repeat(matrix.text, matrix.heads, value.type.heads, "1")
    product = text.infix("@", weights, text.method(own, "transpose", "1, 2"))
    return o.own_layout(text.method(product, "transpose", "1, 2"), value.type)


def _heads(value: Text, have: int, want: int) -> Text:
    return _repeat(value, have, want, "2")


def _repeat(value: Text, have: int, want: int, axis: str) -> Text:
    if have in (1, want):
        return value
    return text.method(value, "repeat_interleave", str(want // have), f"dim={axis}")


def _assign(o: OperatorLowering, value: Value, result: Text, heads: int, every: bool) -> Text:
    wanted = o.fresh("T" if value.op != "low_rank" else "scores")
    if value.name and not every:
        wanted = value.name
    return o.assign(wanted, result, None, f"(B, {heads}, {_rows(every)}, S)")


def _rows(every: bool) -> str:
    return "S" if every else "T"


def _mask(o: OperatorLowering, visible: Visible, every: bool) -> Text | None:
    """A local that holds a (T, S) boolean, or None when everything is visible."""
    if visible.masks is None or (False, 0) in visible.masks:
        return None
    if (visible, every) not in o.masks:
        function = o.functions.function("visible")
        rows = o.columns if every else o.rows
        parts = []
        for causal, band in sorted(visible.masks):
            last = f", band={band}" if band else ""
            place = f"{rows}, {o.columns}, {o.reference}.device"
            parts.append(f"{function}({place}, causal={causal}{last})")
        o.masks[visible, every] = o.assign(
            o.fresh("seen"), Text(" | ".join(parts)), None, f"({_rows(every)}, S)"
        )
    return o.masks[visible, every]


def _clean(o: OperatorLowering, m: Matrix) -> Matrix:
    mask = _mask(o, m.visible, m.every)
    if m.clean or mask is None:
        return replace(m, clean=True)
    return replace(m, text=text.method(m.text, "masked_fill", f"~{mask.atom}", "0"), clean=True)


def _matrix(o: OperatorLowering, id: int, every: bool) -> Matrix:
    value = o.values[id]
    type_ = value.type
    assert isinstance(type_, Mixer)
    if type_.channels > 1:
        raise StarError(
            Diagnostic(
                "not-yet-supported",
                "a mask over a product of mixers per channel cannot be built yet.",
                value.span,
                hint="mask the factors instead: (T1 |> band(w)) @ T2.",
            )
        )
    if (id, every) not in o.matrices:
        found = _build(o, value, type_, every)
        if o.uses[id] > 1 and not found.text.code.isidentifier():
            found = replace(found, text=_assign(o, value, found.text, found.heads, every))
        o.matrices[id, every] = found
    return o.matrices[id, every]


def _build(o: OperatorLowering, value: Value, type_: Mixer, every: bool) -> Matrix:
    inputs = value.inputs
    match value.op:
        case "low_rank":
            return _low_rank(o, value, type_, every)
        case "semi_separable" | "log_semi_separable" if value.attribute("read") == "after":
            return _semi_separable(o, value, type_, every)
        case op if op.endswith("semi_separable"):
            written = transitions.matrix(o, value, every)
            named = _assign(o, value, written, type_.heads, every)
            return Matrix(named, type_.heads, _causal(), True, every)
        case "toeplitz":
            name = o.functions.function("toeplitz_matrix")
            kernel = o.filter(inputs[0])
            own = o.texts[inputs[0]]
            if kernel.length is None:
                own = text.method(text.call(own.code, o.columns), "t")
            result = text.call(name, own, o.columns if every else o.rows, o.columns)
            return Matrix(result, kernel.lanes, _causal(), True, every)
        case "diagonal":
            own = text.method(_row_values(o, inputs[0], every), "squeeze", "3")
            function = o.functions.function("diagonal_matrix")
            result = text.call(function, text.method(own, "transpose", "1, 2"), o.columns)
            visible = Visible().within(True, 1)
            return Matrix(result, o.type(inputs[0]).heads, visible, True, every)
        case "causal":
            m = _matrix(o, inputs[0], every)
            return replace(m, visible=m.visible.within(True, 0), clean=False)
        case "band":
            m = _matrix(o, inputs[0], every)
            return replace(m, visible=m.visible.within(False, value.attribute("w")), clean=False)
        case "mixer_scale":
            m = _matrix(o, inputs[0], every)
            scaled = text.infix("*", m.text, Text(text.number(value.attribute("s"))))
            return replace(m, text=scaled)
        case "mixer_negate":
            m = _matrix(o, inputs[0], every)
            return replace(m, text=text.negate(m.text))
        case "softcap":
            m = _matrix(o, inputs[0], every)
            c = text.number(value.attribute("c"))
            bent = text.call("torch.tanh", text.infix("/", m.text, Text(c)))
            return replace(m, text=text.infix("*", Text(c), bent))
        case "row_scale":
            m = _matrix(o, inputs[1], every)
            heads = max(m.heads, o.type(inputs[0]).heads)
            f = text.method(_row_values(o, inputs[0], every), "transpose", "1, 2")
            f = _repeat(f, o.type(inputs[0]).heads, heads, "1")
            scaled = text.infix("*", f, _repeat(m.text, m.heads, heads, "1"))
            return replace(m, text=scaled, heads=heads)
    if value.op in ("mixer_add", "mixer_subtract", "compose"):
        return _algebra(o, value, every)
    return _nonlinear(o, value, every)


def _causal() -> Visible:
    return Visible().within(True, 0)


def _row_values(o: OperatorLowering, id: int, every: bool, channels: int | None = None) -> Text:
    """A value that belongs to rows: of the new tokens, or of all."""
    return o.history(id, channels) if every else o.tokens(id, channels)


def _low_rank(o: OperatorLowering, value: Value, type_: Mixer, every: bool) -> Matrix:
    c, b = value.inputs
    n = max(o.width(c), o.width(b))
    left = _heads(_row_values(o, c, every, n), o.type(c).heads, type_.heads)
    right = _heads(o.history(b, n), o.type(b).heads, type_.heads)
    scores = text.infix(
        "@", text.method(left, "transpose", "1, 2"), text.method(right, "permute", "0, 2, 3, 1")
    )
    named = _assign(o, value, scores, type_.heads, every)
    return Matrix(named, type_.heads, Visible(), True, every)


def _semi_separable(o: OperatorLowering, value: Value, type_: Mixer, every: bool) -> Matrix:
    c, a, b = value.inputs
    n = max(o.width(c), o.width(b), o.width(a))
    name = o.functions.function(
        "semi_separable_matrix", logarithmic=value.op == "log_semi_separable"
    )
    operands = (
        _heads(_row_values(o, c, every, n), o.type(c).heads, type_.heads),
        _heads(o.history(a), o.type(a).heads, type_.heads),
        _heads(o.history(b, n), o.type(b).heads, type_.heads),
    )
    matrix = _assign(o, value, text.call(name, *operands), type_.heads, every)
    return Matrix(matrix, type_.heads, _causal(), True, every)


def _nonlinear(o: OperatorLowering, value: Value, every: bool) -> Matrix:
    m = _matrix(o, value.inputs[0], every)
    if value.op == "mixer_softmax":
        mask = _mask(o, m.visible, every)
        filled = m.text
        if mask is not None:
            filled = text.method(filled, "masked_fill", f"~{mask.atom}", "-math.inf")
        result, clean = text.method(filled, "softmax", "-1"), True
    elif value.op == "mixer_sigmoid":
        result, clean = text.call("torch.sigmoid", m.text), False
    elif value.op == "mixer_relu":
        result, clean = text.call("F.relu", m.text), m.clean
    else:
        m = _clean(o, m)
        rows = _assign(o, value, m.text, m.heads, every)
        floor = text.number(value.attribute("floor"))
        total = f"{rows.code}.sum(-1, keepdim=True).abs().clamp(min={floor})"
        result, clean = text.infix("/", rows, Text(total)), True
    named = _assign(o, value, result, m.heads, every)
    return Matrix(named, m.heads, m.visible, clean, every)


def _algebra(o: OperatorLowering, value: Value, every: bool) -> Matrix:
    first, second = value.inputs
    left = _clean(o, _matrix(o, first, every))
    right = _clean(o, _matrix(o, second, every or value.op == "compose"))
    heads = max(left.heads, right.heads)
    operator = {"mixer_add": "+", "mixer_subtract": "-", "compose": "@"}[value.op]
    sides = (_repeat(m.text, m.heads, heads, "1") for m in (left, right))
    result = text.infix(operator, *sides)
    if value.op != "compose":
        return Matrix(result, heads, left.visible.union(right.visible), True, every)
    both = value.type.causal if isinstance(value.type, Mixer) else False
    return Matrix(result, heads, _causal() if both else Visible(), True, every)
