"""Corrections to Triton's interpreter, so that kernels can be tested where there is no GPU.

Owns: bfloat16 arithmetic, which the interpreter (Triton 3.7) does on the raw 16-bit patterns as if
they were integers, and reductions and scans with a function of one's own, which it runs element by
element.
Refuses: production. Nothing but tests and debugging calls this; the interpreter itself runs only
where TRITON_INTERPRET=1 stood in the environment when triton was imported.

The corrections replace methods of the interpreter's classes for the life of the process. A process
interprets kernels or compiles them, never both.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import triton
import triton.language as tl
from triton.runtime import interpreter

from starc.grammar.errors import InternalError

_Builder: Any = interpreter.InterpreterBuilder
_Handle: Any = interpreter.TensorHandle
_Array = np.ndarray[Any, Any]

_QUIET_NAN = np.uint16(0x7FC0)


def correct_interpreter() -> None:
    """Corrects the interpreter of this process; calling it again changes nothing.

    Raises:
        InternalError: triton was imported without TRITON_INTERPRET=1, so there is nothing to
            correct and every launch would look for a GPU.
    """
    if not triton.knobs.runtime.interpret:
        raise InternalError("TRITON_INTERPRET=1 must be set before triton is imported")
    for correction in _CORRECTIONS:
        setattr(_Builder, correction.__name__.removeprefix("_"), correction)
    interpreter.ReduceScanOpInterface.apply = _apply
    interpreter.ReduceOps.generic_reduce = _generic_reduce
    interpreter.ScanOps.generic_scan = _generic_scan


def widen(bits: _Array) -> _Array:
    """bfloat16 as uint16 bit patterns -> the equal float32 values."""
    return (np.asarray(bits).astype(np.uint32) << 16).view(np.float32)


def narrow(values: _Array) -> _Array:
    """float32 -> the nearest bfloat16, ties to even, as uint16 bit patterns."""
    values = np.asarray(values, dtype=np.float32)
    bits = values.view(np.uint32)
    # Adding just under half of the dropped part, and one more where the kept part is odd, carries
    # into the kept part exactly when the nearest even value lies above.
    half, sixteen = np.uint32(0x7FFF), np.uint32(16)
    rounded = (bits + half + ((bits >> sixteen) & np.uint32(1))) >> sixteen
    return np.where(np.isnan(values), _QUIET_NAN, rounded.astype(np.uint16))


def _is_bf16(handle: Any) -> bool:
    return bool(handle.dtype.scalar == tl.bfloat16 and handle.data.dtype == np.uint16)


def _bf16(values: _Array) -> Any:
    return _Handle(narrow(values), tl.bfloat16)


# Each function below stands in for the builder's method of the same name, less the underscore, and
# hands what is not bfloat16 on to it.
_original: dict[str, Callable[..., Any]] = {
    name: getattr(_Builder, name)
    for name in (
        "binary_op",
        "unary_op",
        "ternary_op",
        "create_fma",
        "create_erf",
        "create_rsqrt",
        "cast_impl",
        "create_fp_to_fp",
        "create_dot",
        "create_atomic_rmw",
    )
}


def _binary_op(self: Any, lhs: Any, rhs: Any, op: Callable[..., _Array]) -> Any:
    if not _is_bf16(lhs):
        return _original["binary_op"](self, lhs, rhs, op)
    result = op(widen(lhs.data), widen(rhs.data))
    return _Handle(result, tl.int1) if result.dtype == np.bool_ else _bf16(result)


def _unary_op(self: Any, arg: Any, op: Callable[..., _Array]) -> Any:
    if not _is_bf16(arg):
        return _original["unary_op"](self, arg, op)
    return _bf16(op(widen(arg.data)))


def _ternary_op(self: Any, first: Any, second: Any, third: Any, op: Callable[..., _Array]) -> Any:
    if op is not np.clip or not _is_bf16(third):  # a selection moves bit patterns: right as it is
        return _original["ternary_op"](self, first, second, third, op)
    return _bf16(op(widen(first.data), widen(second.data), widen(third.data)))


def _create_fma(self: Any, x: Any, y: Any, z: Any) -> Any:
    if not _is_bf16(z):
        return _original["create_fma"](self, x, y, z)
    return _bf16(widen(x.data) * widen(y.data) + widen(z.data))


def _create_erf(self: Any, arg: Any) -> Any:
    if not _is_bf16(arg):
        return _original["create_erf"](self, arg)
    return _bf16(interpreter.np_erf_fp32(widen(arg.data)))


def _create_rsqrt(self: Any, arg: Any) -> Any:
    if not _is_bf16(arg):
        return _original["create_rsqrt"](self, arg)
    return _bf16(1 / np.sqrt(widen(arg.data)))


def _cast_impl(self: Any, src: Any, dst_type: Any) -> Any:
    source, target = src.dtype.scalar, dst_type.scalar
    if source == tl.bfloat16 and target != tl.bfloat16:
        return _Handle(widen(src.data).astype(interpreter._get_np_dtype(dst_type)), target)
    if target == tl.bfloat16 and source != tl.bfloat16:
        return _bf16(src.data.astype(np.float32))
    return _original["cast_impl"](self, src, dst_type)


def _create_fp_to_fp(self: Any, src: Any, dst_type: Any, rounding_mode: Any) -> Any:
    exact = src.dtype.scalar in (tl.float16, tl.float32, tl.float64)
    truncates = "RTZ" in str(rounding_mode)
    if dst_type.scalar == tl.bfloat16 and exact and not truncates:
        return _bf16(src.data.astype(np.float32))
    return _original["create_fp_to_fp"](self, src, dst_type, rounding_mode)


def _create_dot(self: Any, a: Any, b: Any, d: Any, *options: Any) -> Any:
    a, b = (_Handle(widen(x.data), tl.float32) if _is_bf16(x) else x for x in (a, b))
    return _original["create_dot"](self, a, b, d, *options)


def _create_atomic_rmw(
    self: Any, rmw_op: Any, ptr: Any, val: Any, mask: Any, sem: Any, scope: Any
) -> Any:
    if not _is_bf16(val):
        return _original["create_atomic_rmw"](self, rmw_op, ptr, val, mask, sem, scope)
    memory = interpreter._interpreter
    arrays = np.broadcast_arrays(ptr.data, val.data, mask.data)
    pointers, values, masks = (array.ravel() for array in arrays)
    before = np.zeros(pointers.shape, np.uint16)
    for i in range(pointers.size):  # one by one: an address may occur twice
        at, here = pointers[i : i + 1], masks[i : i + 1]
        old = memory.load(at, here, np.zeros(1, np.uint16), np.dtype(np.uint16))
        before[i] = old[0]
        memory.store(at, narrow(widen(old) + widen(values[i : i + 1])), here)
    return _Handle(before.reshape(ptr.data.shape), tl.bfloat16)


def _get_bf16(self: Any, value: float) -> Any:
    return _bf16(np.array([value], np.float32))


_CORRECTIONS: tuple[Callable[..., Any], ...] = (
    _binary_op,
    _unary_op,
    _ternary_op,
    _create_fma,
    _create_erf,
    _create_rsqrt,
    _cast_impl,
    _create_fp_to_fp,
    _create_dot,
    _create_atomic_rmw,
    _get_bf16,
)


def _steps(self: Any, inputs: tuple[Any, ...]) -> list[list[_Array]]:
    """The running results along the axis: one call of the combining function for each step, on
    whole slices, where the interpreter makes one for each element."""
    slices = [np.moveaxis(x.handle.data, self.axis, 0) for x in inputs]
    kinds = [x.dtype for x in inputs]
    steps = [[data[0] for data in slices]]
    for i in range(1, slices[0].shape[0]):
        running = [self.to_tensor(x, kind) for x, kind in zip(steps[-1], kinds, strict=True)]
        arriving = [self.to_tensor(data[i], kind) for data, kind in zip(slices, kinds, strict=True)]
        combined = self.combine_fn.fn(*running, *arriving)
        combined = combined if isinstance(combined, tuple) else (combined,)
        arrays = [x.handle.data if isinstance(x, tl.core.tensor) else x for x in combined]
        steps.append(
            [
                np.asarray(array).reshape(data.shape[1:]).astype(data.dtype)
                for array, data in zip(arrays, slices, strict=True)
            ]
        )
    return steps


def _generic_scan(self: Any, inputs: tuple[Any, ...]) -> list[Any]:
    columns = zip(*_steps(self, inputs), strict=True)
    return [
        self.to_tensor(np.ascontiguousarray(np.stack(column, axis=self.axis)), x.dtype)
        for column, x in zip(columns, inputs, strict=True)
    ]


_element_by_element = interpreter.ReduceOps.generic_reduce


def _generic_reduce(self: Any, inputs: tuple[Any, ...]) -> list[Any]:
    if self.axis is None:
        return list(_element_by_element(self, inputs))
    results = _steps(self, inputs)[-1]
    if self.keep_dims:
        results = [np.expand_dims(result, self.axis) for result in results]
    return [
        self.to_tensor(result if result.ndim else result.item(), x.dtype)
        for result, x in zip(results, inputs, strict=True)
    ]


_apply_original = interpreter.ReduceScanOpInterface.apply


def _apply(self: Any, inputs: Any) -> Any:
    """A reduction or scan of bfloat16 in float32, its results rounded back."""
    if not isinstance(inputs, tuple):
        return self.apply((inputs,))[0]
    narrowed = [isinstance(x, tl.core.tensor) and x.dtype == tl.bfloat16 for x in inputs]
    if not any(narrowed):
        return _apply_original(self, inputs)
    wide = tuple(
        self.to_tensor(widen(x.handle.data), tl.float32) if is_bf16 else x
        for x, is_bf16 in zip(inputs, narrowed, strict=True)
    )
    results = _apply_original(self, wide)
    # An index that comes with a maximum is one result more than there are inputs.
    narrowed += [False] * (len(results) - len(narrowed))
    return tuple(
        _as_bf16(x) if is_bf16 and x.dtype == tl.float32 else x
        for x, is_bf16 in zip(results, narrowed, strict=True)
    )


def _as_bf16(x: Any) -> Any:
    bits = narrow(x.handle.data)
    kind = tl.block_type(tl.bfloat16, list(bits.shape)) if x.type.is_block() else tl.bfloat16
    return tl.core.tensor(_Handle(bits, tl.bfloat16), kind)


def permute_programs(seed: int) -> None:
    """From now on programs of a launch run in an order of chance, in place of one after another.

    A kernel with a program that reads what another one wrote then gives something else.
    """

    def set_grid_idx(self: Any, x: int, y: int, z: int) -> None:
        sizes = self.grid_dim
        count = sizes[0] * sizes[1] * sizes[2]
        if _order[0] != sizes:
            _order[:] = sizes, np.random.default_rng(seed).permutation(count)
        place = int(_order[1][(x * sizes[1] + y) * sizes[2] + z])
        rest, z = divmod(place, sizes[2])
        self.grid_idx = (*divmod(rest, sizes[1]), z)

    _order: list[Any] = [None, None]
    _Builder.set_grid_idx = set_grid_idx
