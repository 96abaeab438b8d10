"""Featurizer sharing: which parameters of a unit are another unit's.

Turns `Unit.shares` into `Unit.ties`, following chains to the unit that owns the weights, and
refuses weights that do not fit: equal names, equal shapes.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

from starc.compiler.ir import Layer, Loop, Model, Operator, Parallel, Repeat, Tie, Unit, units
from starc.grammar.copying import changed
from starc.grammar.errors import Diagnostic, StarError


def share(model: Model) -> Model:
    """The model with `ties` in place of `shares`; raises StarError where weights do not fit."""
    operators = {o.name: o for o in model.operators}
    owners: dict[tuple[str, str], str] = {}
    found: dict[str, Unit] = {}
    failures: list[Diagnostic] = []
    resolved: dict[str, Unit] = {}
    for unit in units(model.layers):
        found[unit.path] = unit
        if not unit.shares:
            continue
        ties: dict[str, Tie] = {}
        for names, path in unit.shares:
            ours, theirs = operators[unit.operator], operators[found[path].operator]
            problem = _misfit(unit, ours, found[path], theirs, names)
            if problem:
                failures.append(problem)
                continue
            kept = {p.name for p in ours.parameters}
            for name in names:
                if name in kept:
                    ties[name] = _tie(name, owners.get((path, name), path))
                    owners[unit.path, name] = ties[name].unit
        resolved[unit.path] = changed(unit, shares=(), ties=tuple(ties.values()))
    if failures:
        raise StarError(failures)
    if not resolved:
        return model
    return replace(model, layers=tuple(with_units(layer, resolved) for layer in model.layers))


@lru_cache(maxsize=32_768)
def _tie(parameter: str, unit: str) -> Tie:
    """The same tie for the same words: models of a search have thousands of them."""
    return Tie(parameter, unit)


def fits(ours: Operator, theirs: Operator, names: tuple[str, ...]) -> bool:
    """Whether the weights of those names are alike, where the first operator has them."""
    if ours is theirs:
        return True
    yours = {p.name: p.shape for p in theirs.parameters}
    return all(
        p.shape == yours.get(p.name) and _weights(ours, p.name) == _weights(theirs, p.name)
        for p in ours.parameters
        if p.name in names
    )


def _misfit(
    unit: Unit, ours: Operator, other: Unit, theirs: Operator, names: tuple[str, ...]
) -> Diagnostic | None:
    if fits(ours, theirs, names):
        return None
    mine = {p.name: p.shape for p in ours.parameters}
    yours = {p.name: p.shape for p in theirs.parameters}
    for name in names:
        if name in mine and mine[name] != yours.get(name):
            there = f"{yours[name]} in" if name in yours else "there is none in"
            return Diagnostic(
                "sharing-type",
                f"weight '{name}' has shape {mine[name]} here, but {there} '{other.name}'.",
                unit.span,
                hint="shared weights need the same stages and sizes in both operators.",
            )
        if name in mine and _weights(ours, name) != _weights(theirs, name):
            return Diagnostic(
                "sharing-type",
                f"the experts '{name}' here are not those of '{other.name}'.",
                unit.span,
                hint="shared experts are copies of one operator with the same arguments.",
            )
    return None


def _weights(operator: Operator, bank: str) -> list[object]:
    """Names and shapes of the weights of one expert; empty for a plain parameter."""
    kind, *index = operator.parameter(bank).init
    if kind != "experts":
        return []
    expert = operator.inner[index[0]]
    return [(p.name, p.shape, _weights(expert, p.name)) for p in expert.parameters]


def with_units(layer: Layer, replacements: dict[str, Unit]) -> Layer:
    """A layer with its units replaced by path."""
    match layer:
        case Unit():
            return replacements.get(layer.path, layer)
        case Repeat():
            bodies = tuple(
                tuple(with_units(inner, replacements) for inner in b) for b in layer.bodies
            )
            return replace(layer, bodies=bodies)
        case Loop():
            return replace(
                layer, body=tuple(with_units(inner, replacements) for inner in layer.body)
            )
        case Parallel():
            branches = tuple(with_units(inner, replacements) for inner in layer.branches)
            same = all(a is b for a, b in zip(branches, layer.branches, strict=True))
            return layer if same else changed(layer, branches=branches)
