"""Loading what templates render: a plan with its support functions, as in a generated file."""

from __future__ import annotations

import itertools
import sys
import types
from dataclasses import asdict
from functools import cache

from starc.compiler.plan import FunctionPlan, MixerPlan
from starc.compiler.support import required
from starc.templates import render

HEADER = """from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
"""

_numbers = itertools.count()


def own_text(plan: MixerPlan | FunctionPlan) -> str:
    """The function of a plan alone, as its template renders it."""
    if isinstance(plan, MixerPlan):
        return render(f"mixer/{plan.template}.py.j2", **asdict(plan))
    return render(f"function/{plan.template}.py.j2", name=plan.name, **dict(plan.values))


def file_text(plan: MixerPlan | FunctionPlan) -> str:
    """Header, support functions and the function of a plan."""
    support = [own_text(FunctionPlan(name, name)) for name in required(plan)]
    return "\n\n".join((HEADER, *support, own_text(plan)))


@cache
def load(plan: MixerPlan | FunctionPlan) -> types.ModuleType:
    """A module with the function of a plan and nothing more than it calls."""
    text = file_text(plan)
    name = f"generated_{plan.template}_{next(_numbers)}"
    module = types.ModuleType(name)
    sys.modules[name] = module
    exec(compile(text, f"<{name}>", "exec"), module.__dict__)
    return module
