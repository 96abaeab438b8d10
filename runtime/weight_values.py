"""What a value of a map is for one checkpoint and one choice of indices.

Owns: names with indices, arithmetic and calls. Refuses: which parameter gets which value
(importing.py) and single functions (weight_functions.py).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from fractions import Fraction
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
    parse_index,
)
from starc.runtime.weight_functions import FUNCTIONS, NUMBERS, Unfit, floating

Shape = tuple[int, ...]
INDEX = re.compile(r"\{([^{}]*)\}")
_NAME = re.compile(r"[A-Za-z_]\w*")

Result = Tensor | int | float | Fraction


def configured(config: Mapping[str, Any], name: str) -> Any:
    """What a configuration has under a key, or under keys inside one another, a.b; a.0 is the
    first of a list."""
    known: Any = config
    for part in name.split("."):
        if isinstance(known, list) and part.isdigit():
            known = known[int(part)] if int(part) < len(known) else None
        else:
            known = known.get(part) if isinstance(known, Mapping) else None
    return known


class Absent(StarError):
    """A name that neither checkpoint nor configuration has: `or` goes on to its other side."""


class Evaluation:
    """Values of a map for one choice of indices."""

    def __init__(
        self,
        config: Mapping[str, Any],
        numbers: Mapping[str, int | Fraction],
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
        if [n for n in value.shape if n != 1] == [n for n in shape if n != 1]:
            return value.reshape(shape)  # axes of size 1 hold no order
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
                except Absent:
                    return self.value(value.second)
            case Arithmetic():
                return self._arithmetic(value)
            case Call():
                return self._call(value)

    def _name(self, value: Name) -> Result:
        name = INDEX.sub(lambda m: str(self._index(m[1], value)), value.name)
        if name in self.shapes:
            return self.read(name)
        if name in self.numbers:
            return Fraction(self.numbers[name])
        known = configured(self.config, name)
        if isinstance(known, int):  # bool as well
            return Fraction(int(known))
        if isinstance(known, float):
            return known
        if known is not None:
            message = f"'{name}' of config.json is {known!r:.60}, no number."
            raise _fault("wrong-type", message, value)
        what = "the checkpoint has no tensor" if "." in name else "there is no tensor or number"
        hint = suggest(name, (*self.shapes, *self.numbers, *self.config))
        raise Absent(Diagnostic("unknown-name", f"{what} '{name}'.", value.span, "unknown", hint))

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

    def _count(self, call: Call) -> Fraction:
        """count(list, word): how often a list of the configuration has a word."""
        match call.arguments:
            case Name(name=listed), Name(name=word) if not call.named:
                known = configured(self.config, listed)
                if isinstance(known, list):
                    return Fraction(known.count(word))
                if known is None:
                    message = f"config.json has no list '{listed}'."
                    raise Absent(Diagnostic("unknown-name", message, call.span))
        usage = "usage: count(layer_types, full_attention)"
        raise _fault("wrong-argument", "'count' is not called so.", call, usage)

    def _call(self, call: Call) -> Result:
        if call.function == "count":
            return self._count(call)
        if call.function in NUMBERS:
            values = [self.value(argument) for argument in call.arguments]
            if not any(isinstance(value, Tensor) for value in values):
                return _number(call, [_plain(value) for value in values])
        function = FUNCTIONS.get(call.function)
        if function is None:
            known = sorted({*FUNCTIONS, *NUMBERS, "count"})
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
                inner = Evaluation(self.config, numbers, self.shapes, self.read)
                found.append(inner.value(argument))
            except Absent:
                if found:
                    return found
                raise

    def _free(self, value: Value) -> str | None:
        """An index of a name in this value that no parameter gives."""
        match value:
            case Name():
                names = [n for text in INDEX.findall(value.name) for n in _NAME.findall(text)]
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


def no_tensor(name: str) -> Tensor:
    raise AssertionError(name)


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
