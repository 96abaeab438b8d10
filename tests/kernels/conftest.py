"""What the kernel tests share: generated files, and other processes to load them in."""

from __future__ import annotations

import importlib.util
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any

import black
import pytest

from starc.compiler.kernel_long_convolution import LongConvolution
from starc.compiler.kernel_plan import KernelPlan, sections
from starc.compiler.kernel_recurrence import Recurrence
from starc.compiler.kernel_rotary import Rotary
from starc.compiler.kernel_scan import Scan
from starc.compiler.kernel_structured import Structured
from starc.compiler.lower.kernels import DECAYS
from starc.compiler.plan import FunctionPlan, MixerPlan
from starc.compiler.support import required
from starc.templates import render

HEADER = """from __future__ import annotations

import json
import math
import os

import torch
import torch.nn.functional as F
from torch import Tensor, nn

"""

MODE = black.Mode(line_length=100, target_versions={black.TargetVersion.PY311})

SCRIPTS = Path(__file__).parent


def text_of(plans: Sequence[KernelPlan], formatted: bool = True) -> str:
    """A file that holds the kernels of `plans`, the functions that they serve, and nothing else.

    Triton reads formatted ones.
    """
    mixers = [mixer_of(plan) for plan in plans if isinstance(plan, Recurrence | Scan | Structured)]
    turns = [rotation_of(plan) for plan in plans if isinstance(plan, Rotary)]
    transforms = ["wide", "long_convolution"]
    long = transforms if any(isinstance(plan, LongConvolution) for plan in plans) else []
    called = dict.fromkeys(
        ["transformed", *(name for plan in (*mixers, *turns) for name in required(plan)), *long]
    )
    parts = [render(f"function/{name}.py.j2", name=name) for name in called]
    parts += [render(name, **({"kernel": plan} if plan else {})) for name, plan in sections(plans)]
    parts += [render(f"mixer/{plan.template}.py.j2", **asdict(plan)) for plan in mixers]
    parts += [render("function/rotate.py.j2", name=x.name, **dict(x.values)) for x in turns]
    text = HEADER + "\n\n".join(parts)
    return black.format_str(text, mode=MODE) if formatted else text


def mixer_of(plan: Recurrence | Scan | Structured) -> MixerPlan:
    """The function that a plan of kernels belongs to."""
    widths = {"none": 0, "scalar": 1, "diagonal": plan.channels}
    if isinstance(plan, Structured):
        heads = dict(zip(plan.operands, plan.counts, strict=True))
        return MixerPlan(
            template="delta_recurrence" if plan.delta else "dplr_recurrence",
            name=plan.function,
            heads=plan.heads,
            channels=plan.channels,
            c_heads=heads["C"],
            b_heads=heads["B"],
            v_heads=heads["V"],
            v_channels=plan.values,
            a_heads=heads.get("A", 0),
            a_channels=widths[plan.decay],
            beta_heads=heads.get("beta", 0),
            left_heads=heads.get("left", 0),
            right_heads=heads.get("right", 0),
            steps=plan.steps_of_token,
            chunk=16,
            kernels=True,
        )
    if isinstance(plan, Scan):
        sizes = {name: plan.sizes.get(name, (1, plan.channels)) for name in ("C", "A", "B", "V")}
        return MixerPlan(
            template="scan",
            name=plan.function,
            heads=plan.heads,
            channels=plan.channels,
            c_heads=sizes["C"][0],
            b_heads=sizes["B"][0],
            v_heads=plan.heads,
            v_channels=1,
            a_heads=plan.heads,
            a_channels=plan.decay_channels,
            chunk=16,
            kernels=True,
            factored=plan.factored,
        )
    template = {decay: template for template, decay in DECAYS.items()}[plan.decay]
    return MixerPlan(
        template=template,
        name=plan.function,
        heads=plan.heads,
        channels=plan.channels,
        c_heads=plan.c_heads,
        b_heads=plan.b_heads,
        v_heads=plan.v_heads,
        v_channels=plan.values,
        a_heads=plan.decay_heads,
        a_channels=widths[plan.decay],
        floor=plan.floor,
        kernels=True,
    )


def rotation_of(plan: Rotary) -> FunctionPlan:
    """The function that a plan of a rotary encoding belongs to."""
    dims = plan.dims if plan.rest else 0
    return FunctionPlan("function/rotate", plan.function, (("dims", dims), ("pairs", plan.pairs)))


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., ModuleType]:
    """`load(plans, name)`: the generated file of `plans`, imported under `name`."""

    def load(plans: Sequence[KernelPlan], name: str = "generated") -> ModuleType:
        path = tmp_path / f"{name}.py"
        path.write_text(text_of(plans, formatted=False))
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, module)  # torch.compile looks modules up by name
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture
def run_script(tmp_path: Path) -> Callable[..., Any]:
    """`run_script(script, plans, *arguments, **environment)`: what a script of this folder prints.

    The script runs in a process of its own, since one process interprets kernels or compiles them,
    but never does both. It is called with the path of the generated file, the path of the pickled
    plans and the arguments, and prints JSON.
    """

    def run(script: str, plans: Sequence[KernelPlan], *arguments: str, **environment: str) -> Any:
        module, pickled = tmp_path / "generated.py", tmp_path / "plans.pickle"
        module.write_text(text_of(plans))
        pickled.write_bytes(pickle.dumps(tuple(plans)))
        done = subprocess.run(
            [sys.executable, str(SCRIPTS / script), str(module), str(pickled), *arguments],
            env={**os.environ, "TRITON_CACHE_DIR": str(tmp_path / "cache"), **environment},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run
