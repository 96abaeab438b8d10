"""From the syntax tree to the IR: names, numbers, monomorphic operators, repeats, labels, sharing.

Owns: the backbone and the life of operators; bodies of operators are evaluated by expressions.py.
Refuses: reading files (the caller gives a Library) and optimising (the passes do that).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction

from starc.compiler import catalog
from starc.compiler.arguments import size_of
from starc.compiler.builder import Builder, prune
from starc.compiler.expressions import Expressions, Poison, Poisoned, Ref
from starc.compiler.faults import error, hole_error, not_yet
from starc.compiler.ir import (
    Attribute,
    FeatureRef,
    Layer,
    Model,
    Operator,
    Parallel,
    Repeat,
    Residual,
    Unit,
)
from starc.compiler.memo import Body, Memo
from starc.compiler.naming import MODEL_ATTRIBUTES, Names
from starc.compiler.numbers import Numeric
from starc.compiler.options import Limits
from starc.compiler.settings import Settings, resolve_residual, resolve_settings
from starc.compiler.types import Feature, Type, describe
from starc.grammar import nodes
from starc.grammar.errors import Diagnostic, StarError, suggest
from starc.grammar.source import Span

NO_RESIDUAL = Residual("none")
PARALLEL_MODES = ("sum", "mean", "difference")


@dataclass
class Draft:
    """A unit under construction: later units may still ask for more of its features."""

    name: str
    path: str
    layer: int
    body: Body
    residual: Residual
    inputs: tuple[tuple[str, FeatureRef], ...]
    shares: list[tuple[tuple[str, ...], Draft]]
    labelled: bool
    span: Span
    exports: list[str] = field(default_factory=list)


@dataclass
class DraftRepeat:
    name: str
    path: str
    bodies: list[list[DraftLayer]]
    span: Span


@dataclass
class DraftParallel:
    name: str
    path: str
    mode: str
    branches: list[DraftLayer]
    residual: Residual
    span: Span


DraftLayer = Draft | DraftRepeat | DraftParallel


@dataclass
class Scope:
    """Labels visible at a place: those of the enclosing bodies and of this one so far."""

    labels: dict[str, Draft]
    later: dict[str, Span]
    names: Names
    path: str

    def inner(self, path: str, body: tuple[nodes.Layer, ...]) -> Scope:
        return Scope(dict(self.labels), {**self.later, **labels_of(body)}, Names(), path)


def labels_of(body: tuple[nodes.Layer, ...]) -> dict[str, Span]:
    found: dict[str, Span] = {}
    for layer in body:
        if isinstance(layer, nodes.Unit | nodes.Parallel) and layer.label:
            found.setdefault(layer.label, layer.span)
        if isinstance(layer, nodes.Parallel):
            found.update(labels_of(layer.body))
    return found


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
        self.warnings: dict[tuple[str, Span | None], Diagnostic] = {}
        self.memo = memo or Memo()
        self._failed: set[tuple[object, ...]] = set()
        self._layer = 0

    def report(self, failure: StarError) -> None:
        self.failures += [d for d in failure.diagnostics if d not in self.failures]

    def resolve(self) -> Model:
        """The model's IR; raises StarError with everything that was found."""
        self.settings = self._settings()
        depth = 0
        try:
            depth = self._count(self.model.backbone)
        except StarError as failure:
            self.report(failure)
            raise StarError(self.failures) from None
        self.numbers: dict[str, Numeric] = {**self.settings.numbers(), "depth": Fraction(depth)}
        self._context = self.memo.context(tuple(self.numbers.values()))
        scope = Scope({}, labels_of(self.model.backbone), Names(MODEL_ATTRIBUTES), "")
        drafts = self._layers(self.model.backbone, scope, self.settings.residual)
        if not self.model.backbone and not self.failures:
            self.report(
                error(
                    "empty-backbone",
                    f"model '{self.model.name}' has no units.",
                    self.model.name_span,
                    hint="write backbone { ... } with at least one unit.",
                )
            )
        if self.failures:
            raise StarError(self.failures)
        return self._freeze(drafts)

    def _settings(self) -> Settings:
        if known := self.memo.settings(self.model):
            return known
        settings = resolve_settings(self.model, self.report, defaults={})
        if not self.failures:
            self.memo.keep_settings(self.model, settings)
        return settings

    # --- backbone -------------------------------------------------------------------------------

    def _count(self, body: tuple[nodes.Layer, ...]) -> int:
        """Units when repeats are unrolled; refuses programs beyond the limit before unrolling them."""
        total = 0
        for layer in body:
            match layer:
                case nodes.Unit():
                    total += 1
                case nodes.Repeat():
                    total += self._times(layer) * self._count(layer.body)
                case nodes.Loop() | nodes.Parallel():
                    total += self._count(layer.body)
            if total > self.limits.units:
                raise error(
                    "too-many-units",
                    f"the backbone unrolls to more than {self.limits.units} units.",
                    layer.span,
                    hint="raise the limit with --max-units.",
                )
        return total

    def _times(self, layer: nodes.Repeat) -> int:
        if isinstance(layer.count, nodes.Hole):
            raise hole_error(layer.count)
        number = self._expressions(self.settings.numbers()).number(
            layer.count, "the count of 'repeat'"
        )
        return size_of(number, "the count of 'repeat'", layer.count.span, smallest=0)

    def _expressions(self, scope: Mapping[str, Numeric]) -> Expressions:
        return Expressions(Builder(), scope, self.operators, {})

    def _layers(
        self, body: tuple[nodes.Layer, ...], scope: Scope, residual: Residual
    ) -> list[DraftLayer]:
        found: list[DraftLayer] = []
        for layer in body:
            try:
                found.append(self._resolve_layer(layer, scope, residual))
            except StarError as failure:
                self.report(failure)
            except Poisoned:
                pass
        return found

    def _resolve_layer(self, layer: nodes.Layer, scope: Scope, residual: Residual) -> DraftLayer:
        match layer:
            case nodes.Unit():
                return self._unit(layer, scope, residual)
            case nodes.Repeat():
                name = scope.names.take("blocks")
                path = scope.path + name
                repeat = DraftRepeat(name, path, [], layer.span)
                for i in range(self._times(layer)):
                    inner = scope.inner(f"{path}.{i}.", layer.body)
                    before = len(self.failures)
                    repeat.bodies.append(self._layers(layer.body, inner, residual))
                    if len(self.failures) > before:
                        raise Poisoned  # the same faults again in every iteration help nobody
                return repeat
            case nodes.Parallel():
                return self._parallel(layer, scope, residual)
            case nodes.Loop():
                raise not_yet("loop", layer.span)

    def _parallel(self, layer: nodes.Parallel, scope: Scope, residual: Residual) -> DraftLayer:
        if layer.mode not in PARALLEL_MODES:
            if layer.mode == "gated":
                raise not_yet("parallel(gated)", layer.span)
            raise error(
                "unknown-name",
                f"'parallel' has no mode '{layer.mode}'.",
                layer.span,
                hint=suggest(layer.mode, PARALLEL_MODES)
                or f"modes are {', '.join(PARALLEL_MODES)}.",
            )
        if not layer.body:
            raise error("empty-backbone", "'parallel' has no branches.", layer.span)
        for modifier in layer.modifiers:
            if isinstance(modifier, nodes.With):
                residual = self._with(modifier)
            else:
                raise error(
                    "sharing",
                    "'shares' and 'reuses' belong to units; put them on the branches.",
                    modifier.span,
                )
        name = scope.names.take(layer.label or "parallel")
        return DraftParallel(
            name,
            scope.path + name,
            layer.mode,
            self._layers(layer.body, scope, NO_RESIDUAL),
            residual,
            layer.span,
        )

    def _with(self, modifier: nodes.With) -> Residual:
        if modifier.name != "residual":
            raise error(
                "unknown-name",
                f"a unit has no setting '{modifier.name}'.",
                modifier.span,
                hint=suggest(modifier.name, ["residual"])
                or "'with residual = ...' is the only one.",
            )
        return resolve_residual(modifier.value, self.numbers)

    def _unit(self, unit: nodes.Unit, scope: Scope, residual: Residual) -> Draft:
        layer = self._layer
        self._layer += 1
        call = unit.operator
        if isinstance(call, nodes.Hole):
            raise hole_error(call)
        node = self._operator(call)
        reused: dict[str, tuple[Type, FeatureRef]] = {}
        shares: list[tuple[tuple[str, ...], Draft, nodes.Shares]] = []
        for modifier in unit.modifiers:
            match modifier:
                case nodes.With():
                    residual = self._with(modifier)
                case nodes.Reuses():
                    source = self._target(modifier.label, modifier.span, scope, "reuses")
                    reused.update(self._reused(modifier, source, node))
                case nodes.Shares():
                    source = self._target(modifier.label, modifier.span, scope, "shares")
                    shares.append((modifier.names, source, modifier))
        body, features = self._called(call, node, reused, scope, layer)
        name = scope.names.take(unit.label or node.name)
        inputs = {n: ref for n, (_, ref) in {**features, **reused}.items()}
        draft = Draft(
            name,
            scope.path + name,
            layer,
            body,
            residual,
            tuple(sorted(inputs.items())),
            [],
            unit.label is not None,
            unit.span,
        )
        for names, source, modifier in shares:
            draft.shares.append((self._shared(names, draft, source, modifier), source))
        if unit.label:
            if (
                unit.label in scope.labels
                and scope.labels[unit.label].path.rpartition(".")[0]
                == draft.path.rpartition(".")[0]
            ):
                first = scope.labels[unit.label].span
                raise StarError(
                    Diagnostic(
                        "duplicate",
                        f"the label '{unit.label}' is used twice.",
                        unit.span,
                        related=((first, "first used here"),),
                    )
                )
            scope.labels[unit.label] = draft
        return draft

    def _operator(self, call: nodes.Call) -> nodes.Operator:
        name = call.function
        if name in self.operators:
            return self.operators[name]
        if name in ("experts",):
            raise not_yet(name, call.name_span)
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
            suggest(name, self.operators) or f"declare it, or import it: use std.….{name}",
        )

    # --- sharing --------------------------------------------------------------------------------

    def _target(self, label: str | None, span: Span, scope: Scope, what: str) -> Draft:
        if label is None:
            raise error(
                "hole-left",
                f"'{what} ?' is a hole: this program is a search space.",
                span,
                "undecided",
            )
        if label in scope.labels:
            return scope.labels[label]
        if label in scope.later:
            raise StarError(
                Diagnostic(
                    "sharing-target-later",
                    f"'{what}' looks back, but '{label}' comes later.",
                    span,
                    related=((scope.later[label], f"'{label}' stands here"),),
                    hint="swap the two units: the first one owns what is shared.",
                )
            )
        raise error(
            "unknown-name",
            f"no earlier unit is labelled '{label}'.",
            span,
            "unknown",
            suggest(label, scope.labels)
            or "labels inside a repeat are visible in that iteration only.",
        )

    def _reused(
        self, modifier: nodes.Reuses, source: Draft, node: nodes.Operator
    ) -> dict[str, tuple[Type, FeatureRef]]:
        own = [b.name for b in node.body if b.name != "y"]
        names = (
            tuple(n for n in own if n in source.body.bindings)
            if modifier.names == ("*",)
            else modifier.names
        )
        found: dict[str, tuple[Type, FeatureRef]] = {}
        for name in names:
            if name not in own:
                raise error(
                    "sharing-unknown-binding",
                    f"operator '{node.name}' has no binding '{name}' to replace.",
                    modifier.span,
                    hint=suggest(name, own),
                )
            type_ = self._export(source, name, modifier.span)
            found[name] = type_, FeatureRef(source.path, name)
        return found

    def _export(self, source: Draft, name: str, span: Span) -> Type:
        """Ask an earlier unit for one of its features."""
        bindings = source.body.bindings
        if name not in bindings:
            raise error(
                "sharing-unknown-binding",
                f"operator '{source.body.node.name}' binds no feature '{name}'.",
                span,
                hint=suggest(name, bindings) or f"it binds {', '.join(bindings)}.",
            )
        type_ = source.body.values[bindings[name]].type
        if not isinstance(type_, Feature):
            raise error(
                "sharing-type",
                f"'{name}' of '{source.name}' is a {describe(type_)}; only features can be passed on.",
                span,
                hint="'shares' ties the weights of anything else.",
            )
        if name not in source.exports:
            source.exports.append(name)
        return type_

    def _shared(
        self, names: tuple[str, ...], draft: Draft, source: Draft, modifier: nodes.Shares
    ) -> tuple[str, ...]:
        ours, theirs = draft.body, source.body
        if names == ("*",):
            if ours.node is not theirs.node:
                raise error(
                    "sharing-different-operator",
                    f"'shares *' needs the same operator: this is '{ours.node.name}', '{modifier.label}' is '{theirs.node.name}'.",
                    modifier.span,
                    hint="name the bindings to share: shares B, V with " + str(modifier.label),
                )
            names = tuple(b.name for b in ours.node.body)
        for name in names:
            for body, owner in ((ours, "this operator"), (theirs, f"'{modifier.label}'")):
                if name not in body.bindings:
                    raise error(
                        "sharing-unknown-binding",
                        f"{owner} binds nothing named '{name}'.",
                        modifier.span,
                        hint=suggest(name, body.bindings),
                    )
        return names

    # --- operators ------------------------------------------------------------------------------

    def _called(
        self,
        call: nodes.Call,
        node: nodes.Operator,
        reused: Mapping[str, tuple[Type, FeatureRef]],
        scope: Scope,
        layer: int,
    ) -> tuple[Body, dict[str, tuple[Type, FeatureRef]]]:
        """The body of a call, and the features that its arguments name."""
        given = (self._context, *((name, type_) for name, (type_, _) in reused.items()))
        if known := self.memo.call(call, node, given, layer):
            return known, {}
        arguments, features, read = self._arguments(call, node, scope, layer)
        body = self.body(node, arguments, {**features, **reused}, layer)
        if not features:
            place = layer if "layer" in read or "layer" in body.uses else None
            self.memo.keep_call(call, body, given, place)
        return body, features

    def _arguments(
        self, call: nodes.Call, node: nodes.Operator, scope: Scope, layer: int
    ) -> tuple[dict[str, Numeric], dict[str, tuple[Type, FeatureRef]], set[str]]:
        """Arguments of a unit: numbers, features of earlier units, and the names that were read."""
        declared = {p.name: p for p in node.parameters}
        given: dict[str, nodes.Argument] = {}
        for position, argument in enumerate(call.arguments):
            name = argument.name
            if name is None:
                if position >= len(node.parameters):
                    raise error(
                        "wrong-argument",
                        f"'{node.name}' takes {len(declared)} arguments, not {len(call.arguments)}.",
                        argument.span,
                        "one too many",
                        _operator_signature(node),
                    )
                name = node.parameters[position].name
            if name not in declared:
                raise error(
                    "wrong-argument",
                    f"'{node.name}' has no parameter '{name}'.",
                    argument.span,
                    "unknown",
                    suggest(name, declared) or _operator_signature(node),
                )
            if name in given:
                raise error(
                    "wrong-argument", f"'{node.name}' is given '{name}' twice.", argument.span
                )
            given[name] = argument
        expressions = self._expressions({**self.numbers, "layer": Fraction(layer)})
        numbers_: dict[str, Numeric] = {}
        features: dict[str, tuple[Type, FeatureRef]] = {}
        for name, argument in given.items():
            kind = declared[name].kind
            if isinstance(argument.value, nodes.Member):
                if kind != "feature":
                    raise error(
                        "wrong-type",
                        f"'{name}' of '{node.name}' is a number, not a feature.",
                        argument.span,
                        hint=f"declare it as '{name}: feature'.",
                    )
                member = argument.value
                source = self._target(member.unit, member.span, scope, "a feature argument")
                features[name] = self._export(source, member.name, member.span), FeatureRef(
                    source.path, member.name
                )
            else:
                number = expressions.number(argument.value, f"'{name}' of '{node.name}'")
                if kind == "int":
                    size_of(number, f"'{name}' of '{node.name}'", argument.span, smallest=-(2**31))
                numbers_[name] = number
        for parameter in node.parameters:
            if parameter.name not in given and parameter.default is None:
                raise error(
                    "wrong-argument",
                    f"'{node.name}' needs '{parameter.name}'.",
                    call.span,
                    f"'{parameter.name}' missing",
                    _operator_signature(node),
                )
        return numbers_, features, expressions.read

    def body(
        self,
        node: nodes.Operator,
        arguments: Mapping[str, Numeric],
        features: Mapping[str, tuple[Type, FeatureRef]],
        layer: int,
    ) -> Body:
        """The operator's body for these arguments, from memory where it was resolved before."""
        types = tuple(sorted((n, t) for n, (t, _) in features.items()) if features else ())
        key = (id(node), tuple(sorted(arguments.items())), types, self._context)
        for k in (key, (*key, layer)):
            if k in self._failed:
                raise Poisoned
            if k in self.memo.bodies:
                return self.memo.bodies[k]
        scope = {**self.numbers, "layer": Fraction(layer)}
        try:
            body = _Instance(self, node, arguments, features, scope).resolve()
        except (StarError, Poisoned):
            self._failed.add(key)
            raise
        self.memo.bodies[(*key, layer) if "layer" in body.uses else key] = body
        return body

    # --- freezing -------------------------------------------------------------------------------

    def _freeze(self, drafts: list[DraftLayer]) -> Model:
        operators: dict[tuple[object, ...], Operator] = {}
        names = Names()

        def operator(draft: Draft) -> Operator:
            body = draft.body
            exports = ()
            if draft.exports:
                exports = tuple(e for e in body.bindings if e in draft.exports)
            key = (id(body), exports)
            if key not in operators:
                operators[key] = self._operator_of(body, exports, names.take(body.node.name))
            return operators[key]

        def freeze(draft: DraftLayer) -> Layer:
            match draft:
                case DraftRepeat():
                    bodies = tuple(tuple(map(freeze, body)) for body in draft.bodies)
                    return Repeat(draft.name, draft.path, bodies, draft.span)
                case DraftParallel():
                    branches = tuple(map(freeze, draft.branches))
                    return Parallel(
                        draft.name, draft.path, draft.mode, branches, draft.residual, draft.span
                    )
            own = operator(draft)
            inputs = draft.inputs
            if inputs:  # those that are left when what the outputs do not need is gone
                read = {n for n, _ in own.inputs}
                inputs = tuple((n, ref) for n, ref in inputs if n in read)
            return Unit(
                draft.name,
                draft.path,
                draft.layer,
                own.name,
                draft.residual,
                inputs,
                tuple((_weights(draft.body, n), source.path) for n, source in draft.shares),
                (),
                draft.labelled,
                draft.span,
            )

        layers = tuple(map(freeze, drafts))
        settings = self.settings
        return Model(
            self.model.name,
            settings.vocab,
            settings.width,
            settings.context,
            tuple(operators.values()),
            layers,
            settings.embedding,
            settings.position,
            settings.head,
            settings.final_norm,
            self.model.doc,
        )

    def _operator_of(self, body: Body, exports: tuple[str, ...], name: str) -> Operator:
        if known := self.memo.operator(body, exports, name):
            return known
        outputs = [(n, body.bindings[n]) for n in ("y", *exports)]
        kept, renumbered, parameters = prune(body.values, outputs, body.parameters)
        node = body.node
        operator = Operator(
            name, node.name, body.arguments, kept, renumbered, parameters, node.doc, node.span
        )
        self.memo.keep_operator(body, exports, operator)
        return operator


def _weights(body: Body, names: tuple[str, ...]) -> tuple[str, ...]:
    """The parameters that the bindings are computed with, all the way back to x."""
    outputs = [(n, body.bindings[n]) for n in names if n in body.bindings]
    _, _, parameters = prune(body.values, outputs, body.parameters)
    return tuple(p.name for p in parameters if p.learned)


class _Instance:
    """One operator being resolved for given arguments."""

    def __init__(
        self,
        resolver: Resolver,
        node: nodes.Operator,
        arguments: Mapping[str, Numeric],
        features: Mapping[str, tuple[Type, FeatureRef]],
        scope: Mapping[str, Numeric],
    ) -> None:
        self.resolver, self.node, self.given, self.features = resolver, node, arguments, features
        self.builder = Builder()
        later = {b.name: b.name_span for b in node.body}
        self.expressions = Expressions(self.builder, scope, resolver.operators, later)
        self.failed: list[Diagnostic] = []

    def resolve(self) -> Body:
        arguments = self._parameters()
        width = self.resolver.settings.width
        x = self.builder.emit(
            "input", (), {"name": "x", "heads": 1, "channels": width}, self.node.span
        )
        self.expressions.names["x"] = Ref(x)
        bindings: dict[str, int] = {}
        seen: dict[str, Span] = {}
        for binding in self.node.body:
            if binding.name in seen or (
                binding.name in self.expressions.names and binding.name not in self.features
            ):
                self._duplicate(binding, seen)
                continue
            seen[binding.name] = binding.name_span
            self._bind(binding, bindings)
        self._check_output(bindings)
        if self.failed:
            raise StarError(self.failed)
        self._warn(seen)
        return Body(
            self.node,
            tuple(arguments.items()),
            tuple(self.builder.values),
            bindings,
            dict(self.builder.parameters),
            frozenset(self.expressions.read),
        )

    def _parameters(self) -> dict[str, Attribute]:
        names = self.expressions.names
        arguments: dict[str, Attribute] = {}
        own = {b.name for b in self.node.body}
        for parameter in self.node.parameters:
            name = parameter.name
            if name in names or name == "x":
                self.failed.append(
                    Diagnostic(
                        "duplicate",
                        f"'{name}' already has a meaning here.",
                        parameter.span,
                        "choose another name",
                    )
                )
                continue
            if name in self.features and name not in own:
                names[name] = self._input(name)
                continue
            if name in self.given:
                value = self.given[name]
            else:
                assert parameter.default is not None
                try:
                    value = self.expressions.number(parameter.default, f"the default of '{name}'")
                    if parameter.kind == "int":
                        size_of(
                            value,
                            f"'{name}' of '{self.node.name}'",
                            parameter.span,
                            smallest=-(2**31),
                        )
                except StarError as failure:
                    self.failed += failure.diagnostics
                    names[name] = Poison()
                    continue
                except Poisoned:
                    names[name] = Poison()
                    continue
            names[name] = value
            arguments[name] = value
        return arguments

    def _input(self, name: str) -> Ref:
        type_ = self.features[name][0]
        assert isinstance(type_, Feature)
        attributes = {"name": name, "heads": type_.heads, "channels": type_.channels}
        return Ref(self.builder.emit("input", (), attributes, self.node.span, name))

    def _duplicate(self, binding: nodes.Binding, seen: Mapping[str, Span]) -> None:
        related = ((seen[binding.name], "first bound here"),) if binding.name in seen else ()
        self.failed.append(
            Diagnostic(
                "duplicate",
                f"'{binding.name}' already has a meaning here.",
                binding.name_span,
                "a name is bound once",
                "choose another name.",
                related,
            )
        )

    def _bind(self, binding: nodes.Binding, bindings: dict[str, int]) -> None:
        names, name = self.expressions.names, binding.name
        try:
            result = self.expressions.evaluate(binding.value)
            if isinstance(result, Ref):
                self.builder.name_parameters(name)
                if name in self.features:
                    result = self._replaced(binding, result)
                self.builder.label(result.id, name)
                bindings[name] = result.id
            names[name] = result
        except StarError as failure:
            self.failed += failure.diagnostics
            names[name] = Poison()
        except Poisoned:
            names[name] = Poison()
        self.builder.discard_unnamed()

    def _replaced(self, binding: nodes.Binding, own: Ref) -> Ref:
        """A binding whose value is reused from another unit must have the type of its own expression."""
        theirs, ref = self.features[binding.name]
        ours = self.builder.type(own.id)
        if theirs != ours:
            raise error(
                "sharing-type",
                f"'{binding.name}' is a {describe(ours)} here, but the one of '{ref.unit}' is a {describe(theirs)}.",
                binding.span,
                hint="units that share a feature need it in the same shape.",
            )
        return self._input(binding.name)

    def _check_output(self, bindings: Mapping[str, int]) -> None:
        node, names = self.node, self.expressions.names
        if "y" not in names:
            self.failed.append(
                Diagnostic(
                    "no-output",
                    f"operator '{node.name}' does not bind y.",
                    node.name_span,
                    "no y",
                    "y is what the operator gives: y = ... |> dense(width).",
                )
            )
        elif not isinstance(names["y"], Poison):
            wanted = Feature(1, self.resolver.settings.width)
            type_ = self.builder.type(bindings["y"]) if "y" in bindings else None
            if type_ != wanted:
                span = next(b.value.span for b in node.body if b.name == "y")
                found = f"a {describe(type_)}" if type_ else "a number"
                hint = (
                    "end with '|> merge' or '|> dense(width)'."
                    if isinstance(type_, Feature)
                    else "y = T @ V |> dense(width), for example."
                )
                self.failed.append(
                    Diagnostic(
                        "wrong-output",
                        f"y of operator '{node.name}' must be {wanted}, not {found}.",
                        span,
                        f"this is {found}",
                        hint,
                    )
                )

    def _warn(self, seen: Mapping[str, Span]) -> None:
        read = self.expressions.read
        found = [(b, s, "binding") for b, s in seen.items() if b != "y"]
        found += [(p.name, p.span, "parameter") for p in self.node.parameters]
        for name, span, what in found:
            if name not in read:
                self.resolver.warnings[("unread-binding", span)] = Diagnostic(
                    "unread-binding",
                    f"{what} '{name}' of operator '{self.node.name}' is never read.",
                    span,
                    "unread",
                    "remove it, or use it in y.",
                    severity="warning",
                )


def _operator_signature(node: nodes.Operator) -> str:
    shown = [
        p.name + (f": {p.kind}" if p.kind else "") + (" = ..." if p.default else "")
        for p in node.parameters
    ]
    return f"{node.name}({', '.join(shown)})"


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
    resolved = resolver.resolve()
    return resolved, tuple(resolver.warnings.values())
