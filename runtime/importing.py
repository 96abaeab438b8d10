"""Weights of published models for compiled programs, through a map.

Owns: what a map means for a checkpoint: which entry gives which parameter, shapes, what is missing
and what is left over. Refuses: the text of maps (grammar/weight_map.py), files (pretrained.py), and
single functions (weight_functions.py).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache
from typing import Any

import torch
from torch import Tensor

from starc.grammar.errors import Diagnostic, StarError, suggest
from starc.grammar.weight_map import (
    Arithmetic,
    Call,
    Either,
    Entry,
    Name,
    Number,
    Value,
    WeightMap,
    parse_index,
)
from starc.runtime.pretrained import Pretrained
from starc.runtime.weight_functions import FUNCTIONS, NUMBERS, Unfit, floating

Shape = tuple[int, ...]
_SHOWN = 8
_INDEX = re.compile(r"\{([^{}]*)\}")
_NAME = re.compile(r"[A-Za-z_]\w*")


@dataclass(frozen=True)
class Wanted:
    """What a program needs: the shapes of its parameters by their names in the program.

    `stacked` has the tensors of the generated module that are made of several parameters, in order
    along axis 0. `fixed` are constants, which keep the program's value unless an entry gives
    another. `tied` are weights that are another parameter's: an entry may give them, too, and must
    then give the same.
    """

    shapes: Mapping[str, Shape]
    stacked: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    fixed: frozenset[str] = frozenset()
    tied: Mapping[str, str] = field(default_factory=dict)
    sizes: Mapping[str, int] = field(default_factory=dict)
    """Numbers of the program that a map may read: vocab, width, context."""


def settings_from(
    map_: WeightMap, config: Mapping[str, Any], given: Collection[str] = ()
) -> dict[str, str]:
    """The model settings that a map reads from a configuration, as text for `--set`.

    Those in `given` are known already. Raises StarError.
    """
    evaluation = _Evaluation(config, {}, {}, _no_tensor)
    found = {}
    for entry in map_.settings:
        if entry.target.name in given:
            continue
        number = evaluation.number(entry.value)
        found[entry.target.name] = str(number) if isinstance(number, int) else repr(float(number))
    return found


def import_weights(
    map_: WeightMap, checkpoint: Pretrained, wanted: Wanted, dtype: torch.dtype | None = None
) -> dict[str, Tensor]:
    """The tensors of the generated module, by name, from those of a checkpoint.

    `dtype` None keeps the checkpoint's. Raises StarError with every fault found: names that the
    checkpoint or the program lack, shapes that differ, parameters without an entry, tensors that
    nothing reads and no `ignore` names.
    """
    read: set[str] = set()
    faults: list[Diagnostic] = []

    def tensor(name: str) -> Tensor:
        read.add(name)
        return checkpoint.read(name)

    found: dict[str, Tensor] = {}
    claimed: dict[str, Entry] = {}
    shapes = {**wanted.shapes, **{n: wanted.shapes[s] for n, s in wanted.tied.items()}}
    for entry in map_.entries:
        matches = _matches(entry.target.name, shapes)
        if not matches:
            faults.append(_no_parameter(entry, shapes))
        for name, indices in matches:
            if name in claimed:
                faults.append(_claimed(name, entry, claimed[name]))
                continue
            claimed[name] = entry
            numbers = {**wanted.sizes, **indices}
            evaluation = _Evaluation(checkpoint.config, numbers, checkpoint.shapes, tensor)
            try:
                value = evaluation.parameter(entry, name, shapes[name])
                found[name] = value.to(dtype or value.dtype)
            except _Absent as failure:
                if name not in wanted.tied:
                    faults += failure.diagnostics
            except StarError as failure:
                faults += failure.diagnostics
            if len(faults) > _SHOWN**2:  # the same fault in every layer
                raise StarError(_distinct(faults)[:_SHOWN])
    faults += _missing(set(wanted.shapes) - set(claimed) - wanted.fixed, map_)
    for name, stored in wanted.tied.items():
        if name not in found:
            continue
        value = found.pop(name)
        if stored in found and not torch.equal(value, found[stored]):
            faults.append(_not_tied(name, stored, claimed[name]))
    if not faults:
        ignored = {n for p in map_.ignored for n, _ in _matches(p.name, checkpoint.shapes)}
        faults += _unread(set(checkpoint.shapes) - read - ignored)
    if faults:
        raise StarError(_distinct(faults)[:_SHOWN])
    for name, parts in wanted.stacked.items():
        pieces = [found.pop(part) for part in parts if part in found]
        if pieces:
            found[name] = FUNCTIONS["concat"].run(*pieces)
    return {name: value.contiguous().clone() for name, value in found.items()}


# --- names with indices ---------------------------------------------------------------------------


def _matches(pattern: str, names: Iterable[str]) -> list[tuple[str, dict[str, int]]]:
    """The names that a pattern such as blocks.{i}.C.weight matches, with the indices of each."""
    expression, indices = _compiled(pattern)
    found = []
    for name in names:
        if match := expression.fullmatch(name):
            found.append((name, {i: int(match[group]) for i, group in indices}))
    return found


@cache
def _compiled(pattern: str) -> tuple[re.Pattern[str], tuple[tuple[str, str], ...]]:
    pieces = _INDEX.split(pattern)
    text = ""
    indices: list[tuple[str, str]] = []
    for place, piece in enumerate(pieces):
        if place % 2 == 0:
            text += re.escape(piece)
        elif (known := dict(indices).get(piece.strip())) is not None:
            text += f"(?P={known})"
        else:
            indices.append((piece.strip(), f"g{place}"))
            text += rf"(?P<g{place}>\d+)"
    return re.compile(text), tuple(indices)


_NUMBER = re.compile(r"\d+(?=\.|$)")


def pattern(name: str) -> str:
    """A name with {} for its numbers; what layers have in common."""
    return _NUMBER.sub("{}", name.replace("{", "{{").replace("}", "}}"))


def collapse(names: Collection[str]) -> list[str]:
    """Names with what differs in numbers only written once: layers.{0..3}.weight."""
    groups: dict[str, list[list[int]]] = {}
    for name in names:
        numbers = [int(number) for number in _NUMBER.findall(name)]
        groups.setdefault(pattern(name), []).append(numbers)
    found = []
    for shape, group in groups.items():
        ranges = []
        for values in zip(*group, strict=True):
            low, high = min(values), max(values)
            ranges.append(str(low) if low == high else f"{{{low}..{high}}}")
        found.append(shape.format(*ranges))
    return found


# --- values ---------------------------------------------------------------------------------------

Result = Tensor | int | float | Fraction


class _Absent(StarError):
    """A name that neither checkpoint nor configuration has: `or` goes on to its other side."""


class _Evaluation:
    """Values of a map for one choice of indices."""

    def __init__(
        self,
        config: Mapping[str, Any],
        numbers: Mapping[str, int],
        shapes: Mapping[str, Shape],
        read: Callable[[str], Tensor],
    ) -> None:
        self.config, self.numbers, self.shapes, self.read = config, numbers, shapes, read

    def parameter(self, entry: Entry, name: str, shape: Shape) -> Tensor:
        value = self.value(entry.value)
        if not isinstance(value, Tensor):
            return torch.full(shape, float(value))
        if tuple(value.shape) == shape:
            return value
        raise StarError(
            Diagnostic(
                "shape-mismatch",
                f"'{name}' needs shape {shape}, but this has {tuple(value.shape)}.",
                entry.value.span,
                f"shape {tuple(value.shape)}",
                _shape_hint(tuple(value.shape), shape),
            )
        )

    def number(self, value: Value) -> int | float | Fraction:
        result = self.value(value)
        if isinstance(result, Tensor):
            raise _fault("wrong-type", "a number must stand here, not a tensor.", value)
        return int(result) if isinstance(result, Fraction) and result.denominator == 1 else result

    def value(self, value: Value) -> Result:
        match value:
            case Number():
                return value.value
            case Name():
                return self._name(value)
            case Either():
                try:
                    return self.value(value.first)
                except _Absent:
                    return self.value(value.second)
            case Arithmetic():
                return self._arithmetic(value)
            case Call():
                return self._call(value)

    def _name(self, value: Name) -> Result:
        name = _INDEX.sub(lambda m: str(self._index(m[1], value)), value.name)
        if name in self.shapes:
            return self.read(name)
        if name in self.numbers:
            return Fraction(self.numbers[name])
        known = self._configured(name)
        if isinstance(known, int):  # bool as well
            return Fraction(int(known))
        if isinstance(known, float):
            return known
        if known is not None:
            message = f"'{name}' of config.json is {known!r:.60}, no number."
            raise _fault("wrong-type", message, value)
        what = "the checkpoint has no tensor" if "." in name else "there is no tensor or number"
        hint = suggest(name, (*self.shapes, *self.numbers, *self.config))
        raise _Absent(Diagnostic("unknown-name", f"{what} '{name}'.", value.span, "unknown", hint))

    def _configured(self, name: str) -> Any:
        known: Any = self.config
        for part in name.split("."):
            known = known.get(part) if isinstance(known, Mapping) else None
        return known

    def _index(self, text: str, value: Name) -> int:
        """The number that braces of a name stand for: {i}, {2 * i + 1}."""
        try:
            result: int | float | Fraction | None = self.number(parse_index(text))
        except StarError:
            result = None
        if not isinstance(result, int) or result < 0:
            known = ", ".join(sorted(self.numbers)) or "none"
            message = f"'{{{text}}}' is no index."
            raise _fault("map-syntax", message, value, f"numbers known here are {known}.")
        return result

    def _arithmetic(self, value: Arithmetic) -> Result:
        left, right = self.value(value.left), self.value(value.right)
        if isinstance(left, Tensor) or isinstance(right, Tensor):
            a, b = _operand(left), _operand(right)
            try:
                return _tensor_arithmetic(value.sign, a, b)
            except RuntimeError:
                shapes = " and ".join(str(tuple(getattr(x, "shape", ()))) for x in (a, b))
                message = f"tensors of shapes {shapes} do not fit."
                raise _fault("shape-mismatch", message, value) from None
        if value.sign == "/" and right == 0:
            raise _fault("bad-number", "a division by zero.", value)
        match value.sign:
            case "+":
                return left + right
            case "-":
                return left - right
            case "*":
                return left * right
        return left / right

    def _call(self, call: Call) -> Result:
        if call.function in NUMBERS:
            values = [self.value(argument) for argument in call.arguments]
            if not any(isinstance(value, Tensor) for value in values):
                return _number(call, [_plain(value) for value in values])
        function = FUNCTIONS.get(call.function)
        if function is None:
            known = sorted({*FUNCTIONS, *NUMBERS})
            hint = suggest(call.function, known) or f"functions are {', '.join(known)}."
            raise _fault("unknown-name", f"there is no function '{call.function}'.", call, hint)
        wrong = _fault(
            "wrong-argument",
            f"'{call.function}' is not called so.",
            call,
            f"usage: {function.usage}",
        )
        named = {name: self._plain(value) for name, value in call.named}
        if not set(named) <= set(function.named) or len(named) < len(call.named):
            raise wrong
        values = [
            v for argument in call.arguments for v in self._spread(argument, function.tensors)
        ]
        count = len(values) if function.tensors < 0 else function.tensors
        tensors, rest = values[:count], values[count:]
        low, high = function.numbers
        if (
            not tensors
            or len(tensors) < count
            or not all(isinstance(t, Tensor) for t in tensors)
            or any(isinstance(n, Tensor) for n in rest)
            or not low <= len(rest) <= high
            or (named and len(rest) + len(named) > high > 0)
        ):
            raise wrong
        try:
            return function.run(*tensors, *(_plain(n) for n in rest), **named)
        except Unfit as unfit:
            hint = f"usage: {function.usage}"
            raise _fault("wrong-argument", f"{unfit}.", call, hint) from None

    def _plain(self, value: Value) -> int | float:
        return _plain(self.number(value))

    def _spread(self, argument: Value, tensors: int) -> list[Result]:
        """An argument; one of stack or concat whose name has a new index counts it up from 0."""
        free = self._free(argument) if tensors < 0 else None
        if free is None:
            return [self.value(argument)]
        found: list[Result] = []
        while True:
            numbers = {**self.numbers, free: len(found)}
            try:
                inner = _Evaluation(self.config, numbers, self.shapes, self.read)
                found.append(inner.value(argument))
            except _Absent:
                if found:
                    return found
                raise

    def _free(self, value: Value) -> str | None:
        """An index of a name in this value that no parameter gives."""
        match value:
            case Name():
                names = [n for text in _INDEX.findall(value.name) for n in _NAME.findall(text)]
                return next((n for n in names if n not in self.numbers), None)
            case Arithmetic():
                return self._free(value.left) or self._free(value.right)
            case Call():
                return next((n for a in value.arguments if (n := self._free(a))), None)
            case Either():
                return self._free(value.first)
            case Number():
                return None


def _number(call: Call, values: list[int | float]) -> int | float | Fraction:
    """A function of numbers; whole results stay exact."""
    function, count = NUMBERS[call.function]
    if len(values) != count or call.named:
        hint = f"it takes {count} number{'s' * (count > 1)}."
        raise _fault("wrong-argument", f"'{call.function}' is not called so.", call, hint)
    try:
        result = function(*values)
    except (ValueError, OverflowError, ZeroDivisionError):
        shown = ", ".join(map(str, values))
        raise _fault("bad-number", f"{call.function}({shown}) has no value.", call) from None
    return Fraction(result) if isinstance(result, int) else result


def _plain(number: Result) -> int | float:
    if isinstance(number, Fraction):
        return int(number) if number.denominator == 1 else float(number)
    assert not isinstance(number, Tensor)
    return number


def _operand(value: Result) -> Tensor | float:
    return floating(value) if isinstance(value, Tensor) else float(value)


def _tensor_arithmetic(sign: str, left: Any, right: Any) -> Tensor:
    operations: dict[str, Callable[[Any, Any], Any]] = {
        "+": lambda a, b: a + b,
        "-": lambda a, b: a - b,
        "*": lambda a, b: a * b,
        "/": lambda a, b: a / b,
    }
    result: Tensor = operations[sign](left, right)
    return result


def _no_tensor(name: str) -> Tensor:
    raise AssertionError(name)


# --- diagnostics ----------------------------------------------------------------------------------


def _fault(code: str, message: str, value: Value, hint: str = "") -> StarError:
    return StarError(Diagnostic(code, message, value.span, hint=hint))


def _shape_hint(given: Shape, wanted: Shape) -> str:
    if len(given) == 2 and given[::-1] == wanted:
        return "add |> transpose: this matrix is stored inputs by outputs."
    if torch.Size(given).numel() == torch.Size(wanted).numel():
        return f"add |> reshape({', '.join(map(str, wanted))}), if the order is the same."
    if len(given) == len(wanted) and given[1:] == wanted[1:] and given[0] > wanted[0]:
        return "add |> rows(first, last) or |> part(index, count), if this holds several."
    return "the program's sizes may differ from the checkpoint's; see settings."


def _no_parameter(entry: Entry, names: Collection[str]) -> Diagnostic:
    shown = re.sub(_INDEX, "0", entry.target.name)
    near = suggest(shown, names)
    return Diagnostic(
        "unknown-name",
        f"the program has no parameter '{entry.target.name}'.",
        entry.target.span,
        "unknown",
        near or "'starc import --list' shows the program's parameters.",
    )


def _claimed(name: str, entry: Entry, first: Entry) -> Diagnostic:
    return Diagnostic(
        "duplicate",
        f"'{name}' is given twice.",
        entry.target.span,
        "again here",
        "every parameter has one entry.",
        ((first.target.span, "first here"),),
    )


def _not_tied(name: str, stored: str, entry: Entry) -> Diagnostic:
    return Diagnostic(
        "weights-not-tied",
        f"'{name}' is '{stored}' in the program, but the checkpoint has two different tensors.",
        entry.value.span,
        hint="untie them in the program, for example with embedding = untied.",
    )


def _missing(names: Collection[str], map_: WeightMap) -> list[Diagnostic]:
    if not names:
        return []
    return [
        Diagnostic(
            "parameter-missing",
            f"no entry of '{map_.source.name}' gives {_listed(names)}.",
            hint="every parameter of the program needs an entry: PARAMETER = TENSOR, or = 0.",
        )
    ]


def _unread(names: Collection[str]) -> list[Diagnostic]:
    if not names:
        return []
    return [
        Diagnostic(
            "tensor-unread",
            f"no entry reads {_listed(names)} of the checkpoint.",
            hint="give their parameters entries, or write ignore NAME if they mean nothing.",
        )
    ]


def _listed(names: Collection[str]) -> str:
    shown = collapse(sorted(names))
    more = f" and {len(shown) - _SHOWN} more" if len(shown) > _SHOWN else ""
    return ", ".join(f"'{name}'" for name in shown[:_SHOWN]) + more


def _distinct(faults: Iterable[Diagnostic]) -> list[Diagnostic]:
    """Faults at different places: those of other layers repeat what the first one says."""
    seen, found = set(), []
    for fault in faults:
        key = (fault.code, fault.span, fault.message if fault.span is None else "")
        if key not in seen:
            seen.add(key)
            found.append(fault)
    return found
