"""Model settings: vocab, width, residual and the rest, with their defaults and checks.

    vocab, width, context   required sizes
    residual                pre(norm) | post(norm) | sandwich(norm) | none, default pre(rmsnorm)
    embedding               untied | tied, with scale = s and norm = n
    position                none | learned | sinusoidal
    head                    linear, with bias, scale and softcap
    final_norm              a norm stage or none; default: the norm of a pre or sandwich residual

Owns: what a setting may say. Refuses: operators and the backbone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction

from starc.compiler import catalog
from starc.compiler.arguments import size_of
from starc.compiler.builder import Builder
from starc.compiler.catalog.entry import Argument, Entry, Role, choice, flag, real
from starc.compiler.expressions import Expressions
from starc.compiler.faults import error, not_yet
from starc.compiler.ir import Embedding, Head, Norm, Residual
from starc.compiler.numbers import Numeric
from starc.compiler.types import Constant
from starc.grammar import nodes
from starc.grammar.errors import Diagnostic, StarError, suggest
from starc.grammar.source import Span

NORMS = ("rmsnorm", "layernorm", "groupnorm", "l2norm")
SCHEMES = {"pre": ("norm",), "post": ("norm",), "sandwich": ("norm", "post_norm"), "none": ()}
PLANNED_SCHEMES = ("scaled", "hyper", "weighted")
PLANNED_SETTINGS = ("causal", "dtype", "init", "readout")


def _options(*arguments: Argument) -> Entry:
    return Entry("setting", Role.SOURCE, "", lambda i, a: Constant(1, 1), (), arguments)


_EMBEDDING = _options(real("scale", Fraction(1)), choice("norm", "none", *NORMS))
_HEAD = _options(flag("bias", False), real("scale", Fraction(1)), real("softcap", Fraction(0)))


@dataclass
class Settings:
    """The settings of a model, resolved."""

    vocab: int = 0
    width: int = 0
    context: int = 0
    residual: Residual = Residual("none")
    embedding: Embedding = Embedding()
    position: str = "none"
    head: Head = Head()
    final_norm: Norm | None = None

    def numbers(self) -> dict[str, Numeric]:
        """The compile-time numbers that settings put in scope."""
        return {name: Fraction(getattr(self, name)) for name in ("vocab", "width", "context")}


def resolve_settings(
    model: nodes.Model, report: Callable[[StarError], None], *, defaults: Mapping[str, int]
) -> Settings:
    """The settings of a model; every fault goes to `report` and the setting keeps its default."""
    settings = Settings()
    settings.residual = Residual("pre", (("norm", default_norm("rmsnorm")),))
    seen: dict[str, nodes.Setting] = {}
    scope: dict[str, Numeric] = {}
    known = ("vocab", "width", "context", "residual", "embedding", "position", "head", "final_norm")
    for setting in model.settings:
        try:
            if setting.name in seen:
                raise StarError(
                    Diagnostic(
                        "duplicate",
                        f"'{setting.name}' is set twice.",
                        setting.name_span,
                        related=((seen[setting.name].name_span, "first set here"),),
                    )
                )
            seen[setting.name] = setting
            if setting.name in PLANNED_SETTINGS:
                raise not_yet(setting.name, setting.name_span)
            if setting.name not in known:
                raise error(
                    "unknown-name",
                    f"a model has no setting '{setting.name}'.",
                    setting.name_span,
                    "unknown",
                    suggest(setting.name, known) or f"settings are {', '.join(known)}.",
                )
            _set(settings, setting, scope)
        except StarError as failure:
            report(failure)
    for name in ("vocab", "width", "context"):
        if name not in seen:
            if name in defaults:
                setattr(settings, name, defaults[name])
                continue
            report(
                error(
                    "missing-setting",
                    f"model '{model.name}' does not set '{name}'.",
                    model.name_span,
                    hint=f"write {name} = {_EXAMPLE[name]} in the model.",
                )
            )
            setattr(settings, name, _EXAMPLE[name])
        elif getattr(settings, name) == 0:
            setattr(settings, name, _EXAMPLE[name])
    if "final_norm" not in seen and settings.residual.scheme in ("pre", "sandwich"):
        settings.final_norm = settings.residual.norms[0][1]
    return settings


_EXAMPLE = {"vocab": 50_304, "width": 768, "context": 1024}


def _set(settings: Settings, setting: nodes.Setting, scope: dict[str, Numeric]) -> None:
    name, expr = setting.name, setting.value
    expressions = Expressions(Builder(), scope, {}, {})
    if name in ("vocab", "width", "context"):
        number = expressions.number(expr, f"'{name}'")
        setattr(settings, name, size_of(number, f"'{name}'", expr.span))
        scope[name] = number
    elif name == "residual":
        settings.residual = resolve_residual(expr, scope)
    elif name == "final_norm":
        settings.final_norm = None if _is_none(expr) else resolve_norm(expr, scope)
    elif name == "position":
        settings.position = _word(expr, "position", ("none", "learned", "sinusoidal"))
    elif name == "embedding":
        word, options = _word_with_options(
            expr, "embedding", ("untied", "tied"), _EMBEDDING, expressions
        )
        norm = None if options["norm"] == "none" else default_norm(options["norm"])
        settings.embedding = Embedding(word == "tied", float(options["scale"]), norm)
    else:
        _, options = _word_with_options(expr, "head", ("linear",), _HEAD, expressions)
        softcap = float(options["softcap"]) or None
        settings.head = Head(options["bias"], float(options["scale"]), softcap)


def _is_none(expr: nodes.Expr) -> bool:
    return isinstance(expr, nodes.Name) and expr.name == "none"


def _word(expr: nodes.Expr, what: str, words: tuple[str, ...]) -> str:
    if isinstance(expr, nodes.Name) and expr.name in words:
        return expr.name
    near = suggest(expr.name, words) if isinstance(expr, nodes.Name) else ""
    raise error(
        "wrong-argument", f"'{what}' must be one of {', '.join(words)}.", expr.span, hint=near
    )


def _word_with_options(
    expr: nodes.Expr, what: str, words: tuple[str, ...], options: Entry, expressions: Expressions
) -> tuple[str, dict[str, object]]:
    if not isinstance(expr, nodes.Call):
        return _word(expr, what, words), expressions.bind(options, (), expr.span)
    word = _word(nodes.Name(expr.function, span=expr.name_span), what, words)
    return word, expressions.bind(options, expr.arguments, expr.span)


def default_norm(op: str) -> Norm:
    """A norm stage with its default options."""
    entry = catalog.ENTRIES[op]
    return Norm(op, tuple((a.name, a.default) for a in entry.arguments))


def resolve_norm(expr: nodes.Expr, scope: Mapping[str, Numeric]) -> Norm:
    """A norm named in a residual scheme or in final_norm: `rmsnorm` or `rmsnorm(eps = 1e-5)`."""
    name = expr.function if isinstance(expr, nodes.Call) else getattr(expr, "name", None)
    if not isinstance(expr, nodes.Call | nodes.Name) or name not in NORMS:
        near = suggest(name, NORMS) if name else ""
        raise error(
            "wrong-argument", f"this must be a norm: {', '.join(NORMS)}.", expr.span, hint=near
        )
    arguments = expr.arguments if isinstance(expr, nodes.Call) else ()
    bound = Expressions(Builder(), scope, {}, {}).bind(catalog.ENTRIES[name], arguments, expr.span)
    return Norm(name, tuple(bound.items()))


def resolve_residual(expr: nodes.Expr, scope: Mapping[str, Numeric]) -> Residual:
    """A residual scheme: pre(norm), post(norm), sandwich(norm [, norm]) or none."""
    name, span = _scheme_name(expr)
    arguments = expr.arguments if isinstance(expr, nodes.Call) else ()
    if name in PLANNED_SCHEMES:
        raise not_yet(name, span)
    if name not in SCHEMES:
        raise error(
            "unknown-name",
            f"there is no residual scheme '{name}'.",
            span,
            "unknown",
            suggest(name, SCHEMES) or f"schemes are {', '.join(SCHEMES)}.",
        )
    suffixes = SCHEMES[name]
    if len(arguments) > len(suffixes) or any(a.name not in (None, "norm") for a in arguments):
        takes = {0: "no norm", 1: "one norm"}.get(len(suffixes), f"at most {len(suffixes)} norms")
        raise error(
            "wrong-argument",
            f"residual '{name}' takes {takes}.",
            expr.span,
            hint="for example pre(rmsnorm), sandwich(layernorm) or none.",
        )
    norms = [resolve_norm(a.value, scope) for a in arguments] or [default_norm("rmsnorm")]
    return Residual(name, tuple((s, norms[min(i, len(norms) - 1)]) for i, s in enumerate(suffixes)))


def _scheme_name(expr: nodes.Expr) -> tuple[str, Span]:
    if isinstance(expr, nodes.Call):
        return expr.function, expr.name_span
    if isinstance(expr, nodes.Name):
        return expr.name, expr.span
    raise error(
        "wrong-argument",
        "a residual scheme is a name such as pre(rmsnorm).",
        expr.span,
        hint=f"schemes are {', '.join(SCHEMES)}.",
    )
