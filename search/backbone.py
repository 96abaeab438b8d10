"""Mutations of the backbone: which units there are, in which order, and what they share.

Owns: the operations of this level. Refuses: repairing what they leave, and the inside of operators.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from starc.grammar import nodes
from starc.grammar.copying import changed
from starc.search.repair import Draft
from starc.search.site import Operation, Site
from starc.search.space import Labels, draw_tie, feature_groups, relabel
from starc.search.trees import (
    PLACE,
    Body,
    Path,
    at,
    count_of,
    expression,
    holder,
    literal,
    plain,
    put,
    sequences,
    size,
    ties,
)

MODES = ("sum", "difference", "gated")
"""How the branches of a new parallel are combined."""

RESIDUALS = (
    "pre(rmsnorm)",
    "pre(layernorm)",
    "post(rmsnorm)",
    "post(layernorm)",
    "sandwich(rmsnorm)",
    "sandwich(layernorm)",
)
"""Residual schemes that a mutation may set."""


def _replace(site: Site) -> Draft | None:
    """Another unit in the place of one; it takes over the label, whose ties are settled later."""
    found = site.pick(_movable(site))
    shop = site.shop()
    new = site.pool.draw(site.rng, shop, site.constrained)
    if found is None or new is None:
        return None
    path, old = found
    outer = holder(site.backbone, path)
    if isinstance(outer, nodes.Parallel) and isinstance(new, nodes.Parallel):
        return None
    if isinstance(new, nodes.Unit) and isinstance(old, nodes.Unit):
        new = changed(new, label=old.label)
    return site.draft(put(site.backbone, path, new), shop)


def _movable(site: Site) -> list[tuple[Path, nodes.Layer]]:
    """Units, and parallels as a whole."""
    return [
        (path, layer)
        for path, layer in site.places
        if isinstance(layer, nodes.Unit | nodes.Parallel)
    ]


def _swap(site: Site) -> Draft | None:
    """Two layers of one body change places."""
    path, body = _sequence(site, 2)
    if len(body) < 2:
        return None
    i, j = sorted(site.rng.sample(range(len(body)), 2))
    if body[i] == body[j]:
        return None
    swapped = (*body[:i], body[j], *body[i + 1 : j], body[i], *body[j + 1 :])
    return site.draft(_with_body(site.backbone, path, swapped))


def _insert(site: Site) -> Draft | None:
    """A new unit anywhere, or one more branch of a parallel."""
    shop = site.shop()
    new = site.pool.draw(site.rng, shop, site.constrained)
    if new is None:
        return None
    outer = site.pick([(p, layer) for p, layer in site.places if _narrow(site, layer)])
    if outer is not None and isinstance(new, nodes.Unit) and site.chance(4):
        path, parallel = outer
        assert isinstance(parallel, nodes.Parallel)
        wider = changed(parallel, body=(*parallel.body, new))
        return site.draft(put(site.backbone, path, wider), shop)
    path, body = _sequence(site, 0)
    place = site.rng.randrange(len(body) + 1)
    longer = (*body[:place], new, *body[place:])
    return site.draft(_with_body(site.backbone, path, longer), shop)


def _narrow(site: Site, layer: nodes.Layer) -> bool:
    return isinstance(layer, nodes.Parallel) and len(layer.body) < site.bounds.branches


def _delete(site: Site) -> Draft | None:
    """A layer or a run of layers goes; a body that would be empty goes with it."""
    branches = [
        (path, layer)
        for path, layer in site.places
        if isinstance(holder(site.backbone, path), nodes.Parallel)
        and len(holder(site.backbone, path).body) > 2  # type: ignore[union-attr]
    ]
    branch = site.pick(branches)
    if branch is not None and site.chance(4):
        return site.draft(put(site.backbone, branch[0]))
    path, body = _sequence(site, 1)
    start, length = _run(site, len(body))
    if length == len(body):
        if not path:
            return None
        return site.draft(put(site.backbone, path))
    return site.draft(_with_body(site.backbone, path, (*body[:start], *body[start + length :])))


def _duplicate(site: Site) -> Draft | None:
    """A layer or a run of layers once more, behind itself or elsewhere in its body."""
    path, body = _sequence(site, 1)
    start, length = _run(site, len(body))
    run = body[start : start + length]
    labels = Labels([site.model])
    copy = relabel(run, lambda label: labels.fresh(f"{label}_"))
    place = start + length if site.chance() else site.rng.randrange(start + length, len(body) + 1)
    longer = (*body[:place], *copy, *body[place:])
    return site.draft(_with_body(site.backbone, path, longer))


def _sequence(site: Site, least: int) -> tuple[Path, Body]:
    """A body of at least so many layers, longer ones more often; the backbone if there is none."""
    found = [(path, body) for path, body in sequences(site.backbone) if len(body) >= least]
    if not found:
        return (), site.backbone
    return site.rng.choices(found, [len(body) + 1 for _, body in found])[0]


def _run(site: Site, length: int) -> tuple[int, int]:
    """Where a run begins and how long it is: mostly one layer."""
    most = min(site.bounds.run, length)
    run = site.rng.randrange(2, most + 1) if most > 1 and site.chance(3) else 1
    return site.rng.randrange(length - run + 1), run


def _with_body(backbone: Body, path: Path, body: Body) -> Body:
    if not path:
        return body
    outer = at(backbone, path)
    assert not isinstance(outer, nodes.Unit)
    return put(backbone, path, changed(outer, body=body))


# --- parallels ----------------------------------------------------------------------------------


def _wrap(site: Site) -> Draft | None:
    """A unit becomes a branch of a parallel, beside a copy of itself or a unit of the pool."""
    found = [
        (path, unit)
        for path, unit in site.units
        if not isinstance(holder(site.backbone, path), nodes.Parallel)
    ]
    chosen = site.pick(found)
    if chosen is None:
        return None
    path, unit = chosen
    shop = site.shop()
    other: nodes.Layer | None = plain(unit)
    if site.chance():
        other = site.pool.draw(site.rng, shop, site.constrained)
    if not isinstance(other, nodes.Unit):
        return None
    outer = tuple(m for m in unit.modifiers if isinstance(m, nodes.With))
    inner = tuple(m for m in unit.modifiers if not isinstance(m, nodes.With))
    branches = (changed(unit, modifiers=inner), other)
    mode = MODES[site.rng.randrange(len(MODES))]
    parallel = nodes.Parallel(None, mode, branches, outer, span=PLACE)
    return site.draft(put(site.backbone, path, parallel), shop)


def _unwrap(site: Site) -> Draft | None:
    """A parallel becomes its branches one after the other, or one of them."""
    found = site.pick([(p, x) for p, x in site.places if isinstance(x, nodes.Parallel)])
    if found is None:
        return None
    path, parallel = found
    assert isinstance(parallel, nodes.Parallel)
    if isinstance(holder(site.backbone, path), nodes.Parallel):
        return None
    branches = parallel.body
    if site.chance():
        branches = (branches[site.rng.randrange(len(branches))],)
    scheme = tuple(m for m in parallel.modifiers if isinstance(m, nodes.With))
    branches = tuple(
        (
            changed(b, modifiers=(*b.modifiers, *scheme))
            if scheme and isinstance(b, nodes.Unit) and not _own_scheme(b)
            else b
        )
        for b in branches
    )
    return site.draft(put(site.backbone, path, *branches))


def _own_scheme(unit: nodes.Unit) -> bool:
    return any(isinstance(m, nodes.With) for m in unit.modifiers)


def _combine(site: Site) -> Draft | None:
    """Another way to combine the branches of a parallel."""
    found = site.pick([(p, x) for p, x in site.places if isinstance(x, nodes.Parallel)])
    if found is None:
        return None
    path, parallel = found
    assert isinstance(parallel, nodes.Parallel)
    mode = site.pick([m for m in MODES if m != parallel.mode])
    assert mode is not None
    return site.draft(put(site.backbone, path, changed(parallel, mode=mode)))


# --- repeats ------------------------------------------------------------------------------------


def _count(site: Site) -> Draft | None:
    """Another count of a repeat or a loop: one more or less, twice as many, half."""
    found = site.pick(_counted(site, nodes.Repeat | nodes.Loop))
    if found is None:
        return None
    path, layer, count = found
    counts = {count + 1, count - 1, 2 * count, count // 2} - {count}
    if site.constrained:
        inner = size(layer.body)
        if isinstance(layer, nodes.Repeat):
            room = site.bounds.units - site.checked.units
            counts = {n for n in counts if n >= 1 and (n - count) * inner <= room}
        counts = {n for n in counts if 1 <= n <= site.bounds.units}
    chosen = site.pick(sorted(counts))
    if chosen is None:
        return None
    return site.draft(put(site.backbone, path, changed(layer, count=literal(chosen))))


def _counted(site: Site, kind: object) -> list[tuple[Path, nodes.Repeat | nodes.Loop, int]]:
    found = []
    for path, layer in site.places:
        if isinstance(layer, kind):  # type: ignore[arg-type]
            assert isinstance(layer, nodes.Repeat | nodes.Loop)
            count = count_of(layer)
            if count is not None:
                found.append((path, layer, count))
    return found


def _unroll(site: Site) -> Draft | None:
    """The copies of a repeat are written out, so that they can differ."""
    found = [r for r in _counted(site, nodes.Repeat) if r[2] <= site.bounds.units]
    chosen = site.pick(found)
    if chosen is None:
        return None
    path, layer, count = chosen
    if isinstance(holder(site.backbone, path), nodes.Parallel):
        return None
    labels = Labels([site.model])
    copies: list[nodes.Layer] = []
    for _ in range(count):
        copies += relabel(layer.body, lambda label: labels.fresh(f"{label}_"))
    return site.draft(put(site.backbone, path, *copies))


def _roll(site: Site) -> Draft | None:
    """Equal runs that follow each other become a repeat."""
    found = list(_rolls(site.backbone))
    chosen = site.pick(found)
    if chosen is None:
        return None
    path, body, start, length, times = chosen
    repeat = nodes.Repeat(literal(times), body[start : start + length], span=PLACE)
    rolled = (*body[:start], repeat, *body[start + length * times :])
    return site.draft(_with_body(site.backbone, path, rolled))


def _rolls(backbone: Body) -> Iterator[tuple[Path, Body, int, int, int]]:
    """Where runs repeat: the body, the first layer, layers of a run, how many runs."""
    for path, body in sequences(backbone):
        shapes = [_shape(layer) for layer in body]
        for length in range(1, min(len(body) // 2, 8) + 1):
            start = 0
            while start + 2 * length <= len(body):
                times = 1
                while shapes[start : start + length] == shapes[
                    start + times * length : start + (times + 1) * length
                ] and _alike(body, start, length, times):
                    times += 1
                if times > 1:
                    yield path, body, start, length, times
                start += max(1, (times - 1) * length)


def _shape(layer: nodes.Layer) -> object:
    """What a layer says apart from labels."""
    if not isinstance(layer, nodes.Unit):
        outer = (layer.mode, layer.modifiers) if isinstance(layer, nodes.Parallel) else layer.count
        return outer, tuple(map(_shape, layer.body))
    return layer.operator, tuple((type(m), getattr(m, "names", m)) for m in layer.modifiers)


def _alike(body: Body, start: int, length: int, times: int) -> bool:
    """Whether a run is the first one with other labels."""
    other = start + times * length
    return _numbered(body[start : start + length]) == _numbered(body[other : other + length])


def _numbered(run: Body) -> Body:
    """A run with the labels that it gives counted."""
    labels = iter(range(1000))
    return relabel(run, lambda label: f"#{next(labels)}")


# --- ties and residuals -------------------------------------------------------------------------


def _tie(kind: type[nodes.Shares] | type[nodes.Reuses], site: Site) -> Draft | None:
    """A unit takes the weights, or features, of an earlier one with the same call."""
    labels = Labels([site.model])
    candidates = []
    closed = [p for p, layer in site.places if isinstance(layer, nodes.Repeat | nodes.Loop)]
    before: dict[nodes.Call | nodes.Hole | None, list[tuple[Path, nodes.Unit]]] = {}
    for path, unit in site.units:
        alike = unit.operator if site.constrained else None
        group = before.setdefault(alike, [])
        earlier = _seen(group, path, closed)
        group.append((path, unit))
        if not earlier or any(isinstance(tie, kind) for tie in ties(unit)):
            continue
        if kind is nodes.Reuses and not feature_groups(unit, site.checked.operators):
            continue
        candidates.append((path, unit, earlier))
    chosen = site.pick(candidates)
    if chosen is None:
        return None
    path, unit, earlier = chosen
    target_path, target = earlier[site.rng.randrange(len(earlier))]
    label = target.label or labels.fresh("u")
    body = put(site.backbone, target_path, changed(target, label=label))
    tie: nodes.Shares | nodes.Reuses | None = kind(("*",), label, span=PLACE)
    if kind is nodes.Reuses:
        hole = nodes.Reuses((), None, span=PLACE)
        other = changed(unit, label=label)
        tie = draw_tie(hole, unit, [other], site.checked.operators, _always(site))
        if tie is None:
            return None
    assert tie is not None
    tied = at(body, path)
    assert isinstance(tied, nodes.Unit)
    return site.draft(put(body, path, changed(tied, modifiers=(*tied.modifiers, tie))))


def _always(site: Site) -> Callable[[int], int]:
    """Chooses among the targets and groups of a tie, but not whether there is one."""
    asked: list[int] = []

    def choose(options: int) -> int:
        asked.append(options)
        return 1 if len(asked) == 1 else site.rng.randrange(options)

    return choose


def _seen(
    earlier: list[tuple[Path, nodes.Unit]], path: Path, repeats: list[Path]
) -> list[tuple[Path, nodes.Unit]]:
    """Those of earlier units that a unit may name: none inside a repeat that it is not in."""
    closed = [p for p in repeats if p != path[: len(p)]]
    if not closed:
        return [*earlier]
    return [found for found in earlier if not any(p == found[0][: len(p)] for p in closed)]


def _untie(site: Site) -> Draft | None:
    """One tie of a unit goes."""
    found = site.pick([(path, unit, tie) for path, unit in site.units for tie in ties(unit)])
    if found is None:
        return None
    path, unit, tie = found
    kept = tuple(m for m in unit.modifiers if m is not tie)
    return site.draft(put(site.backbone, path, changed(unit, modifiers=kept)))


def _residual(site: Site) -> Draft | None:
    """Another residual scheme of the model."""
    scheme = expression(RESIDUALS[site.rng.randrange(len(RESIDUALS))])
    draft = site.draft(site.backbone)
    settings = [s for s in site.model.settings if s.name != "residual"]
    place = next((s for s in site.model.settings if s.name == "residual"), None)
    setting = nodes.Setting("residual", scheme, name_span=PLACE, span=PLACE)
    if place is not None:
        settings = [setting if s is place else s for s in site.model.settings]
    else:
        settings.append(setting)
    return changed(draft, model=changed(draft.model, settings=tuple(settings)))


def _unit_residual(site: Site) -> Draft | None:
    """Another residual scheme of one layer, or the model's again."""
    found = [
        (path, layer)
        for path, layer in _movable(site)
        if not isinstance(holder(site.backbone, path), nodes.Parallel)
    ]
    chosen = site.pick(found)
    if chosen is None:
        return None
    path, layer = chosen
    assert isinstance(layer, nodes.Unit | nodes.Parallel)
    kept = tuple(m for m in layer.modifiers if not isinstance(m, nodes.With))
    modifiers: tuple[nodes.Modifier, ...] = kept
    if kept == layer.modifiers or not site.chance():
        scheme = expression(RESIDUALS[site.rng.randrange(len(RESIDUALS))])
        modifiers = (*kept, nodes.With("residual", scheme, span=PLACE))
    return site.draft(put(site.backbone, path, changed(layer, modifiers=modifiers)))


BACKBONE = tuple(
    Operation(name, "backbone", draw, weight)
    for name, draw, weight in (
        ("replace", _replace, 4),
        ("swap", _swap, 3),
        ("insert", _insert, 3),
        ("delete", _delete, 3),
        ("duplicate", _duplicate, 2),
        ("wrap", _wrap, 1),
        ("unwrap", _unwrap, 1),
        ("combine", _combine, 1),
        ("count", _count, 2),
        ("unroll", _unroll, 1),
        ("roll", _roll, 1),
        ("share", partial(_tie, nodes.Shares), 2),
        ("reuse", partial(_tie, nodes.Reuses), 2),
        ("untie", _untie, 2),
        ("residual", _residual, 1),
        ("unit residual", _unit_residual, 1),
    )
)
"""Mutations of the backbone, by name; weights say how often each is tried."""
