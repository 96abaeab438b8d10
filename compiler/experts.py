"""`x |> experts(op(args), n, top, ...)`: routed copies of an operator, written out as values.

A dense map scores the experts, `route` gives the weights of the chosen ones, and `experts` sums
what they make of a token. Copies of an operator that mixes tokens see every token, so they are
written out like operators that stand as stages, and weighted.

Owns: what a call of `experts` means, and its diagnostics. Refuses: bodies (instance.py).
"""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Any

from starc.compiler import catalog
from starc.compiler.arguments import signature, split_operands
from starc.compiler.builder import prune
from starc.compiler.catalog.entry import Entry
from starc.compiler.faults import error
from starc.compiler.ir import Operator
from starc.compiler.memo import Body
from starc.compiler.profile import profile_operator
from starc.compiler.results import Ref
from starc.compiler.types import Feature, Mixer, describe
from starc.grammar import nodes
from starc.grammar.errors import Diagnostic, suggest
from starc.grammar.library import where_declared
from starc.grammar.source import Span

if TYPE_CHECKING:
    from starc.compiler.instance import Instance

_HINT = "experts(swiglu(), n = 8, top = 2), for example."
_TOGETHER = frozenset({"rope", "lookup", "embedded", "position", "route"})
"""Stages that look at where a token stands, or add to the loss, which an expert that is handed its
tokens one by one cannot."""


def routed(
    caller: Instance,
    operand: int,
    arguments: tuple[nodes.Argument, ...],
    name_span: Span,
    span: Span,
) -> Ref:
    """The value of `operand |> experts(arguments)` in the values of the caller."""
    call, node = _expert(caller, arguments, span)
    caller.check_operand(operand, "experts", name_span)
    caller.check_depth(node, call.name_span)
    entry = catalog.ENTRIES["experts"]
    operands, rest = split_operands(entry, ("weights",), arguments[1:], span)
    options = caller.expressions.bind(entry, rest, span)
    if weights := operands.get("weights"):
        _check_given(entry, rest)
        options |= {"gate": "given", "normalize": False, "balance": Fraction(0)}
    _check(caller, options, span)
    builder = caller.builder
    n, shared = options["n"], options["shared"]
    body, features = caller.expert(node, call, operand)
    expert = _operator(body)
    channels = _channels(expert, node, call.span)
    gates = _gates(caller, operand, weights, options, span)
    parts: list[int] = []
    if _is_local(expert):
        read = dict(expert.inputs)
        given = {"x": operand, **features}
        attributes = {
            "operator": builder.add_inner(expert),
            "n": n,
            "top": options["top"],
            "size": sum(p.size for p in expert.parameters if p.learned),
            "work": profile_operator(expert).work.token,
            "channels": channels,
            "operands": ",".join(read),
        }
        inputs = (gates, *(given[name] for name in read))
        parts.append(builder.emit("experts", inputs, attributes, span))
        builder.name_parameters("experts")
    else:
        for i in range(n):
            gate = builder.emit("slice", (gates,), {"a": i, "b": i + 1}, span)
            result = caller.written_out(node, call, operand)
            builder.name_parameters(f"expert_{i}")
            parts.append(builder.emit("multiply", (gate, result.id), {}, span))
    for _ in range(shared):
        parts.append(caller.written_out(node, call, operand).id)
        builder.name_parameters("shared")
    total = parts[0]
    for part in parts[1:]:
        total = builder.emit("add", (total, part), {}, span)
    return Ref(total)


def _gates(
    caller: Instance,
    operand: int,
    weights: nodes.Argument | None,
    options: dict[str, Any],
    span: Span,
) -> int:
    """The weight of every expert for every token, F[1, n]."""
    builder, n = caller.builder, options["n"]
    wanted = "top gate normalize scale noisy balance correction groups keep".split()
    attributes = {key: options[key] for key in wanted}
    if weights is not None:
        given = caller.expressions.value(weights.value)
        if (type_ := builder.type(given)) != Feature(1, n):
            raise error(
                "shape-mismatch",
                f"{n} experts need {n} weights for each token, {Feature(1, n)}.",
                weights.value.span,
                f"this is a {describe(type_)}",
            )
        return builder.emit("route", (given,), attributes, span)
    dense = {"n": n, "bias": False, "rank": 0, "groups": 1}
    inputs = [builder.emit("dense", (operand,), {**dense, "bias": options["bias"]}, span)]
    builder.name_parameters("router")
    if options["noisy"]:
        inputs.append(builder.emit("dense", (operand,), dense, span))
        builder.name_parameters("noise")
    if options["correction"]:
        constant = {"heads": 1, "channels": n, "init": ("constant", 0), "learned": False}
        inputs.append(builder.emit("param", (), constant, span))
        builder.name_parameters("correction")
    return builder.emit("route", inputs, attributes, span)


def _check_given(entry: Entry, arguments: tuple[nodes.Argument, ...]) -> None:
    """Refuse options of the router where the program computes weights itself."""
    allowed = ("n", "top", "shared")
    for argument, known in zip(arguments, entry.arguments, strict=False):
        name = argument.name or known.name
        if name not in allowed:
            raise error(
                "wrong-argument",
                f"'{name}' of 'experts' is for its own router, but the weights are given.",
                argument.span,
                hint="beside weights stand n, top and shared.",
            )


def _expert(
    caller: Instance, arguments: tuple[nodes.Argument, ...], span: Span
) -> tuple[nodes.Call, nodes.Operator]:
    """The call that says what an expert is, and the operator that it calls."""
    first = arguments[0] if arguments else None
    value = first.value if first is not None and first.name is None else None
    if isinstance(value, nodes.Name):
        value = nodes.Call(value.name, (), name_span=value.span, span=value.span)
    if not isinstance(value, nodes.Call):
        raise error(
            "wrong-argument",
            "'experts' needs an operator to make copies of.",
            span if first is None else first.span,
            hint=_HINT,
        )
    name, operators = value.function, caller.expressions.operators
    if name in operators:
        return value, operators[name]
    if catalog.is_stage(name) or catalog.find_function(name):
        raise error(
            "wrong-type",
            f"'{name}' is a stage, not an operator.",
            value.name_span,
            hint=f"wrap it: operator my_{name}() {{ y = x |> {name}(...) }}",
        )
    raise error(
        "unknown-name",
        f"no operator is named '{name}'.",
        value.name_span,
        "unknown",
        where_declared(name) or suggest(name, operators) or "declare it, or 'use' it.",
    )


def _check(caller: Instance, options: dict[str, Any], span: Span) -> None:
    n, top, groups, keep = (options[key] for key in ("n", "top", "groups", "keep"))
    hint = signature(catalog.ENTRIES["experts"])
    limit = caller.around.limits.units
    if n > limit:
        raise error(
            "too-many-units",
            f"'experts' makes more than {limit:,} copies.",
            span,
            hint="raise the limit with --max-units.",
        )
    if n % groups:
        raise error(
            "width-not-divisible",
            f"'groups = {groups}' does not divide {n} experts.",
            span,
            f"{n} / {groups} is not an integer",
            hint,
        )
    free = keep * (n // groups) if groups > 1 else n
    if keep > groups or top > free:
        where = f" of the {keep} best groups" if groups > 1 else ""
        message = f"'experts' sends a token to {top} of {free} experts{where}."
        if keep > groups:
            message = f"'experts' keeps {keep} of {groups} groups."
        raise error("bad-size", message, span, hint=hint)
    if top == 1 and options["normalize"]:
        caller.around.warn(
            Diagnostic(
                "constant-gates",
                "one expert a token, weights divided by their sum: every weight is 1, and the "
                "router learns nothing from them.",
                span,
                "top = 1",
                "write normalize = false.",
                severity="warning",
            )
        )
    if options["balance"] < 0:
        raise error("bad-number", "'balance' of 'experts' is not negative.", span, hint=hint)


def _operator(body: Body) -> Operator:
    """An expert as an operator of its own."""
    values, outputs, parameters = prune(body.values, [("y", body.bindings["y"])], body.parameters)
    node = body.node
    return Operator(
        node.name,
        node.name,
        body.arguments,
        values,
        outputs,
        parameters,
        node.doc,
        node.span,
        body.inner,
    )


def _channels(expert: Operator, node: nodes.Operator, span: Span) -> int:
    type_ = expert.values[expert.outputs[0][1]].type
    assert isinstance(type_, Feature)
    if type_.heads > 1:
        raise error(
            "wrong-output",
            f"an expert gives a feature without heads; '{node.name}' gives a {describe(type_)}.",
            span,
            hint="end its y with '|> merge'.",
        )
    return type_.channels


def _is_local(expert: Operator) -> bool:
    """Whether an expert sees a token alone, so that tokens can be sent to it one by one."""
    return all(
        (
            value.op == "diagonal"
            if isinstance(value.type, Mixer)
            else value.op == "apply"
            or (catalog.ENTRIES[value.op].local and value.op not in _TOGETHER)
        )
        for value in expert.values
    )
