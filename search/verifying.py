"""Verifying thousands of programs that differ little from each other.

Errors of a program arise when it is linked, when it is resolved, and in the pass `share`; the other
passes only rewrite what is right. So these three are all that a search needs to run. Operators that
were seen before are neither resolved nor brought into their canonical form again.

Owns: what is remembered between programs. Refuses: changing them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace

from starc.compiler import ir
from starc.compiler.digest import canonical
from starc.compiler.inventory import model_parameters
from starc.compiler.memo import Body, Memo
from starc.compiler.options import Limits, Options
from starc.compiler.passes import PIPELINE
from starc.compiler.passes.share import share
from starc.compiler.program import Linked, choose_model, link
from starc.compiler.resolve import resolve_model
from starc.grammar import nodes
from starc.grammar.errors import Diagnostic, StarError

_MOST = 3_000
"""So many bodies of operators, and everything is forgotten: a search makes ever new ones."""


_PASSES = dict(PIPELINE)
_CANONICAL = [_PASSES[n] for n in ("canonicalize", "infer", "common_subexpressions")]
"""The passes that digests are taken behind. Of `drop_unused` nothing is left to do for an operator
alone, since every rewriting drops what no output needs."""


@dataclass(frozen=True)
class Checked:
    """A program without errors. `ir` is its model before any pass but `share`."""

    program: nodes.Program
    model: nodes.Model
    operators: Mapping[str, nodes.Operator]
    ir: ir.Model
    identity: str

    @property
    def units(self) -> int:
        """How many units it has, repeats unrolled."""
        return sum(1 for _ in ir.units(self.ir.layers))


class Verifier:
    """Checks programs, each faster for those before it."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self._forget()

    def check(self, program: nodes.Program, model: str | None = None) -> Checked:
        """A program of one model, or its model of that name; raises StarError with what is wrong.

        Programs of one `identity` have one digest; those of one digest have one identity unless
        their bindings are named otherwise.
        """
        known = self._checked.get((id(program), model))
        if known:
            return known[1]
        if len(self.memo.bodies) > _MOST:
            self._forget()
        linked = self._linked(program)
        chosen = choose_model(linked, Options(model=model, limits=self.limits))
        resolved, _ = resolve_model(chosen, linked.operators, self.limits, self.memo)
        self._limit(resolved, chosen)
        resolved = share(resolved)
        checked = Checked(program, chosen, linked.operators, resolved, self._identity(resolved))
        if len(self._checked) > 256:
            self._checked.clear()
        self._checked[id(program), model] = program, checked
        return checked

    def bodies(self, operator: nodes.Operator) -> list[Body]:
        """What an operator was resolved to, for every set of arguments."""
        return self.memo.of(operator)

    def _linked(self, program: nodes.Program) -> Linked:
        """As `link`, but every `use` is looked up once."""
        rest = tuple(d for d in program.declarations if not isinstance(d, nodes.Use))
        own = link(nodes.Program(rest, program.source), self.limits)
        used: dict[str, nodes.Operator] = {}
        for use in program.declarations:
            if not isinstance(use, nodes.Use):
                continue
            key = use.path, program.source.name
            if key not in self._uses:
                alone = link(nodes.Program((use,), program.source), self.limits)
                self._uses[key] = alone.operators[use.path[-1]]
            if use.path[-1] in used or use.path[-1] in own.operators:
                return link(program, self.limits)  # says what is declared twice
            used[use.path[-1]] = self._uses[key]
        return Linked(program, {**used, **own.operators}, own.models)

    def _forget(self) -> None:
        self.memo = Memo()
        self._uses: dict[tuple[tuple[str, ...], str], nodes.Operator] = {}
        self._checked: dict[tuple[int, str | None], tuple[nodes.Program, Checked]] = {}
        self._forms: dict[int, tuple[ir.Operator, _Form]] = {}
        self._alike: dict[object, tuple[ir.Operator, _Form]] = {}
        self._sizes: dict[int, tuple[ir.Operator, int]] = {}

    def _limit(self, model: ir.Model, chosen: nodes.Model) -> None:
        used = {o.name: self._size(o) for o in model.operators}
        most = sum(used[unit.operator] for unit in ir.units(model.layers))
        most += 2 * (model.vocab + model.context) * model.width
        if most <= self.limits.parameters // 2:
            return  # norms are not counted: they are far less than the other half
        if sum(p.size for p in model_parameters(model).values()) > self.limits.parameters:
            message = f"model '{model.name}' has more parameters than {self.limits.parameters:,}."
            raise StarError(Diagnostic("too-many-parameters", message, chosen.name_span))

    def _size(self, operator: ir.Operator) -> int:
        known = self._sizes.get(id(operator))
        if known is None:
            self._sizes[id(operator)] = known = operator, sum(p.size for p in operator.parameters)
        return known[1]

    def _identity(self, model: ir.Model) -> str:
        forms = {operator.name: self._form(operator) for operator in model.operators}
        order = {unit.path: n for n, unit in enumerate(ir.units(model.layers))}
        order |= {p.path: len(order) + n for n, p in enumerate(ir.parallels(model.layers))}
        ends = (
            (model.vocab, model.width, model.context, model.embedding, model.position),
            (model.head, model.final_norm, model.average, model.readout),
            (model.dtype, model.causal),
        )
        text = repr((ends, [_said(layer, forms, order) for layer in model.layers]))
        return hashlib.sha256(text.encode()).hexdigest()

    def _form(self, operator: ir.Operator) -> _Form:
        known = self._forms.get(id(operator))
        if known is None:
            self._forms[id(operator)] = known = operator, self._formed(operator)
        return known[1]

    def _formed(self, operator: ir.Operator) -> _Form:
        """Operators with the same values differ in initial values only, which depend on the model:
        these are left out where the form is found, and counted behind it."""
        if operator.inner:
            return _form(operator)
        key = id(operator.values), operator.outputs
        if key not in self._alike:
            even = tuple(
                replace(p, init=("normal", 1.0)) if p.init[0] == "normal" else p
                for p in operator.parameters
            )
            self._alike[key] = operator, _form(replace(operator, parameters=even))
        form = self._alike[key][1]
        initial = {p.name: p.init for p in operator.parameters}
        said = form.digest, [initial.get(name) for name in form.parameters]
        return replace(form, digest=hashlib.sha256(repr(said).encode()).hexdigest())


@dataclass(frozen=True)
class _Form:
    """What an operator means, as a digest, and the parameters and inputs that it reads."""

    digest: str
    parameters: tuple[str, ...]
    inputs: tuple[str, ...]


def _form(operator: ir.Operator) -> _Form:
    """An operator behind the passes that digests are taken behind."""
    unit = ir.Unit("u", "u", 0, operator.name, ir.Residual("none"))
    model = ir.Model("m", 1, 1, 1, (operator,), (unit,))
    for run in _CANONICAL:
        model = run(model)
    found = canonical(model.operators[0])
    digest = hashlib.sha256(repr(found.form).encode()).hexdigest()
    return _Form(digest, found.parameters, found.inputs)


def _said(layer: ir.Layer, forms: Mapping[str, _Form], order: Mapping[str, int]) -> object:
    """What a layer means, other layers by their numbers."""
    match layer:
        case ir.Unit():
            form = forms[layer.operator]
            inputs = [
                (name, order[ref.unit], ref.name)
                for name, ref in layer.inputs
                if name in form.inputs
            ]
            tied = [(t.parameter, order[t.unit]) for t in layer.ties]
            kept = sorted(t for t in tied if t[0] in form.parameters)
            return form.digest, _residual(layer.residual), inputs, kept, layer.marks
        case ir.Repeat():
            return [[_said(inner, forms, order) for inner in body] for body in layer.bodies]
        case ir.Loop():
            return layer.times, [_said(inner, forms, order) for inner in layer.body], layer.marks
        case ir.Parallel():
            branches = [_said(branch, forms, order) for branch in layer.branches]
            return layer.mode, branches, _residual(layer.residual), layer.marks


def _residual(residual: ir.Residual) -> object:
    return _form(residual.formula).digest if residual.formula else (residual, residual.hyper)
