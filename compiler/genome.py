"""STAR's numerical genome (arXiv 2411.17800): programs of the standard LIV classes as integers.

A backbone is one gene per LIV, five integers: class; featurizer-sharing group and its strategy;
feature-sharing group and its strategy. A group holds LIVs of one class; its first member owns what
the others take. `21211-31112-21221-32112` is the paper's example; where a number has two digits the
five are separated by dots: `10.1.2.1.1`.

Owns: what every integer means, numbers to program and back. Refuses: changing genomes (`search`).

The paper does not publish the integers of the strategies: STRATEGIES and FEATURE_STRATEGIES are
this project's, and stay as they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from starc.compiler import ir
from starc.compiler.driver import identity, resolve_source
from starc.compiler.options import Options
from starc.compiler.program import choose_model, link, parse_limited
from starc.grammar.errors import Diagnostic, StarError
from starc.grammar.printer import print_expr
from starc.grammar.source import Source

EXAMPLE = "21211-31112-21221-32112"
"""The genome that the paper prints."""

SETTINGS: Mapping[str, str] = {
    "vocab": "50_304",
    "width": "768",
    "context": "4096",
    "residual": "pre(rmsnorm)",
}
"""Settings of the paper's smaller models, in which a genome is a whole program."""

NONE, ALL, FEATURIZER = 1, 2, 3

STRATEGIES: Mapping[int, str] = {
    NONE: "no weights are shared",
    ALL: "all weights are those of the group's first member",
    FEATURIZER: "all weights but those of the output map",
}
"""The third integer of a gene."""

_ATTENTION = {2: ("B", "V"), 3: ("B",), 4: ("V",), 5: ("C",)}
_GATES = {1: (), **_ATTENTION}
_MEMORYLESS = {4: ("V",), 5: ("C",)}

FEATURE_STRATEGIES: Mapping[int, tuple[str, ...]] = {1: (), **_ATTENTION}
"""The fifth integer of a gene: the feature groups that are the first member's for the same token.

2 is keys and values, what attention caches; 3 keys, 4 values, 5 queries. In convolutions and
memoryless units B, V and C are the gates and values of the same names.
"""


@dataclass(frozen=True)
class FeatureGroup:
    """How a class computes one group: a line of the featurizer genome.

    `token_mixing`: 1 diagonal, 3 short convolution; `channel_mixing`: 1 diagonal, 2 dense. The
    expansion multiplies the width of the group, `repeat` says how many heads read each.
    """

    names: str
    token_mixing: int
    sparsity: int
    nonlinearity: int
    channel_mixing: int
    expansion: str = "1"
    repeat: int = 1


@dataclass(frozen=True)
class LivClass:
    """A LIV class: its number and digits, the operator of `std.star` that is it, and its groups.

    `weighted` are the bindings of the featurizer that have weights, `features` the feature groups
    that each strategy shares.
    """

    number: int
    name: str
    operator: str
    digits: str
    meaning: str
    groups: tuple[FeatureGroup, ...]
    weighted: tuple[str, ...]
    features: Mapping[int, tuple[str, ...]]
    differential: bool = False


def _attention(name: str, digits: str, mixing: int, repeat: int, meaning: str) -> LivClass:
    groups = (
        FeatureGroup("C", mixing, 1, 1, 2),
        FeatureGroup("B, V", mixing, 1, 1, 2, repeat=repeat),
    )
    number = int(digits[0])
    operator = f"sa{number}"
    return LivClass(number, name, operator, digits, meaning, groups, ("C", "B", "V"), _GATES)


_RECURRENCE = ("u", "z", "b", "dt", "A", "B", "C")

_PLAIN = (
    _attention("SA-1", "12123", 1, 1, "softmax attention"),
    _attention("SA-2", "22123", 3, 1, "softmax attention over convolved queries, keys and values"),
    _attention("SA-3", "32123", 1, 4, "grouped-query attention, each key read by 4 heads"),
    _attention("SA-4", "42123", 1, 2, "grouped-query attention, each key read by 2 heads"),
    LivClass(
        5,
        "Rec-1",
        "rec1",
        "54111",
        "selective recurrence, 16 states per channel",
        (FeatureGroup("C, B", 3, 1, 4, 2, "16 / width"), FeatureGroup("V", 3, 1, 4, 2)),
        _RECURRENCE,
        _GATES,
    ),
    LivClass(
        6,
        "Rec-2",
        "rec2",
        "64111",
        "selective recurrence, 2 states per channel",
        (FeatureGroup("C, B", 3, 1, 4, 2, "2 / width"), FeatureGroup("V", 3, 1, 4, 2)),
        _RECURRENCE,
        _GATES,
    ),
    LivClass(
        7,
        "GConv-1",
        "gconv1",
        "73111",
        "gated short convolution, explicit filters of length 3",
        (FeatureGroup("C, B, V", 3, 1, 1, 1),),
        ("C", "B", "V", "K"),
        _GATES,
    ),
    LivClass(
        8,
        "GConv-2",
        "gconv2",
        "83111",
        "gated long convolution, implicit filters",
        (FeatureGroup("C, B, V", 3, 1, 1, 1),),
        ("C", "B", "V", "K"),
        _GATES,
    ),
    LivClass(
        9,
        "GMemless",
        "gmemless",
        "91142",
        "gated channel mixer (SwiGLU)",
        (FeatureGroup("C", 1, 1, 4, 2, "8/3"), FeatureGroup("V", 1, 1, 1, 2, "8/3")),
        ("C", "V"),
        {1: (), **_MEMORYLESS},
    ),
)

CLASSES: Mapping[int, LivClass] = {c.number: c for c in _PLAIN} | {
    c.number
    + 9: replace(
        c,
        number=c.number + 9,
        name=f"{c.name}-Diff",
        meaning=f"two copies of {c.name} on one input, subtracted",
        differential=True,
    )
    for c in _PLAIN[:8]
}
"""Every class by its number; 10 to 17 are the differential variants of 1 to 8."""

DIGITS: Mapping[str, Mapping[int, str]] = {
    "token mixing": {1: "diagonal", 2: "low rank", 3: "scaled Toeplitz", 4: "semi-separable"},
    "sparsity": {1: "none", 2: "banded"},
    "nonlinearity": {1: "none", 2: "softmax", 3: "ReLU", 4: "Swish"},
    "channel mixing": {1: "diagonal", 2: "dense", 3: "grouped"},
}
"""What the last four digits of a class's operator genome mean; the first is its featurizer."""


@dataclass(frozen=True)
class Gene:
    """One LIV of a backbone."""

    number: int
    weights: int = 1
    weights_strategy: int = NONE
    features: int = 1
    features_strategy: int = NONE

    @property
    def integers(self) -> tuple[int, int, int, int, int]:
        return (
            self.number,
            self.weights,
            self.weights_strategy,
            self.features,
            self.features_strategy,
        )

    def __str__(self) -> str:
        return ("" if max(self.integers) < 10 else ".").join(map(str, self.integers))


Genome = tuple[Gene, ...]


def print_genome(genome: Sequence[Gene]) -> str:
    """The genome as text, genes joined by hyphens."""
    return "-".join(map(str, genome))


def parse_genome(text: str) -> Genome:
    """The genome that `text` spells; raises StarError for a gene that says nothing valid."""
    words = re.split(r"[-\s]+", text.strip())
    if words == [""]:
        raise _refusal("the genome is empty.")
    return tuple(_parse_gene(place, word) for place, word in enumerate(words, start=1))


def _parse_gene(place: int, word: str) -> Gene:
    parts = word.split(".") if "." in word else list(word)
    if len(parts) != 5 or not all(re.fullmatch(r"[0-9]{1,6}", part) for part in parts):
        raise _refusal(f"gene {place}, '{word[:40]}', is not five integers.")
    gene = Gene(*map(int, parts))
    known = CLASSES.get(gene.number)
    if known is None:
        raise _refusal(f"gene {place}, '{word}': there is no class {gene.number}.")
    if not (gene.weights and gene.features):
        raise _refusal(f"gene {place}, '{word}': groups are counted from 1.")
    if gene.weights_strategy not in STRATEGIES:
        raise _refusal(
            f"gene {place}, '{word}': there is no featurizer strategy {gene.weights_strategy}."
        )
    if gene.features_strategy not in known.features:
        raise _refusal(
            f"gene {place}, '{word}': {known.name} has no feature strategy "
            f"{gene.features_strategy}, only {', '.join(map(str, known.features))}."
        )
    return gene


def canonical(genome: Sequence[Gene]) -> Genome:
    """The same program in its one spelling.

    Groups are counted per class in the order of their first members; whoever shares nothing has a
    group of its own and strategy 1. In a group, members of different strategies share nothing with
    each other.
    """
    weights = _regroup(
        [(g.number, g.weights, g.weights_strategy) for g in genome],
    )
    features = _regroup([(g.number, g.features, g.features_strategy) for g in genome])
    return tuple(
        Gene(gene.number, *weight, *feature)
        for gene, weight, feature in zip(genome, weights, features, strict=True)
    )


def _regroup(keys: Sequence[tuple[int, int, int]]) -> list[tuple[int, int]]:
    """(group, strategy) of every LIV, from (class, group, strategy)."""
    numbers: dict[tuple[int, int, int], int] = {}
    counts: dict[int, int] = {}
    result = []
    for place, key in enumerate(keys):
        shared = key[2] != NONE and keys.count(key) > 1
        identity = key if shared else (key[0], -1, place)
        if identity not in numbers:
            counts[key[0]] = counts.get(key[0], 0) + 1
            numbers[identity] = counts[key[0]]
        result.append((numbers[identity], key[2] if shared else NONE))
    return result


def decode(genome: Sequence[Gene], settings: Mapping[str, str], name: str = "decoded") -> str:
    """The program of a genome as .star text.

    `settings` are the model's, spelled as in a program, `width` and the other required ones among
    them.
    """
    genome = canonical(genome)
    used = sorted({CLASSES[gene.number].operator for gene in genome})
    lines = [f"# STAR genome {print_genome(genome)}"]
    lines += [f"use std.star.{operator}" for operator in used]
    lines += ["", f"model {name} {{"]
    lines += [f"    {setting} = {value}" for setting, value in settings.items()]
    lines += ["    backbone {"]
    for place in range(len(genome)):
        lines += [f"        {line}" for line in _unit(place, genome)]
    return "\n".join([*lines, "    }", "}", ""])


def _unit(place: int, genome: Genome) -> list[str]:
    gene, known = genome[place], CLASSES[genome[place].number]
    same = [i for i, g in enumerate(genome) if g.number == gene.number]
    weights = next(i for i in same if genome[i].weights == gene.weights)
    features = next(i for i in same if genome[i].features == gene.features)
    # A feature that is taken is not computed: there are no weights to share on either side.
    taken = {*_taken(place, genome), *_taken(weights, genome)}
    names = [n for n in known.weighted if n not in taken]
    if gene.weights_strategy == ALL:
        names = ["*"]
    ties = []
    if features != place:
        ties.append(
            f"reuses {', '.join(known.features[gene.features_strategy])} from u{features + 1}"
        )
    if weights != place and names:
        ties.append(f"shares {', '.join(names)} with u{weights + 1}")
    branches = ("a", "b") if known.differential else ("",)
    calls = [
        f"u{place + 1}{branch}: {known.operator}()" + "".join(f" {tie}{branch}" for tie in ties)
        for branch in branches
    ]
    return (
        ["parallel(difference) {", *(f"    {c}" for c in calls), "}"]
        if known.differential
        else calls
    )


def _taken(place: int, genome: Genome) -> tuple[str, ...]:
    """The features that a unit takes from the first of its group."""
    gene = genome[place]
    first = any((g.number, g.features) == (gene.number, gene.features) for g in genome[:place])
    return CLASSES[gene.number].features[gene.features_strategy] if first else ()


def table() -> str:
    """Every integer of the genome with its meaning and range, as Markdown."""
    lines = ["| number | class | genome | operator | meaning |", "|---|---|---|---|---|"]
    for c in CLASSES.values():
        call = f"parallel(difference) {{ {c.operator}() {c.operator}() }}"
        operator = call if c.differential else f"{c.operator}()"
        digits = "" if c.differential else c.digits
        lines.append(f"| {c.number} | {c.name} | {digits} | `{operator}` | {c.meaning} |")
    lines += ["", "| digit of a class's genome | values |", "|---|---|"]
    lines.append(f"| 1, featurizer class | 1 to {len(_PLAIN)}, the number of the class |")
    for place, (digit, meanings) in enumerate(DIGITS.items(), start=2):
        lines.append(f"| {place}, {digit} | {_meanings(meanings)} |")
    lines += ["", f"| class | feature group | {' | '.join(DIGITS)} | expansion | repeat |"]
    lines.append("|---|---|---|---|---|---|---|---|")
    for c in _PLAIN:
        for g in c.groups:
            digits = f"{g.token_mixing} | {g.sparsity} | {g.nonlinearity} | {g.channel_mixing}"
            lines.append(f"| {c.name} | {g.names} | {digits} | {g.expansion} | {g.repeat} |")
    lines += ["", "| integer of a gene | values |", "|---|---|"]
    lines.append(f"| 1, class | 1 to {len(CLASSES)} |")
    lines.append("| 2, featurizer-sharing group | from 1, counted per class |")
    lines.append(f"| 3, its strategy | {_meanings(STRATEGIES)} |")
    lines.append("| 4, feature-sharing group | from 1, counted per class |")
    shared = {n: ", ".join(names) or "nothing" for n, names in FEATURE_STRATEGIES.items()}
    only = ", ".join(str(n) for n in CLASSES[9].features)
    lines.append(f"| 5, its strategy | {_meanings(shared)}; class 9 has {only} |")
    return "\n".join(lines) + "\n"


def _meanings(meanings: Mapping[int, str]) -> str:
    return "; ".join(f"{number} {meaning}" for number, meaning in meanings.items())


def encode(source: Source, options: Options) -> Genome:
    """The genome of a program that is made of the standard LIV classes and nothing else.

    What the numbers do not hold (residuals, other arguments, other ties) must be what `decode`
    writes: the program of the genome has the digest of the program given. Raises StarError where
    that is not so.
    """
    model, _ = resolve_source(source, options)
    model = replace(model, layers=_flat(model.layers))
    genome = canonical(_genes(model))
    again = Source(source.name, decode(genome, _settings(source, options), model.name))
    if identity(model) != identity(resolve_source(again, Options(limits=options.limits))[0]):
        raise _refusal(
            f"the program is not what the genome of its units says, {_shorten(genome)}.",
            "the numbers hold classes and ties only: units have the standard arguments and the "
            "residual of the model.",
        )
    return genome


def _flat(layers: Iterable[ir.Layer]) -> tuple[ir.Layer, ...]:
    """The layers with every repeat written out."""
    flat: list[ir.Layer] = []
    for layer in layers:
        if isinstance(layer, ir.Repeat):
            for body in layer.bodies:
                flat += _flat(body)
        else:
            flat.append(layer)
    return tuple(flat)


def _genes(model: ir.Model) -> list[Gene]:
    """A gene for every layer; groups are the places of their first members, from 1."""
    operators = {o.name: o.source_name for o in model.operators}
    numbers = {(c.operator, c.differential): c.number for c in CLASSES.values()}
    places: dict[str, int] = {}
    genes: list[Gene] = []
    for place, layer in enumerate(model.layers, start=1):
        branches = layer.branches if isinstance(layer, ir.Parallel) else (layer,)
        units = [branch for branch in branches if isinstance(branch, ir.Unit)]
        names = {operators[unit.operator] for unit in units}
        differential = isinstance(layer, ir.Parallel)
        number = numbers.get((min(names, default=""), differential))
        right = not isinstance(layer, ir.Parallel) or (
            layer.mode == "difference" and len(units) == 2
        )
        if number is None or len(names) != 1 or len(units) != len(branches) or not right:
            raise _refusal(
                f"layer {place}, '{layer.name}', is of no class of STAR.",
                "the classes are the operators of std.star, and parallel(difference) of two units "
                "of one of the first eight; 'starc genome table' lists them.",
            )
        places |= {unit.path: place for unit in units}
        genes.append(_gene(number, units[0], places, place))
    return [_owner(gene, place, genes) for place, gene in enumerate(genes, start=1)]


def _owner(gene: Gene, place: int, genes: Sequence[Gene]) -> Gene:
    """The gene of a unit with the strategies by which others take from it."""
    for other in genes:
        if other.weights == place and other.weights_strategy != NONE:
            gene = replace(gene, weights=place, weights_strategy=other.weights_strategy)
        if other.features == place and other.features_strategy != NONE:
            gene = replace(gene, features=place, features_strategy=other.features_strategy)
    return gene


def _gene(number: int, unit: ir.Unit, places: Mapping[str, int], place: int) -> Gene:
    weights, weights_strategy = place, NONE
    for names, owner in unit.shares:
        weights = places[owner]
        output = any(re.match(r"y[._]", name + ".") for name in names)
        weights_strategy = ALL if output else FEATURIZER
    taken = {name for name, _ in unit.inputs}
    owners = {places[feature.unit] for _, feature in unit.inputs}
    strategies = {frozenset(v): k for k, v in CLASSES[number].features.items()}
    features_strategy = strategies.get(frozenset(taken))
    if features_strategy is None or len(owners) > 1:
        raise _refusal(
            f"unit {place}, '{unit.name}', takes {', '.join(sorted(taken))} of earlier units, "
            "which no strategy says.",
            "'starc genome table' lists the strategies.",
        )
    return Gene(number, weights, weights_strategy, min(owners, default=place), features_strategy)


def _settings(source: Source, options: Options) -> dict[str, str]:
    model = choose_model(link(parse_limited(source, options.limits), options.limits), options)
    return {setting.name: print_expr(setting.value) for setting in model.settings}


def _shorten(genome: Genome) -> str:
    text = print_genome(genome)
    return text if len(text) <= 100 else f"{text[:97]}..."


def _refusal(message: str, hint: str = f"a genome reads like {EXAMPLE}.") -> StarError:
    return StarError(Diagnostic("not-a-genome", message, hint=hint))
