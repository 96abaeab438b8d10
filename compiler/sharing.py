"""What units take from earlier ones: features (`reuses`, feature arguments) and weights (`shares`).

Owns: the rules of sharing that the text alone decides, and their diagnostics. Refuses: whether
shared weights fit in shape (the pass `share` sees the parameters).
"""

from __future__ import annotations

from dataclasses import dataclass

from starc.compiler.drafts import Draft, Scope, label_span, own_weights, weights_of
from starc.compiler.faults import error, word_span
from starc.compiler.ir import STREAM
from starc.compiler.memo import Body
from starc.compiler.results import Poisoned
from starc.compiler.types import Feature, Type, describe
from starc.grammar import nodes
from starc.grammar.errors import Diagnostic, StarError, suggest
from starc.grammar.source import Span


@dataclass(frozen=True)
class Taken:
    """A feature of another unit, its `name` there; `place` is where the text asks for it, `label`
    whose it is."""

    type: Type
    name: str
    place: Span
    label: str = ""


Features = dict[str, Taken]
"""Features that a unit takes from others, by the name that they have here."""


def find_unit(label: str, span: Span, scope: Scope, what: str) -> Draft:
    """The earlier unit of a label."""
    if label in scope.labels:
        return scope.labels[label]
    if label in scope.failed:
        raise Poisoned
    if isinstance(scope.places.get(label), nodes.Parallel):
        raise StarError(
            Diagnostic(
                "wrong-type",
                f"'{label}' is a parallel; only units have features and weights to share.",
                span,
                hint="label the branch that you mean.",
                related=((label_span(scope.places[label]), f"'{label}' stands here"),),
            )
        )
    if label in scope.places:
        raise error("sharing-itself", f"'{label}' is this unit itself; {what} looks back.", span)
    later = scope.labels_in_bodies()
    if label in later:
        raise StarError(
            Diagnostic(
                "sharing-target-later",
                f"{what} looks back, but '{label}' comes later.",
                span,
                related=((later[label], f"'{label}' stands here"),),
                hint="swap the two units: the first one owns what is shared.",
            )
        )
    raise error(
        "unknown-name",
        f"no earlier unit is labelled '{label}'.",
        span,
        "unknown",
        suggest(label, scope.labels) or _labels(scope),
    )


def find_stream(name: nodes.Name, scope: Scope, stream: Feature) -> Taken:
    """The stream behind the labelled layer, as a feature."""
    label = name.name
    if label not in scope.layers:
        find_unit(label, name.span, scope, "a feature argument")  # says what is wrong
    return Taken(stream, STREAM, name.span, label)


def _labels(scope: Scope) -> str:
    if scope.labels:
        return f"labels so far: {', '.join(scope.labels)}."
    return "a label stands before its unit, label: op(); in a repeat it is visible inside only."


def reused(modifier: nodes.Reuses, node: nodes.Operator, scope: Scope) -> Features:
    """The features that `reuses NAMES from LABEL` puts in place of the operator's own bindings."""
    label = modifier.label
    if label is None:
        raise _open("reuses", modifier.span)
    source = find_unit(label, word_span(modifier.span, label), scope, "'reuses'")
    own = [b.name for b in node.body if b.name != "y"]
    names = modifier.names
    if names == ("*",):
        features = features_of(source.body)
        names = tuple(n for n in own if n in features)
        if not names:
            raise error(
                "sharing-unknown-binding",
                f"'{node.name}' and '{label}' have no feature of the same name.",
                modifier.span,
                hint=f"'{label}' has {', '.join(features) or 'none'}.",
            )
    found: Features = {}
    for name in names:
        span = word_span(modifier.span, name)
        if name not in own:
            raise error(
                "sharing-unknown-binding",
                f"operator '{node.name}' has no binding '{name}' to replace.",
                span,
                hint=suggest(name, own) or f"it binds {', '.join(own) or 'nothing'}.",
            )
        found[name] = take(source, name, span)
    return found


def features_of(body: Body) -> list[str]:
    """Bindings of an operator that are features, y aside."""
    return [
        n
        for n, id in body.bindings.items()
        if n != "y" and isinstance(body.values[id].type, Feature)
    ]


def take(source: Draft, name: str, span: Span) -> Taken:
    """Ask an earlier unit for one of its features."""
    bindings = source.body.bindings
    if name not in bindings:
        features = features_of(source.body)
        raise error(
            "sharing-unknown-binding",
            f"operator '{source.body.node.name}' binds no feature '{name}'.",
            span,
            hint=suggest(name, features) or f"its features are {', '.join(features)}.",
        )
    type_ = source.body.values[bindings[name]].type
    if not isinstance(type_, Feature):
        raise error(
            "sharing-type",
            f"'{name}' of '{source.unit.label}' is a {describe(type_)}; "
            "only features can be passed on.",
            span,
            hint="'shares' ties the weights of anything else.",
        )
    if name not in source.exports:
        source.exports.append(name)
    return Taken(type_, name, span, source.unit.label or "")


def shared(modifier: nodes.Shares, body: Body, scope: Scope) -> tuple[tuple[str, ...], str]:
    """The weights that `shares NAMES except EXCLUDED with LABEL` ties, and the label of the unit
    that owns them.

    `*` ties all that both have: what a unit reuses, it has no weights for.
    """
    weights, source = _shared(modifier, body, scope)
    kept: set[str] = set()
    for name in modifier.excluded:
        span = word_span(modifier.span, name)
        if name not in body.bindings:
            raise error(
                "sharing-unknown-binding",
                f"this operator binds nothing named '{name}'.",
                span,
                hint=suggest(name, body.bindings) or f"it binds {', '.join(body.bindings)}.",
            )
        own = own_weights(body, name)
        if not own & set(weights):
            raise error(
                "sharing-no-weights",
                f"'{name}' has no weights among those that are shared.",
                span,
                hint="'except' leaves out the weights of a binding's own stages.",
            )
        kept |= own
    return tuple(w for w in weights if w not in kept), source


def _shared(modifier: nodes.Shares, body: Body, scope: Scope) -> tuple[tuple[str, ...], str]:
    label = modifier.label
    if label is None:
        raise _open("shares", modifier.span)
    source = find_unit(label, word_span(modifier.span, label), scope, "'shares'")
    theirs = source.body
    if modifier.names == ("*",):
        if body.node is not theirs.node:
            raise error(
                "sharing-different-operator",
                f"'shares *' needs the same operator: this is '{body.node.name}', "
                f"'{label}' is '{theirs.node.name}'.",
                modifier.span,
                hint=(
                    f"name the bindings to share: shares B, V with {label}"
                    if body.node.name != theirs.node.name
                    else "write the two calls alike."
                ),
            )
        owned = weights_of(theirs, tuple(theirs.bindings))
        return tuple(w for w in weights_of(body, tuple(body.bindings)) if w in owned), label
    for name in modifier.names:
        span = word_span(modifier.span, name)
        for bindings, owner in ((body.bindings, "this operator"), (theirs.bindings, f"'{label}'")):
            if name not in bindings:
                raise error(
                    "sharing-unknown-binding",
                    f"{owner} binds nothing named '{name}'.",
                    span,
                    hint=suggest(name, bindings) or f"it binds {', '.join(bindings)}.",
                )
        if not weights_of(body, (name,)):
            raise error(
                "sharing-no-weights",
                f"'{name}' is computed without weights: there is nothing to share.",
                span,
                hint=f"'reuses {name} from {label}' takes the value itself.",
            )
    return weights_of(body, modifier.names), label


def _open(what: str, span: Span) -> StarError:
    return error(
        "hole-left",
        f"'{what} ?' is a hole: this program is a search space, not an architecture.",
        span,
        "undecided",
    )
