"""From a plan to the text of the generated file: render every part, put it in order, format.

Owns: the order of a file, Python literals of a user's text, black. Refuses: decisions (lower).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from starc.compiler.kernel_plan import sections
from starc.compiler.layout import laid_out
from starc.compiler.plan import FilePlan, FunctionPlan, MixerPlan, ModuleClass
from starc.compiler.support import NAMES as SUPPORT_NAMES
from starc.compiler.support import required
from starc.grammar.errors import InternalError
from starc.templates import render


@dataclass(frozen=True)
class _Piece:
    """A part of the file; `fixed` text is the same in every file, formatted in its template."""

    text: str
    fixed: bool = False


def emit(plan: FilePlan, *, format: bool = True) -> str:
    """The text of a generated file; raises InternalError when black refuses it."""
    pieces = [
        _Piece(_head(plan)),
        *_kernels(plan),
        *_functions(plan),
        *(_Piece(_class(c)) for c in plan.classes),
        _Piece(_model(plan)),
        _source(plan.source),
        _Piece(render("main.py.j2", causal=plan.model.causal), fixed=True),
    ]
    return "\n\n\n".join(_finished(piece, format) for piece in pieces) + "\n"


def _finished(piece: _Piece, format: bool) -> str:
    text = piece.text.strip("\n")
    if piece.fixed:
        return text
    text = "\n".join(line.rstrip() for line in text.split("\n"))
    return laid_out(text, _formatted) if format else text


def _source(text: str) -> _Piece:
    """The program's text, to the letter: blanks at the ends of its lines are part of it."""
    shown = literal(text)
    return _Piece(f"SOURCE = {shown}", fixed=shown.startswith('"""'))


def _head(plan: FilePlan) -> str:
    config = [
        (json.dumps(k), repr(v) if isinstance(v, bool) else json.dumps(v)) for k, v in plan.config
    ]
    imports = _imports(plan)
    return render(
        "file.py.j2", title=plan.title, digest=plan.digest, config=config, imports=imports
    )


def _kernels(plan: FilePlan) -> Iterator[_Piece]:
    for template, kernel in sections(plan.kernels):
        if kernel is None:
            yield _Piece(render(template), fixed=True)
        else:
            yield _Piece(render(template, kernel=kernel))


def _class(plan: ModuleClass) -> str:
    return render("class.py.j2", **{**vars(plan), "doc": tuple(map(docstring, plan.doc))})


def _model(plan: FilePlan) -> str:
    model = {**vars(plan.model), "doc": tuple(map(docstring, plan.model.doc))}
    return render("model.py.j2", title=plan.title, model=model)


def _imports(plan: FilePlan) -> list[str]:
    tuned = any("kernel/tuning.py.j2" in kernel.shared for kernel in plan.kernels)
    return [
        *(["import json"] if tuned else []),
        "import math",
        *(["import os"] if plan.kernels else []),
        "from collections.abc import Callable, Iterator",
        "",
        "import torch",
        "import torch.nn.functional as F",
        "from torch import Tensor, nn",
        "from torch.utils.checkpoint import checkpoint",
    ]


def _functions(plan: FilePlan) -> list[_Piece]:
    """Functions in an order in which each stands after those it calls."""
    support: dict[str, _Piece] = {}
    own: list[_Piece] = []
    if plan.kernels:
        support["transformed"] = _support("transformed")
    for function in plan.functions:
        for name in required(function):
            if name not in support:
                support[name] = _support(name)
        if isinstance(function, FunctionPlan) and function.name in SUPPORT_NAMES:
            support.setdefault(function.name, _support(function.name))
        else:
            own.append(_Piece(_function(function)))
    return [*support.values(), *own]


def _support(name: str) -> _Piece:
    return _Piece(render(f"function/{name}.py.j2", name=name), fixed=True)


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
    if plain and text.endswith("\n"):
        body = text.replace("\\", "\\\\").replace('"""', '\\"\\"\\"')
        return f'"""\\\n{body}"""'
    return ascii(text)


_HEADER = re.compile(r"(async|class|def|for|if|while|with)\b.*:\s*(#.*)?$", re.DOTALL)
_LATER = {"elif": "if x:", "else": "if x:", "except": "try:", "finally": "try:"}


def _formatted(statement: str, columns: int) -> str:
    """A statement flush left as black lays it out within so many columns.

    A header is given what it needs to stand alone for as long: a body, and what `elif` follows.
    """
    import black
    from black.mode import TargetVersion

    mode = black.Mode(line_length=columns, target_versions={TargetVersion.PY311})
    first = re.match(r"\w*", statement)
    before = _LATER.get(first[0]) if first else None
    ahead = f"{before}\n    pass\n" if before else ""
    behind = "\n    pass" if before or _HEADER.match(statement) else ""
    try:
        text = black.format_str(ahead + statement + behind, mode=mode)
    except Exception as failure:
        raise InternalError(f"black refused the statement: {failure}\n{statement}") from failure
    return text.strip("\n").removeprefix(ahead).removesuffix(behind)
