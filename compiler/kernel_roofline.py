"""The kernels of a program on paper: what is fused into each, bytes, FLOPs and the roofline.

The roofline (Williams, Waterman and Patterson 2009) is the time that a device needs at least: its
peak rate for the FLOPs, or its bandwidth for the bytes, whichever is longer.

Owns: peak figures of devices and the text of `starc show --stage kernels`. Refuses: measuring.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from starc.compiler.kernel_plan import KernelPlan, Work
from starc.grammar.errors import Diagnostic, StarError


@dataclass(frozen=True)
class Device:
    """Peaks that the vendor publishes: dense bfloat16 matrix products with float32 sums, float32
    arithmetic outside of the matrix cores (both FLOP/s), and memory bandwidth (bytes/s)."""

    name: str
    matrix: float
    vector: float
    bandwidth: float


DEVICES = {
    device.name: device
    for device in (
        Device("H100", 989.4e12, 66.9e12, 3.35e12),  # SXM5, 80 GB HBM3
        Device("A100", 312e12, 19.5e12, 2.039e12),  # SXM4, 80 GB HBM2e
        Device("RTX4090", 165.2e12, 82.6e12, 1.008e12),
        Device("MI300X", 1307.4e12, 163.4e12, 5.3e12),
    )
}

_UNITS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def roofline(work: Work, products: bool, device: Device) -> tuple[float, str]:
    """(seconds at least, what binds: "arithmetic" or "memory")."""
    arithmetic = work.flops / (device.matrix if products else device.vector)
    memory = work.moved / device.bandwidth
    return max(arithmetic, memory), "arithmetic" if arithmetic > memory else "memory"


def find_device(name: str) -> Device:
    """A device by its name, in any case and with or without blanks."""
    known = {own.lower(): device for own, device in DEVICES.items()}
    found = known.get(name.lower().replace(" ", "").replace("-", ""))
    if found is None:
        message, hint = (
            f"there are no figures of a device '{name}'.",
            f"known: {', '.join(DEVICES)}.",
        )
        raise StarError(Diagnostic("wrong-argument", message, hint=hint))
    return found


def kernel_table(
    kernels: Sequence[KernelPlan], device: Device, *, batch: int = 1, tokens: int = 4096
) -> str:
    """The kernels of a program as text, for bfloat16 operands of `batch` sequences of `tokens`."""
    plans = tuple(dict.fromkeys(kernels))
    if not plans:
        return "no kernels: PyTorch's own serve this program\n"
    lines = [f"{batch} x {tokens} tokens in bfloat16; times are the roofline of one {device.name}"]
    for plan in plans:
        products = {launch.kernel: launch.products for launch in plan.launches("bf16")}
        first, *rest = plan.fused
        lines += ["", plan.name, f"  {first}", *(f"    {words}" for words in rest)]
        for work in plan.work(batch, tokens, 2):
            seconds, binds = roofline(work, products[work.kernel], device)
            lines.append(
                f"  {work.kernel.removeprefix(plan.name + '_'):<10}"
                f"{_short(work.flops, 'FLOP'):>14}{_short(work.moved, 'B'):>12}"
                f"{1e6 * seconds:>12.1f} us  {binds}"
            )
    return "\n".join(lines) + "\n"


def _short(amount: float, unit: str) -> str:
    for size, prefix in _UNITS:
        if amount >= size:
            return f"{amount / size:.1f} {prefix}{unit}"
    return f"{amount:.0f} {unit}"
