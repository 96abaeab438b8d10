"""Compiles all kernels of a program for GPUs that need not be there, and judges what came out.

Owns: which launches, element types and targets are compiled, and what counts as a defect. Refuses:
compiling one kernel (runtime/kernels.py), tables (cli/kernels.py), and running anything.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from starc.compiler.kernel_plan import KernelPlan, Launch
from starc.grammar.errors import Diagnostic, StarError

if TYPE_CHECKING:
    from starc.compiler.driver import Artifact
    from starc.runtime.kernels import KernelReport

DEFAULT_TARGETS = ("sm_80", "sm_90", "sm_100", "gfx942")
ELEMENTS = {"bf16": 2, "fp16": 2, "fp32": 4}
"""Element types of operands, with their bytes."""

GROUPED = ("sm_90", "sm_100")
"""Targets whose full matrix rate only the instructions of four warps reach."""


@dataclass(frozen=True)
class Checked:
    """One kernel on one target with its defects, in words; the bytes that a launch moves, and how
    many times the least that is for the whole operation that the launch is part of."""

    report: KernelReport
    element: str
    warps: int
    defects: tuple[str, ...]
    moved: int
    traffic: float

    def as_dict(self) -> dict[str, Any]:
        own = {"element": self.element, "warps": self.warps, "defects": list(self.defects)}
        return {**asdict(self.report), **own, "moved": self.moved, "traffic": self.traffic}


def check_kernels(
    artifact: Artifact,
    *,
    targets: Sequence[str] = DEFAULT_TARGETS,
    elements: Sequence[str] = ("bf16",),
    batch: int = 1,
    tokens: int = 4096,
) -> list[Checked]:
    """Every kernel of a generated file, compiled for every target and element type.

    `batch` and `tokens` are those that bytes are counted for.

    Raises:
        StarError: `missing-extra` without triton, `wrong-argument` for a target or an element type
            that is none, or where triton interprets in this process.
    """
    runtime = _runtime()
    for given, known, what in (
        (targets, tuple(runtime.TARGETS), "target"),
        (elements, tuple(ELEMENTS), "element type"),
    ):
        for name in given:
            if name not in known:
                message, hint = f"there is no {what} '{name}'.", f"known: {', '.join(known)}."
                raise StarError(Diagnostic("wrong-argument", message, hint=hint))
    plans = tuple(dict.fromkeys(artifact.kernels))
    if not plans:
        return []
    found = []
    with tempfile.TemporaryDirectory() as folder:  # triton reads the source while it compiles
        module = load(artifact.text, Path(folder))
        for plan in plans:
            for element in elements:
                for target in map(runtime.TARGETS.__getitem__, targets):
                    found += _checked(runtime, module, plan, element, target, batch, tokens)
    return found


def _checked(
    runtime: Any,
    module: ModuleType,
    plan: KernelPlan,
    element: str,
    target: Any,
    batch: int,
    tokens: int,
) -> list[Checked]:
    launched = plan.work(batch, tokens, ELEMENTS[element])
    work = {w.kernel: w for w in reversed(launched)}  # the first launch of a kernel stands for it
    total: Counter[str] = Counter()
    for w in launched:
        total[w.operation] += w.moved
    found = []
    for launch in plan.launches(element, target.shared_limit):
        report = runtime.compile_kernel(
            getattr(module, launch.kernel),
            launch.signature,
            target,
            constants=launch.constants,
            aligned=launch.aligned,
            warps=launch.warps,
            stages=launch.stages,
        )
        report = replace(report, kernel=launch.label or launch.kernel)
        known = work[launch.kernel]
        traffic = round(total[known.operation] / known.least, 3)
        wrong = tuple(defects(report, launch, element))
        found.append(Checked(report, element, launch.warps, wrong, known.moved, traffic))
    return found


def defects(report: KernelReport, launch: Launch, element: str) -> list[str]:
    """What is not legal, or wastes the device, about a compiled kernel."""
    found = []
    if not report.fits:
        found.append(f"{report.shared_bytes} of {report.shared_limit} bytes of shared memory")
    if report.spills:
        found.append(f"{report.spills} spills")
    if report.atomics:
        found.append(f"{report.atomics} atomics, whose order is chance")
    if launch.products and not report.matrix_instructions:
        found.append("matrix products without tensor cores")
    elif launch.products and not launch.few_rows and report.target in GROUPED and element != "fp32":
        if not report.group_instructions:
            found.append("matrix products at the rate of single warps")
    return found


def load(text: str, folder: Path) -> ModuleType:
    """A generated file as a module, written to a folder that stays while kernels compile."""
    path = folder / "generated_kernels.py"
    path.write_text(text)
    spec = importlib.util.spec_from_file_location("generated_kernels", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["generated_kernels"] = module
    try:
        spec.loader.exec_module(module)
    finally:
        del sys.modules["generated_kernels"]
    return module


def _runtime() -> Any:
    if os.environ.get("TRITON_INTERPRET") == "1":
        raise StarError(
            Diagnostic(
                "wrong-argument",
                "TRITON_INTERPRET=1 is set: triton interprets kernels and compiles none.",
                hint="run the command without it.",
            )
        )
    try:
        import triton  # noqa: F401
    except ImportError as error:
        raise StarError(
            Diagnostic(
                "missing-extra",
                "compiling kernels needs triton, which is not installed.",
                hint="pip install triton; generated files work without it, on PyTorch.",
            )
        ) from error
    from starc.runtime import kernels

    return kernels
