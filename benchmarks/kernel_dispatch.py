"""What the kernel path costs without a GPU: generated functions against plain PyTorch on CPU.

Run from the repository: `python benchmarks/kernel_dispatch.py`. The table is printed and written to
benchmarks/results/kernel_dispatch.md. Each row is one forward and backward pass from the output of
a fused projection, (2, 512, n channels), and back to its gradient. Variants take turns, so that all
see the same machine; a ratio is the median over turns of the plain formula's time divided by the
variant's, so that above 1 the variant is faster.

- `function`: what generated models call. `packed` takes the projection whole, `apart` its parts.
- `operator`: the custom operator's PyTorch body, called directly, as no model does on a CPU.
- `plain`: the formula in PyTorch with automatic differentiation; for the convolution the better of
  F.conv1d and a sum of shifted products, decided row by row.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor

from starc.compiler.kernel_plan import GatedConvolution, GatedProduct, KernelPlan, sections
from starc.templates import render

RESULTS = Path(__file__).parent / "results" / "kernel_dispatch.md"
DIGEST = "be9c4a11"
BATCH, LENGTH = 2, 512
CHANNELS = (256, 512, 1024)
TAPS = 4

Variant = Callable[..., Tensor]


@dataclass(frozen=True)
class Case:
    """One row: the function's variants, of which those in `plain` compete for the baseline."""

    title: str
    channels: int
    dtype: torch.dtype
    inputs: tuple[Tensor, ...]
    plain: dict[str, Variant]
    variants: dict[str, Variant]


def load(plans: Sequence[KernelPlan]) -> ModuleType:
    """A generated file that holds the kernels of `plans`."""
    text = "import os\nimport torch\nimport torch.nn.functional as F\nfrom torch import Tensor\n"
    text += render("function/transformed.py.j2", name="transformed") + "\n\n"
    for name, plan in sections(plans):
        text += render(name, **({"kernel": plan} if plan else {}))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "generated_kernels.py"
        path.write_text(text)
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return module


def product_case(channels: int, dtype: torch.dtype) -> Case:
    packed, apart = (
        GatedProduct(digest=DIGEST, activation="silu", channels=channels, packed=packed)
        for packed in (True, False)
    )
    module = load([packed, apart])
    call_packed, call_apart = getattr(module, packed.name), getattr(module, apart.name)
    operator = getattr(getattr(torch.ops, packed.namespace), packed.name)

    def plain(x: Tensor) -> Tensor:
        gate, value = x.split(channels, dim=-1)
        return F.silu(gate) * value

    x = torch.randn(BATCH, LENGTH, 2 * channels).to(dtype).requires_grad_()
    variants: dict[str, Variant] = {
        "packed": call_packed,
        "apart": lambda x: call_apart(*x.split(channels, dim=-1)),
        "operator": operator,
    }
    return Case("gated product (silu)", channels, dtype, (x,), {"F.silu * v": plain}, variants)


def convolution_case(channels: int, dtype: torch.dtype) -> Case:
    packed, apart = (
        GatedConvolution(digest=DIGEST, channels=channels, taps=TAPS, packed=packed)
        for packed in (True, False)
    )
    module = load([packed, apart])
    call_packed, call_apart = getattr(module, packed.name), getattr(module, apart.name)
    operator = getattr(getattr(torch.ops, packed.namespace), packed.name)

    def conv1d(x: Tensor, filter: Tensor) -> Tensor:
        c, b, v = x.split(channels, dim=-1)
        u = F.pad((b * v).transpose(1, 2), (TAPS - 1, 0))
        weight = filter.flip(1)[:, None].to(u.dtype)
        return c * F.conv1d(u, weight, groups=channels).transpose(1, 2)

    def shifted(x: Tensor, filter: Tensor) -> Tensor:
        c, b, v = x.split(channels, dim=-1)
        u = F.pad(b * v, (0, 0, TAPS - 1, 0))
        weight = filter.t().contiguous().to(x.dtype)
        y = u[:, TAPS - 1 :] * weight[0]
        for i in range(1, TAPS):
            y = torch.addcmul(y, u[:, TAPS - 1 - i : TAPS - 1 - i + LENGTH], weight[i])
        return c * y

    x = torch.randn(BATCH, LENGTH, 3 * channels).to(dtype).requires_grad_()
    filter = torch.randn(channels, TAPS).requires_grad_()
    plain: dict[str, Variant] = {"F.conv1d": conv1d, "shifted products": shifted}
    variants: dict[str, Variant] = {
        "packed": call_packed,
        "apart": lambda x, filter: call_apart(*x.split(channels, dim=-1), filter),
        "operator": operator,
    }
    title = f"gated convolution ({TAPS} taps)"
    return Case(title, channels, dtype, (x, filter), plain, variants)


def measure(case: Case, turns: int) -> dict[str, list[float]]:
    """Seconds of each variant, turn by turn."""
    dy = torch.randn(BATCH, LENGTH, case.channels).to(case.dtype)
    seconds: dict[str, list[float]] = {name: [] for name in (*case.plain, *case.variants)}
    half = case.dtype == torch.bfloat16
    with torch.autocast("cpu", dtype=torch.bfloat16) if half else nullcontext():
        for turn in range(turns + 3):
            for name, function in (*case.plain.items(), *case.variants.items()):
                start = time.perf_counter()
                torch.autograd.grad(function(*case.inputs), case.inputs, dy)
                if turn >= 3:  # the first ones allocate and choose algorithms
                    seconds[name].append(time.perf_counter() - start)
    return seconds


def row(case: Case, turns: int) -> str:
    seconds = measure(case, turns)
    best = min(case.plain, key=lambda name: median(seconds[name]))
    ratios = {
        name: median(a / b for a, b in zip(seconds[best], seconds[name], strict=True))
        for name in case.variants
    }
    cells = [
        case.title,
        str(case.channels),
        "bf16 autocast" if case.dtype == torch.bfloat16 else "float32",
        f"{median(seconds[best]) * 1e3:.2f} ({best})",
        f"{median(seconds['packed']) * 1e3:.2f}",
        *(f"{ratios[name]:.2f}" for name in ("packed", "apart", "operator")),
    ]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--turns", type=int, default=60)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    lines = [
        "# Kernel dispatch on CPU: forward and backward, generated functions against plain PyTorch",
        "",
        f"Batch {BATCH}, length {LENGTH}, {arguments.threads} threads, torch {torch.__version__},"
        f" {platform.machine()}, load average {os.getloadavg()[0]:.1f}; {arguments.turns} turns."
        " Ratios above 1: faster than plain.",
        "",
        "| kernel | channels | dtype | plain ms | packed ms | packed | apart | operator |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    print("\n".join(lines))
    for make in (product_case, convolution_case):
        for dtype in (torch.float32, torch.bfloat16):
            for channels in CHANNELS:
                lines.append(row(make(channels, dtype), arguments.turns))
                print(lines[-1], flush=True)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
