"""Verifying thousands of programs that differ little from each other.

Errors of a program arise when it is linked, when it is resolved, and in the pass `share`; the other
passes only rewrite what is right. So these three are all that a search needs to run. Units, and
operators, that were seen before are neither resolved nor brought into their canonical form again.

Owns: what is remembered between programs. Refuses: changing them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from starc.compiler import ir
from starc.compiler.digest import canonical
from starc.compiler.drafts import (
    Draft,
    Drafted,
    DraftLayer,
    DraftLoop,
    DraftParallel,
    DraftRepeat,
    has_units,
)
from starc.compiler.init import Init, onto_stream, spread
from starc.compiler.inventory import model_parameters
from starc.compiler.memo import Body, Memo
from starc.compiler.options import Limits, Options
from starc.compiler.passes.canonicalize import canonical_operator
from starc.compiler.passes.common import without_repetition
from starc.compiler.passes.infer import inferred
from starc.compiler.passes.share import fits, share
from starc.compiler.program import Linked, choose_model, link
from starc.compiler.resolve import Resolver
from starc.compiler.settings import Settings
from starc.grammar import nodes
from starc.grammar.errors import Diagnostic, StarError
from starc.grammar.source import Source

_BODIES, _UNITS = 6_000, 30_000
"""So many bodies or units, and everything is forgotten: a search makes ever new ones."""

_CHECKED = 1024
"""So many programs are kept: the parents of a population, and what was just made of them."""

_CANONICAL = (canonical_operator, inferred, without_repetition)
"""The passes that digests are taken behind, of one operator. Of `drop_unused` nothing is left to
do then, since every rewriting drops what no output needs."""


@dataclass(frozen=True)
class Checked:
    """A program without errors."""

    program: nodes.Program
    model: nodes.Model
    operators: Mapping[str, nodes.Operator]
    identity: str
    drafted: Drafted = field(repr=False, compare=False)
    units: int
    """How many units it has, repeats unrolled."""

    @cached_property
    def ir(self) -> ir.Model:
        """Its model before any pass but `share`."""
        return share(self.drafted.frozen())

    @property
    def settings(self) -> Settings:
        """The settings of its model, not to be changed."""
        return self.drafted.settings

    @cached_property
    def labelled(self) -> Mapping[str, nodes.Unit | nodes.Parallel]:
        """Units and parallels by their labels."""
        found: dict[str, nodes.Unit | nodes.Parallel] = {}
        left = [*self.model.backbone]
        while left:
            layer = left.pop()
            if isinstance(layer, nodes.Unit | nodes.Parallel) and layer.label:
                found[layer.label] = layer
            if not isinstance(layer, nodes.Unit):
                left += layer.body
        return found

    @cached_property
    def bodies(self) -> Mapping[int, Body]:
        """What the operators of units were resolved to, by the identity of the syntax; of a repeat,
        in its first copy."""
        found: dict[int, Body] = {}
        for draft in self.drafted.units():
            found.setdefault(id(draft.unit), draft.body)
        return found


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
        if known := self.known(program, model):
            return known
        if len(self.memo.bodies) > _BODIES or len(self.memo.units) > _UNITS:
            self._forget()
        linked = self._linked(program)
        if model is None and len(linked.models) == 1:
            chosen = linked.models[0]
        else:
            chosen = choose_model(linked, Options(model=model, limits=self.limits))
        drafted = Resolver(chosen, linked.operators, self.limits, self.memo).resolve()
        said = self._judged(drafted)
        operators, units = linked.operators, len(said.forms)
        checked = Checked(program, chosen, operators, said.identity, drafted, units)
        if len(self._checked) >= _CHECKED:
            del self._checked[next(iter(self._checked))]
        self._checked[id(program), model] = program, checked
        return checked

    def known(self, program: nodes.Program, model: str | None = None) -> Checked | None:
        """What `check` gave for this very program not long ago."""
        known = self._checked.pop((id(program), model), None)
        if known is None:
            return None
        self._checked[id(program), model] = known  # behind those that were not asked for since
        return known[1]

    def _linked(self, program: nodes.Program) -> Linked:
        """As `link`, but every declaration is looked at once."""
        operators: dict[str, nodes.Operator] = {}
        models: list[nodes.Model] = []
        for declaration in program.declarations:
            if isinstance(declaration, nodes.Model):
                models.append(declaration)
                continue
            operator = self._operator(declaration, program.source)
            if operator is None or operator.name in operators:
                return link(program, self.limits)  # says what is wrong
            operators[operator.name] = operator
        if any(model.name in operators for model in models) or len(models) > 1:
            return link(program, self.limits)
        return Linked(program, operators, tuple(models))

    def _operator(
        self, declared: nodes.Use | nodes.Operator, source: Source
    ) -> nodes.Operator | None:
        """The operator that a declaration declares; None for a faulty one."""
        key: object = id(declared)
        if isinstance(declared, nodes.Use):
            key = declared.path, source.name
        known = self._declared.get(key)
        if known is None:
            try:
                alone = link(nodes.Program((declared,), source), self.limits)
            except StarError:
                return None
            (known,) = alone.operators.values()
            self._declared[key] = known
        return known

    def _forget(self) -> None:
        self.memo = Memo()
        self._declared: dict[object, nodes.Operator] = {}
        self._checked: dict[tuple[int, str | None], tuple[nodes.Program, Checked]] = {}
        self._forms: dict[Init, _Forms] = {}
        self._tied: dict[tuple[int, int, tuple[str, ...]], _Tied] = {}
        self.texts: dict[int, tuple[object, str]] = {}

    def _judged(self, drafted: Drafted) -> _Said:
        """What a model says, which is refused where units do not fit each other."""
        forms = self._forms.setdefault(drafted.settings.init, {})
        said = _Said(self, drafted, forms)
        settings = drafted.settings
        # What is not certainly right is judged by the passes themselves, which say what is wrong.
        doubtful = not said.fitting or settings.average or settings.readout[0]
        if doubtful:
            share(drafted.frozen())
        self._limit(drafted, said.size)
        return said

    def _limit(self, drafted: Drafted, used: int) -> None:
        settings, limit = drafted.settings, self.limits.parameters
        most = used + 2 * (settings.vocab + settings.context) * settings.width
        if most <= limit // 2:
            return  # norms are not counted: they are far less than the other half
        model = drafted.model
        if sum(p.size for p in model_parameters(share(drafted.frozen())).values()) > limit:
            message = f"model '{model.name}' has more parameters than {limit:,}."
            raise StarError(Diagnostic("too-many-parameters", message, model.name_span))

    def tied(self, ours: _Form, theirs: _Form, names: tuple[str, ...]) -> _Tied:
        """What it means to take weights of another form."""
        key = id(ours), id(theirs), names
        known = self._tied.get(key)
        if known is None:  # the forms are kept as long as this is
            self._tied[key] = known = ours.tied(names, theirs)
        return known

    def text(self, thing: ir.Residual | Settings) -> str:
        """What a residual, or the ends of a model, say, as a digest."""
        known = self.texts.get(id(thing))
        if known is None:
            said = _ends(thing) if isinstance(thing, Settings) else _residual(thing)
            self.texts[id(thing)] = known = thing, hashlib.sha256(said.encode()).hexdigest()
        return known[1]


@dataclass(frozen=True, eq=False)
class _Form:
    """What an operator means, as a digest, with the parameters and inputs that this reads; `names`
    and `size` of all its parameters, and whether initial values depend on the depth."""

    operator: ir.Operator
    digest: str
    parameters: tuple[str, ...]
    inputs: tuple[str, ...]
    names: frozenset[str]
    size: int
    calm: bool

    def tied(self, weights: tuple[str, ...], owner: _Form) -> _Tied:
        """What it means to take those weights of another."""
        has = tuple(sorted(self.names.intersection(weights)))
        read = tuple(name for name in has if name in self.parameters)
        return _Tied(fits(self.operator, owner.operator, weights), has, read)


class _Tied(NamedTuple):
    """Weights of one operator taken from another: whether they are alike, as `share` wants them,
    those that there are here, and those of them that what the operator means reads."""

    fitting: bool
    has: tuple[str, ...]
    read: tuple[str, ...]


_Forms = dict[int | tuple[int, tuple[str, ...]], _Form]
"""Forms by the body, which the memo keeps alive, and what others ask of it if anything."""


def _form(operator: ir.Operator, plain: ir.Operator) -> _Form:
    """An operator behind the passes that digests are taken behind."""
    for run in _CANONICAL:
        operator = run(operator)
    found = canonical(operator)
    digest = hashlib.sha256(found.form.encode()).hexdigest()
    names, size = frozenset(p.name for p in plain.parameters), sum(p.size for p in plain.parameters)
    calm = any(onto_stream(plain))
    return _Form(plain, digest, found.parameters, found.inputs, names, size, calm)


class _Said:
    """What a model means, other layers by their numbers; whether shared weights fit, and how many
    parameters its units have."""

    def __init__(self, verifier: Verifier, drafted: Drafted, forms: _Forms) -> None:
        self.verifier, self.drafted, self.known = verifier, drafted, forms
        self.texts = verifier.texts
        self.fitting, self.size, self.calm = True, 0, False
        self.forms: list[_Form] = []  # of the units so far
        self.owners: dict[int, dict[str, int]] = {}  # of tied weights, by the unit that has them
        self.words: list[str] = [verifier.text(drafted.settings)]
        self._layers(drafted.layers)
        if self.calm and drafted.settings.init.calm:
            self.words.append(str(drafted.passed))
        self.identity = hashlib.sha256("\n".join(self.words).encode()).hexdigest()

    def _layers(self, layers: Sequence[DraftLayer]) -> None:
        for layer in layers:
            if type(layer) is Draft:  # nearly always
                self._unit(layer)
                continue
            match layer:
                case DraftParallel():
                    layer.number = -len(self.words)
                    self.words.append(f"{layer.mode} {self.verifier.text(layer.residual)}")
                    self._layers(layer.branches)
                    self.words.append("end")
                case DraftRepeat() if has_units(layer):
                    for body in layer.bodies:
                        self.words.append("repeat")
                        self._layers(body)
                    self.words.append("end")
                case DraftLoop() if has_units(layer):
                    self.words.append(f"loop {layer.times}")
                    self._layers(layer.body)
                    self.words.append("end")

    def _unit(self, draft: Draft) -> None:
        unit = draft.known
        key = (id(unit.body), draft.asked) if draft.exports else id(unit.body)
        form = self.known.get(key)
        if form is None:
            plain = self.drafted.plain(draft)
            self.known[key] = form = _form(spread(plain, self.drafted.settings.init), plain)
        words = self.words
        words.append(form.digest)
        known = self.texts.get(id(draft.residual))
        words.append(known[1] if known else self.verifier.text(draft.residual))
        if unit.inputs and (read := self._read(draft, form)):
            words.append(repr(read))
        if unit.shares and (ties := self._ties(draft, form)):
            words.append(repr(ties))
        self.forms.append(form)
        self.size += form.size
        self.calm = self.calm or form.calm

    def _read(self, draft: Draft, form: _Form) -> list[tuple[str, int, str]]:
        """(feature here, number of its layer, feature there), of features that are read."""
        found = []
        for name, place, there in draft.known.inputs:
            source = draft.named[place]
            if name in form.inputs and source is not None:
                number = source.layer if isinstance(source, Draft) else source.number
                found.append((name, number, there))
        return found

    def _ties(self, draft: Draft, form: _Form) -> tuple[tuple[str, int], ...]:
        """(weight, number of the unit that owns it), as the pass `share` ties them."""
        ours: dict[str, int] = {}
        read: list[str] = []
        for names, place in draft.known.shares:
            number = draft.source(place).layer
            tied = self.verifier.tied(form, self.forms[number], names)
            self.fitting = self.fitting and tied.fitting
            theirs = self.owners.get(number)
            if theirs:
                ours.update((name, theirs.get(name, number)) for name in tied.has)
            else:
                ours.update(dict.fromkeys(tied.has, number))
            read += tied.read
        self.owners[draft.layer] = ours
        if len(draft.known.shares) > 1:
            read = sorted(set(read))
        return tuple([(name, ours[name]) for name in read])


def _ends(settings: Settings) -> str:
    """What a model says beside its layers."""
    sizes = settings.vocab, settings.width, settings.context
    ends = settings.embedding, settings.position, settings.head, settings.final_norm
    along = settings.average, settings.readout
    return repr((sizes, ends, along, settings.dtype, settings.causal))


def _residual(residual: ir.Residual) -> str:
    if residual.formula:
        return _form(residual.formula, residual.formula).digest
    return repr((residual, residual.hyper))
