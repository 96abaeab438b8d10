"""Programs whose long filters become sums of exponentials: text, weights and what it costs.

Owns: which filters are long, the new text, and the comparison of both models. Refuses: the fit
(runtime/distill.py), the terminal, and writing files.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from starc.compiler.driver import Artifact, compile_program, resolve_source
from starc.compiler.ir import Model, Operator, Value, units
from starc.compiler.options import Options
from starc.compiler.program import file_scope, link, parse_limited
from starc.grammar import nodes
from starc.grammar.errors import Diagnostic, StarError
from starc.grammar.parser import parse
from starc.grammar.printer import format_program
from starc.grammar.source import Source, Span
from starc.runtime.distill import fit, relative_errors
from starc.runtime.loader import load
from starc.runtime.run import open_run, trained_model
from starc.weights import load_weights

LONG = 32
"""Explicit filters of more taps than this, and than the order, are distilled."""


@dataclass(frozen=True)
class Fitted:
    """One filter: its place, how many lanes it has, and their relative errors."""

    name: str
    lanes: int
    mean: float
    largest: float


@dataclass(frozen=True, eq=False)
class Distilled:
    """The new program, its generated module and weights, and how far both are from the old."""

    text: str
    artifact: Artifact
    tensors: dict[str, Tensor]
    filters: tuple[Fitted, ...]
    logits: float


def distill(
    source: Source,
    order: int,
    options: Options | None = None,
    weights: str | os.PathLike[str] | None = None,
    *,
    steps: int = 200,
    seed: int = 0,
) -> Distilled:
    """Replace every long filter of a model by `ssm(channels, order)`.

    `weights` is a safetensors file or the folder of a run; without it the program's initial values,
    drawn from `seed`, are distilled. Raises StarError when the order is odd or there is no filter.
    """
    options = options or Options()
    if order < 2 or order % 2:
        raise _error(
            "wrong-argument",
            f"the order must be even and at least 2, not {order}.",
            "exponentials come in pairs of conjugates.",
        )
    model, _ = resolve_source(source, options)
    places = dict(_long_filters(model, order))
    if not places:
        raise _error(
            "nothing-to-distill",
            f"model '{model.name}' has no long filter.",
            f"implicit filters, and explicit ones of more than {max(LONG, order)} taps, are long.",
        )
    text = _rewritten(source, options, {_place(v.span) for v in places.values() if v.span}, order)
    before = compile_program(source, options)
    after = compile_program(Source(source.name, text), options)
    torch.manual_seed(seed)
    old, new = load(before.text).Model(), load(after.text).Model()
    _fill(old, weights)
    fitted = _transfer(old, new, places, model.context, order, steps)
    tokens = torch.randint(
        model.vocab, (2, min(model.context, 512)), generator=torch.Generator().manual_seed(seed)
    )
    with torch.inference_mode():
        expected, found = old.eval()(tokens), new.eval()(tokens)
    difference = float((found - expected).abs().max() / expected.abs().max())
    owned = {**dict(new.named_parameters()), **dict(new.named_buffers())}
    kept = new.state_dict()
    tensors = {n: t.detach().clone() for n, t in owned.items() if n in kept}
    return Distilled(text, after, tensors, fitted, difference)


# --- filters -------------------------------------------------------------------------------------


def _long_filters(model: Model, order: int) -> Iterator[tuple[str, Value]]:
    """(name in the generated module, value) of every long filter."""
    for unit in units(model.layers):
        for value in model.operator(unit.operator).values:
            if _is_long(value, order):
                yield f"{unit.path}.{value.parameters[0].partition('.')[0]}", value
    spans = {_place(v.span) for o in model.operators for v in o.values if _is_long(v, order)}
    for operator in model.operators:
        _refuse_mixed(operator, spans, order)


def _is_long(value: Value, order: int) -> bool:
    if value.op == "explicit":
        return bool(value.attribute("k") > max(LONG, order))
    return value.op == "implicit"


def _refuse_mixed(operator: Operator, spans: set[tuple[str, int, int]], order: int) -> None:
    """One text cannot be a long filter here and a short one there."""
    for value in operator.values:
        if value.op == "explicit" and _place(value.span) in spans and not _is_long(value, order):
            raise StarError(
                Diagnostic(
                    "cannot-distill",
                    f"this filter is long in one unit, and has {value.attribute('k')} taps in "
                    "another.",
                    value.span,
                    hint="write two operators.",
                )
            )


def _place(span: Span | None) -> tuple[str, int, int]:
    assert span is not None
    return span.source.name, span.start, span.end


def _transfer(
    old: nn.Module,
    new: nn.Module,
    places: Mapping[str, Value],
    context: int,
    order: int,
    steps: int,
) -> tuple[Fitted, ...]:
    """Fit every filter, and copy all other weights; a filter that units share is fitted once."""
    fitted: list[Fitted] = []
    done: dict[int, str] = {}
    own = dict(new.named_parameters())
    with torch.no_grad():
        state = dict(old.named_parameters()) | dict(old.named_buffers())
        for name, tensor in (*own.items(), *new.named_buffers()):
            if name in state:
                tensor.copy_(state[name])
    for name in places:
        path, _, last = name.rpartition(".")
        held: Any = getattr(old.get_submodule(path), last)
        if id(held) in done:
            continue
        done[id(held)] = name
        with torch.no_grad():
            taps = held.t().detach() if isinstance(held, Tensor) else held(context)
        taps = taps.t().double()
        modes = fit(taps, order, steps)
        errors = relative_errors(modes, taps)
        target = new.get_submodule(name)
        with torch.no_grad():
            for parameter, tensor in modes.parameters().items():
                getattr(target, parameter).copy_(tensor)
        fitted.append(Fitted(name, len(taps), float(errors.mean()), float(errors.max())))
    return tuple(fitted)


def _fill(model: nn.Module, weights: str | os.PathLike[str] | None) -> None:
    if weights is None:
        return
    if not Path(weights).is_dir() or not (Path(weights) / "config.json").exists():
        load_weights(model, weights)
        return
    found = trained_model(open_run(Path(weights))).state_dict()
    if {n: t.shape for n, t in found.items()} != {
        n: t.shape for n, t in model.state_dict().items()
    }:
        raise _error(
            "weights-do-not-fit",
            f"the run '{weights}' trained another program.",
            "distill the program that the run was begun with.",
        )
    model.load_state_dict(found)


# --- text ----------------------------------------------------------------------------------------


def _rewritten(
    source: Source, options: Options, places: set[tuple[str, int, int]], order: int
) -> str:
    """The program with its filters replaced; operators of other files are written into it."""
    program = parse_limited(source, options.limits)
    linked = link(program, options.limits)
    edits: list[tuple[int, int, str]] = []
    used: dict[str, None] = {}
    for declaration in program.declarations:
        match declaration:
            case nodes.Operator():
                for name, start, end in sorted(places):
                    if name == source.name:
                        own = declaration.span
                        if own.start <= start < own.end:
                            edits.append((start, end, _ssm(source.text[start:end], order)))
            case nodes.Use():
                operator = linked.operators[declaration.path[-1]]
                text = _operator(operator, places, order)
                if text is not None:
                    edits.append((declaration.span.start, declaration.span.end, text))
                    scope = file_scope(operator.span.source, options.limits)
                    for sibling in _called(operator, scope) - linked.operators.keys():
                        used[".".join((*declaration.path[:-1], sibling))] = None
    text = source.text
    for start, end, new in sorted(edits, reverse=True):
        text = text[:start] + new + text[end:]
    uses = "".join(f"use {path}\n" for path in used)
    return format_program(parse(Source(source.name, uses + text)))


def _operator(
    operator: nodes.Operator, places: set[tuple[str, int, int]], order: int
) -> str | None:
    """The text of an operator of another file with its filters replaced, or None without any."""
    span = operator.span
    inside = [
        (start - span.start, end - span.start)
        for name, start, end in places
        if name == span.source.name and span.start <= start < span.end
    ]
    if not inside:
        return None
    text = span.text
    for start, end in sorted(inside, reverse=True):
        text = text[:start] + _ssm(text[start:end], order) + text[end:]
    return text


def _ssm(call: str, order: int) -> str:
    """`implicit(width, 64)` as `ssm(width, order)`: the lanes are spelt as before."""
    (operator,) = parse(Source("<filter>", f"operator f() {{ y = {call} }}")).declarations
    assert isinstance(operator, nodes.Operator)
    value = operator.body[0].value
    assert isinstance(value, nodes.Call)
    named = [a for a in value.arguments if a.name == "channels"]
    first = (named or [a for a in value.arguments if a.name is None])[0]
    return f"ssm({first.value.span.text}, {order})"


def _called(operator: nodes.Operator, scope: Mapping[str, nodes.Operator]) -> set[str]:
    """Operators of its file that an operator calls as stages."""
    found: set[str] = set()
    stack: list[Any] = [operator.body]
    while stack:
        node = stack.pop()
        if isinstance(node, tuple):
            stack.extend(node)
        elif isinstance(node, nodes.Node):
            name = getattr(node, "function", getattr(node, "name", ""))
            if isinstance(node, nodes.Call | nodes.Name) and name in scope:
                found.add(name)
            stack.extend(vars(node).values())
    return found - {operator.name}


def _error(code: str, message: str, hint: str = "") -> StarError:
    return StarError(Diagnostic(code, message, hint=hint))
