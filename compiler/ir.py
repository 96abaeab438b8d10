"""The intermediate representation: typed, monomorphic, in single assignment form per operator.

    Model    = name, doc, vocab, width, context, Embedding, position, Head, final_norm: Norm?,
               operators: Operator*, layers: Layer*
    Layer    = Unit(name, operator, residual, ties, inputs)      one operator in the backbone
             | Repeat(name, bodies: (Layer*)*)                    copies with weights of their own
             | Loop(name, times, body: Layer*)                    applications of the same weights
             | Parallel(name, mode, branches: Layer*, residual)   branches on the same input
    Residual = scheme, norms: Norm*, formula: Operator?           how a layer meets the stream
    Operator = name, arguments, values: Value*, outputs: (name, id)*, parameters: Parameter*,
               inner: Operator*                              what its experts are
    Value    = op, inputs: id*, attributes: (key, constant)*, type, name, parameters: name*
    Parameter= name, shape, init, learned, parts

A value's id is its position in `Operator.values`; inputs point backwards only. `op` is a key of the
catalog, which knows everything else about it. The first output of an operator is `y : F[1, width]`;
the others are features that later units use. Nodes are frozen; `span` never takes part in equality.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from starc.compiler.types import Type
from starc.grammar.source import Span

Scalar = int | float | Fraction | str | bool
Attribute = Scalar | tuple[Any, ...] | None
Attributes = tuple[tuple[str, Attribute], ...]


@dataclass(frozen=True)
class Parameter:
    """A tensor that an operator or a norm owns.

    `init` is an expression tree of tuples: ("normal", std), ("constant", c), ("log", tree), ...
    `learned` False makes it a buffer. `parts` lists (name, rows) of the parameters that were
    stacked along axis 0 to make this one, in order; empty when nothing was.
    """

    name: str
    shape: tuple[int, ...]
    init: tuple[Any, ...]
    learned: bool = True
    parts: tuple[tuple[str, int], ...] = ()

    @property
    def spelling(self) -> str:
        """What it is but for its name, as text, which is made once."""
        known: str | None = self.__dict__.get("_spelling")
        if known is None:
            init = "experts" if self.init[0] == "experts" else self.init
            self.__dict__["_spelling"] = known = f"{self.shape}, {init!r}, {self.learned}"
        return known

    @property
    def size(self) -> int:
        size = 1
        for n in self.shape:
            size *= n
        return size


@dataclass(frozen=True)
class Value:
    """One step of an operator. `name` is the binding it completes, or the empty string."""

    op: str
    inputs: tuple[int, ...]
    attributes: Attributes
    type: Type
    name: str = ""
    parameters: tuple[str, ...] = ()
    span: Span | None = field(default=None, compare=False, repr=False)

    def over(self, inputs: tuple[int, ...]) -> Value:
        """The same value over other inputs of the same types."""
        made = object.__new__(Value)  # several times as fast as the constructor of a frozen class
        made.__dict__.update(self.__dict__, inputs=inputs)
        return made

    @property
    def spelling(self) -> str:
        """The attributes as text, which is made once."""
        known: str | None = self.__dict__.get("_spelling")
        if known is None:
            self.__dict__["_spelling"] = known = repr(self.attributes)
        return known

    def attribute(self, key: str) -> Any:
        for k, value in self.attributes:
            if k == key:
                return value
        raise KeyError(key)


def made_value(
    op: str,
    inputs: tuple[int, ...],
    attributes: Attributes,
    type_: Type,
    name: str,
    parameters: tuple[str, ...],
    span: Span | None,
) -> Value:
    """A value, several times as fast as by the constructor of a frozen class."""
    made = object.__new__(Value)
    made.__dict__.update(
        op=op,
        inputs=inputs,
        attributes=attributes,
        type=type_,
        name=name,
        parameters=parameters,
        span=span,
    )
    return made


@dataclass(frozen=True)
class Operator:
    """A monomorphic operator. `name` is unique in the model; `source_name` is the operator's name
    in the text. A value `experts` says by its attribute `operator` which of `inner` it has copies
    of; its one parameter stands for the weights of all of them."""

    name: str
    source_name: str
    arguments: tuple[tuple[str, Attribute], ...]
    values: tuple[Value, ...]
    outputs: tuple[tuple[str, int], ...]
    parameters: tuple[Parameter, ...]
    doc: str | None = None
    span: Span | None = field(default=None, compare=False, repr=False)
    inner: tuple[Operator, ...] = ()

    def parameter(self, name: str) -> Parameter:
        return next(p for p in self.parameters if p.name == name)

    @property
    def inputs(self) -> tuple[tuple[str, int], ...]:
        """(name, id) of the features that come in: `x` first where it is used, then features of
        other units."""
        found = [
            (str(v.attribute("name")), i) for i, v in enumerate(self.values) if v.op == "input"
        ]
        return tuple(sorted(found, key=lambda item: (item[0] != "x", item[1])))


@dataclass(frozen=True)
class Norm:
    """A normalisation of the stream: a norm stage of the catalog with its attributes."""

    op: str
    attributes: Attributes


@dataclass(frozen=True)
class Hyper:
    """Hyper-connections (arXiv 2409.19606) between `streams` streams: static, or dynamic with a
    norm of the streams. At first, the unit reads stream `first` alone."""

    streams: int
    first: int = 0
    norm: Norm | None = None


@dataclass(frozen=True)
class Residual:
    """How a unit F meets the stream x.

    pre: x + F(n(x)); post: n(x + F(x)); sandwich: x + n2(F(n1(x))); none: F(x).
    `norms` holds (suffix of the attribute name, norm). `formula`: any other way, as the values of
    an operator that has the unit in it as the operation `branch`. `hyper`: how several streams are
    read and written.
    """

    scheme: str
    norms: tuple[tuple[str, Norm], ...] = ()
    formula: Operator | None = field(default=None, repr=False)
    hyper: Hyper | None = field(default=None, repr=False)


STREAM = ""
"""The name of the feature that is the stream behind a unit or parallel."""


@dataclass(frozen=True)
class FeatureRef:
    """A feature of an earlier unit: `unit` is its path from the root, of the iteration where the
    reader stands. STREAM, of a unit or parallel, is the stream behind it."""

    unit: str
    name: str


@dataclass(frozen=True)
class Tie:
    """`parameter` of this unit's operator is the parameter of the same name of unit `unit` (its
    path)."""

    parameter: str
    unit: str


@dataclass(frozen=True)
class Unit:
    """One operator in the backbone.

    `name` is unique in the enclosing block; `path` is the full dotted name.

    `marks` (of any layer but a repeat) say what happens to the stream behind it: "average" over
    depth, or "depth", one that the read-out sees.

    `inputs` gives, for each input of the operator but `x`, where it comes from. `shares` lists
    (names of parameters, path of the unit that owns them); the pass `share` turns it into `ties`.
    """

    name: str
    path: str
    layer: int
    operator: str
    residual: Residual
    inputs: tuple[tuple[str, FeatureRef], ...] = ()
    shares: tuple[tuple[tuple[str, ...], str], ...] = ()
    ties: tuple[Tie, ...] = ()
    labelled: bool = False
    marks: tuple[str, ...] = ()
    span: Span | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class Repeat:
    """One body per iteration; bodies that say the same become one class in the generated file."""

    name: str
    path: str
    bodies: tuple[tuple[Layer, ...], ...]
    span: Span | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class Loop:
    """A body applied `times` times with the same weights, unless the caller of the generated model
    sets another depth. What it reads of earlier units is the same in every application."""

    name: str
    path: str
    times: int
    body: tuple[Layer, ...]
    marks: tuple[str, ...] = ()
    span: Span | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class Parallel:
    """Branches on the same input, combined by sum, mean, difference (the first minus the others) or
    gated: weighted per token by softmax(W u + b), one score per branch, of their common input u."""

    name: str
    path: str
    mode: str
    branches: tuple[Layer, ...]
    residual: Residual
    marks: tuple[str, ...] = ()
    span: Span | None = field(default=None, compare=False, repr=False)


Layer = Unit | Repeat | Loop | Parallel


@dataclass(frozen=True)
class Embedding:
    """Token embedding; `scale` multiplies it; `tied` makes the head use the same matrix."""

    tied: bool = False
    scale: float = 1.0
    norm: Norm | None = None


@dataclass(frozen=True)
class Head:
    """Read-out: logits = softcap(scale * (W h + b)); W starts with deviation `std`."""

    bias: bool = False
    scale: float = 1.0
    softcap: float | None = None
    std: float = field(default=0.02, repr=False)


@dataclass(frozen=True)
class Average:
    """DenseFormer's average over the outputs of all blocks so far (arXiv 2402.02622): of those
    `dilation` apart, behind every `period`-th of `blocks` blocks."""

    blocks: int
    dilation: int = 1
    period: int = 1

    def sizes(self) -> tuple[int, ...]:
        """How many outputs each average takes."""
        return tuple(
            i // self.dilation + 1 for i in range(self.period, self.blocks + 1, self.period)
        )


@dataclass(frozen=True)
class Readout:
    """What the head reads: the last stream, or several depths of it, the embedding among them:
    scale * sum_j softmax(w)_j x_j ("weighted"), or the last one plus its attention to all
    ("attend")."""

    kind: str = "last"
    depths: int = 1
    heads: int = 1
    norm: Norm | None = None


@dataclass(frozen=True)
class Model:
    name: str
    vocab: int
    width: int
    context: int
    operators: tuple[Operator, ...]
    layers: tuple[Layer, ...]
    embedding: Embedding = Embedding()
    position: str = "none"
    head: Head = Head()
    final_norm: Norm | None = None
    doc: str | None = None
    average: Average | None = None
    readout: Readout = Readout()
    dtype: str = "float32"
    causal: bool = True

    def operator(self, name: str) -> Operator:
        return next(o for o in self.operators if o.name == name)

    @property
    def streams(self) -> int:
        """How many streams the units of a model of hyper-connections have between them."""
        found = (place.residual.hyper for place in self.places())
        return next((hyper.streams for hyper in found if hyper), 1)

    def places(self) -> Iterator[Unit | Parallel]:
        """All units and parallels."""
        yield from parallels(self.layers)
        yield from units(self.layers)

    @property
    def depth(self) -> int:
        """Number of units, repeats unrolled; those of a loop count once."""
        return sum(1 for _ in units(self.layers))


def streams_read(layers: tuple[Layer, ...]) -> frozenset[str]:
    """Paths of units and parallels behind which a later unit reads the stream."""
    return frozenset(
        ref.unit for unit in units(layers) for _, ref in unit.inputs if ref.name == STREAM
    )


def parallels(layers: tuple[Layer, ...]) -> Iterator[Parallel]:
    """All parallels, in order."""
    for layer in layers:
        match layer:
            case Repeat():
                for body in layer.bodies:
                    yield from parallels(body)
            case Loop():
                yield from parallels(layer.body)
            case Parallel():
                yield layer
                yield from parallels(layer.branches)


def units(layers: tuple[Layer, ...]) -> Iterator[Unit]:
    """All units in order of execution, repeats unrolled, loops gone through once, branches of a
    parallel one after the other."""
    for layer in layers:
        match layer:
            case Unit():
                yield layer
            case Repeat():
                for body in layer.bodies:
                    yield from units(body)
            case Loop():
                yield from units(layer.body)
            case Parallel():
                yield from units(layer.branches)
