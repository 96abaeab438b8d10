"""Backbones under construction: units whose outputs are not chosen yet, and the labels in scope.

Units are drafts until the whole backbone is known, because a later unit may still ask an earlier
one for a feature. `Drafted.frozen` then names them and makes the IR of them.

Owns: drafts, scopes of labels, freezing. Refuses: the text of the program (resolve.py, sharing.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from starc.compiler.builder import prune
from starc.compiler.depth import along_depth
from starc.compiler.init import Init, initialised
from starc.compiler.ir import (
    FeatureRef,
    Layer,
    Loop,
    Model,
    Operator,
    Parallel,
    Repeat,
    Residual,
    Unit,
)
from starc.compiler.memo import Body, KnownUnit, Memo
from starc.compiler.naming import MODEL_ATTRIBUTES, Names
from starc.compiler.residuals import suffixes
from starc.compiler.settings import Settings
from starc.grammar import nodes
from starc.grammar.copying import changed
from starc.grammar.source import Span

Labelled = nodes.Unit | nodes.Parallel


@dataclass(slots=True, eq=False)
class Draft:
    """A unit, the `layer`-th of the backbone: what it was resolved to, and the layers that it
    names, as `known` numbers them. `exports` are the features that later units asked for."""

    layer: int
    known: KnownUnit
    residual: Residual
    named: tuple[DraftNamed | None, ...]
    unit: nodes.Unit
    exports: list[str]
    path: str = ""

    @property
    def body(self) -> Body:
        return self.known.body

    @property
    def asked(self) -> tuple[str, ...]:
        """The exports in the order of the operator."""
        if len(self.exports) < 2:
            return tuple(self.exports)
        return tuple(name for name in self.body.bindings if name in self.exports)

    def source(self, number: int) -> Draft:
        """The unit that it takes weights of."""
        found = self.named[number]
        assert isinstance(found, Draft)
        return found


@dataclass(slots=True, eq=False)
class DraftRepeat:
    bodies: list[list[DraftLayer]]
    span: Span


@dataclass(slots=True, eq=False)
class DraftLoop:
    times: int
    body: list[DraftLayer]
    span: Span


@dataclass(slots=True, eq=False)
class DraftParallel:
    """A parallel; whoever goes through a backbone may give it a `number`."""

    label: str | None
    mode: str
    branches: list[DraftLayer]
    residual: Residual
    span: Span
    path: str = ""
    number: int = 0


DraftNamed = Draft | DraftParallel
DraftLayer = Draft | DraftRepeat | DraftLoop | DraftParallel
"""A layer; repeats and loops may turn out to have no units."""


@dataclass
class Scope:
    """What a place of the backbone sees.

    `labels` are the units of the enclosing bodies and of this one so far, `layers` these and
    labelled parallels, behind which the stream may be read, `places` the syntax of every label so
    far (failed units, too); `bodies` hold those still to come.
    """

    labels: dict[str, Draft]
    layers: dict[str, DraftNamed]
    places: dict[str, Labelled]
    failed: set[str]
    bodies: tuple[tuple[nodes.Layer, ...], ...]

    def inner(self, body: tuple[nodes.Layer, ...]) -> Scope:
        """The scope of one iteration of a repeat or loop: labels made inside stay inside."""
        return Scope(
            dict(self.labels),
            dict(self.layers),
            dict(self.places),
            set(self.failed),
            (*self.bodies, body),
        )

    def labels_in_bodies(self) -> dict[str, Span]:
        """Where the labels of the enclosing bodies and of this one stand."""
        found: dict[str, Span] = {}
        for body in self.bodies:
            found |= labels_of(body)
        return found


def labels_of(body: tuple[nodes.Layer, ...]) -> dict[str, Span]:
    """The labels that a body makes, each at its first place; those of inner bodies stay inside."""
    found: dict[str, Span] = {}
    for layer in body:
        if isinstance(layer, nodes.Unit | nodes.Parallel) and layer.label:
            found.setdefault(layer.label, label_span(layer))
        if isinstance(layer, nodes.Parallel):
            for label, span in labels_of(layer.body).items():
                found.setdefault(label, span)
    return found


def label_span(layer: Labelled) -> Span:
    """Where the label of a layer stands: a labelled layer begins with it."""
    start = layer.span.start
    return Span(layer.span.source, start, start + len(layer.label or ""))


def has_units(layer: DraftLayer) -> bool:
    """Whether anything is left of a layer: `repeat 0` leaves nothing."""
    match layer:
        case Draft():
            return True
        case DraftRepeat():
            return any(has_units(inner) for body in layer.bodies for inner in body)
        case DraftLoop():
            return any(map(has_units, layer.body))
        case DraftParallel():
            return bool(layer.branches)


@dataclass(frozen=True)
class Drafted:
    """A model whose units are known, and with them what they ask of each other.

    `passed` is how often a token passes a unit: the number of units, those of a loop each time.
    """

    model: nodes.Model
    settings: Settings
    layers: list[DraftLayer]
    passed: int
    memo: Memo

    def units(self) -> Iterator[Draft]:
        """All units in order of execution, as in `ir.units`."""
        return _units(self.layers)

    def plain(self, draft: Draft) -> Operator:
        """The operator of a unit as it is in every model."""
        return plain_operator(draft.body, draft.asked, self.memo)

    def frozen(self) -> Model:
        """The IR; raises StarError where what looks along depth does not fit the layers."""
        settings = self.settings
        layers, operators = _Freezer(self.memo, self.passed, settings.init).freeze(self.layers)
        layers, average, readout = along_depth(layers, settings)
        return Model(
            self.model.name,
            settings.vocab,
            settings.width,
            settings.context,
            operators,
            layers,
            settings.embedding,
            settings.position,
            replace(settings.head, std=settings.init.readout(settings.width)),
            settings.final_norm,
            self.model.doc,
            average,
            readout,
            settings.dtype,
            settings.causal,
        )


def _units(layers: list[DraftLayer]) -> Iterator[Draft]:
    for layer in layers:
        match layer:
            case Draft():
                yield layer
            case DraftRepeat():
                for body in layer.bodies:
                    yield from _units(body)
            case DraftLoop():
                yield from _units(layer.body)
            case DraftParallel():
                yield from _units(layer.branches)


class _Freezer:
    def __init__(self, memo: Memo, depth: int, init: Init) -> None:
        self.memo, self.depth, self.init = memo, depth, init
        self.names = Names()
        self.operators: dict[tuple[object, ...], Operator] = {}

    def freeze(self, drafts: list[DraftLayer]) -> tuple[tuple[Layer, ...], tuple[Operator, ...]]:
        layers = self._layers(drafts, Names(MODEL_ATTRIBUTES), "")
        return layers, tuple(self.operators.values())

    def _layers(self, drafts: list[DraftLayer], names: Names, path: str) -> tuple[Layer, ...]:
        """Layers of one namespace, whose paths begin with `path`; those without units give nothing
        but their names."""
        layers = [(draft, self._layer(draft, names, path)) for draft in drafts]
        return tuple([layer for draft, layer in layers if has_units(draft)])

    def _layer(self, draft: DraftLayer, names: Names, path: str) -> Layer:
        match draft:
            case Draft():
                return self._unit(draft, names, path)
            case DraftParallel():
                suffix = (*suffixes(draft.residual), "_gate")
                name = names.take(draft.label or "parallel", suffix)
                draft.path = path + name
                branches = self._layers(draft.branches, names, path)
                ends = draft.mode, branches, draft.residual
                return Parallel(name, draft.path, *ends, span=draft.span)
            case DraftRepeat():
                name = names.take("blocks")
                bodies = tuple(
                    self._layers(body, Names(), f"{path}{name}.{i}.")
                    for i, body in enumerate(draft.bodies)
                )
                return Repeat(name, path + name, bodies, draft.span)
            case DraftLoop():
                name = names.take("loop")
                inner = self._layers(draft.body, Names(), f"{path}{name}.")
                return Loop(name, path + name, draft.times, inner, span=draft.span)

    def _unit(self, draft: Draft, names: Names, path: str) -> Unit:
        known, operator = draft.known, self._operator(draft)
        name = names.take(draft.unit.label or known.node.name, suffixes(draft.residual))
        draft.path = path + name
        inputs = []
        if known.inputs:  # those that are left when what the outputs do not need is gone
            read = {n for n, _ in operator.inputs}
            for n, number, there in known.inputs:
                if n in read and (source := draft.named[number]):
                    inputs.append((n, FeatureRef(source.path, there)))
        return Unit(
            name,
            draft.path,
            draft.layer,
            operator.name,
            draft.residual,
            tuple(inputs),
            tuple((weights, draft.source(number).path) for weights, number in known.shares),
            (),
            draft.unit.label is not None,
            span=draft.unit.span,
        )

    def _operator(self, draft: Draft) -> Operator:
        exports = draft.asked
        key = (id(draft.body), exports)
        if key not in self.operators:
            name = self.names.take(draft.body.node.name)
            self.operators[key] = self._operator_of(draft.body, exports, name)
        return self.operators[key]

    def _operator_of(self, body: Body, exports: tuple[str, ...], name: str) -> Operator:
        made = (exports, name, self.depth, self.init)
        known = self.memo.operator(body, made)
        if known is None:
            plain = plain_operator(body, exports, self.memo)
            known = changed(initialised(plain, self.init, self.depth), name=name)
            self.memo.keep_operator(body, made, known)
        return known


def plain_operator(body: Body, exports: tuple[str, ...], memo: Memo) -> Operator:
    """An operator as it is in every model; those that are made of it share its values."""
    plain = memo.operator(body, exports)
    if plain is None:
        outputs = [(n, body.bindings[n]) for n in ("y", *exports)]
        values, renumbered, parameters = prune(body.values, outputs, body.parameters)
        node = body.node
        plain = Operator(
            "",
            node.name,
            body.arguments,
            values,
            renumbered,
            parameters,
            node.doc,
            node.span,
            body.inner,
        )
        memo.keep_operator(body, exports, plain)
    return plain


def own_weights(body: Body, name: str) -> set[str]:
    """The parameters of the stages of one binding, not of the bindings that it reads."""
    others = {id for other, id in body.bindings.items() if other != name}
    found: set[str] = set()
    left = [body.bindings[name]]
    while left:
        value = body.values[left.pop()]
        found.update(value.parameters)
        left += [i for i in value.inputs if i not in others]
    return found


def weights_of(body: Body, names: tuple[str, ...]) -> tuple[str, ...]:
    """The learned parameters that the bindings are computed with, all the way back to x."""
    known = body.weights.get(names)
    if known is None:
        outputs = [(n, body.bindings[n]) for n in names if n in body.bindings]
        _, _, parameters = prune(body.values, outputs, body.parameters)
        body.weights[names] = known = tuple(p.name for p in parameters if p.learned)
    return known
