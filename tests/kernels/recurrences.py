"""Runs the kernels of recurrences and prints how far each result is from float64.

    recurrences.py MODULE PLANS interpreted|cuda few|all NAME,...

As numerics.py, whose guards it uses. Operands lie among NaN, and so do results. Programs run in an
order of chance: one that needs another of the same launch gives something else. The operators that
are NAMEd are checked as PyTorch sees them too. The output is a JSON object: `findings`, empty when
all is well, and `errors`, the largest by result and dtype.
"""

from __future__ import annotations

import itertools
import json
import pickle
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numerics
import torch
from numerics import GUARD, error, guarded, guarded_allocation, touched
from torch import Tensor

from starc.compiler.kernel_recurrence import Recurrence
from starc.compiler.kernel_scan import Scan
from starc.compiler.kernel_structured import Structured

Plan = Recurrence | Scan | Structured

BATCH = 2

# One token, less than a chunk of 16, whole chunks, a part of the third; odd ones with a state.
LENGTHS = {
    "few": {torch.float32: (34,), torch.bfloat16: (21,)},
    "all": {torch.float32: (1, 9, 32, 37), torch.float16: (21,), torch.bfloat16: (21, 100)},
}

# Largest error allowed, relative to the largest element of the right answer. Operands of products
# are rounded once more than results: scores, and states between chunks.
TOLERANCE = {torch.float32: 1e-5, torch.float16: 3e-3, torch.bfloat16: 2e-2}


def structured(plan: Structured, operands: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """(y, the state after the last token), every transition written out as a matrix."""
    eye = torch.eye(plan.channels, dtype=torch.float64)
    C, B, V = (operands[name] for name in ("C", "B", "V"))
    state = operands.get("first", V.new_zeros(V.shape[0], plan.heads, plan.channels, plan.values))
    outputs = []
    # (batch, T, steps, heads, channels)
    inner = {x: operands[x].unflatten(1, (-1, 1)) for x in plan.of_steps}
    if plan.steps_of_token > 1:
        inner = {x: operands[x] for x in plan.of_steps}
    for t in range(V.shape[1]):
        for step in range(plan.steps_of_token):
            own = {name: x[:, t, step] for name, x in inner.items()}
            w = torch.exp(own["A"]).unsqueeze(-1) * eye if "A" in own else eye
            if plan.delta:
                key = operands["beta"][:, t] * B[:, t]
                transition = (eye - torch.einsum("bhn,bhm->bhnm", key, B[:, t])) @ w
            else:
                key = B[:, t]
                transition = w + torch.einsum("bhn,bhm->bhnm", own["left"], own["right"])
            state = transition @ state
        state = state + torch.einsum("bhn,bhp->bhnp", key, V[:, t])
        outputs.append(torch.einsum("bhn,bhnp->bhp", C[:, t], state))
    return torch.stack(outputs, dim=1), state


def reference(plan: Plan, operands: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """(y, the state after the last token) from the definition, token by token."""
    if isinstance(plan, Structured):
        return structured(plan, operands)
    wide = {
        name: x.repeat_interleave(plan.heads // x.shape[2], dim=2)
        for name, x in operands.items()
        if name not in ("first", "slope")
    }
    V = wide["V"]
    one = V.new_ones(*V.shape[:3], 1)
    C, B = wide.get("C", one), wide.get("B", one)
    if "slope" in operands:
        wide["A"] = wide["A"] * operands["slope"]
    floor = plan.floor if isinstance(plan, Recurrence) else None
    if floor is not None:
        V = torch.cat((V, one), dim=-1)
    state = V.new_zeros(V.shape[0], plan.heads, plan.channels, V.shape[-1])
    if "first" in operands:
        state = state + operands["first"]
    outputs = []
    for t in range(V.shape[1]):
        if "A" in wide:
            state = torch.exp(wide["A"][:, t]).unsqueeze(-1) * state
        state = state + B[:, t].unsqueeze(-1) * V[:, t].unsqueeze(-2)
        outputs.append((C[:, t].unsqueeze(-2) @ state).squeeze(-2))
    y = torch.stack(outputs, dim=1)
    if floor is not None:
        y = y[..., :-1] / y[..., -1:].abs().clamp(min=floor)
    return y, state


def inputs_of(
    plan: Plan, length: int, dtype: torch.dtype, device: str, first: bool
) -> dict[str, Tensor]:
    """Random operands in buffers of NaN; rows lie apart, as in a slice of a wider projection."""
    positive = isinstance(plan, Recurrence) and plan.floor is not None

    def rows(heads: int, channels: int, kind: torch.dtype) -> Tensor:
        wide, _buffer = guarded((BATCH, length, heads * channels + 24), kind, device)
        return wide[..., 8 : 8 + heads * channels].unflatten(2, (heads, channels))

    def random(x: Tensor) -> Tensor:
        values = torch.randn(x.shape)
        return x.copy_(values.abs() if positive else values)

    found = {}
    steps = plan.steps_of_token if isinstance(plan, Structured) else 1
    for name, (heads, channels) in plan.sizes.items():
        if steps > 1 and name in ("A", "left", "right"):
            kind = torch.float32 if name == "A" else dtype
            found[name] = rows(steps * heads, channels, kind).unflatten(2, (steps, heads))
            values = torch.randn(found[name].shape)
            found[name].copy_(-torch.exp(values * 1.5 - 1.5) if name == "A" else values)
        elif name == "slope":
            found["slope"] = guarded((heads, channels), torch.float32, device)[0]
            found["slope"].copy_(torch.rand(heads, channels) + 0.5)
        elif name == "A":
            # From hardly any decay to one that leaves nothing of a chunk.
            A = rows(heads, channels, torch.float32)
            found["A"] = A.copy_(-torch.exp(torch.randn(A.shape) * 1.5 - 1.5))
        else:
            found[name] = random(rows(heads, channels, dtype))
    if isinstance(plan, Structured):
        # Keys of length one, as models have them: transitions that let states grow help nobody.
        for name in {"B", "left", "right"} & {*found} if plan.delta else ("left", "right"):
            found[name].copy_(torch.nn.functional.normalize(found[name], dim=-1))
        if plan.delta:
            found["beta"].copy_(torch.rand(found["beta"].shape) * 1.5)
        else:
            found["left"].copy_(-torch.rand(found["left"].shape) * found["right"])
    if "C" in found:
        found["C"].div_(plan.channels**0.5)
    if first:
        width = plan.values if isinstance(plan, Structured) else 1
        width = plan.state_width if isinstance(plan, Recurrence) else width
        shape = (BATCH, plan.heads, plan.channels, width)
        found["first"] = random(guarded(shape, torch.float32, device)[0])
    return found


def arguments(inputs: dict[str, Tensor]) -> list[Tensor | None]:
    """The inputs in the order of the operator's arguments."""
    return [*(x for name, x in inputs.items() if name != "first"), inputs.get("first")]


def check(
    module: ModuleType,
    plan: Plan,
    length: int,
    dtype: torch.dtype,
    device: str,
    first: bool,
    errors: dict[str, float],
) -> Iterator[str]:
    """Findings about the launches of one plan, forward and backward."""
    torch.manual_seed(length)
    case = f"{plan.name} T={length} {dtype}{' resumed' if first else ''}"
    inputs = inputs_of(plan, length, dtype, device, first)
    right = {name: x.double().cpu().requires_grad_() for name, x in inputs.items()}
    y_right, last_right = reference(plan, right)
    dy = torch.randn(y_right.shape).to(dtype)
    d_last = torch.randn(last_right.shape) if first else torch.zeros(0)
    outputs = [y_right, last_right] if first else [y_right]
    d_outputs = [dy.double(), d_last.double()][: len(outputs)]
    names = list(inputs)
    expected = torch.autograd.grad(outputs, [right[x] for x in names], d_outputs)
    given = arguments(inputs)
    with guarded_allocation() as buffers:
        results = getattr(module, f"launch_{plan.name}")(*given)
        floor = plan.floor if isinstance(plan, Recurrence) else None
        outside = [dy.to(device), d_last.to(device)]
        if isinstance(plan, Scan):  # keeps states
            passed = [*outside, results[2], *given]
        else:
            passed = [*outside, *given, *results[2:], *(results[:1] if floor is not None else ())]
        gradients = getattr(module, f"launch_{plan.name}_backward")(*passed)
    found = dict(zip(names, gradients, strict=False))
    pairs = [("y", results[0], y_right)]
    if first:
        pairs.append(("last", results[1], last_right))
    pairs += [(f"d{x}", found[x], d) for x, d in zip(names, expected, strict=True)]
    for name, result, wanted in pairs:
        distance = error(result, wanted.detach())
        key = f"{plan.function} {name} {str(dtype).removeprefix('torch.')}"
        errors[key] = max(errors.get(key, 0.0), distance)
        if not distance <= TOLERANCE[dtype]:
            yield f"{case}: {name} is off by {distance:.1e}"
        narrow = name not in ("last", "dA", "dfirst", "dslope")
        if result.dtype != (dtype if narrow else torch.float32):
            yield f"{case}: {name} is {result.dtype}"
    if touched(buffers):
        yield f"{case}: wrote outside of its results"


def slice_of_parts(
    x: Tensor, heads: int, chunks: int, part: int, *_: int
) -> list[tuple[int, int, int, int]]:
    """Slices as a small cache would want them: the last head alone, a part at a time."""
    return [
        (head, count, chunk, min(part, chunks - chunk))
        for head, count in ((0, heads - 1), (heads - 1, 1))
        for chunk in range(0, chunks, part)
        if count
    ]


def check_step(module: ModuleType, plan: Plan, device: str) -> Iterator[str]:
    """Findings about single steps: y, and the state that changes in place."""
    torch.manual_seed(0)
    for dtype in (torch.float32, torch.bfloat16):
        inputs = inputs_of(plan, 1, dtype, device, first=True)
        y_right, last_right = reference(plan, {x: v.double().cpu() for x, v in inputs.items()})
        *given, state = arguments(inputs)
        with guarded_allocation() as buffers:
            y = getattr(module, f"launch_{plan.name}_step")(*given, state)
        for name, result, wanted in (("y", y, y_right), ("state", state, last_right)):
            allowed = TOLERANCE[torch.float32 if name == "state" else dtype]
            if not (distance := error(result, wanted)) <= allowed:
                yield f"{plan.name}: {name} of a {dtype} step is off by {distance:.1e}"
        if touched(buffers):
            yield f"{plan.name}: a step wrote outside of its results"


def check_operator(module: ModuleType, plan: Plan, device: str) -> Iterator[str]:
    """Findings about the custom operators with the Triton code behind them, autograd included."""
    operator = getattr(getattr(torch.ops, plan.namespace), plan.name).default
    for first in (False, True):
        inputs = inputs_of(plan, 3, torch.float32, device, first)
        given = [x if x is None else x.requires_grad_() for x in arguments(inputs)]
        try:
            torch.library.opcheck(operator, tuple(given))
        except Exception as failure:  # opcheck raises whatever the failing check raised
            yield f"{plan.name}: opcheck: {failure}"
        operator(*given)[0].sum().backward()  # the gradient of a sum has no stride at all
        right = {x: v.detach().double().cpu().requires_grad_() for x, v in inputs.items()}
        reference(plan, right)[0].sum().backward()
        for name, x in inputs.items():
            wanted = right[name].grad
            assert x.grad is not None
            assert wanted is not None
            if not (distance := error(x.grad, wanted)) <= TOLERANCE[torch.float32]:
                yield f"{plan.name}: d{name} through the operator is off by {distance:.1e}"
    if plan.steps:
        step = getattr(getattr(torch.ops, plan.namespace), f"{plan.name}_step").default
        inputs = inputs_of(plan, 1, torch.float32, device, first=True)
        torch.library.opcheck(step, tuple(arguments(inputs)))


def permute_programs() -> None:
    """From here on the interpreter runs the programs of a launch in an order of chance."""
    from triton.runtime import interpreter

    builder = interpreter.interpreter_builder
    set_dim, set_index = builder.set_grid_dim, builder.set_grid_idx
    order: dict[tuple[int, ...], tuple[int, ...]] = {}

    def set_grid_dim(*sizes: int) -> None:
        places = list(itertools.product(*map(range, sizes)))
        shuffled = random.Random(0).sample(places, len(places))
        order.clear()
        order.update(zip(places, shuffled, strict=True))
        set_dim(*sizes)

    builder.set_grid_dim = set_grid_dim
    builder.set_grid_idx = lambda *place: set_index(*order[place])


def main() -> None:
    module_path, plans_path, mode, lengths, operators = sys.argv[1:]
    if mode == "interpreted":
        from starc.runtime.interpreter import correct_interpreter

        correct_interpreter()
        permute_programs()
    device = "cuda" if mode == "cuda" else "cpu"
    module = numerics.load(module_path)
    if mode == "interpreted" and hasattr(module, "cached_slices_of_chunks"):
        module.cached_slices_of_chunks = slice_of_parts
    plans: tuple[Plan, ...] = pickle.loads(Path(plans_path).read_bytes())
    findings: list[str] = []
    errors: dict[str, float] = {}
    for plan in plans:
        for dtype, sizes in LENGTHS[lengths].items():
            for length in sizes:
                findings += check(module, plan, length, dtype, device, length % 2 == 1, errors)
        if plan.steps:
            findings += check_step(module, plan, device)
    for plan in plans:
        if plan.name not in operators.split(","):
            continue
        if mode == "interpreted":  # put the Triton code where the PyTorch body was
            for name in (plan.name, f"{plan.name}_backward", f"{plan.name}_step"):
                launch: Any = getattr(module, f"launch_{name}", None)
                if launch is not None:
                    torch.library.register_kernel(f"{plan.namespace}::{name}", "cpu", launch)
        findings += check_operator(module, plan, device)
    json.dump({"findings": findings, "errors": errors}, sys.stdout)


assert GUARD >= 64 * 64  # a chunk of tokens by a tile of channels

if __name__ == "__main__":
    main()
