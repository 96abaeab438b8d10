"""Ahead-of-time compilation of Triton kernels for GPUs that need not be there, and what came out.

Owns: the targets with their limits, and the report of one compiled kernel (registers, spills,
shared memory, width of memory accesses, tensor-core instructions), read from the assembly, and from
the machine code with a tool that Triton's wheel brings along.
Refuses: running anything. Speed, races and miscompilation show on a device only.

Triton must have been imported without TRITON_INTERPRET=1.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from starc.grammar.errors import InternalError

_TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"


@dataclass(frozen=True)
class Target:
    """A GPU architecture. `shared_limit` is the shared memory one program may use, in bytes."""

    name: str
    backend: str
    arch: int | str
    lanes: int
    shared_limit: int


TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        Target("sm_80", "cuda", 80, 32, 163 * 1024),
        Target("sm_90", "cuda", 90, 32, 227 * 1024),
        Target("sm_100", "cuda", 100, 32, 227 * 1024),
        Target("sm_120", "cuda", 120, 32, 99 * 1024),
        Target("gfx942", "hip", "gfx942", 64, 64 * 1024),
    )
}


@dataclass(frozen=True)
class KernelReport:
    """What one kernel became.

    Attributes:
        kernel: name of the kernel.
        target: name of the target.
        registers: registers of one thread (vector registers on AMD).
        spills: local memory that a thread keeps registers in, in bytes (NVIDIA), or registers so
            kept (AMD). Anything but 0 is a defect of the chosen tile.
        shared_bytes: shared memory of one program, in bytes.
        shared_limit: how much the target gives, in bytes. Triton compiles beyond it without a
            word, and the launch fails.
        wide_accesses: loads and stores of global memory of 128 bits.
        narrow_accesses: loads and stores of global memory of fewer bits.
        atomics: atomic instructions on global memory.
        matrix_instructions: tensor-core (matrix-core) instructions.
        group_instructions: those of them that a whole group of four warps issues, with operands in
            shared memory (wgmma on sm_90, tcgen05.mma on sm_100): the only ones that reach the
            full rate there.
    """

    kernel: str
    target: str
    registers: int
    spills: int
    shared_bytes: int
    shared_limit: int
    wide_accesses: int
    narrow_accesses: int
    atomics: int
    matrix_instructions: int
    group_instructions: int = 0

    @property
    def fits(self) -> bool:
        """Whether a launch would find shared memory enough."""
        return self.shared_bytes <= self.shared_limit


def compile_kernel(
    kernel: Any,
    signature: Mapping[str, str],
    target: Target,
    *,
    constants: Mapping[str, object] | None = None,
    aligned: Collection[str] = (),
    warps: int = 4,
    stages: int = 3,
) -> KernelReport:
    """Compiles a `@triton.jit` function for `target` and reports on the result.

    Args:
        kernel: the function, possibly under autotune or heuristics decorators.
        signature: type of each run-time argument: `*bf16`, `*fp32`, `i32`, `i64`, `fp32`, ...
        constants: value of each `tl.constexpr` argument.
        aligned: integer arguments that are divisible by 16. Pointers always count as aligned to
            16 bytes, as torch allocates them. A launch finds both out by itself; without the
            integers' alignment few accesses are wide.
        warps: warps of a program.
        stages: depth of software pipelining.

    Raises:
        InternalError: triton interprets in this process, or the signature and the kernel differ.
    """
    while not isinstance(kernel, triton.runtime.JITFunction):
        if not hasattr(kernel, "fn") or triton.knobs.runtime.interpret:
            raise InternalError(f"{kernel!r} is not a kernel that this process can compile")
        kernel = kernel.fn  # under Autotuner and Heuristics
    constants = dict(constants or {})
    if target.backend == "hip" and constants.get("precision") == "tf32x3":
        constants["precision"] = "ieee"  # which its matrix cores have
    if set(kernel.arg_names) != {*signature, *constants}:
        known = ", ".join(kernel.arg_names)
        raise InternalError(f"{kernel.__name__} takes ({known}), not {(*signature, *constants)}")
    types = {name: signature.get(name, "constexpr") for name in kernel.arg_names}
    divisible = {name for name, kind in types.items() if kind.startswith("*")} | set(aligned)
    attributes = {
        (index,): [["tt.divisibility", 16]]
        for index, name in enumerate(kernel.arg_names)
        if name in divisible
    }
    source = ASTSource(fn=kernel, signature=types, constexprs=constants, attrs=attributes)
    compiled = triton.compile(
        source,
        target=GPUTarget(target.backend, target.arch, target.lanes),
        options={"num_warps": warps, "num_stages": stages},
    )
    read = _read_cuda if target.backend == "cuda" else _read_hip
    return KernelReport(
        kernel=kernel.__name__,
        target=target.name,
        shared_bytes=compiled.metadata.shared,
        shared_limit=target.shared_limit,
        **read(compiled.asm),
    )


def _read_cuda(asm: Mapping[str, Any]) -> dict[str, int]:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as cubin:
        cubin.write(asm["cubin"])
        cubin.flush()
        usage = _run("cuobjdump", "--dump-resource-usage", cubin.name)
    found = re.search(r"\bREG:(\d+) STACK:(\d+) .*\bLOCAL:(\d+)", usage)
    if found is None:
        raise InternalError(f"cuobjdump reports no registers: {usage!r}")
    registers, stack, local = map(int, found.groups())
    ptx = asm["ptx"]
    accesses = re.findall(r"\b(?:ld|st)\.global[\w.:]*?(?:\.v(\d))?\.[bfsu](\d+)\b", ptx)
    wide = sum(int(count or 1) * int(bits) >= 128 for count, bits in accesses)
    return {
        "registers": registers,
        "spills": stack + local,
        "wide_accesses": wide,
        "narrow_accesses": len(accesses) - wide,
        "atomics": _count(r"\b(?:atom|red)\.", ptx),
        "matrix_instructions": _count(r"\b(?:wgmma\.mma_async|mma\.sync|tcgen05\.mma)\b", ptx),
        "group_instructions": _count(r"\b(?:wgmma\.mma_async|tcgen05\.mma)\b", ptx),
    }


def _read_hip(asm: Mapping[str, Any]) -> dict[str, int]:
    text = asm["amdgcn"]
    # A scalar access of constants is cached and shared by all lanes: only vector ones count.
    accesses = re.findall(r"\b(?:global|buffer)_(?:load|store)_\w+", text)
    wide = sum(access.endswith("dwordx4") for access in accesses)
    return {
        "registers": _field("vgpr_count", text),
        # Scalar registers are spilled into lanes of vector registers, which touches no memory.
        "spills": _field("vgpr_spill_count", text),
        "wide_accesses": wide,
        "narrow_accesses": len(accesses) - wide,
        "atomics": _count(r"\b(?:global|buffer)_atomic_\w+", text),
        "matrix_instructions": _count(r"\bv_mfma_\w+", text),
    }


def _run(tool: str, *arguments: str) -> str:
    done = subprocess.run([_TOOLS / tool, *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise InternalError(f"{tool} failed: {done.stderr.strip()}")
    return done.stdout


def _count(pattern: str, text: str) -> int:
    return len(re.findall(pattern, text))


def _field(name: str, text: str) -> int:
    found = re.search(rf"\.{name}:\s*(\d+)", text)
    if found is None:
        raise InternalError(f"the AMD assembly has no field '{name}'")
    return int(found[1])
