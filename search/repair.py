"""Making a changed program right again with as little change as will do.

Ties to a unit that is gone move to another unit with the same call, or are dropped; weights and
features that no longer fit are untied; numbers that are not legal become the nearest that are.

Owns: repairs, their names and counts. Refuses: drawing changes (`mutate`).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from starc.grammar import nodes
from starc.grammar.copying import changed
from starc.grammar.errors import StarError
from starc.search.remembering import per_node
from starc.search.space import Labels, alike, drop_labels, given_in
from starc.search.trees import Body, Workshop, features, literal, mentioned, size, ties, units
from starc.search.verifying import Checked, Verifier

MOVED, DROPPED, NUMBER = "tie moved", "tie dropped", "number re-chosen"
KINDS = (MOVED, DROPPED, NUMBER)
"""Kinds of repairs."""

WHOLE, REJECTED = "whole", "rejected: "
_TRIES = 12
"""So many programs are verified for one repair."""


class Rejected(Exception):
    """A change that cannot be repaired, or need not be kept; its text is the reason."""


@dataclass(frozen=True)
class Draft:
    """A changed model, not verified yet, with the declarations that it needs.

    `labelled` are units and parallels that labels meant before, beside those of the program.
    """

    shop: Workshop
    model: nodes.Model
    labelled: Mapping[str, nodes.Layer] = field(default_factory=dict)


@dataclass
class Repairs:
    """How often what had to be done. Keys: (mode, level, operation); counts of draws by outcome.

    An outcome is a kind of repair, `whole` for what needed none, or `rejected: reason`.
    """

    counts: Counter[tuple[str, str, str, str]] = field(default_factory=Counter)
    results: Counter[tuple[str, str, str]] = field(default_factory=Counter)

    def reject(self, mode: str, level: str, operation: str, reason: object) -> None:
        """Count a draw that came to nothing."""
        self.counts[mode, level, operation, f"{REJECTED}{reason}"] += 1

    def accept(self, mode: str, level: str, operation: str, repairs: Iterable[str]) -> None:
        """Count a result, once under every kind of repair that it had."""
        self.results[mode, level, operation] += 1
        for kind in set(repairs) or {WHOLE}:
            self.counts[mode, level, operation, kind] += 1


def outcomes(several: Sequence[Repairs]) -> str:
    """What came of every operation, as a Markdown table: draws, and the share of them that was
    whole, repaired (by kind) and rejected (with the commonest reason)."""
    lines = [
        f"| mode | level | operation | draws | whole | {' | '.join(KINDS)} | rejected | mostly |",
        "|---|---|---|---|---|" + "---|" * len(KINDS) + "---|---|",
    ]
    for repairs in several:
        operations = dict.fromkeys(key[:3] for key in repairs.counts)
        for mode, level, name in sorted(operations):
            own = (mode, level, name)
            found = {key[3]: n for key, n in repairs.counts.items() if key[:3] == own}
            reasons = {k: n for k, n in found.items() if k.startswith(REJECTED)}
            rejected = sum(reasons.values())
            draws = rejected + repairs.results[own]
            shares = [f"{found.get(kind, 0) / draws:.0%}" for kind in (WHOLE, *KINDS)]
            most = max(reasons, key=lambda k: (reasons[k], k), default="").removeprefix(REJECTED)
            row = [mode, level, name, str(draws), *shares, f"{rejected / draws:.0%}", most]
            lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines) + "\n"


def mend(
    draft: Draft, before: Checked, verifier: Verifier, *, most: int, repair: bool
) -> tuple[Checked, list[str]]:
    """The program of a draft, verified, and the repairs that it needed.

    Raises Rejected where there is no way, where it has more than `most` units, and, without
    `repair`, where any repair is needed.
    """
    settler = _Settler({**before.labelled, **draft.labelled}, draft.model, repair)
    body = settler.settle(draft.model.backbone)
    repairs = settler.repairs
    if not 0 < size(body) <= most:
        raise Rejected("number of units")
    try:
        return _checked(draft, body, verifier, most), repairs
    except StarError as failure:
        if not repair:
            raise Rejected(failure.diagnostics[0].code) from None
        return _second_try(draft, body, before, verifier, most, repairs, failure)


def _checked(draft: Draft, body: Body, verifier: Verifier, most: int) -> Checked:
    body = without_unused_labels(body)
    checked = verifier.check(draft.shop.program(changed(draft.model, backbone=body)))
    if checked.units > most:
        raise Rejected("number of units")
    return checked


def without_unused_labels(body: Body) -> Body:
    """The layers without the labels that nobody names."""
    given: list[str] = []
    named: list[str] = []
    for layer in body:
        theirs, words = _labels_of(layer)
        given += theirs
        named += words
    unused = set(given).difference(named)
    return drop_labels(body, unused) if unused else body


@per_node
def _labels_of(layer: nodes.Layer) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The labels that a layer and those inside of it give, and the words that may name others."""
    if isinstance(layer, nodes.Unit):
        return given_in(layer), mentioned(layer)
    words = tuple(label for unit in units(layer.body) for label in mentioned(unit))
    return given_in(layer), words


# --- ties to units that are not there -----------------------------------------------------------


_WEIGHTS, _TIE, _MEMBER, _NAME = range(4)


class _Want(NamedTuple):
    """A mention of a layer: all weights of a unit that calls `function`, a tie to a unit, a feature
    of a layer, or a name, which may be a number's."""

    label: str
    kind: int
    function: str = ""

    def met(self, visible: Mapping[str, str | None]) -> bool:
        """Whether it is met by layers given as functions by their labels, None for a parallel."""
        if self.kind == _WEIGHTS:
            return visible.get(self.label) == self.function
        if self.kind == _TIE:
            return visible.get(self.label) is not None
        return self.label in visible


_Gives = tuple[tuple[str, str | None], ...]


@per_node
def _bonds(layer: nodes.Layer) -> tuple[tuple[_Want, ...], _Gives]:
    """What a layer wants of earlier ones, and the labels that later ones see."""
    if not isinstance(layer, nodes.Unit):
        wants: list[_Want] = []
        inside: dict[str, str | None] = {}
        for inner in layer.body:
            theirs, given = _bonds(inner)
            wants += [want for want in theirs if not want.met(inside)]
            inside.update(given)
        if not isinstance(layer, nodes.Parallel):
            return tuple(wants), ()
        if layer.label:
            inside[layer.label] = None
        return tuple(wants), tuple(inside.items())
    function = layer.operator.function if isinstance(layer.operator, nodes.Call) else ""
    found = []
    for tie in ties(layer):
        whole = isinstance(tie, nodes.Shares) and tie.names == ("*",)
        found.append(_Want(str(tie.label), _WEIGHTS if whole else _TIE, function))
    for argument, label in features(layer):
        kind = _MEMBER if isinstance(argument.value, nodes.Member) else _NAME
        found.append(_Want(label, kind))
    return tuple(found), ((layer.label, function),) if layer.label else ()


@dataclass
class _Cell:
    """A unit that may yet be given a label."""

    unit: nodes.Unit


@dataclass
class _Visible:
    """Layers that a place of the backbone sees, and those of them that have labels."""

    layers: list[_Cell | nodes.Parallel] = field(default_factory=list)
    labelled: dict[str, _Cell | nodes.Parallel] = field(default_factory=dict)

    def add(self, layer: _Cell | nodes.Parallel, label: str | None) -> None:
        self.layers.append(layer)
        if label:
            self.labelled[label] = layer

    def find(self, label: str) -> _Cell | nodes.Parallel | None:
        """The layer of a label, which a unit inside a repeat may have been given from there."""
        if label in self.labelled:
            return self.labelled[label]
        cells = (c for c in self.layers if isinstance(c, _Cell) and c.unit.label == label)
        return next(cells, None)

    def inner(self) -> _Visible:
        """What the layers of a repeat see."""
        return _Visible([*self.layers], {**self.labelled})


class _Settler:
    """Goes through a backbone and makes every mention of a unit one of an earlier unit."""

    def __init__(self, before: Mapping[str, nodes.Layer], model: nodes.Model, repair: bool) -> None:
        self.before, self.model, self.repair = before, model, repair
        self.repairs: list[str] = []

    def repaired(self, kind: str) -> None:
        """Count a repair; raises Rejected where there is to be none."""
        if not self.repair:
            raise Rejected(kind)
        self.repairs.append(kind)

    @cached_property
    def labels(self) -> Labels:
        """Labels that are free."""
        free = Labels([])
        free.taken = {label for layer in self.model.backbone for label in given_in(layer)}
        free.taken |= {setting.name for setting in self.model.settings} | set(self.before)
        return free

    def settle(self, body: Body) -> Body:
        if self.holds(body):
            return body
        drafts = self.body(body, _Visible())
        return tuple(map(self.frozen, drafts))

    def holds(self, body: Body) -> bool:
        """Whether all that is mentioned is there, as it nearly always is."""
        visible: dict[str, str | None] = {}
        for layer in body:
            wants, gives = _bonds(layer)
            for want in wants:
                if not want.met(visible) and (want.kind != _NAME or want.label in self.before):
                    return False
            if gives:
                visible.update(gives)
        return True

    def body(self, layers: Body, visible: _Visible) -> list[object]:
        return [self.layer(layer, visible) for layer in layers]

    def layer(self, layer: nodes.Layer, visible: _Visible) -> object:
        if isinstance(layer, nodes.Unit):
            cell = _Cell(self.unit(layer, visible) if mentioned(layer) else layer)
            visible.add(cell, layer.label)
            return cell
        if isinstance(layer, nodes.Parallel):
            inner = self.body(layer.body, visible)
            visible.add(layer, layer.label)
            return layer, inner
        return layer, self.body(layer.body, visible.inner())

    def frozen(self, draft: object) -> nodes.Layer:
        if isinstance(draft, _Cell):
            return draft.unit
        assert isinstance(draft, tuple)
        layer, inner = draft
        body = tuple(map(self.frozen, inner))
        unchanged = all(new is old for new, old in zip(body, layer.body, strict=True))
        kept: nodes.Layer = layer if unchanged else changed(layer, body=body)
        return kept

    def unit(self, unit: nodes.Unit, visible: _Visible) -> nodes.Unit:
        for tie in ties(unit):
            found = visible.find(str(tie.label))
            if isinstance(found, _Cell) and self.fits(tie, unit, found.unit):
                continue
            old = unit if isinstance(found, _Cell) else self.before.get(str(tie.label))
            label = self.other(old, visible)
            self.repaired(MOVED if label else DROPPED)
            kept = [changed(m, label=label) if m is tie else m for m in unit.modifiers]
            if label is None:
                kept = [m for m in unit.modifiers if m is not tie]
            unit = changed(unit, modifiers=tuple(kept))
        for argument, name in features(unit):
            value = argument.value
            if visible.find(name) or (isinstance(value, nodes.Name) and name not in self.before):
                continue
            label = self.other(self.before.get(name), visible)
            if label is None:
                raise Rejected("feature argument")
            self.repaired(MOVED)
            named: nodes.Expr = nodes.Name(label, span=value.span)
            if isinstance(value, nodes.Member):
                named = changed(value, unit=label)
            unit = with_argument(unit, argument, named)
        return unit

    @staticmethod
    def fits(tie: nodes.Shares | nodes.Reuses, unit: nodes.Unit, target: nodes.Unit) -> bool:
        """False where a tie of all weights is to another operator."""
        if isinstance(tie, nodes.Reuses) or tie.names != ("*",):
            return True
        ours, theirs = unit.operator, target.operator
        return (
            isinstance(ours, nodes.Call)
            and isinstance(theirs, nodes.Call)
            and ours.function == theirs.function
        )

    def other(self, old: nodes.Layer | None, visible: _Visible) -> str | None:
        """The label of the last visible unit with the call that another had, made if need be."""
        if not isinstance(old, nodes.Unit):
            return None
        for cell in reversed(visible.layers):
            if isinstance(cell, _Cell) and alike(cell.unit.operator, old.operator):
                if cell.unit.label is None:
                    cell.unit = changed(cell.unit, label=self.labels.fresh("u"))
                return cell.unit.label
        return None


def with_argument(unit: nodes.Unit, old: nodes.Argument, value: nodes.Expr) -> nodes.Unit:
    """The unit with another value for one argument of its call."""
    call = unit.operator
    assert isinstance(call, nodes.Call)
    new = tuple(changed(a, value=value) if a is old else a for a in call.arguments)
    return changed(unit, operator=changed(call, arguments=new))


# --- what does not fit --------------------------------------------------------------------------


def _second_try(
    draft: Draft,
    body: Body,
    before: Checked,
    verifier: Verifier,
    most: int,
    repairs: list[str],
    failure: StarError,
) -> tuple[Checked, list[str]]:
    code = failure.diagnostics[0].code
    old_ties = set(_pairs(before.model.backbone))
    tries = _TRIES
    while any(d.code.startswith("sharing") for d in failure.diagnostics) and tries:
        loose = next((pair for pair in _pairs(body) if pair not in old_ties), None)
        if loose is None:
            break
        body, tries = _untied(body, loose), tries - 1
        repairs = [*repairs, DROPPED]
        try:
            return _checked(draft, body, verifier, most), repairs
        except StarError as again:
            failure = again
    calls = {unit.operator for unit in units(before.model.backbone)}
    for other in _other_numbers(body, calls, draft, before.settings.width):
        if not tries:
            break
        tries -= 1
        try:
            return _checked(draft, other, verifier, most), [*repairs, NUMBER]
        except StarError:
            continue
    raise Rejected(code)


_Pair = tuple[nodes.Shares | nodes.Reuses, nodes.Expr, nodes.Expr | None]


def _pairs(body: Body) -> Iterator[_Pair]:
    """Every tie with the calls of both units."""
    labelled = {unit.label: unit.operator for unit in units(body) if unit.label}
    for unit in units(body):
        for tie in ties(unit):
            yield tie, unit.operator, labelled.get(str(tie.label))


def _untied(body: Body, pair: _Pair) -> Body:
    tie, call, _ = pair

    def loosened(layer: nodes.Layer) -> nodes.Layer:
        if not isinstance(layer, nodes.Unit):
            return changed(layer, body=tuple(map(loosened, layer.body)))
        if layer.operator != call or tie not in layer.modifiers:
            return layer
        return changed(layer, modifiers=tuple(m for m in layer.modifiers if m != tie))

    return tuple(map(loosened, body))


def _other_numbers(
    body: Body, calls: set[nodes.Call | nodes.Hole], draft: Draft, width: int
) -> Iterator[Body]:
    """The body with numbers of its new calls replaced by divisors of the width, nearest first."""
    divisors = [n for n in range(1, width + 1) if width % n == 0]
    new = [unit.operator for unit in units(body) if unit.operator not in calls]
    for call in dict.fromkeys(new):
        assert isinstance(call, nodes.Call)
        numbers: list[tuple[int, int]] = []
        for index, argument in enumerate(call.arguments):
            value = argument.value
            if isinstance(value, nodes.Number) and value.value.denominator == 1:
                numbers.append((index, max(1, int(value.value))))
        for nth in range(4):
            for index, now in numbers:
                near = sorted(divisors, key=lambda n: (abs(math.log(n / now)), n))
                near = [n for n in near if n != now]
                if nth >= len(near):
                    continue
                chosen = literal(near[nth])
                arguments = list(call.arguments)
                arguments[index] = changed(arguments[index], value=chosen)
                yield _recalled(body, call, changed(call, arguments=tuple(arguments)))
        operator = draft.shop.operators.get(call.function)
        names = [a.name for a in call.arguments]
        if operator and not call.arguments and "heads" not in names:
            if any(p.name == "heads" for p in operator.parameters):
                for n in sorted(divisors, key=lambda n: (abs(math.log(64 * n / width)), n))[:4]:
                    heads = nodes.Argument("heads", literal(n), span=call.span)
                    yield _recalled(body, call, changed(call, arguments=(heads,)))


def _recalled(body: Body, old: nodes.Call, new: nodes.Call) -> Body:
    def change(layer: nodes.Layer) -> nodes.Layer:
        if isinstance(layer, nodes.Unit):
            return changed(layer, operator=new) if layer.operator == old else layer
        return changed(layer, body=tuple(map(change, layer.body)))

    return tuple(map(change, body))
