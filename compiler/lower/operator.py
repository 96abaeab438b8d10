"""One operator of the IR to one class of the generated file.

Values are visited in order. A value gets a statement of its own when the program named it, when
several others read it, or when it is the work of a function; all others are folded into the
expression of their reader. Locals keep the program's names.

Owns: statements and modules of operators. Refuses: algorithms (mixers.py, dense.py) and
spelling (text.py).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from starc.compiler import catalog
from starc.compiler.init import onto_stream
from starc.compiler.ir import Operator, Parameter, Value
from starc.compiler.lower import (
    attention,
    dense,
    kernels,
    long_convolution,
    maps,
    mixers,
    modules,
    routing,
    text,
)
from starc.compiler.lower.functions import Functions, is_reserved
from starc.compiler.lower.past import Past
from starc.compiler.lower.rotary import Rotation, call_kernels
from starc.compiler.lower.text import Text
from starc.compiler.naming import identifier
from starc.compiler.plan import Line, ModuleClass
from starc.compiler.profile import Layout, Profile
from starc.compiler.types import Constant, Feature, Filter, Type
from starc.compiler.visibility import Visible
from starc.compiler.work import WHOLE
from starc.grammar.errors import InternalError

LONG_EXPRESSION = 64
"""Characters from which an expression gets a line of its own rather than being folded into
another."""


LINE_ROOM = 86
"""Characters that a statement and its comment may take together, indented in a method."""


@dataclass(frozen=True)
class Ambient:
    """A value that Model.forward computes once for all units: the tables of a rotary encoding,
    the embedded tokens, their positions; or the list of losses that units add to."""

    function: str
    name: str
    whole: bool = False
    """Whether it reaches back to the first token."""
    type: str = "tuple[Tensor, Tensor]"


@dataclass(frozen=True)
class Lowered:
    """An operator's class, and the arguments of its forward: features by name, then ambient
    values, then its cache if it `keeps` anything."""

    module: ModuleClass
    features: tuple[str, ...]
    ambient: tuple[Ambient, ...]
    outputs: tuple[str, ...]
    keeps: bool


class OperatorLowering:
    """Lowers one operator. The methods that others call give texts for values in wanted layouts."""

    def __init__(
        self,
        operator: Operator,
        class_name: str,
        functions: Functions,
        context: int,
        profile: Profile,
        layout: Layout,
        served: bool = False,
    ) -> None:
        self.operator, self.functions, self.context = operator, functions, context
        self.class_name = class_name
        self.values = operator.values
        self.init: list[Line] = []
        self.lines: list[Line] = []
        self.texts: dict[int, Text] = {}
        self.ambient: dict[str, Ambient] = {}
        self.routes: dict[int, tuple[str, str]] = {}
        """Locals that hold the gates and the chosen experts, by the value that routes."""
        self.matrices: dict[tuple[int, bool, str], dense.Matrix] = {}
        self.activated: dict[int, Text] = {}
        """Nonlinearities that stand in the kernel of what is ahead of them."""
        self.masks: dict[tuple[Visible, bool, int, str], Text] = {}
        self.beside_kernels: tuple[dict[Any, Text], dict[Any, dense.Matrix]] = ({}, {})
        """Masks and matrices that stand in branches taken where no kernel is."""
        self.uses = Counter(i for v in self.values for i in _operands(v))
        self.uses.update(i for _, i in operator.outputs)
        self._readers: dict[int, list[int]] = {}
        for id, value in enumerate(self.values):
            for i in _operands(value):
                self._readers.setdefault(i, []).append(id)
        self._locals: dict[str, str] = {}
        self._taken: set[str] = {"e", "index"}  # arguments of forward
        self.rotations: dict[str, Rotation] = {}
        """Rotary encodings by their text."""
        self.past = Past(self, profile, layout)
        self.convolutions = long_convolution.find(self)
        self.in_past: Text | None = None
        """While a value is lowered for all tokens that are kept: one of its operands."""
        self.served = served
        """Whether a kernel does the work of the whole operator, so that its parts need none."""
        self.span = WHOLE
        self.columns = ""
        """While a mixer is lowered: how many tokens back it reaches, and how many those are at a
        call, S."""

    # --- the walk -------------------------------------------------------------------------------

    def lower(self) -> Lowered:
        features, names = self._inputs()
        inside = {i for fused in self.convolutions.values() for i in fused.inside}
        for id, value in enumerate(self.values):
            if id not in self.texts and id not in inside:
                if id in self.past.long:
                    self.past.lower_long(id, value)
                else:
                    self.lower_value(id, value)
        returned = [
            (self.past.history(id) if name in self.past.offered else self.texts[id]).code
            for name, id in self.operator.outputs
        ]
        result = (
            "Tensor" if len(returned) == 1 else f"tuple[{', '.join(['Tensor'] * len(returned))}]"
        )
        ambient = tuple(self.ambient.values())
        arguments = [f"{n}: Tensor" for n in names]
        arguments += [f"{a.name}: {a.type}" for a in ambient]
        entries = self.past.entries
        if entries:
            arguments.append("cache: dict | None = None")
        module = ModuleClass(
            self.class_name,
            self._doc(),
            tuple(self.init),
            tuple(arguments),
            tuple(call_kernels(self.lines, self.rotations, self.functions)),
            ", ".join(returned),
            result,
            base="Unit",
            cache=tuple((entry.name, entry.make) for entry in entries) or None,
            onto_stream=self._onto_stream(),
        )
        outputs = tuple(name for name, _ in self.operator.outputs)
        return Lowered(module, features, ambient, outputs, bool(entries))

    def _onto_stream(self) -> tuple[str, ...]:
        """The modules whose weights are those of projections onto the stream."""
        return tuple(sorted(name.removesuffix(".weight") for name in onto_stream(self.operator)[0]))

    def _inputs(self) -> tuple[tuple[str, ...], list[str]]:
        """The features that forward takes and their locals; one of them has the new tokens only."""
        inputs = self.operator.inputs
        features = tuple(name for name, _ in inputs)
        if all(name in self.past.given for name in features):  # or there are none
            features = ("x", *features)
        self.new_tokens = self.local(next(n for n in features if n not in self.past.given))
        for name, id in inputs:
            self.texts[id] = self.past.receive(id, name, Text(self.local(name)))
        return features, [self.local(name) for name in features]

    def _doc(self) -> tuple[str, ...]:
        arguments = ", ".join(f"{k} = {text.number(v)}" for k, v in self.operator.arguments)
        first = f"{self.operator.source_name}({arguments})"
        return (first, *((self.operator.doc or "").splitlines()))

    def lower_value(self, id: int, value: Value) -> None:
        """Give a value its text, with the statements that stand before it."""
        if self._split(id, value):
            return
        result = self._text(id, value)
        is_result = any(id == output for _, output in self.operator.outputs)
        alone = self.uses[id] == 1 and not value.name
        trivial = value.op in ("number", "param", "explicit", "implicit", "ssm", "slice")
        if isinstance(value.type, Feature | Constant) and not (trivial and len(result.code) < 24):
            only_result = is_result and self.uses[id] == 1 and len(self.operator.outputs) == 1
            long = len(result.code) > LONG_EXPRESSION and not is_result
            bound = id in self.convolutions and result.code.isidentifier()
            if not bound and (long or not (alone or only_result)):
                result = self.assign(value.name or self._wish(id), result, value.type)
        self.texts[id] = result

    def assign(self, wanted: str, value: Text, type_: Type | None, comment: str = "") -> Text:
        """A statement `wanted = value`; gives the local."""
        name = self.local(wanted)
        if value.code != name:
            self.lines.append(_line(f"{name} = {value.code}", comment or shape_comment(type_)))
        return Text(name)

    def local(self, wanted: str) -> str:
        """The local variable for a binding: its own name unless Python or the file needs it."""
        if wanted not in self._locals:
            name = identifier(wanted)
            while (name != "x" and is_reserved(name)) or name in self._taken:
                name += "_"
            self._taken.add(name)
            self._locals[wanted] = name
        return self._locals[wanted]

    def is_unused(self, name: str) -> bool:
        """Whether nothing was assigned to a binding's local yet: what a mixer is made of may be
        read again after the mixer itself was written out."""
        return name not in self._locals

    def new_local(self, wanted: str) -> str:
        """A local of its own: the binding's name where that is still free."""
        return self.local(wanted if self.is_unused(wanted) else self.fresh(wanted))

    def fresh(self, wanted: str) -> str:
        """A local that no binding has."""
        number, name = 1, wanted
        bound = {value.name for value in self.values}
        while name in bound or name in self._locals or identifier(name) in self._taken:
            number += 1
            name = f"{wanted}_{number}"
        return name

    def _wish(self, id: int) -> str:
        """A name for a value that several others read but the program did not name."""
        return self.fresh(self.destiny(id) or self.values[id].op)

    def readers(self, id: int) -> list[int]:
        """The values that read a value, in order."""
        return self._readers.get(id, [])

    def destiny(self, id: int) -> str:
        """The binding that a value is on its way to, through values that nothing else reads."""
        while True:
            readers = self.readers(id)
            if len(readers) != 1 or self.uses[id] != 1:
                return ""
            id = readers[0]
            if self.values[id].name:
                return self.values[id].name

    def _split(self, id: int, value: Value) -> bool:
        """A stacked projection whose parts cover it becomes one `split`."""
        readers = self.readers(id)
        if value.op != "dense" or len(readers) < 2 or len(readers) != self.uses[id]:
            return False
        if kernels.packed_reader(self, id):
            return False
        parts = sorted(
            readers,
            key=lambda i: (
                int(self.values[i].attribute("a")) if self.values[i].op == "slice" else -1
            ),
        )
        edge = 0
        for i in parts:
            if self.values[i].op != "slice" or self.values[i].attribute("a") != edge:
                return False
            edge = int(self.values[i].attribute("b"))
        assert isinstance(value.type, Feature)
        if edge != value.type.channels:
            return False
        stacked = self.operator.parameter(value.parameters[0]).parts
        names = []
        for position, i in enumerate(parts):
            part = stacked[position][0].partition(".")[0] if position < len(stacked) else ""
            wanted = self.values[i].name or self.destiny(i)
            if part and not part.startswith(wanted or "?"):
                wanted = self.fresh(part)
            wanted = wanted or self.fresh("part")
            if wanted in self._locals and wanted != self.values[i].name:
                wanted = self.fresh(part or wanted)  # another value is on its way to that name
            names.append(self.local(wanted))
            self.texts[i] = Text(names[-1])
        sizes = ", ".join(str(self.width(i)) for i in parts)
        whole = self._text(id, value)
        self.lines.append(Line(f"{', '.join(names)} = {whole.code}.split(({sizes}), dim=-1)"))
        return True

    # --- texts ----------------------------------------------------------------------------------

    def _text(self, id: int, value: Value) -> Text:
        if id in self.activated:
            return self.activated[id]
        if id in self.convolutions:
            return long_convolution.lower(self, self.convolutions[id])
        if value.op in mixers.LOWERINGS:
            return mixers.LOWERINGS[value.op](self, value)
        if value.op in modules.LOWERINGS:
            return modules.LOWERINGS[value.op](self, value)
        if value.op in maps.LOWERINGS:
            return maps.LOWERINGS[value.op](self, value)
        if value.op in routing.LOWERINGS:
            return routing.LOWERINGS[value.op](self, value)
        if value.op == "apply":
            return attention.apply(self, value)
        if value.op == "gated_product":
            return kernels.gated_product(self, value)
        if value.op == "gated_convolution":
            return kernels.gated_convolution(self, value)
        if isinstance(value.type, Feature | Constant):
            return self._pointwise(value)
        return Text("")  # mixers have no tensor of their own: `apply` reads their structure

    def _pointwise(self, value: Value) -> Text:
        operands = [self.aligned(i, value.type) for i in value.inputs]
        infixes = {"add": "+", "subtract": "-", "multiply": "*", "divide": "/"}
        if value.op in infixes:
            return text.infix(infixes[value.op], *operands)
        if value.op == "negate":
            return text.negate(operands[0])
        if value.op == "scale":
            return text.infix("*", operands[0], Text(text.number(value.attribute("s"))))
        if value.op in ("maximum", "minimum"):
            return self._extreme(value, operands)
        if value.op in ("compare_equal", "compare_less"):
            return self._comparison(value, operands)
        if value.op == "where":
            return self._where(value, operands)
        pattern = catalog.ENTRIES[value.op].torch
        if not pattern:
            raise InternalError(f"operation '{value.op}' has no lowering")
        return text.template(pattern, operands, dict(value.attributes))

    def _extreme(self, value: Value, operands: list[Text]) -> Text:
        """max(a, b) or min(a, b); torch.clamp takes a number as its end, torch.maximum does not."""
        literal = [self.values[i].op == "number" for i in value.inputs]
        if any(literal):
            if literal[0]:
                operands.reverse()
            end = "min" if value.op == "maximum" else "max"
            return text.call("torch.clamp", operands[0], f"{end}={operands[1].code}")
        return text.call(f"torch.{value.op}", *operands)

    def _comparison(self, value: Value, operands: list[Text]) -> Text:
        """1 where a = b, or a < b, in the dtype of what is compared, else 0."""
        functions = {"compare_equal": ("eq", "eq"), "compare_less": ("lt", "gt")}[value.op]
        reversed_ = self.values[value.inputs[0]].op == "number"  # torch wants a tensor first
        first, second = operands[::-1] if reversed_ else operands
        if not first.code.isidentifier():
            first = self.assign(self.fresh("compared"), first, value.type)
        compared = text.call(f"torch.{functions[reversed_]}", first, second)
        return text.method(compared, "to", f"{first.code}.dtype")

    def _where(self, value: Value, operands: list[Text]) -> Text:
        condition, a, b = operands
        if all(self.values[i].op == "number" for i in value.inputs[1:]):
            if not condition.code.isidentifier():
                condition = self.assign(self.fresh("condition"), condition, value.type)
            a = text.call("torch.full_like", condition, a)
        return text.call("torch.where", text.infix("!=", condition, Text("0")), a, b)

    def type(self, id: int) -> Feature | Constant:
        type_ = self.values[id].type
        assert isinstance(type_, Feature | Constant)
        return type_

    def width(self, id: int) -> int:
        return self.type(id).channels

    def aligned(self, id: int, result: Type) -> Text:
        """A value for pointwise use: a head axis is inserted where the result has one."""
        type_, own = self.type(id), self.texts[id]
        assert isinstance(result, Feature | Constant)
        if isinstance(type_, Feature) and type_.heads == 1 and result.heads > 1:
            return text.method(own, "unsqueeze", "-2")
        return own

    @property
    def reference(self) -> str:
        """A text whose first axes are those of the value that is being lowered: (B, T), or (B, S)
        for all tokens that are kept."""
        return self.in_past.atom if self.in_past else self.new_tokens

    @property
    def length(self) -> str:
        """The number of new tokens, T."""
        return f"{self.new_tokens}.shape[1]"

    def tensor(self, id: int) -> Text:
        """A value as a tensor even where it is a literal."""
        if self.values[id].op == "number":
            value = self.texts[id].code
            return Text(f"{self.reference}.new_full((1,), {value})")
        return self.texts[id]

    def tokens(self, id: int, channels: int | None = None) -> Text:
        """A value as (B, T, heads, channels): constants and single channels are expanded."""
        type_ = self.type(id)
        own, wanted = self.tensor(id), channels or type_.channels
        if isinstance(type_, Constant):
            return text.method(
                own, "expand", f"*{self.reference}.shape[:2], {type_.heads}, {wanted}"
            )
        if type_.heads == 1:
            own = text.method(own, "unsqueeze", "2")
        if wanted != type_.channels:
            own = text.method(own, "expand", f"-1, -1, -1, {wanted}")
        return own

    def history(self, id: int, channels: int | None = None) -> Text:
        """A value of all tokens at hand, (B, S, heads, channels), the new ones last.

        Mixers read what stands on their right, V, B and A, as a history, and rows (C, gates) of
        the new tokens only.
        """
        if isinstance(self.type(id), Constant):
            wanted = channels or self.type(id).channels
            shape = f"{self.reference}.shape[0], {self.columns}, {self.type(id).heads}, {wanted}"
            return text.method(self.tensor(id), "expand", shape)
        new, self.texts[id] = self.texts[id], self.past.history(id, self.span)
        result = self.tokens(id, channels)
        self.texts[id] = new
        return result

    def look_back(self, id: int, span: int = WHOLE) -> None:
        """Begin a mixer that reads a value, and others, of up to `span` tokens."""
        self.span = span
        if isinstance(self.type(id), Feature):
            self.columns = f"{self.past.history(id, span).atom}.shape[1]"
            return
        self.ambient["start"] = Ambient("", "start", type="int")
        before = "start" if span == WHOLE else f"min(start, {span - 1})"
        self.columns = f"{before} + {self.length}"

    @property
    def rows(self) -> str:
        """The number of new tokens."""
        return self.length

    def own_layout(self, result: Text, type_: Type) -> Text:
        """(B, T, H, D) as values are kept: no head axis when there is one head."""
        assert isinstance(type_, Feature)
        return text.method(result, "squeeze", "2") if type_.heads == 1 else result

    def parameter(self, value: Value, position: int = 0) -> Parameter:
        return self.operator.parameter(value.parameters[position])

    def filter(self, id: int) -> Filter:
        type_ = self.values[id].type
        assert isinstance(type_, Filter)
        return type_


def _operands(value: Value) -> tuple[int, ...]:
    """The values that a value is computed from; of another `dense`, `transposed` reads the weight
    alone."""
    return value.inputs[:1] if value.op == "transposed" else value.inputs


def _line(code: str, shape: str) -> Line:
    """A statement with its shape behind it, or above it where the line would grow too long."""
    if shape and len(code) + len(shape) > LINE_ROOM:
        return Line(f"# {shape}\n{code}")
    return Line(code, shape)


def shape_comment(type_: Type | None) -> str:
    if isinstance(type_, Feature):
        return (
            f"(B, T, {type_.channels})"
            if type_.heads == 1
            else f"(B, T, {type_.heads}, {type_.channels})"
        )
    if isinstance(type_, Constant):
        return f"({type_.channels},)" if type_.heads == 1 else f"({type_.heads}, {type_.channels})"
    return ""
