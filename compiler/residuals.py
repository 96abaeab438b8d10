"""Residual schemes: how the units of a backbone meet the stream x.

    pre(norm) | post(norm) | sandwich(norm [, norm]) | none    the named ones
    scaled(norm, branch = b, stream = s)                        s x + b F(norm(x))
    a formula of the stream x and the unit f                    x + 0.3 * f(x |> rmsnorm)
    hyper(n, dynamic = false, norm = rmsnorm)                   n streams, arXiv 2409.19606

A formula is resolved to the values of a little operator in which the unit is the operation
`branch`. Equal texts in a formula are one value, so that rmsnorm(x) + f(rmsnorm(x)) has one norm.

Owns: what a residual and a norm of the stream may say. Refuses: other settings, and where units
stand.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction

from starc.compiler import catalog
from starc.compiler.arguments import one_of
from starc.compiler.builder import Builder, prune
from starc.compiler.catalog.entry import Entry, Role, flag, real, size
from starc.compiler.expressions import Expressions
from starc.compiler.faults import error, fail, hole_error
from starc.compiler.holes import walk
from starc.compiler.ir import Hyper, Norm, Operator, Residual, Value
from starc.compiler.naming import NORM_SUFFIXES, Names
from starc.compiler.numbers import Numeric
from starc.compiler.results import Ref, Result
from starc.compiler.types import Constant, Feature, Problem, describe
from starc.grammar import nodes
from starc.grammar.errors import suggest
from starc.grammar.source import Span

NORMS = ("rmsnorm", "layernorm", "groupnorm", "l2norm")
SCHEMES = {"pre": ("norm",), "post": ("norm",), "sandwich": ("norm", "post_norm"), "none": ()}
_NAMES = (*SCHEMES, "scaled", "hyper", "weighted")
_HYPER = Entry(
    "hyper",
    Role.SOURCE,
    "",
    lambda i, a: Constant(1, 1),
    (),
    (size("n"), flag("dynamic", False)),
)
_SCALED = Entry(
    "scaled",
    Role.FUNCTION,
    "",
    lambda i, a: Constant(1, 1),
    ("norm",),
    (real("branch", Fraction(1)), real("stream", Fraction(1))),
)
MAX_STREAMS = 256
"""Connections between streams grow with the square of their number."""
_PLACE = frozenset({"layer", "depth"})


def default_norm(op: str) -> Norm:
    """A norm stage with its default options."""
    entry = catalog.ENTRIES[op]
    return Norm(op, tuple((a.name, a.default) for a in entry.arguments))


def resolve_norm(expr: nodes.Expr, scope: Mapping[str, Numeric]) -> Norm:
    """A norm named in a residual scheme or in final_norm: `rmsnorm` or `rmsnorm(eps = 1e-5)`."""
    if isinstance(expr, nodes.Hole):
        raise hole_error(expr)
    name = expr.function if isinstance(expr, nodes.Call) else getattr(expr, "name", None)
    if not isinstance(expr, nodes.Call | nodes.Name) or name not in NORMS:
        near = suggest(name, NORMS) if name else ""
        raise error(
            "wrong-argument", f"this must be a norm: {one_of(NORMS)}.", expr.span, hint=near
        )
    arguments = expr.arguments if isinstance(expr, nodes.Call) else ()
    bound = Expressions(Builder(), scope, dict, {}).bind(
        catalog.ENTRIES[name], arguments, expr.span
    )
    return Norm(name, tuple(bound.items()))


def fit(norm: Norm, width: int, span: Span) -> None:
    """Refuse a norm that the stream does not fit: groups that do not divide the width."""
    try:
        catalog.ENTRIES[norm.op].rule([Feature(1, width)], dict(norm.attributes))
    except Problem as problem:
        raise fail(problem, span) from None


def is_formula(expr: nodes.Expr) -> bool:
    """Whether a residual is written as a formula of x, or is `scaled`, which stands for one."""
    if isinstance(expr, nodes.Call) and expr.function == "scaled":
        return True
    return any(isinstance(node, nodes.Name) and node.name == "x" for node in walk(expr))


def depends_on_place(expr: nodes.Expr) -> bool:
    """Whether a residual reads the number of the unit or of all units."""
    return any(isinstance(node, nodes.Name) and node.name in _PLACE for node in walk(expr))


def resolve_residual(expr: nodes.Expr, scope: Mapping[str, Numeric]) -> Residual:
    """A residual scheme or formula.

    `scope` has the numbers known so far, with the width among them for a formula; norms of named
    schemes are checked against the width once it is known.
    """
    if is_formula(expr):
        return _formula(expr, scope)
    name, span = _scheme_name(expr)
    arguments = expr.arguments if isinstance(expr, nodes.Call) else ()
    if name == "hyper":
        return _hyper(expr, scope)
    if name == "weighted":
        raise error(
            "wrong-argument",
            "'weighted' averages over the whole depth: it belongs to the model, around the scheme.",
            span,
            hint="write residual = weighted(pre(rmsnorm)) in the model.",
        )
    if name not in SCHEMES:
        raise error(
            "unknown-name",
            f"there is no residual scheme '{name}'.",
            span,
            "unknown",
            suggest(name, _NAMES) or f"schemes are {', '.join(_NAMES)}.",
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
    if "width" in scope:
        for argument, norm in zip(arguments, norms, strict=False):
            fit(norm, int(scope["width"]), argument.value.span)
    return Residual(name, tuple((s, norms[min(i, len(norms) - 1)]) for i, s in enumerate(suffixes)))


def _hyper(expr: nodes.Expr, scope: Mapping[str, Numeric]) -> Residual:
    arguments = list(expr.arguments) if isinstance(expr, nodes.Call) else []
    norm = default_norm("rmsnorm")
    for i, argument in enumerate(arguments):
        if argument.name == "norm":
            norm = resolve_norm(arguments.pop(i).value, scope)
            if "width" in scope:
                fit(norm, int(scope["width"]), argument.value.span)
            break
    found = Expressions(Builder(), scope, dict, {}).bind(_HYPER, tuple(arguments), expr.span)
    if found["n"] > MAX_STREAMS:
        raise error(
            "bad-size",
            f"'hyper' has at most {MAX_STREAMS} streams, not {found['n']:,}.",
            expr.span,
            hint="hyper-connections were published with 1 to 8.",
        )
    hyper = Hyper(found["n"], 0, norm if found["dynamic"] else None)
    return Residual("hyper", (("norm", norm),), None, hyper)


def numbered(residual: Residual, layer: int) -> Residual:
    """The residual of one layer: hyper-connections at first read one stream after the other."""
    if residual.hyper is None:
        return residual
    first = layer % residual.hyper.streams
    return replace(residual, hyper=replace(residual.hyper, first=first))


def check_streams(residual: Residual, model: Residual, span: Span) -> None:
    """Refuse a unit that meets another number of streams than the model has."""
    ours, wanted = (r.hyper.streams if r.hyper else 1 for r in (residual, model))
    if ours != wanted:
        count = "several streams" if wanted > 1 else "one stream"
        raise error(
            "wrong-argument",
            f"the units of this model have {count} between them; this one is for {ours}.",
            span,
            hint="hyper(n) is the model's; units may choose between hyper(n) and "
            "hyper(n, dynamic = true).",
        )


def _scheme_name(expr: nodes.Expr) -> tuple[str, Span]:
    if isinstance(expr, nodes.Hole):
        raise hole_error(expr)
    if isinstance(expr, nodes.Call):
        return expr.function, expr.name_span
    if isinstance(expr, nodes.Name):
        return expr.name, expr.span
    raise error(
        "wrong-argument",
        "a residual scheme is a name such as pre(rmsnorm), or a formula of x and f.",
        expr.span,
        hint=f"schemes are {', '.join(_NAMES)}; a formula is x + 0.5 * f(x |> rmsnorm).",
    )


# --- formulas ------------------------------------------------------------------------------------

_ARITHMETIC = frozenset("input branch number param scale gain negate dense softmax".split())
_INFIX = frozenset("add subtract multiply divide".split())


class _Formula(Expressions):
    """Evaluates a formula: `x` is the stream, `f` the unit."""

    def __init__(self, scope: Mapping[str, Numeric], width: int, span: Span) -> None:
        super().__init__(Builder(), scope, dict, {})
        shape = {"name": "x", "heads": 1, "channels": width}
        self.names["x"] = Ref(self.builder.emit("input", (), shape, span))
        self.width = width
        self.branches: dict[int, Span] = {}
        self._known: dict[nodes.Expr, Result] = {}

    def evaluate(self, expr: nodes.Expr) -> Result:
        if expr not in self._known:
            self._known[expr] = self._evaluate(expr)
        return self._known[expr]

    def _evaluate(self, expr: nodes.Expr) -> Result:
        match expr:
            case nodes.Name(name="f"):
                raise error(
                    "wrong-type", "'f' is the unit.", expr.span, hint="apply it: f(x |> rmsnorm)."
                )
            case nodes.Call(function="f"):
                if len(expr.arguments) != 1 or expr.arguments[0].name:
                    raise error("wrong-argument", "'f' takes one feature.", expr.span)
                return self._branch(expr.arguments[0].value, expr.span)
            case nodes.Pipe(stage=nodes.Name(name="f")):
                return self._branch(expr.value, expr.span)
        first = len(self.builder.values)
        result = super().evaluate(expr)
        for value in self.builder.values[first:]:
            self._check(value, expr)
        return result

    def _branch(self, argument: nodes.Expr, span: Span) -> Result:
        operand = self.value(argument)
        type_ = self.builder.type(operand)
        if type_ != Feature(1, self.width):
            raise error(
                "wrong-type",
                f"'f' takes a feature {Feature(1, self.width)}, not a {describe(type_)}.",
                argument.span,
                f"this is a {describe(type_)}",
            )
        result = self._emit("branch", (operand,), {}, span)
        self.branches[result.id] = span
        return result

    def _check(self, value: Value, expr: nodes.Expr) -> None:
        entry = catalog.ENTRIES[value.op]
        allowed = value.op in _ARITHMETIC or value.op in _INFIX or value.op in NORMS
        if not (allowed or entry.pointwise):
            raise error(
                "wrong-argument",
                f"'{entry.name}' has no place in a residual formula.",
                expr.span,
                hint="a formula is made of arithmetic, pointwise stages, norms, dense and param; "
                "anything else is an operator.",
            )


def _formula(expr: nodes.Expr, scope: Mapping[str, Numeric]) -> Residual:
    width = int(scope["width"])
    written = _written_out(expr, scope) if isinstance(expr, nodes.Call) else expr
    formula = _Formula(scope, width, expr.span)
    result = formula.evaluate(written)
    if len(formula.branches) != 1:
        times = "twice" if formula.branches else "nowhere"
        raise error(
            "wrong-argument",
            f"a residual formula applies the unit 'f' once; here it stands {times}.",
            list(formula.branches.values())[1] if formula.branches else expr.span,
            hint="for example x + f(x |> rmsnorm).",
        )
    assert isinstance(result, Ref)  # f is in it
    type_ = formula.builder.type(result.id)
    if type_ != Feature(1, width):
        raise error(
            "wrong-output",
            f"a residual must give a feature {Feature(1, width)}, not a {describe(type_)}.",
            expr.span,
        )
    return Residual("formula", (), _operator(formula.builder, result.id))


def _written_out(call: nodes.Call, scope: Mapping[str, Numeric]) -> nodes.Expr:
    """scaled(norm, branch = b, stream = s) as the formula s x + b f(norm(x))."""
    if call.function != "scaled":
        return call
    norm, arguments = nodes.Name("rmsnorm", span=call.span), list(call.arguments)
    given: nodes.Expr = norm
    for i, argument in enumerate(arguments):
        if argument.name == "norm" or (argument.name is None and i == 0):
            given = arguments.pop(i).value
            break
    resolve_norm(given, scope)
    assert isinstance(given, nodes.Call | nodes.Name)
    expressions = Expressions(Builder(), scope, dict, {})
    expressions.bind(_SCALED, tuple(arguments), call.span)
    factors = dict(zip(("branch", "stream"), (a.value for a in arguments), strict=False))
    factors.update({a.name: a.value for a in arguments if a.name})
    x = nodes.Name("x", span=call.span)
    normed = nodes.Pipe(x, given, span=call.span)
    branch: nodes.Expr = nodes.Pipe(normed, nodes.Name("f", span=call.span), span=call.span)
    stream: nodes.Expr = x
    if "branch" in factors:
        branch = nodes.Binary("*", factors["branch"], branch, span=call.span)
    if "stream" in factors:
        stream = nodes.Binary("*", factors["stream"], stream, span=call.span)
    return nodes.Binary("+", stream, branch, span=call.span)


def _operator(builder: Builder, result: int) -> Operator:
    """The formula as an operator whose parameters are named after their stages: norm, gain, ..."""
    names = Names()
    for id, value in enumerate(builder.values):
        specs = catalog.ENTRIES[value.op].parameters(
            [builder.type(i) for i in value.inputs], dict(value.attributes)
        )
        if specs:
            base = names.take("norm" if value.op in NORMS else value.op)
            owned = [replace(p, name=base + p.name) for p in specs]
            builder.parameters.update({p.name: p for p in owned})
            builder.values[id] = replace(value, parameters=tuple(p.name for p in owned))
    values, outputs, parameters = prune(builder.values, [("y", result)], builder.parameters)
    return Operator("residual", "residual", (), values, outputs, parameters)


_SUFFIXES = (*NORM_SUFFIXES, "_hyper")


def suffixes(residual: Residual) -> tuple[str, ...]:
    """Attributes that stand beside a layer's own: its name with each of these."""
    if residual.formula is None:
        return _SUFFIXES
    own = residual.formula.parameters
    return (*_SUFFIXES, *dict.fromkeys("_" + p.name.partition(".")[0] for p in own))


def default_final_norm(residual: Residual) -> Norm | None:
    """The norm behind the last unit when the model names none: that in front of the units, unless
    the stream is normalised already."""
    if residual.formula is None:
        first = residual.scheme in ("pre", "sandwich", "hyper")
        return residual.norms[0][1] if first else None
    values = residual.formula.values
    if values[residual.formula.outputs[0][1]].op in NORMS:
        return None
    branch = next(v for v in values if v.op == "branch")
    norm = values[branch.inputs[0]]
    return Norm(norm.op, norm.attributes) if norm.op in NORMS else None
