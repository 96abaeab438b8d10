"""Mutations of featurizers: the pipelines that make features of the input.

Owns: the operations of this level. Refuses: mixers (`operators`), and repair.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from starc.compiler.memo import Body as Resolved
from starc.grammar import nodes
from starc.grammar.copying import changed
from starc.search.operators import POINTWISE, Change, edited, whole_of
from starc.search.remembering import per_node
from starc.search.repair import Draft
from starc.search.site import Operation, Site
from starc.search.space import every
from starc.search.trees import expression, literal, once, parts, piped, stage_name

INSERTED = (
    "conv(2)", "conv(3)", "conv(4)", "conv(7)", "shift", "ema", "silu", "gelu", "relu2", "tanh",
    "elu1", "rmsnorm", "layernorm", "l2norm", "gain",
)  # fmt: skip
"""Stages that keep the type of a feature, and may be put into its pipeline."""

REMOVED = frozenset(POINTWISE) | {
    "conv", "shift", "ema", "gain", "rmsnorm", "layernorm", "groupnorm", "l2norm", "rope", "scale",
    "polynorm", "polyrelu", "shuffle",
}  # fmt: skip
"""Stages that may be taken out of a pipeline without another type."""

_MIXING = frozenset({"low_rank", "semi_separable", "toeplitz", "static", "diagonal"})
_SHAPE = frozenset({"heads", "merge", "slice", "repeat", "dense", "headwise"})


@dataclass(frozen=True)
class _Pipeline:
    """A feature's pipeline: the pipe as a whole, what it begins with, its stages."""

    binding: nodes.Binding
    pipe: nodes.Expr
    base: nodes.Expr
    stages: tuple[nodes.Expr, ...]


@per_node
def _pipelines(node: nodes.Operator) -> tuple[_Pipeline, ...]:
    """Pipes of features that have a dense map or a convolution, longest ones only."""
    found = []
    for binding in node.body:
        inside: set[int] = set()
        for n in every(binding.value):
            if not isinstance(n, nodes.Pipe) or id(n) in inside:
                continue
            base, stages = parts(n)
            left: nodes.Expr = n
            while isinstance(left, nodes.Pipe):
                inside.add(id(left))
                left = left.value
            mixing = isinstance(base, nodes.Call) and base.function in _MIXING
            if not mixing and {"dense", "conv"} & set(map(stage_name, stages)):
                found.append(_Pipeline(binding, n, base, tuple(stages)))
    return tuple(found)


def _put(
    node: nodes.Operator, pipeline: _Pipeline, stages: list[nodes.Expr]
) -> tuple[nodes.Binding, ...]:
    new = piped(pipeline.base, stages)
    return tuple(
        changed(b, value=once(b.value, pipeline.pipe, new)) if b is pipeline.binding else b
        for b in node.body
    )


def _insert(
    site: Site, node: nodes.Operator, resolved: Resolved
) -> tuple[nodes.Binding, ...] | None:
    """A stage more, behind a map or a shape, or in front of all where it begins with x."""
    pipeline = site.pick(_pipelines(node))
    if pipeline is None:
        return None
    stages = list(pipeline.stages)
    known = _SHAPE | REMOVED
    after = [i + 1 for i, stage in enumerate(stages) if stage_name(stage) in known]
    if isinstance(pipeline.base, nodes.Name) and pipeline.base.name == "x":
        after.append(0)
    if pipeline.binding.name == "y" and pipeline.pipe is pipeline.binding.value:
        after = [i for i in after if i < len(stages)] or after
    place = site.pick(after)
    if place is None:
        return None
    stages.insert(place, expression(str(site.pick(INSERTED))))
    return _put(node, pipeline, stages)


def _remove(
    site: Site, node: nodes.Operator, resolved: Resolved
) -> tuple[nodes.Binding, ...] | None:
    """A stage less."""
    found = [
        (pipeline, index)
        for pipeline in _pipelines(node)
        for index, stage in enumerate(pipeline.stages)
        if stage_name(stage) in REMOVED
    ]
    chosen = site.pick(found)
    if chosen is None:
        return None
    pipeline, index = chosen
    return _put(node, pipeline, [s for i, s in enumerate(pipeline.stages) if i != index])


def _stages(node: nodes.Operator, name: str) -> list[tuple[_Pipeline, int, nodes.Call]]:
    return [
        (pipeline, index, stage)
        for pipeline in _pipelines(node)
        for index, stage in enumerate(pipeline.stages)
        if isinstance(stage, nodes.Call) and stage.function == name and stage.arguments
    ]


def _kernel(
    site: Site, node: nodes.Operator, resolved: Resolved
) -> tuple[nodes.Binding, ...] | None:
    """Another length of a short convolution."""
    chosen = site.pick(_stages(node, "conv"))
    if chosen is None:
        return None
    pipeline, index, conv = chosen
    now = whole_of(conv.arguments[0].value, resolved) or 3
    length = site.pick([n for n in (now + 1, now - 1, 2 * now, now // 2) if 2 <= n <= 64])
    if length is None:
        return None
    first = changed(conv.arguments[0], value=literal(length))
    stages = list(pipeline.stages)
    stages[index] = changed(conv, arguments=(first, *conv.arguments[1:]))
    return _put(node, pipeline, stages)


def _resize(
    site: Site, node: nodes.Operator, resolved: Resolved
) -> tuple[nodes.Binding, ...] | None:
    """Another size between two dense maps of one pipeline."""
    found = []
    for pipeline, index, dense in _stages(node, "dense"):
        behind = [stage_name(stage) for stage in pipeline.stages[index + 1 :]]
        if "dense" in behind and set(behind[: behind.index("dense")]) <= REMOVED:
            found.append((pipeline, index, dense))
    chosen = site.pick(found)
    if chosen is None:
        return None
    pipeline, index, dense = chosen
    now = whole_of(dense.arguments[0].value, resolved)
    if now:
        size = site.pick([n for n in (2 * now, now // 2, now * 3 // 4, now * 3 // 2) if n >= 1])
        width: nodes.Expr = literal(size or now)
    else:
        text = site.pick(("2 * a", "a / 2", "3/4 * a", "3/2 * a"))
        width = expression(str(text), a=dense.arguments[0].value)
    stages = list(pipeline.stages)
    first = changed(dense.arguments[0], value=width)
    stages[index] = changed(dense, arguments=(first, *dense.arguments[1:]))
    return _put(node, pipeline, stages)


def _option(name: str, other: str) -> Change:
    """The change of an option of dense maps, which excludes another one."""

    def change(
        site: Site, node: nodes.Operator, resolved: Resolved
    ) -> tuple[nodes.Binding, ...] | None:
        chosen = site.pick(_stages(node, "dense"))
        if chosen is None:
            return None
        pipeline, index, dense = chosen
        given = {a.name: a for a in dense.arguments if a.name}
        now = whole_of(given[name].value, resolved) if name in given else None
        width = site.checked.settings.width
        first = [2, 4, 8] if name == "groups" else [max(1, width // n) for n in (16, 8, 4)]
        values = [2 * now, now // 2, 0] if now else first
        value = site.pick([n for n in values if n != 1 or name == "rank"]) or 0
        kept = tuple(a for a in dense.arguments if a.name not in (name, other))
        if value:
            size = nodes.Argument(name, literal(value), span=dense.span)
            kept = (*kept, size)
        stages = list(pipeline.stages)
        stages[index] = changed(dense, arguments=kept)
        return _put(node, pipeline, stages)

    return change


def _changing(change: Change) -> Callable[[Site], Draft | None]:
    return lambda site: edited(site, change)


FEATURIZER = (
    Operation("insert stage", "featurizer", _changing(_insert), 3),
    Operation("remove stage", "featurizer", _changing(_remove), 2),
    Operation("resize stage", "featurizer", _changing(_resize), 1),
    Operation("kernel", "featurizer", _changing(_kernel), 2),
    Operation("rank", "featurizer", _changing(_option("rank", "groups")), 1),
    Operation("groups", "featurizer", _changing(_option("groups", "rank")), 1),
)
"""Mutations of featurizers, by name; weights say how often each is tried."""
