"""Programs with a given total of state elements, so that recurrences are judged at equal memory.

What is adjusted is an argument of units, the same in all of them: `state` where operators have it
(the channels of a recurrence's keys), else `order`, else the number of `heads` or the size of a
`head`. A program that keeps something of every token has no state of its own size, and stays as
it is.

Owns: choosing that argument. Refuses: counting states (compiler/cost.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from starc.compiler.cost import cost_report
from starc.compiler.driver import compile_program, resolve_source
from starc.compiler.holes import walk
from starc.compiler.options import Options
from starc.compiler.program import Linked, link, parse_limited
from starc.grammar import nodes
from starc.grammar.errors import Diagnostic, StarError
from starc.grammar.source import Source

ADJUSTED = ("state", "order", "heads", "head")
"""Names of arguments that change the state, in the order in which they are tried."""

TOLERANCE = 0.125
"""How far from the total that is asked for a program may be, as a share of it."""

_MOST = 4096
"""The largest value of an argument that is tried."""


def state_elements(source: Source, options: Options) -> tuple[int, bool]:
    """(elements that decoding keeps whatever the length, whether that is all it keeps)."""
    model, _ = resolve_source(source, _plain(options))
    report = cost_report(model)
    return report.fixed_state_elements, report.fixed_state_elements == report.state_elements


def with_state(source: Source, options: Options, total: int) -> Source:
    """A fitted program whose states have about `total` elements together, all units counted.

    Raises StarError `state-not-reachable` when no value of an argument is within an eighth of it.
    """
    options = _plain(options)
    now, fixed = state_elements(source, options)
    if not fixed or abs(now - total) <= TOLERANCE * total:
        return source
    linked = link(parse_limited(source, options.limits), options.limits)
    found: dict[int, Source] = {now: source}
    for name in ADJUSTED:
        for candidate in _candidates(source, linked, name):
            try:
                elements, _ = state_elements(candidate, options)
                if elements not in found and abs(elements - total) <= TOLERANCE * total:
                    compile_program(candidate, replace(options, format=False))
            except StarError:
                continue  # this value does not fit the program
            found.setdefault(elements, candidate)
            if name in ("state", "order") and elements > 2 * total:
                break  # it only grows
    nearest = min(found, key=lambda elements: abs(elements - total))
    if abs(nearest - total) > TOLERANCE * total:
        names = ", ".join(sorted(_adjustable(linked))) or "none"
        raise StarError(
            Diagnostic(
                "state-not-reachable",
                f"this program cannot have {total:,} state elements: the nearest total is "
                f"{nearest:,}.",
                hint=f"ask for --state {nearest}; arguments of its units that change it: {names}.",
            )
        )
    return found[nearest]


def _plain(options: Options) -> Options:
    return replace(options, model=None, overrides=())


def _adjustable(linked: Linked) -> set[str]:
    """The names of adjusted arguments that operators of the backbone have."""
    return {
        parameter.name
        for _, operator in _calls(linked)
        for parameter in operator.parameters
        if parameter.name in ADJUSTED
    }


def _calls(linked: Linked) -> Iterator[tuple[nodes.Call, nodes.Operator]]:
    """The calls that stand as units of the model, with their operators."""
    (model,) = linked.models
    for node in walk(model):
        if isinstance(node, nodes.Unit) and isinstance(node.operator, nodes.Call):
            operator = linked.operators.get(node.operator.function)
            if operator is not None:
                yield node.operator, operator


def _candidates(source: Source, linked: Linked, name: str) -> Iterator[Source]:
    """The program with other values of an argument, wherever an operator has it."""
    places = [place for call, operator in _calls(linked) if (place := _place(call, operator, name))]
    if places:
        for value in _values():
            yield Source(source.name, _edited(source.text, places, str(value)))


def _values() -> Iterator[int]:
    """Values from 1 on, about 6 percent apart: finer than the tolerance."""
    value = 1
    while value <= _MOST:
        yield value
        value = max(value + 1, value * 17 // 16)


def _place(call: nodes.Call, operator: nodes.Operator, name: str) -> tuple[int, int, str] | None:
    """Where in the text an argument of a call stands, or is to stand, and what goes before it."""
    position = next((i for i, p in enumerate(operator.parameters) if p.name == name), None)
    if position is None:
        return None
    for i, argument in enumerate(call.arguments):
        if argument.name == name or (argument.name is None and i == position):
            return argument.value.span.start, argument.value.span.end, ""
    end = call.span.end - 1
    return end, end, f"{', ' if call.arguments else ''}{name} = "


def _edited(text: str, places: list[tuple[int, int, str]], value: str) -> str:
    for start, end, before in sorted(set(places), reverse=True):
        text = f"{text[:start]}{before}{value}{text[end:]}"
    return text
