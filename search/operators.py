"""Mutations of operators: how a unit mixes tokens, how scores are bent and masked, its numbers.

A unit whose operator changes gets an own copy of it in the program; units with the same call follow
or keep what they had.

Owns: the operations of this level, and own copies. Refuses: features (`featurizers`), repair.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

from starc.compiler.memo import Body as Resolved
from starc.compiler.types import Constant, Feature
from starc.grammar import nodes
from starc.grammar.copying import changed
from starc.search.remembering import per_node
from starc.search.repair import Draft
from starc.search.site import Operation, Site
from starc.search.space import alike, every
from starc.search.trees import (
    PLACE,
    Body,
    Path,
    at,
    called,
    expression,
    features,
    literal,
    once,
    parts,
    piped,
    put,
    stage_name,
    ties,
    units,
)

WEIGHTS_OF_ROWS = ("softmax", "sigmoid", "relu", "normalize", "standardize")
"""What makes weights of scores; without any of them scores are weights."""

POINTWISE = ("silu", "gelu", "relu", "relu2", "sigmoid", "tanh", "elu1", "quick_gelu", "mish")
"""Nonlinearities of features that take each other's place."""

FILTERS = ("explicit", "implicit", "ssm")

Change = Callable[[Site, nodes.Operator, Resolved], tuple[nodes.Binding, ...] | None]
"""Draws other bindings for an operator."""


# --- own copies ---------------------------------------------------------------------------------


def edited(site: Site, change: Change) -> Draft | None:
    """A unit with a changed operator of its own."""
    found = [(path, u) for path, u in site.units if _operator(site, u) is not None]
    place = site.pick(found)
    if place is None:
        return None
    unit = place[1]
    node, resolved = _operator(site, unit), body_of(site, unit)
    if node is None or resolved is None:
        return None
    bindings = change(site, node, resolved)
    if bindings is None or bindings == node.body:
        return None
    bindings = _read(bindings, _asked(site.backbone))
    call = unit.operator
    assert isinstance(call, nodes.Call)
    follow = followers(site, place)
    shop = site.shop()
    own = isinstance(shop.declared.get(node.name), nodes.Operator)
    if own and _users(site, node.name) == len(follow):
        name = shop.own(node.name, node, bindings)
    else:
        name = shop.variant(node, bindings)
    return site.draft(with_calls(site.backbone, follow, changed(call, function=name)), shop)


def followers(site: Site, place: tuple[Path, nodes.Unit]) -> list[Path]:
    """The places of the units that change with one: all with the same call, or it alone.

    Where something is valid only, they all follow if any of them is tied.
    """
    same = [(path, u) for path, u in site.units if alike(u.operator, place[1].operator)]
    named = {tie.label for _, u in site.units for tie in ties(u)}
    tied = any(ties(u) or u.label in named for _, u in same if u.label or ties(u))
    if (tied and site.constrained) or site.chance():
        return [path for path, _ in same]
    return [place[0]]


def with_calls(body: Body, places: Sequence[Path], call: nodes.Call) -> Body:
    """The layers with the units at some places calling something else."""
    for path in places:
        unit = at(body, path)
        assert isinstance(unit, nodes.Unit)
        body = put(body, path, changed(unit, operator=call))
    return body


def _operator(site: Site, unit: nodes.Unit) -> nodes.Operator | None:
    call = unit.operator
    return site.checked.operators.get(call.function) if isinstance(call, nodes.Call) else None


def body_of(site: Site, unit: nodes.Unit) -> Resolved | None:
    """What the operator of a unit was resolved to, with the numbers that its call gives."""
    return site.checked.bodies.get(id(unit)) if _operator(site, unit) else None


def _users(site: Site, name: str) -> int:
    """How many places of the program call an operator."""
    found = sum(called(u.operator).count(name) for _, u in site.units)
    others = [o for o in site.checked.operators.values() if o.name != name]
    return found + sum(name in called(o) for o in others)


def _asked(body: Body) -> set[str]:
    """Bindings that units take from each other."""
    found: set[str] = set()
    for unit in units(body):
        for tie in ties(unit):
            found.update(tie.names)
        for argument, _ in features(unit):
            if isinstance(argument.value, nodes.Member):
                found.add(argument.value.name)
    return found


def _read(bindings: tuple[nodes.Binding, ...], asked: set[str]) -> tuple[nodes.Binding, ...]:
    """The bindings that `y`, or another unit, is computed with."""
    wanted = {"y"} | asked
    for binding in reversed(bindings):
        if binding.name in wanted:
            wanted |= _names(binding.value)
    return tuple(b for b in bindings if b.name in wanted)


@per_node
def _names(value: nodes.Node) -> frozenset[str]:
    return frozenset(n.name for n in every(value) if isinstance(n, nodes.Name))


# --- mixing structure ---------------------------------------------------------------------------


@dataclass(frozen=True)
class _Mixer:
    """A place where scores of `c` and `b` are made: `node` and, of a low-rank one, its stages."""

    binding: nodes.Binding
    node: nodes.Expr
    c: nodes.Expr
    b: nodes.Expr
    stages: tuple[nodes.Expr, ...] = ()


@per_node
def _low_rank(node: nodes.Operator) -> tuple[_Mixer, ...]:
    """The low-rank mixers of an operator with all the stages that follow them."""
    return tuple(_find_low_rank(node))


def _find_low_rank(node: nodes.Operator) -> Iterator[_Mixer]:
    for binding in node.body:
        inside: set[int] = set()
        for n in every(binding.value):
            if id(n) in inside or not isinstance(n, nodes.Pipe | nodes.Call):
                continue
            base, stages = parts(n)
            if isinstance(base, nodes.Call) and base.function == "low_rank":
                inside |= {id(inner) for inner in every(n)}
                if len(base.arguments) == 2:
                    c, b = (a.value for a in base.arguments)
                    yield _Mixer(binding, n, c, b, tuple(stages))


@per_node
def _recurrent(node: nodes.Operator) -> tuple[_Mixer, ...]:
    found = []
    for binding in node.body:
        for n in every(binding.value):
            if isinstance(n, nodes.Call) and n.function == "semi_separable":
                if len(n.arguments) >= 3:
                    c, _, b = (a.value for a in n.arguments[:3])
                    found.append(_Mixer(binding, n, c, b))
    return tuple(found)


def _put(node: nodes.Operator, mixer: _Mixer, new: nodes.Expr) -> tuple[nodes.Binding, ...]:
    return tuple(
        changed(b, value=once(b.value, mixer.node, new)) if b is mixer.binding else b
        for b in node.body
    )


def _structure(
    site: Site, node: nodes.Operator, resolved: Resolved
) -> tuple[nodes.Binding, ...] | None:
    """Softmax attention, linear attention and a recurrence of one decay per head in turn."""
    mixer = site.pick([*_low_rank(node), *_recurrent(node)])
    if mixer is None:
        return None
    c, b = _bare(mixer.c), _bare(mixer.b)
    rows = [stage_name(stage) for stage in mixer.stages]
    now = "softmax" if "softmax" in rows else "linear" if mixer.stages else "decay"
    if mixer.stages == () and mixer.node is not None and _decays_alone(mixer.node):
        now = "scalar decay"
    kinds = [k for k in ("softmax", "linear", "scalar decay") if k != now]
    match site.pick(kinds):
        case "softmax":
            channels = _type(mixer.c, resolved)
            size = literal(channels.channels if channels else 64)
            text = "low_rank(C, B) |> scale(1 / sqrt(n)) |> causal |> softmax"
            new = expression(text, C=c, B=b, n=size)
        case "linear":
            new = expression("low_rank(C |> elu1, B |> elu1) |> causal |> normalize", C=c, B=b)
        case _:
            heads = _heads(mixer.c, node, resolved)
            decay = "x |> dense(h, bias = true) |> sigmoid |> heads(h)"
            new = expression(f"semi_separable(C, {decay}, B)", C=c, B=b, h=heads)
    return _put(node, mixer, new)


def _bare(value: nodes.Expr) -> nodes.Expr:
    """A feature without the map that keeps it above zero."""
    if isinstance(value, nodes.Pipe) and stage_name(value.stage) == "elu1":
        return value.value
    return value


def _decays_alone(node: nodes.Expr) -> bool:
    """Whether a recurrence has the decay that `_structure` writes."""
    if not isinstance(node, nodes.Call):
        return False
    base, stages = parts(node.arguments[1].value)
    names = [stage_name(stage) for stage in stages]
    return isinstance(base, nodes.Name) and names == ["dense", "sigmoid", "heads"]


def _type(value: nodes.Expr, resolved: Resolved) -> Feature | Constant | None:
    """The type of a binding that an expression names, through maps that keep it."""
    name = stage_name(parts(value)[0])
    if name not in resolved.bindings:
        return None
    found = resolved.values[resolved.bindings[name]].type
    return found if isinstance(found, Feature | Constant) else None


def _heads(value: nodes.Expr, node: nodes.Operator, resolved: Resolved) -> nodes.Expr:
    """How many heads a feature has, in the words of the operator where there are any."""
    name = stage_name(parts(value)[0])
    for binding in node.body:
        if binding.name == name:
            for stage in reversed(parts(binding.value)[1]):
                if isinstance(stage, nodes.Call) and stage.function == "heads" and stage.arguments:
                    return stage.arguments[0].value
    known = _type(value, resolved)
    return literal(known.heads if known else 1)


def _filters(
    site: Site, node: nodes.Operator, resolved: Resolved
) -> tuple[nodes.Binding, ...] | None:
    """Explicit, implicit and state-space filters in turn."""
    found = [
        (binding, n)
        for binding in node.body
        for n in every(binding.value)
        if isinstance(n, nodes.Call) and n.function in FILTERS and n.arguments
    ]
    chosen = site.pick(found)
    if chosen is None:
        return None
    binding, call = chosen
    kind = site.pick([name for name in FILTERS if name != call.function])
    sizes = {"explicit": (3, 4, 7, 16), "implicit": (16, 32, 64), "ssm": (8, 16, 32)}[str(kind)]
    text = f"{kind}(n, {site.pick(sizes)})"
    new = expression(text, n=call.arguments[0].value)
    return _put(node, _Mixer(binding, call, new, new), new)


# --- nonlinearity and sparsity ------------------------------------------------------------------


def _nonlinearity(
    site: Site, node: nodes.Operator, resolved: Resolved
) -> tuple[nodes.Binding, ...] | None:
    """Another map from scores to weights, or another nonlinearity of a feature."""
    mixers = _low_rank(node)
    if mixers and (site.chance() or not _pointwise(node)):
        mixer = mixers[site.rng.randrange(len(mixers))]
        names = [stage_name(stage) for stage in mixer.stages]
        now = [name for name in names if name in WEIGHTS_OF_ROWS]
        kind = site.pick([name for name in WEIGHTS_OF_ROWS if name not in now])
        kept = [s for s in mixer.stages if stage_name(s) not in WEIGHTS_OF_ROWS]
        base = parts(mixer.node)[0]
        return _put(node, mixer, piped(base, [*kept, expression(str(kind))]))
    chosen = site.pick(_pointwise(node))
    if chosen is None:
        return None
    binding, pipe = chosen
    kind = site.pick([name for name in POINTWISE if name != stage_name(pipe.stage)])
    new = changed(pipe, stage=nodes.Name(str(kind), span=PLACE))
    return _put(node, _Mixer(binding, pipe, new, new), new)


@per_node
def _pointwise(node: nodes.Operator) -> tuple[tuple[nodes.Binding, nodes.Pipe], ...]:
    """Stages that bend features; those of mixers are found by what the pipe begins with."""
    found = []
    for binding in node.body:
        for n in every(binding.value):
            if isinstance(n, nodes.Pipe) and stage_name(n.stage) in POINTWISE:
                base, _ = parts(n)
                if not isinstance(base, nodes.Call) or base.function != "low_rank":
                    found.append((binding, n))
    return tuple(found)


def _sparsity(
    site: Site, node: nodes.Operator, resolved: Resolved
) -> tuple[nodes.Binding, ...] | None:
    """A band is put in, taken out, or made wider or narrower."""
    found = [m for m in _low_rank(node) if "causal" in map(stage_name, m.stages)]
    mixer = site.pick(found)
    if mixer is None:
        return None
    base = parts(mixer.node)[0]
    stages = list(mixer.stages)
    names = [stage_name(stage) for stage in stages]
    if "band" not in names:
        place = names.index("causal") + 1
        window = site.pick(_windows(site.checked.settings.context))
        stages.insert(place, expression(f"band({window})"))
        return _put(node, mixer, piped(base, stages))
    place = names.index("band")
    if site.chance():
        del stages[place]
        return _put(node, mixer, piped(base, stages))
    band = stages[place]
    assert isinstance(band, nodes.Call)
    now = whole_of(band.arguments[0].value, resolved) if band.arguments else None
    window = site.pick([n for n in (2 * now, now // 2) if n >= 1]) if now else None
    window = window or site.pick(_windows(site.checked.settings.context))
    stages[place] = expression(f"band({window})")
    return _put(node, mixer, piped(base, stages))


def _windows(context: int) -> list[int]:
    """Powers of two that are shorter than the context."""
    return [2**n for n in range(1, 20) if 2**n < context] or [1]


def whole_of(value: nodes.Expr, resolved: Resolved) -> int | None:
    """The whole number that a number or a parameter is."""
    if isinstance(value, nodes.Number) and value.value.denominator == 1:
        return int(value.value)
    if isinstance(value, nodes.Name):
        return whole_number(dict(resolved.arguments).get(value.name))
    return None


def whole_number(value: object) -> int | None:
    """A whole number as an int; None for anything else."""
    if isinstance(value, int | float | Fraction) and value == int(value):
        return int(value)
    return None


# --- numbers of a call --------------------------------------------------------------------------


def _number(site: Site) -> Draft | None:
    """Another whole number for a parameter: twice or half of it, one more or less."""
    place = site.pick([(p, u) for p, u in site.units if body_of(site, u) is not None])
    if place is None:
        return None
    unit = place[1]
    node, resolved, call = _operator(site, unit), body_of(site, unit), unit.operator
    assert node is not None
    assert resolved is not None
    assert isinstance(call, nodes.Call)
    numbers = dict(resolved.arguments)
    found = {p.name: whole_number(numbers.get(p.name)) for p in node.parameters if p.kind == "int"}
    whole = {parameter: n for parameter, n in found.items() if n is not None}
    name = site.pick(list(whole))
    if name is None:
        return None
    now = whole[name]
    values = [2 * now, now // 2, now + 1, now - 1]
    if site.constrained:
        values = _legal(now, name, site.checked.settings.width) or values
    chosen = site.pick([n for n in values if n >= 1 and n != now])
    if chosen is None:
        return None
    other = changed(call, arguments=_given(call, node, name, literal(chosen)))
    return site.draft(with_calls(site.backbone, followers(site, place), other))


def _legal(now: int, name: str, width: int) -> list[int]:
    """Numbers that a size may become: a count of heads keeps dividing the width."""
    values = [n for n in (2 * now, now // 2) if n >= 1]
    if name in ("heads", "groups", "blocks") and width % now == 0:
        return [n for n in values if width % n == 0]
    if now < 8:
        values += [n for n in (now + 1, now - 1) if n >= 1]
    return values


def _given(
    call: nodes.Call, node: nodes.Operator, name: str, value: nodes.Expr
) -> tuple[nodes.Argument, ...]:
    """The arguments of a call with one parameter set."""
    names = [p.name for p in node.parameters]
    found = list(call.arguments)
    for index, argument in enumerate(found):
        if (argument.name or names[index]) == name:
            found[index] = changed(argument, value=value)
            return tuple(found)
    return (*found, nodes.Argument(name, value, span=PLACE))


def _changing(change: Change) -> Callable[[Site], Draft | None]:
    return lambda site: edited(site, change)


OPERATOR = (
    Operation("structure", "operator", _changing(_structure), 2),
    Operation("filters", "operator", _changing(_filters), 2),
    Operation("nonlinearity", "operator", _changing(_nonlinearity), 2),
    Operation("sparsity", "operator", _changing(_sparsity), 2),
    Operation("number", "operator", _number, 3),
)
"""Mutations of operators, by name; weights say how often each is tried."""
