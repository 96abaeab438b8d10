"""Static cost of a model: parameters, work and decoding memory, from the IR alone.

    parameters           learned elements; a tied parameter counts once, with the unit that owns it
    active_parameters    those that one token uses: of routed experts and memories the chosen ones
    flops_forward        one forward pass over (batch, length) tokens: matrix products and
                         convolutions, two operations per multiply-add; attention counts visible
                         pairs only, which for causal attention is half of 4 B H L^2
    flops_train          three times that: the backward pass makes two products of each one
    flops_prefill        reading a prompt of `length` tokens into a cache: the forward pass, but
                         logits of the last token alone
    flops_decode         the step that completes a sequence of `length` tokens
    state_elements       what decoding keeps per sequence of `length` tokens, fixed state included
    fixed_state_elements the part of it that does not grow with the length
    cache_bytes          what `Model.init_cache(batch, length, dtype=dtype)` allocates: states of
                         recurrences in float32 at least, all else in the given dtype
    intensity_prefill    flops_prefill per byte moved: parameters and the cache, each once, in dtype
    intensity_decode     flops_decode per byte moved: active parameters and the cache, each once

Bytes moved leave out activations, which at best stay on the chip. Active parameters are those of
one token: a batch that meets more experts moves more. profile.py has the formula of every
structure. Nothing here imports torch, and a program that differs from the last one in a few
operators costs only those operators: keep one `CostModel`.

Owns: sums over a model and the report. Refuses: structure (profile.py) and names (inventory.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

from starc.compiler.inventory import (
    depth_parameters,
    gate_parameters,
    norm_parameters,
    residual_parameters,
    tied_names,
)
from starc.compiler.ir import (
    STREAM,
    Hyper,
    Layer,
    Loop,
    Model,
    Norm,
    Operator,
    Parallel,
    Repeat,
    Residual,
    Unit,
)
from starc.compiler.profile import Layout, Profile, profile_operator
from starc.grammar.errors import Diagnostic, StarError, suggest

DTYPE_BYTES = {
    "fp64": 8,
    "float64": 8,
    "fp32": 4,
    "float32": 4,
    "bf16": 2,
    "bfloat16": 2,
    "fp16": 2,
    "float16": 2,
    "fp8": 1,
    "int8": 1,
}
"""Bytes per element by the names a user may write."""

STATE_BYTES = 4
"""Generated modules keep the states of recurrences, sums over many tokens, in float32 at least."""


class UnitCost(NamedTuple):
    """One unit with the norms of its residual; a parallel has a row for its own norms.

    The work and the state of a unit in a loop are those of all its applications.
    """

    path: str
    operator: str
    parameters: int
    active_parameters: int
    flops_forward: int
    flops_decode: int
    cache_bytes: int
    state_elements: int


class EndCost(NamedTuple):
    """What stands before the first unit or behind the last one."""

    parameters: int
    flops_forward: int = 0
    flops_decode: int = 0


@dataclass(frozen=True, slots=True)
class CostReport:
    """The cost of a model at one length, batch and dtype; the module's docstring defines the keys.

    `embedding` holds token and position tables, `head` the read-out and the final norm.
    """

    model: str
    length: int
    batch: int
    dtype: str
    parameters: int
    active_parameters: int
    flops_forward: int
    flops_train: int
    flops_prefill: int
    flops_decode: int
    cache_bytes: int
    state_elements: int
    fixed_state_elements: int
    intensity_prefill: float
    intensity_decode: float
    embedding: EndCost
    units: tuple[UnitCost, ...]
    head: EndCost

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers, strings and lists, as `starc cost --json` prints them."""
        found = {f.name: getattr(self, f.name) for f in fields(self)}
        found["embedding"], found["head"] = self.embedding._asdict(), self.head._asdict()
        found["units"] = [unit._asdict() for unit in self.units]
        return found


def cost_report(
    model: Model, *, length: int | None = None, batch: int = 1, dtype: str = "bf16"
) -> CostReport:
    """The cost of a model. `length` is in tokens and defaults to the model's context."""
    return CostModel().report(model, length=length, batch=batch, dtype=dtype)


class _Figures(NamedTuple):
    """What a unit of an operator costs at some length, when nobody reuses its features."""

    parameters: int
    flops: int
    step: int
    kept: int
    fixed: int
    state: int


@dataclass(frozen=True, slots=True)
class _Known:
    """A costed operator, what a unit of it keeps by itself, and the figures asked for before."""

    operator: Operator
    profile: Profile
    layout: Layout
    figures: dict[tuple[int, int], _Figures]

    def at(self, length: int, batch: int) -> _Figures:
        found = self.figures.get((length, batch))
        if found is None:
            work = self.profile.work
            found = self.figures[length, batch] = _Figures(
                self.profile.parameters,
                work.forward(length, batch),
                work.decode(length, batch),
                self.layout.elements(length),
                self.layout.fixed,
                self.layout.state,
            )
        return found


_NOTHING = _Figures(0, 0, 0, 0, 0, 0)


class CostModel:
    """Costs many models, each operator once.

    Operators are recognised by the identity of their contents, which models that were resolved
    with one `Memo` share. Every operator that was ever costed stays alive until `clear`.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[int, int], _Known] = {}
        self._norms: dict[tuple[int, int], tuple[Residual, int]] = {}

    def clear(self) -> None:
        """Forget all operators."""
        self._known.clear()
        self._norms.clear()

    def profile(self, operator: Operator) -> Profile:
        """The profile of an operator, from memory where its very values were seen before."""
        return self._recall(operator).profile

    def layouts(self, model: Model) -> dict[str, Layout]:
        """What each unit keeps while decoding, by path.

        Features that are reused are kept by the unit that computes them, for as many tokens as the
        most demanding reader needs.
        """
        placed = [place for place, _ in _placements(model.layers) if isinstance(place, Unit)]
        operators = {o.name: self._recall(o) for o in model.operators}
        own = {unit.path: operators[unit.operator].layout for unit in placed}
        return own | _reused(placed, operators)

    def report(
        self, model: Model, *, length: int | None = None, batch: int = 1, dtype: str = "bf16"
    ) -> CostReport:
        """The cost of a model; see `cost_report`. Refuses unknown dtypes and sizes below 1."""
        length = model.context if length is None else length
        size = _checked(length, batch, dtype)
        widening = max(0, STATE_BYTES - size)
        operators = {o.name: self._recall(o) for o in model.operators}
        figures = {name: known.at(length, batch) for name, known in operators.items()}
        placed = list(_placements(model.layers))
        reused = _reused([place for place, _ in placed], operators)
        rows: list[UnitCost] = []
        parameters = active = forward = decode = state = fixed = wide = 0
        for place, times in placed:
            around = self._around(place.residual, model.width)
            if isinstance(place, Parallel):
                around += sum(p.size for p in gate_parameters(place, model.width))
            parameters += around
            active += around
            meeting = _NOTHING
            if place.residual.formula:
                meeting = self._recall(place.residual.formula).at(length, batch)
            elif place.residual.hyper:
                each = batch * _mixing(place.residual.hyper, model.width)
                meeting = _Figures(0, each * length, each, 0, 0, 0)
            if isinstance(place, Parallel):
                gate = 2 * batch * model.width * len(place.branches) * (place.mode == "gated")
                flops = (meeting.flops + gate * length) * times
                step = (meeting.step + gate) * times
                forward, decode = forward + flops, decode + step
                name = f"parallel({place.mode})"
                rows.append(UnitCost(place.path, name, around, around, flops, step, 0, 0))
                continue
            own, flops, step, kept, always, recurrent = figures[place.operator]
            flops, step = flops + meeting.flops, step + meeting.step
            profile = operators[place.operator].profile
            tied = tied_names(place) if place.shares or place.ties else {}
            if tied:
                own -= sum(profile.sizes.get(name, 0) for name in tied)
            used = own
            if profile.idle:
                used -= sum(n for name, n in profile.idle.items() if name not in tied)
            if place.path in reused:
                kept = reused[place.path].elements(length)
            if times > 1:
                flops, step = flops * times, step * times
                kept, always, recurrent = kept * times, always * times, recurrent * times
            parameters += own
            active += used
            forward += flops
            decode += step
            state += kept
            fixed += always
            wide += recurrent
            row = place.path, place.operator, own + around, used + around, flops, step
            bytes_ = batch * (kept * size + recurrent * widening)
            rows.append(UnitCost._make((*row, bytes_, kept)))
        embedding, head = _ends(model, length, batch)
        parameters += embedding.parameters + head.parameters
        active += embedding.parameters + head.parameters
        forward, decode = forward + head.flops_forward, decode + head.flops_decode
        prefill = forward - 2 * batch * model.vocab * model.width * (length - 1)
        cache = batch * (state * size + wide * widening)
        return CostReport(
            model.name,
            length,
            batch,
            dtype,
            parameters,
            active,
            forward,
            3 * forward,
            prefill,
            decode,
            cache,
            state,
            fixed,
            prefill / (parameters * size + cache),
            decode / (active * size + cache),
            embedding,
            tuple(rows),
            head,
        )

    def _recall(self, operator: Operator) -> _Known:
        # Parameters follow from the values, but for their initial values, which cost nothing.
        key = id(operator.values), id(operator.outputs)
        known = self._known.get(key)
        if known is None:
            profile = profile_operator(operator)
            known = self._known[key] = _Known(operator, profile, profile.layout({}), {})
        return known

    def _around(self, residual: Residual, width: int) -> int:
        """Parameters of the norms around a unit; a model has few residuals, and many units."""
        known = self._norms.get((id(residual), width))
        if known is None:
            size = sum(p.size for p in residual_parameters("", residual, width))
            known = self._norms[id(residual), width] = residual, size
        return known[1]


def _reused(
    placed: Sequence[Unit | Parallel], operators: Mapping[str, _Known]
) -> dict[str, Layout]:
    """What units keep, by path, where others need their features or they need those of others."""
    demands: dict[str, dict[str, int]] = {}
    found: dict[str, Layout] = {}
    for place in reversed(placed):  # readers come after what they read
        if isinstance(place, Parallel) or not (place.inputs or place.path in demands):
            continue
        known = operators[place.operator]
        wanted = demands.get(place.path, {})
        streams = frozenset(name for name, ref in place.inputs if ref.name == STREAM)
        layout = known.layout
        if wanted or streams:
            layout = known.profile.layout(wanted, streams)
        found[place.path] = layout
        sources = dict(place.inputs)
        for name, window in layout.demanded:
            asked = demands.setdefault(sources[name].unit, {})
            feature = sources[name].name
            asked[feature] = max(window, asked.get(feature, 0))
    return found


def _placements(layers: tuple[Layer, ...], times: int = 1) -> Iterator[tuple[Unit | Parallel, int]]:
    """Units and parallels in order of execution, repeats unrolled, each with how often it runs."""
    for layer in layers:
        match layer:
            case Repeat():
                for body in layer.bodies:
                    yield from _placements(body, times)
            case Loop():
                yield from _placements(layer.body, times * layer.times)
            case Parallel():
                yield layer, times
                yield from _placements(layer.branches, times)
            case Unit():
                yield layer, times


def _mixing(hyper: Hyper, width: int) -> int:
    """Operations per token of a hyper-connection: the mixture of streams, and the maps that weigh
    it."""
    n = hyper.streams
    return 2 * width * n * (n + 1) + (2 * width * n * (n + 2) if hyper.norm else 0)


def _ends(model: Model, length: int, batch: int) -> tuple[EndCost, EndCost]:
    table = model.vocab * model.width
    before = table + _norm_size(model.embedding.norm, model.width)
    if model.position == "learned":
        before += model.context * model.width
    step = 2 * batch * table
    behind = 0 if model.embedding.tied else table
    behind += model.vocab if model.head.bias else 0
    behind += _norm_size(model.final_norm, model.width)
    behind += sum(p.size for p in depth_parameters(model))
    if model.readout.kind == "attend":
        read = model.width * model.width * (2 + 2 * model.readout.depths)
        step += 2 * batch * (read + 2 * model.width * model.readout.depths)
    return EndCost(before), EndCost(behind, step * length, step)


def _norm_size(norm: Norm | None, width: int) -> int:
    return sum(p.size for p in norm_parameters(norm, width)) if norm else 0


def _checked(length: int, batch: int, dtype: str) -> int:
    """Bytes per element, or the error that a length, batch or dtype makes no sense."""
    for name, value in (("length", length), ("batch", batch)):
        if value < 1:
            raise StarError(
                Diagnostic("bad-number", f"the {name} of a cost report must be at least 1.")
            )
    if dtype not in DTYPE_BYTES:
        hint = suggest(dtype, DTYPE_BYTES) or f"known: {', '.join(DTYPE_BYTES)}."
        raise StarError(Diagnostic("unknown-name", f"no dtype is named '{dtype}'.", hint=hint))
    return DTYPE_BYTES[dtype]
