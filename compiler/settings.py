"""Model settings: vocab, width, residual and the rest, with their defaults and checks.

    vocab, width, context   required sizes
    residual                see residuals.py, default pre(rmsnorm)
    embedding               untied | tied, with scale = s and norm = n
    position                none | learned | sinusoidal
    head                    linear, with bias, scale and softcap
    final_norm              a norm stage or none; default: the norm of a pre or sandwich residual
    any other name          a number of the model's own, for later settings and the backbone

Owns: what a setting may say. Refuses: operators and the backbone.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from starc.compiler.arguments import one_of, size_of
from starc.compiler.builder import Builder
from starc.compiler.catalog.entry import Argument, Entry, Role, choice, flag, positive, real
from starc.compiler.depth import is_weighted, resolve_average, resolve_readout
from starc.compiler.expressions import Expressions
from starc.compiler.faults import duplicate, error, hole_error
from starc.compiler.init import Init
from starc.compiler.ir import Average, Embedding, Head, Norm, Readout, Residual
from starc.compiler.numbers import Numeric
from starc.compiler.residuals import (
    NORMS,
    default_final_norm,
    default_norm,
    depends_on_place,
    fit,
    is_formula,
    resolve_norm,
    resolve_residual,
)
from starc.compiler.types import Constant
from starc.grammar import nodes
from starc.grammar.errors import StarError, suggest
from starc.grammar.source import Span


def _options(word: str, *arguments: Argument) -> Entry:
    return Entry(word, Role.SOURCE, "", lambda i, a: Constant(1, 1), (), arguments)


_EMBEDDING_OPTIONS = real("scale", Fraction(1)), choice("norm", "none", *NORMS)
_EMBEDDINGS = {word: _options(word, *_EMBEDDING_OPTIONS) for word in ("untied", "tied")}
_HEAD_OPTIONS = flag("bias", False), real("scale", Fraction(1)), positive("softcap", Fraction(0))
_HEADS = {"linear": _options("linear", *_HEAD_OPTIONS)}
_INITS = {
    "fan_in": _options("fan_in", positive("gain", Fraction(1)), flag("calm", True)),
    "normal": _options("normal", positive("std", Fraction(1, 50)), flag("calm", True)),
}
DTYPES = ("float32", "float64", "bfloat16", "float16")
SIZES = ("vocab", "width", "context")
SETTINGS = (
    *SIZES,
    "residual",
    "embedding",
    "position",
    "head",
    "final_norm",
    "causal",
    "readout",
    "init",
    "dtype",
)


@dataclass
class Settings:
    """The settings of a model, resolved."""

    vocab: int = 0
    width: int = 0
    context: int = 0
    residual: Residual = field(default_factory=lambda: Residual("none"))
    embedding: Embedding = field(default_factory=Embedding)
    position: str = "none"
    head: Head = field(default_factory=Head)
    final_norm: Norm | None = None
    formula: nodes.Expr | None = None
    """The residual where it is a formula, which may read the number of each unit."""
    average: tuple[int, Average] | None = None
    """Layers of a block, and the average over the outputs of blocks."""
    readout: tuple[int, Readout] = (0, Readout())
    """Layers between two of the depths that the read-out sees, and the read-out."""
    places: dict[str, Span] = field(default_factory=dict)
    """Where settings stand that are judged with the backbone."""
    init: Init = field(default_factory=Init)
    dtype: str = "float32"
    own: dict[str, Numeric] = field(default_factory=dict)
    """Numbers that the model names for itself."""
    causal: bool = True
    complete: bool = True
    """Whether all sizes are known; without them nothing else of the model can be judged."""

    def numbers(self) -> dict[str, Numeric]:
        """The compile-time numbers that settings put in scope of operators."""
        return {name: Fraction(getattr(self, name)) for name in SIZES}


def resolve_settings(model: nodes.Model, report: Callable[[StarError], None]) -> Settings:
    """The settings of a model; every fault goes to `report` and the setting keeps its default."""
    settings = Settings()
    settings.residual = Residual("pre", (("norm", default_norm("rmsnorm")),))
    seen: dict[str, nodes.Setting] = {}
    scope: dict[str, Numeric] = {}
    later = {s.name: s.name_span for s in reversed(model.settings) if s.name in SIZES}
    for setting in model.settings:
        try:
            if setting.name in seen:
                first = seen[setting.name].name_span
                message = f"'{setting.name}' is set twice."
                raise duplicate(message, setting.name_span, first, "keep one of them.")
            seen[setting.name] = setting
            if setting.name not in SETTINGS:
                _check_own(setting, model)
            _set(settings, setting, scope, later)
        except StarError as failure:
            if setting.name in SIZES or setting.name not in SETTINGS:
                settings.complete = False
                # For settings that read it.
                scope.setdefault(setting.name, _EXAMPLE.get(setting.name, Fraction(1)))
            report(failure)
    for name in SIZES:
        if name not in seen:
            settings.complete = False
            report(
                error(
                    "missing-setting",
                    f"model '{model.name}' does not set '{name}'.",
                    model.name_span,
                    hint=f"write {name} = {_EXAMPLE[name]} in the model.",
                )
            )
    if settings.complete and settings.formula:
        try:
            _resolve_formula(settings, settings.formula, scope)
        except StarError as failure:
            report(failure)
    if "final_norm" not in seen:
        settings.final_norm = default_final_norm(settings.residual)
    if settings.complete:
        norms = {"residual": [n for _, n in settings.residual.norms]}
        norms["final_norm"] = [settings.final_norm] if settings.final_norm else []
        for name in norms.keys() & seen.keys():
            try:
                for norm in norms[name]:
                    fit(norm, settings.width, seen[name].value.span)
            except StarError as failure:
                report(failure)
    return settings


_EXAMPLE = {"vocab": Fraction(50_304), "width": Fraction(768), "context": Fraction(1024)}


def _set(
    settings: Settings,
    setting: nodes.Setting,
    scope: dict[str, Numeric],
    later: Mapping[str, Span],
) -> None:
    name, expr = setting.name, setting.value
    if isinstance(expr, nodes.Hole):
        raise hole_error(expr)
    expressions = Expressions(Builder(), scope, dict, later)
    if name in SIZES:
        number = expressions.number(expr, f"'{name}'")
        setattr(settings, name, size_of(number, f"'{name}'", expr.span))
        scope[name] = number
    elif name not in SETTINGS:
        settings.own[name] = scope[name] = expressions.number(expr, f"'{name}'")
    elif name == "residual":
        settings.places[name] = expr.span
        if is_weighted(expr):
            expr, settings.average = resolve_average(expr, expressions)
        if is_formula(expr):
            settings.formula = expr  # waits for the width
        else:
            settings.residual = resolve_residual(expr, scope)
    elif name == "dtype":
        settings.dtype = _word(expr, "dtype", DTYPES)
    elif name == "init":
        word, options = _word_with_options(expr, "init", _INITS, expressions)
        std = float(options["std"]) if word == "normal" else None
        settings.init = Init(std, float(options.get("gain", 1)), options["calm"])
    elif name == "readout":
        settings.places[name] = expr.span
        settings.readout = resolve_readout(expr, expressions)
    elif name == "final_norm":
        settings.final_norm = None if _is_none(expr) else resolve_norm(expr, scope)
    elif name == "position":
        settings.position = _word(expr, "position", ("none", "learned", "sinusoidal"))
    elif name == "causal":
        settings.causal = _word(expr, "causal", ("true", "false")) == "true"
    elif name == "embedding":
        word, options = _word_with_options(expr, "embedding", _EMBEDDINGS, expressions)
        norm = None if options["norm"] == "none" else default_norm(options["norm"])
        settings.embedding = Embedding(word == "tied", float(options["scale"]), norm)
    else:
        _, options = _word_with_options(expr, "head", _HEADS, expressions)
        softcap = float(options["softcap"]) or None
        settings.head = Head(options["bias"], float(options["scale"]), softcap)


def _resolve_formula(settings: Settings, formula: nodes.Expr, scope: Mapping[str, Numeric]) -> None:
    """The residual of a formula; where it reads the place of a unit, that of the first of one."""
    if not depends_on_place(formula):
        settings.formula = None
    example: dict[str, Numeric] = {"depth": Fraction(1), "layer": Fraction(0)}
    settings.residual = resolve_residual(formula, {**scope, **example})


def unknown_setting(name: str, span: Span, own: Collection[str] = ()) -> StarError:
    return error(
        "unknown-name",
        f"a model has no setting '{name}'.",
        span,
        "unknown",
        suggest(name, (*SETTINGS, *own)) or f"settings are {', '.join((*SETTINGS, *own))}.",
    )


def _check_own(setting: nodes.Setting, model: nodes.Model) -> None:
    """Refuse a number of the model's own that is a setting misspelt, or has a meaning already."""
    given = {s.name for s in model.settings}
    missing = [name for name in SIZES if name not in given]
    if suggest(setting.name, missing) or isinstance(setting.value, nodes.Text):
        raise unknown_setting(setting.name, setting.name_span)
    if setting.name in ("depth", "layer"):
        raise duplicate(f"'{setting.name}' already has a meaning here.", setting.name_span, None)


def _is_none(expr: nodes.Expr) -> bool:
    return isinstance(expr, nodes.Name) and expr.name == "none"


def _word(expr: nodes.Expr, what: str, words: Collection[str]) -> str:
    if isinstance(expr, nodes.Name) and expr.name in words:
        return expr.name
    near = suggest(expr.name, words) if isinstance(expr, nodes.Name) else ""
    raise error("wrong-argument", f"'{what}' must be {one_of(words)}.", expr.span, hint=near)


def _word_with_options(
    expr: nodes.Expr, what: str, words: Mapping[str, Entry], expressions: Expressions
) -> tuple[str, dict[str, Any]]:
    if not isinstance(expr, nodes.Call):
        word = _word(expr, what, words)
        return word, expressions.bind(words[word], (), expr.span)
    word = _word(nodes.Name(expr.function, span=expr.name_span), what, words)
    return word, expressions.bind(words[word], expr.arguments, expr.span)
