"""Products of structured transitions as steps diag(w) + a b', in the order they meet the state.

    householder(B, beta)    w = 1, a = -beta B, b = B
    dplr(w, a, b)           itself
    L @ step @ R            w = L w R, a = L a, b = R b     for diagonals L and R

So a product with r factors that are no diagonals becomes r steps, and everything else pointwise
work on features. Where every diagonal has a logarithm, w is carried as one.

The delta rule is recognised: a step (I - beta B B') diag(w), written to along beta B, or the same
with a scalar on any side. Reading and writing along one vector, it costs half of the general form.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

from starc.compiler.ir import Value
from starc.compiler.numbers import Numeric
from starc.compiler.passes.canonicalize import grouped
from starc.compiler.passes.rewriting import Rewriter
from starc.compiler.types import Constant, Feature, Transition

Ids = Callable[[Rewriter, int], int]
Test = Callable[[Rewriter, int], bool]


@dataclass(frozen=True)
class Logarithms:
    """How the pass `infer` takes logarithms: whether a value has one, and what it is."""

    exists: Test
    of: Ids


@dataclass
class _Step:
    """diag(product of `w`) + a b'. `key` is the householder's (B, beta) while it is untouched."""

    w: list[int]
    a: int
    b: int
    key: tuple[int, int] | None


def structured(r: Rewriter, value: Value, inputs: tuple[int, ...], logs: Logarithms) -> int:
    """The semi-separable mixer `value`, whose transition is structured, over steps."""
    c, transition, b = inputs
    steps = _steps(r, value, _factors(r, transition))
    logarithmic = all(logs.exists(r, w) for step in steps for w in step.w)
    read = value.attribute("read")
    attributes = {"logarithmic": logarithmic, "read": read}

    def decay(step: _Step) -> int:
        if not logarithmic:
            return _product(r, value, "multiply", step.w, Fraction(1))
        return _product(r, value, "add", [logs.of(r, w) for w in step.w], Fraction(0))

    if len(steps) == 1 and steps[0].key and _writes_along(r, b, *steps[0].key):
        along, beta = steps[0].key
        return r.emit(
            "delta_semi_separable", (c, decay(steps[0]), along, beta), value, **attributes
        )
    operands = [id for step in steps for id in (decay(step), step.a, step.b)]
    return r.emit("dplr_semi_separable", (c, *operands, b), value, **attributes)


def _factors(r: Rewriter, id: int) -> list[int]:
    """The factors of a product, from left to right."""
    value = r.value(id)
    if value.op != "transition_product":
        return [id]
    return [factor for side in value.inputs for factor in _factors(r, side)]


def _steps(r: Rewriter, like: Value, factors: list[int]) -> list[_Step]:
    found: list[_Step] = []
    waiting: list[int] = []  # diagonals on the right of the next step
    for id in reversed(factors):
        value = r.value(id)
        if not isinstance(value.type, Transition):
            waiting.append(id)
            continue
        step = _step(r, like, value)
        for d in waiting:
            step.w.append(d)
            step.b = _times(r, like, d, step.b)
        waiting = []
        found.append(step)
    last = found[-1]
    for d in waiting:
        last.w.append(d)
        last.a = _times(r, like, d, last.a)
        if _channels(r, d) > 1:
            last.key = None
    return found


def _step(r: Rewriter, like: Value, value: Value) -> _Step:
    if value.op == "dplr":
        w, a, b = value.inputs
        return _Step([w], a, b, None)
    along, beta = value.inputs
    a = r.emit("negate", (_times(r, like, beta, along),), like)
    return _Step([], a, along, (along, beta))


def _writes_along(r: Rewriter, b: int, along: int, beta: int) -> bool:
    """Whether what is written to the state is beta B."""
    value = r.value(b)
    return value.op == "multiply" and set(value.inputs) == {along, beta}


def _channels(r: Rewriter, id: int) -> int:
    type_ = r.type(id)
    assert isinstance(type_, Feature | Constant)
    return type_.channels


def _times(r: Rewriter, like: Value, a: int, b: int) -> int:
    return _together(r, like, "multiply", a, b)


def _together(r: Rewriter, like: Value, op: str, a: int, b: int) -> int:
    """Pointwise arithmetic whose operands may have different, grouped, heads."""
    heads = 1
    for id in (a, b):
        type_ = r.type(id)
        assert isinstance(type_, Feature | Constant)
        heads = max(heads, type_.heads)
    return r.emit(op, (grouped(r, like, a, heads), grouped(r, like, b, heads)), like)


def _product(r: Rewriter, like: Value, op: str, ids: list[int], neutral: Numeric) -> int:
    """The pointwise product or sum of values; literals among them become one."""
    literal, found = neutral, None
    for id in ids:
        value = r.value(id)
        if value.op == "number":
            own = value.attribute("value")
            literal = literal * own if op == "multiply" else literal + own
        else:
            found = id if found is None else _together(r, like, op, found, id)
    if found is not None and literal == neutral:
        return found
    number = r.emit("number", (), like, value=literal)
    return number if found is None else _together(r, like, op, found, number)
