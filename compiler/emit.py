"""From a plan to the text of the generated file: render every part, put it in order, format.

Owns: the order of a file, Python literals of a user's text, black. Refuses: decisions (lower).
"""

from __future__ import annotations

import re
from dataclasses import asdict

from starc.compiler.kernel_plan import sections
from starc.compiler.plan import FilePlan, FunctionPlan, MixerPlan
from starc.compiler.support import required
from starc.grammar.errors import InternalError
from starc.templates import render

LINE_LENGTH = 100


def emit(plan: FilePlan, *, format: bool = True) -> str:
    """The text of a generated file; raises InternalError when black refuses it."""
    classes = [
        render("class.py.j2", **{**vars(c), "doc": tuple(map(docstring, c.doc))})
        for c in plan.classes
    ]
    functions = _functions(plan)
    kernels = [
        render(template, **({"kernel": kernel} if kernel else {}))
        for template, kernel in sections(plan.kernels)
    ]
    model = {**vars(plan.model), "doc": tuple(map(docstring, plan.model.doc))}
    text = render(
        "file.py.j2",
        title=plan.title,
        digest=plan.digest,
        config=[(repr(k), repr(v)) for k, v in plan.config],
        imports=_imports(bool(plan.kernels)),
        fragments=[part.strip("\n") for part in (*kernels, *functions, *classes)],
        model=model,
        source=literal(plan.source),
    )
    text = re.sub(r"[ \t]+\n", "\n", text)
    return _formatted(text) if format else text


def _imports(kernels: bool) -> list[str]:
    system = ["import math", *(["import os"] if kernels else [])]
    return [
        *system,
        "",
        "import torch",
        "import torch.nn.functional as F",
        "from torch import Tensor, nn",
    ]


def _functions(plan: FilePlan) -> list[str]:
    """Functions in an order in which each stands after those it calls."""
    support: dict[str, str] = {}
    own: list[str] = []
    for function in plan.functions:
        for name in required(function):
            if name not in support:
                support[name] = render(f"function/{name}.py.j2", name=name)
        own.append(_function(function))
    return [*support.values(), *own]


def _function(plan: FunctionPlan | MixerPlan) -> str:
    if isinstance(plan, MixerPlan):
        return render(f"mixer/{plan.template}.py.j2", **asdict(plan))
    return render(f"{plan.template}.py.j2", name=plan.name, **dict(plan.values))


def docstring(text: str) -> str:
    """A user's text for use inside a docstring: nothing in it can end the string or escape."""
    shown = text.encode("unicode_escape").decode("ascii") if not text.isprintable() else text
    return shown.replace("\\", "\\\\").replace('"', '\\"')


def literal(text: str) -> str:
    """A Python literal of a whole text, readable where that is safe."""
    plain = all(c == "\n" or c.isprintable() for c in text)
    if plain and text.endswith("\n") and '"""' not in text and "\\" not in text:
        return f'"""\\\n{text}"""'
    return ascii(text)


def _formatted(text: str) -> str:
    import black

    mode = black.Mode(line_length=LINE_LENGTH, target_versions={black.TargetVersion.PY311})
    try:
        return black.format_str(text, mode=mode)
    except Exception as failure:
        raise InternalError(f"black refused the generated file: {failure}\n{text}") from failure
