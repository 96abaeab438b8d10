"""A parsed program with all it uses: operators in scope, the chosen model, overrides applied.

Owns: `use`, the choice of a model, `--set`. Refuses: the meaning of operators and backbones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

from starc.compiler import catalog
from starc.compiler.arguments import one_of
from starc.compiler.faults import error, word_span
from starc.compiler.numbers import FUNCTIONS
from starc.compiler.options import Limits, Options
from starc.compiler.settings import SETTINGS, unknown_setting
from starc.grammar import nodes
from starc.grammar.errors import Diagnostic, StarError, suggest
from starc.grammar.library import find_use, whole_file
from starc.grammar.parser import parse
from starc.grammar.source import Source, Span

PARAMETER_KINDS = ("int", "real", "feature")


@dataclass(frozen=True)
class Linked:
    """A program with its operators by name, its own and the imported ones."""

    program: nodes.Program
    operators: Mapping[str, nodes.Operator]
    models: tuple[nodes.Model, ...]


@lru_cache(maxsize=256)
def _parsed(source: Source, limits: Limits) -> nodes.Program:
    """A file that programs use; they use the same ones, and often more than one operator of it."""
    return parse_limited(source, limits)


def parse_limited(source: Source, limits: Limits) -> nodes.Program:
    return parse(source, max_characters=limits.characters, max_nesting=limits.nesting)


def link(program: nodes.Program, limits: Limits) -> Linked:
    """Bring the operators of every `use` into scope; all faults at once."""
    failures: list[Diagnostic] = []
    operators: dict[str, nodes.Operator] = {}
    places: dict[str, Span] = {}
    models: dict[str, nodes.Model] = {}

    def declare(name: str, span: Span) -> bool:
        if name in places:
            failures.append(
                Diagnostic(
                    "duplicate",
                    f"'{name}' is declared twice.",
                    span,
                    "again here",
                    "give one of them another name.",
                    ((places[name], "first declared here"),),
                )
            )
            return False
        places[name] = span
        return True

    for declaration in program.declarations:
        match declaration:
            case nodes.Use():
                try:
                    operator = _used(declaration, program.source, limits)
                except StarError as failure:
                    failures += failure.diagnostics
                    continue
                if declare(operator.name, declaration.span):
                    operators[operator.name] = operator
            case nodes.Operator():
                failures += _check_operator(declaration)
                if declare(declaration.name, declaration.name_span):
                    operators[declaration.name] = declaration
            case nodes.Model():
                if declare(declaration.name, declaration.name_span):
                    models[declaration.name] = declaration
    if failures:
        raise StarError(failures)
    return Linked(program, operators, tuple(models.values()))


def _check_operator(node: nodes.Operator) -> list[Diagnostic]:
    """Faults of a declaration that do not depend on arguments."""
    found = []
    if node.name in catalog.NAMES or node.name in FUNCTIONS:
        found.append(
            Diagnostic(
                "reserved-name",
                f"'{node.name}' is an operation of the language and cannot name an operator.",
                node.name_span,
                "reserved",
                f"choose another name, such as my_{node.name}.",
            )
        )
    for parameter in node.parameters:
        kind = parameter.kind
        if kind is not None and kind not in PARAMETER_KINDS:
            colon = parameter.span.text.find(":")
            start = parameter.span.start + max(colon, 0)
            place = Span(parameter.span.source, start, parameter.span.end)
            found.append(
                Diagnostic(
                    "unknown-name",
                    f"there is no kind of parameter '{kind}'.",
                    word_span(place, kind),
                    "unknown",
                    suggest(kind, PARAMETER_KINDS) or f"kinds are {one_of(PARAMETER_KINDS)}.",
                )
            )
    return found


def _used(use: nodes.Use, source: Source, limits: Limits) -> nodes.Operator:
    found, name = find_use(use.path, source, use.span)
    program = _parsed(found, limits)
    declared = {d.name: d for d in program.declarations if isinstance(d, nodes.Operator)}
    if name not in declared:
        raise error(
            "use-not-found",
            f"'{found.name}' has no operator '{name}'.",
            use.span,
            "not there",
            suggest(name, declared) or f"it has {', '.join(declared) or 'none'}.",
        )
    return declared[name]


@lru_cache(maxsize=256)
def file_scope(source: Source, limits: Limits) -> Mapping[str, nodes.Operator]:
    """The operators that the operators of a file may call: its own, and those that it uses.

    `source` may hold one operator of a file of the standard library alone. Raises StarError for a
    `use` that names nothing.
    """
    program = _parsed(whole_file(source), limits)
    found = {d.name: d for d in program.declarations if isinstance(d, nodes.Operator)}
    for declaration in program.declarations:
        if isinstance(declaration, nodes.Use):
            operator = _used(declaration, program.source, limits)
            found.setdefault(operator.name, operator)
    return found


def choose_model(linked: Linked, options: Options) -> nodes.Model:
    """The model to compile: the one named by options, or the only one. Overrides are applied."""
    source, models = linked.program.source, linked.models
    names = [m.name for m in models]
    start = Span(source, 0, 0)
    if options.model is not None:
        if options.model not in names:
            raise StarError(
                Diagnostic(
                    "no-such-model",
                    f"{source.name} has no model '{options.model}'.",
                    None,
                    hint=suggest(options.model, names)
                    or f"it has {', '.join(names) or 'no model'}.",
                )
            )
        model = models[names.index(options.model)]
    elif not models:
        raise error(
            "no-model",
            f"{source.name} declares no model.",
            start,
            hint="add: model name { vocab = 256  width = 128  context = 256  backbone { ... } }",
        )
    elif len(models) > 1:
        related = tuple((m.name_span, f"'{m.name}'") for m in models[1:])
        raise StarError(
            Diagnostic(
                "ambiguous-model",
                f"{source.name} declares {len(models)} models.",
                models[0].name_span,
                f"'{names[0]}'",
                f"choose one: --model {names[0]}",
                related,
            )
        )
    else:
        model = models[0]
    return _override(model, options)


def _override(model: nodes.Model, options: Options) -> nodes.Model:
    """Settings replaced by those of the command line, which are expressions of the language."""
    settings = list(model.settings)
    for name, text in options.overrides:
        source = Source(f"--set {name}", f"model set {{ {name} = {text} }}")
        parsed, *more = parse_limited(source, options.limits).declarations
        if (
            more
            or not isinstance(parsed, nodes.Model)
            or len(parsed.settings) != 1
            or parsed.backbone
            or parsed.settings[0].name != name
        ):
            raise StarError(
                Diagnostic(
                    "wrong-argument",
                    f"'--set {name}={text}' is not one setting.",
                    hint="for example --set width=128",
                )
            )
        given = parsed.settings[0]
        if any(s.name == name for s in settings):
            settings = [given if s.name == name else s for s in settings]
        elif name in SETTINGS:
            settings.append(given)
        else:
            own = [s.name for s in settings if s.name not in SETTINGS]
            raise unknown_setting(name, given.name_span, own)
    return replace(model, settings=tuple(settings)) if options.overrides else model
