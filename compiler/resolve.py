"""From the syntax tree to the IR: the backbone with its repeats, labels and sharing.

Owns: the order in which a model is resolved, and the life of operators. Refuses: bodies of
operators (instance.py), expressions (expressions.py), reading files and optimising.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

from starc.compiler import catalog
from starc.compiler.arguments import one_of, size_of
from starc.compiler.bodies import Bodies
from starc.compiler.builder import Builder
from starc.compiler.calls import check_kind, in_call, match_arguments
from starc.compiler.drafts import (
    Draft,
    Drafted,
    DraftLayer,
    DraftLoop,
    DraftNamed,
    DraftParallel,
    DraftRepeat,
    Scope,
    has_units,
    label_span,
)
from starc.compiler.expressions import Expressions
from starc.compiler.faults import duplicate, error, hole_error, word_span
from starc.compiler.holes import holes_left, walk
from starc.compiler.instance import Request
from starc.compiler.ir import STREAM, Model, Residual
from starc.compiler.memo import PLACE, Body, Key, KnownUnit, Memo, Said, words_of
from starc.compiler.numbers import Numeric
from starc.compiler.options import Limits
from starc.compiler.residuals import check_streams, numbered, resolve_residual
from starc.compiler.results import Poisoned
from starc.compiler.settings import Settings, resolve_settings
from starc.compiler.sharing import (
    Features,
    find_stream,
    find_unit,
    reused,
    shared,
    take,
)
from starc.compiler.types import Feature
from starc.compiler.unroll import count_units
from starc.grammar import nodes
from starc.grammar.errors import Diagnostic, StarError, suggest
from starc.grammar.library import where_declared
from starc.grammar.source import Span

NO_RESIDUAL = Residual("none")
PARALLEL_MODES = ("sum", "mean", "difference", "gated")
MAX_FAULTS = 50
"""Nobody reads more at once."""


class Resolver:
    """Resolves one model. `warnings` and `failures` collect what was found."""

    def __init__(
        self,
        model: nodes.Model,
        operators: Mapping[str, nodes.Operator],
        limits: Limits,
        memo: Memo | None = None,
    ) -> None:
        self.model = model
        self.operators = operators
        self.limits = limits
        self.failures: list[Diagnostic] = []
        self.warnings: dict[Diagnostic, None] = {}
        self.memo = memo or Memo()
        self._layer = 0

    def report(self, failure: StarError) -> None:
        self.failures += [d for d in failure.diagnostics if d not in self.failures]
        if len(self.failures) >= MAX_FAULTS:
            raise self._failure()

    def warn(self, warning: Diagnostic) -> None:
        self.warnings[warning] = None

    def resolve(self) -> Drafted:
        """The model's backbone; raises StarError with everything that was found."""
        self.settings = self._settings()
        if not self.settings.complete:
            raise self._failure()
        try:
            depth, passed = count_units(self.model.backbone, self._times, self.limits.units)
        except StarError as failure:
            self.report(failure)
            raise self._failure() from None
        self._depth = depth
        start = self.memo.start(self.settings)
        self.numbers: dict[str, Numeric] = {**start.numbers, "depth": Fraction(depth)}
        self._names, self._context, self._said = start.names, start.context, self.memo.seen
        settings = self.settings
        self._one_residual = settings.formula is None and settings.residual.hyper is None
        self._bodies = Bodies(
            self.settings,
            self.numbers,
            start.context,
            self.operators,
            self.model.name_span.source,
            self.limits,
            self.warn,
            self.memo,
        )
        bodies = (self.model.backbone,)
        scope = Scope({}, {}, {}, set(), bodies)
        drafts = self._layers(self.model.backbone, scope, self.settings.residual)
        if self.failures:
            raise self._failure()
        if not any(map(has_units, drafts)):
            raise error(
                "empty-backbone",
                f"model '{self.model.name}' has no units.",
                self.model.name_span,
                hint="write backbone { ... } with at least one unit.",
            )
        return Drafted(self.model, self.settings, drafts, passed, self.memo)

    def _failure(self) -> StarError:
        """Everything that was found; holes become one diagnostic that shows them all."""
        found = [d for d in self.failures if d.code != "hole-left"]
        if len(found) < len(self.failures) and (holes := holes_left(self.model, self.operators)):
            found.append(holes)
        return StarError(found[:MAX_FAULTS])

    def _settings(self) -> Settings:
        if known := self.memo.settings(self.model):
            return known
        settings = resolve_settings(self.model, self.report)
        self._warn_unread(settings)
        if not self.failures:
            self.memo.keep_settings(self.model, settings)
        return settings

    def _warn_unread(self, settings: Settings) -> None:
        """Warn of the model's own numbers that nothing of it reads."""
        if not settings.own:
            return
        read = {n.name for n in walk(self.model) if isinstance(n, nodes.Name)}
        for setting in self.model.settings:
            if setting.name in settings.own and setting.name not in read:
                self.warn(
                    Diagnostic(
                        "unread-binding",
                        f"number '{setting.name}' of model '{self.model.name}' is never read.",
                        setting.name_span,
                        "unread",
                        "operators do not see it: pass it as an argument.",
                        severity="warning",
                    )
                )

    # --- blocks ---------------------------------------------------------------------------------

    def _times(self, layer: nodes.Repeat | nodes.Loop) -> int:
        if isinstance(layer.count, nodes.Hole):
            raise hole_error(layer.count)
        word, smallest = ("repeat", 0) if isinstance(layer, nodes.Repeat) else ("loop", 1)
        what = f"the count of '{word}'"
        scope = {**self.settings.own, **self.settings.numbers()}
        number = self._expressions(scope).number(layer.count, what)
        return size_of(number, what, layer.count.span, smallest=smallest)

    def _expressions(self, scope: Mapping[str, Numeric]) -> Expressions:
        return Expressions(Builder(), scope, lambda: self.operators, {})

    def _layers(
        self, body: tuple[nodes.Layer, ...], scope: Scope, residual: Residual
    ) -> list[DraftLayer]:
        """The layers of a body; faulty ones are reported and left out."""
        found: list[DraftLayer] = []
        for layer in body:
            try:
                if type(layer) is nodes.Unit and layer.label is None:
                    found.append(self._unit(layer, scope, residual))
                    continue
                found.append(self._resolve_layer(layer, scope, residual))
            except (StarError, Poisoned) as failure:
                if label := getattr(layer, "label", None):
                    scope.failed.add(label)
                if isinstance(failure, StarError):
                    self.report(failure)
        return found

    def _resolve_layer(self, layer: nodes.Layer, scope: Scope, residual: Residual) -> DraftLayer:
        match layer:
            case nodes.Unit():
                if layer.label:
                    self._label(layer, scope)
                return self._unit(layer, scope, residual)
            case nodes.Repeat():
                return self._repeat(layer, scope, residual)
            case nodes.Parallel():
                self._label(layer, scope)
                return self._parallel(layer, scope, residual)
            case nodes.Loop():
                return self._loop(layer, scope, residual)

    def _label(self, layer: nodes.Unit | nodes.Parallel, scope: Scope) -> None:
        if layer.label is None:
            return
        if layer.label in scope.places:
            first = label_span(scope.places[layer.label])
            message = f"the label '{layer.label}' is used twice."
            raise duplicate(message, label_span(layer), first)
        scope.places[layer.label] = layer

    def _repeat(self, layer: nodes.Repeat, scope: Scope, residual: Residual) -> DraftLayer:
        if not layer.body:
            raise error("empty-backbone", "'repeat' has no units.", word_span(layer.span, "repeat"))
        repeat = DraftRepeat([], layer.span)
        for _ in range(self._times(layer)):
            inner = scope.inner(layer.body)
            before = len(self.failures)
            repeat.bodies.append(self._layers(layer.body, inner, residual))
            if len(self.failures) > before:
                raise Poisoned  # the same faults again in every iteration help nobody
        return repeat

    def _loop(self, layer: nodes.Loop, scope: Scope, residual: Residual) -> DraftLayer:
        place = word_span(layer.span, "loop")
        if not layer.body:
            raise error("empty-backbone", "'loop' has no units.", place)
        inner = scope.inner(layer.body)
        before = len(self.failures)
        body = self._layers(layer.body, inner, residual)
        if len(self.failures) > before:
            raise Poisoned
        return DraftLoop(self._times(layer), body, layer.span)

    def _parallel(self, layer: nodes.Parallel, scope: Scope, residual: Residual) -> DraftLayer:
        mode = layer.mode
        if mode not in PARALLEL_MODES:
            raise error(
                "unknown-name",
                f"'parallel' has no mode '{mode}'.",
                word_span(layer.span, mode),
                "unknown",
                suggest(mode, PARALLEL_MODES) or f"modes are {one_of(PARALLEL_MODES)}.",
            )
        for modifier in layer.modifiers:
            if not isinstance(modifier, nodes.With):
                raise error(
                    "sharing-parallel",
                    "'shares' and 'reuses' belong to units; put them on the branches.",
                    modifier.span,
                )
        residual = self._residual(layer.modifiers, residual)
        before = len(self.failures)
        branches = self._layers(layer.body, scope, NO_RESIDUAL)
        if len(self.failures) > before:
            raise Poisoned
        if not branches or not all(map(has_units, branches)):
            place = word_span(layer.span, "parallel")
            raise error("empty-backbone", "'parallel' has a branch without units.", place)
        if mode == "difference" and len(branches) == 1:
            place = word_span(layer.span, "parallel")
            raise error("empty-backbone", "'parallel(difference)' needs two branches.", place)
        draft = DraftParallel(layer.label, mode, branches, residual, layer.span)
        if layer.label:
            scope.layers[layer.label] = draft
        return draft

    def _residual(
        self, modifiers: tuple[nodes.Modifier, ...], residual: Residual, layer: int | None = None
    ) -> Residual:
        """The residual of a layer: the model's, or that of its `with`."""
        formula = self.settings.formula if residual is self.settings.residual else None
        own = modifiers and any(isinstance(modifier, nodes.With) for modifier in modifiers)
        if not own and formula is None and residual.hyper is None:
            return residual
        place = Fraction(self._layer if layer is None else layer)
        scope = {**self.settings.own, **self.numbers, "layer": place}
        if formula is not None:
            residual = resolve_residual(formula, scope)
        on_stream = residual is not NO_RESIDUAL
        first: Span | None = None
        for modifier in modifiers:
            if not isinstance(modifier, nodes.With):
                continue
            span = word_span(modifier.span, modifier.name)
            if modifier.name != "residual":
                raise error(
                    "unknown-name",
                    f"a unit has no setting '{modifier.name}'.",
                    span,
                    "unknown",
                    suggest(modifier.name, ["residual"])
                    or "'with residual = ...' is the only one.",
                )
            if first is not None:
                raise duplicate("the residual is set twice.", span, first, "keep one of them.")
            first = span
            residual = resolve_residual(modifier.value, scope)
            model = self.settings.residual if on_stream else NO_RESIDUAL
            check_streams(residual, model, modifier.value.span)
        return numbered(residual, int(place))

    # --- units ----------------------------------------------------------------------------------

    def _unit(self, unit: nodes.Unit, scope: Scope, residual: Residual) -> Draft:
        layer = self._layer
        self._layer = layer + 1
        said = self._said.get(id(unit)) or self.memo.said(unit)
        named: tuple[DraftNamed | None, ...] = ()
        key: Key = id(said.plain), self._context
        if said.words:
            named = tuple(map(scope.layers.get, said.words))
            key += self._meanings(said.words, named)
        known = self.memo.units.get(key) or self.memo.units.get((*key, layer, self._depth))
        if known is None or not self._still(known):
            bodies = [source.body for source in named if isinstance(source, Draft)]
            known = self._resolved(unit, scope, layer, key, (said.plain, *bodies))
        if said.residual or not self._one_residual:
            residual = self._own_residual(said, residual, layer)
        for _, number, there in known.inputs:
            source = named[number]
            if there != STREAM and isinstance(source, Draft) and there not in source.exports:
                source.exports.append(there)
        draft = Draft(layer, known, residual, named, unit, [])
        if unit.label:
            scope.labels[unit.label] = scope.layers[unit.label] = draft
        return draft

    def _meanings(self, words: tuple[str, ...], named: tuple[DraftNamed | None, ...]) -> Key:
        """What the words of a unit mean here: bodies by their identity, streams, or no layers."""
        found: list[object] = []
        for word, layer in zip(words, named, strict=True):
            if type(layer) is Draft:  # nearly always
                found.append(id(layer.known.body))
            elif layer is not None:
                found.append("")
            if layer is None or word in self._names:
                found.append(word)
        return tuple(found)

    def _still(self, known: KnownUnit) -> bool:
        """Whether the names of operators mean what they did when a unit was resolved."""
        node, calls = known.node, known.body.calls
        if calls and not self._bodies.called_alike(known.body):
            return False
        return self.operators.get(node.name) is node or node.name == "experts"

    def _own_residual(self, said: Said, residual: Residual, layer: int) -> Residual:
        """The residual of a unit that may have another than its surroundings."""
        key = id(said.plain), id(residual), self._context
        if self._one_residual and (known := self.memo.residuals.get(key)):
            return known[2]
        found = self._residual(said.unit.modifiers, residual, layer)
        if not found.formula and not found.hyper:
            self.memo.residuals[key] = said.plain, residual, found
        return found

    def _resolved(
        self, unit: nodes.Unit, scope: Scope, layer: int, key: Key, kept: Key
    ) -> KnownUnit:
        """What the unit means; remembered for the next one."""
        call, words = unit.operator, words_of(unit)
        if isinstance(call, nodes.Hole):
            raise hole_error(call)
        if call.function == "experts":
            node, call = self.memo.routed(call)
        else:
            node = self._operator(call)
        taken = self._reused(unit, node, scope)
        body, features, read = self._called(call, node, taken, scope, layer)
        shares = [shared(m, body, scope) for m in unit.modifiers if isinstance(m, nodes.Shares)]
        inputs = {**features, **taken}
        known = KnownUnit(
            node,
            body,
            tuple((n, words.index(inputs[n].label), inputs[n].name) for n in sorted(inputs)),
            tuple((weights, words.index(label)) for weights, label in shares),
            kept,
        )
        place = () if PLACE.isdisjoint(read | body.uses) else (layer, self._depth)
        self.memo.units[*key, *place] = known
        return known

    def _reused(self, unit: nodes.Unit, node: nodes.Operator, scope: Scope) -> Features:
        taken: Features = {}
        places: dict[str, Span] = {}
        for modifier in unit.modifiers:
            if not isinstance(modifier, nodes.Reuses):
                continue
            for name, feature in reused(modifier, node, scope).items():
                span = word_span(modifier.span, name)
                if name in taken:
                    message = f"'{name}' is reused twice."
                    raise duplicate(message, span, places[name], "keep one of them.")
                taken[name], places[name] = feature, span
        return taken

    def _operator(self, call: nodes.Call) -> nodes.Operator:
        name = call.function
        if name in self.operators:
            return self.operators[name]
        if catalog.is_stage(name) or catalog.find_function(name):
            raise error(
                "wrong-type",
                f"'{name}' is a stage, not an operator.",
                call.name_span,
                hint=f"wrap it: operator my_{name}() {{ y = x |> {name}(...) }}",
            )
        raise error(
            "unknown-name",
            f"no operator is named '{name}'.",
            call.name_span,
            "unknown",
            where_declared(name) or suggest(name, self.operators) or "declare it, or 'use' it.",
        )

    def _called(
        self, call: nodes.Call, node: nodes.Operator, taken: Features, scope: Scope, layer: int
    ) -> tuple[Body, Features, set[str]]:
        """The body of a call, the features that its arguments name, and the names they read."""
        arguments, features, read = self._arguments(call, node, scope, layer)
        try:
            body = self._bodies.body(Request(node, arguments, {**features, **taken}), layer)
        except StarError as failure:
            raise in_call(failure, call.span, node) from None
        return body, features, read

    @property
    def _stream(self) -> Feature:
        hyper = self.settings.residual.hyper
        return Feature(hyper.streams if hyper else 1, self.settings.width)

    def _arguments(
        self, call: nodes.Call, node: nodes.Operator, scope: Scope, layer: int
    ) -> tuple[dict[str, Numeric], Features, set[str]]:
        """Arguments of a unit: numbers, features of earlier units, and the names that were read."""
        declared = {p.name: p for p in node.parameters}
        scope_ = {**self.settings.own, **self.numbers, "layer": Fraction(layer)}
        expressions = self._expressions(scope_)
        numbers: dict[str, Numeric] = {}
        features: Features = {}
        for name, argument in match_arguments(call.arguments, node, call.span).items():
            value = argument.value
            wanted = declared[name].kind == "feature"
            if wanted and isinstance(value, nodes.Name) and value.name not in scope_:
                features[name] = find_stream(value, scope, self._stream)
                continue
            if not isinstance(value, nodes.Member):
                numbers[name] = expressions.number(value, f"'{name}' of '{node.name}'")
                check_kind(numbers[name], declared[name], node, value.span)
                continue
            if not wanted:
                raise error(
                    "wrong-type",
                    f"'{name}' of '{node.name}' is a number, not a feature.",
                    value.span,
                    hint=f"a parameter that takes one is declared as '{name}: feature'.",
                )
            source = find_unit(value.unit, value.span, scope, "a feature argument")
            features[name] = take(source, value.name, value.span)
        return numbers, features, expressions.read


def resolve_model(
    model: nodes.Model,
    operators: Mapping[str, nodes.Operator],
    limits: Limits | None = None,
    memo: Memo | None = None,
) -> tuple[Model, tuple[Diagnostic, ...]]:
    """The IR of a model and the warnings found on the way.

    `operators` are all operators in scope by name. Programs that share syntax nodes are resolved
    faster with one `memo`; warnings about a body are given the first time only. Raises StarError
    with every fault found.
    """
    resolver = Resolver(model, operators, limits or Limits(), memo)
    resolved = resolver.resolve().frozen()
    return resolved, StarError(resolver.warnings).diagnostics
