"""The functions that maps of weights apply to tensors.

Owns: one table, name to function and its usage. Refuses: the language of maps.

Numbers reach functions as int, where they are whole, or float.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Number = int | float


class Unfit(Exception):
    """Arguments that a function has no meaning for; the text says why."""


def floating(x: Tensor) -> Tensor:
    """x in at least float32: arithmetic in the half precision of a checkpoint would round."""
    return x if x.dtype in (torch.float32, torch.float64) else x.float()


def _whole(value: Any, what: str) -> int:
    if not isinstance(value, int):
        raise Unfit(f"{what} must be a whole number, not {value}")
    return value


def _axis(x: Tensor, axis: Any) -> int:
    axis = _whole(axis, "an axis")
    if not -x.dim() <= axis < x.dim():
        raise Unfit(f"a tensor of shape {tuple(x.shape)} has no axis {axis}")
    return int(axis % x.dim())


def _slice(x: Tensor, first: Any, last: Any, axis: Any = 0) -> Tensor:
    axis, size = _axis(x, axis), x.shape[_axis(x, axis)]
    first, last = _whole(first, "the first row"), _whole(last, "the last row")
    if not 0 <= first < last <= size:
        raise Unfit(f"{first} to {last} is no part of {size}, axis {axis} of {tuple(x.shape)}")
    return x.narrow(axis, first, last - first)


def _part(x: Tensor, index: Any, count: Any, axis: Any = 0) -> Tensor:
    axis, size = _axis(x, axis), x.shape[_axis(x, axis)]
    index, count = _whole(index, "the part"), _whole(count, "the number of parts")
    if count < 1 or size % count or not 0 <= index < count:
        raise Unfit(f"part {index} of {count} does not exist in {size}, axis {axis}")
    return x.narrow(axis, index * size // count, size // count)


def _take(x: Tensor, index: Any, axis: Any = 0) -> Tensor:
    axis, index = _axis(x, axis), _whole(index, "the index")
    if not 0 <= index < x.shape[axis]:
        raise Unfit(f"axis {axis} of {tuple(x.shape)} has no index {index}")
    return x.select(axis, index)


def _transpose(x: Tensor) -> Tensor:
    if x.dim() < 2:
        raise Unfit(f"a tensor of shape {tuple(x.shape)} has no two axes to exchange")
    return x.transpose(-1, -2)


def _permute(x: Tensor, *axes: Any) -> Tensor:
    order = [_axis(x, axis) for axis in axes]
    if sorted(order) != list(range(x.dim())):
        raise Unfit(f"{axes} is no order of the axes of {tuple(x.shape)}")
    return x.permute(order)


def _reshape(x: Tensor, *sizes: Any) -> Tensor:
    shape = [_whole(size, "a size") for size in sizes]
    try:
        return x.reshape(shape)
    except RuntimeError:
        raise Unfit(f"a tensor of shape {tuple(x.shape)} does not fit {tuple(shape)}") from None


def _join(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def joined(*parts: Tensor, axis: Any = 0) -> Tensor:
        axis = _whole(axis, "an axis")
        dtypes = {part.dtype for part in parts}
        if len(dtypes) > 1:
            parts = tuple(map(floating, parts))
        try:
            return function(parts, dim=axis)
        except (RuntimeError, IndexError):
            shapes = ", ".join(str(tuple(part.shape)) for part in parts)
            raise Unfit(f"shapes {shapes} do not join along axis {axis}") from None

    return joined


def _pointwise(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    return lambda x: function(floating(x))


def _matmul(x: Tensor, y: Tensor) -> Tensor:
    try:
        return floating(x) @ floating(y)
    except RuntimeError:
        raise Unfit(f"{tuple(x.shape)} and {tuple(y.shape)} cannot be multiplied") from None


def _inverse_softplus(x: Tensor) -> Tensor:
    return x + torch.log(-torch.expm1(-x))


@dataclass(frozen=True)
class Function:
    """`tensors` says how many of the first arguments are tensors (-1: all), `numbers` how many
    numbers may follow (at least, at most)."""

    run: Callable[..., Tensor]
    usage: str
    tensors: int = 1
    numbers: tuple[int, int] = (0, 0)
    named: tuple[str, ...] = ()


FUNCTIONS: dict[str, Function] = {
    "slice": Function(_slice, "x |> slice(first, last, axis = 0)", 1, (2, 3), ("axis",)),
    "rows": Function(_slice, "x |> rows(first, last)", 1, (2, 2)),
    "columns": Function(lambda x, a, b: _slice(x, a, b, 1), "x |> columns(first, last)", 1, (2, 2)),
    "part": Function(_part, "x |> part(index, count, axis = 0)", 1, (2, 3), ("axis",)),
    "take": Function(_take, "x |> take(index, axis = 0)", 1, (1, 2), ("axis",)),
    "transpose": Function(_transpose, "x |> transpose"),
    "permute": Function(_permute, "x |> permute(axis, ...)", 1, (1, 8)),
    "reshape": Function(_reshape, "x |> reshape(size, ...)", 1, (1, 8)),
    "flip": Function(lambda x, axis=0: x.flip(_axis(x, axis)), "x |> flip(axis = 0)", 1, (0, 1)),
    "concat": Function(_join(torch.cat), "concat(x, y, ..., axis = 0)", -1, (0, 0), ("axis",)),
    "stack": Function(_join(torch.stack), "stack(x, y, ..., axis = 0)", -1, (0, 0), ("axis",)),
    "matmul": Function(_matmul, "matmul(x, y)", 2),
    "exp": Function(_pointwise(torch.exp), "exp(x)"),
    "log": Function(_pointwise(torch.log), "log(x)"),
    "sqrt": Function(_pointwise(torch.sqrt), "sqrt(x)"),
    "square": Function(_pointwise(torch.square), "square(x)"),
    "tanh": Function(_pointwise(torch.tanh), "tanh(x)"),
    "sigmoid": Function(_pointwise(torch.sigmoid), "sigmoid(x)"),
    "softplus": Function(_pointwise(torch.nn.functional.softplus), "softplus(x)"),
    "inverse_softplus": Function(_pointwise(_inverse_softplus), "inverse_softplus(x)"),
}


def _multiple(a: Number, of: Number) -> Number:
    return math.ceil(a / of) * of


NUMBERS: dict[str, tuple[Callable[..., Number], int]] = {
    "floor": (math.floor, 1),
    "ceil": (math.ceil, 1),
    "sqrt": (math.sqrt, 1),
    "exp": (math.exp, 1),
    "log": (math.log, 1),
    "power": (math.pow, 2),
    "multiple": (_multiple, 2),
    "min": (min, 2),
    "max": (max, 2),
    "where": (lambda condition, a, b: a if condition else b, 3),
}
"""Functions of numbers alone, with how many they take."""
