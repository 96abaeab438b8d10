"""Random valid programs over everything the compiler builds, as text.

    from tests.strategies.programs import programs
    @given(programs())

Owns: settings, backbone, sharing and imports. Refuses: the inside of operators (operators.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from starc.compiler.types import Feature
from tests.strategies.operators import draw_operator
from tests.strategies.text import Draws
from tests.strategies.written import Formal, Written

OPERATORS = ("mix", "Model", "gconv_2", "my_block", "F", "torch", "rms_norm", "None", "mlp", "def_")
LABELS = ("a", "b0", "class", "forward", "embedding", "blocks", "norm", "a_norm", "head", "x", "T")

STANDARD = {
    "attention": ("mha(heads = 2)", "gqa(heads = 2, groups = 1)", "mqa(2)",
                  "sliding(heads = 2, window = 5)", "sigmoid_attention(heads = 1)"),
    "channel": ("swiglu()", "geglu(hidden = 12)", "gelu_mlp(hidden = 8)", "relu2_mlp()",
                "moe(n = 2, top = 2, shared = 1, hidden = 6)", "pattention(tokens = 6)",
                "memory(keys = 2, heads = 2, top = 4, key = 8)"),
    "convolution": ("gconv()", "hyena(hidden = 5)", "grouped_hyena(heads = 4, hidden = 5)"),
    "linear": ("linear(heads = 2)", "retention(heads = 2)", "gla(heads = 2, rank = 3)",
               "hgrn2(heads = 2, lower = layer / depth)"),
    "recurrent": ("mamba(state = 3, inner = width)", "mamba2(state = 4, head = 4, groups = 2)",
                  "rglru(blocks = 2)"),
    "star": ("sa2(heads = 1)", "sa3()", "rec2()", "gconv1()", "gmemless(hidden = 6)"),
}  # fmt: skip
"""Operators of the standard library as calls that fit every width that is a multiple of 8.

What chooses, chooses all: of equals (and zeros are) anyone may choose another than the oracle.
"""

NORMS = ("rmsnorm", "layernorm", "rmsnorm(weight = offset, eps = 1e-5)", "layernorm(bias = false)",
         "l2norm", "groupnorm(groups = 2)", "rmsnorm(weight = none)")  # fmt: skip


@dataclass(frozen=True)
class Labelled:
    """A unit that later units may refer to."""

    label: str
    operator: Written | None
    call: str
    reuses: bool

    def features(self) -> dict[str, Feature]:
        return self.operator.features() if self.operator else {}


def programs(max_units: int = 4, standard: bool = True) -> SearchStrategy[str]:
    """Texts of valid programs with one model of at most `max_units` units (repeats unrolled).

    `standard` lets programs use operators of the standard library.
    """
    return _programs(max_units, standard)


@st.composite
def _programs(draw: DrawFn, max_units: int, standard: bool) -> str:
    return _Program(Draws(draw), max_units, standard).write()


class _Program:
    def __init__(self, draws: Draws, max_units: int, standard: bool) -> None:
        self.draws = draws
        self.left = max_units
        self.width = draws.pick(8, 16, 24)
        self.uses: list[str] = []
        names = list(OPERATORS)
        count = 1 + draws.below(2)
        self.operators: list[Written] = []
        for _ in range(count):
            name = names.pop(draws.below(len(names)))
            self.operators.append(draw_operator(draws, name, self.width, tuple(self.operators)))
        self.standard = standard

    def write(self) -> str:
        draws = self.draws
        doc = draws.pick("", '"model"')
        backbone = self.layers(scope=[], nesting=0, copies=1)
        settings = self.settings()
        model = f"model m {{ {doc} {settings} backbone {{ {backbone} }} }}"
        declarations = [f"use std.{use}" for use in dict.fromkeys(self.uses)]
        declarations += [operator.text() for operator in self.operators]
        declarations.insert(draws.below(len(declarations) + 1), model)
        return draws.layout(" ".join(declarations))

    # --- settings -------------------------------------------------------------------------------

    def settings(self) -> str:
        draws = self.draws
        found = [
            f"width = {draws.whole(self.width)}",
            f"vocab = {draws.pick('17', '64', '2 * width', '11')}",
            f"context = {draws.pick('140', '2_56', '64', '5', '160 - width / 8')}",
        ]
        optional = [
            ("residual", [self.residual(), f"weighted({self.residual()}, dilation = 2)"]),
            ("embedding", ["tied", "untied(scale = 3)", "untied(norm = rmsnorm)",
                           "tied(scale = sqrt(width), norm = layernorm)"]),
            ("position", ["learned", "sinusoidal", "none"]),
            ("head", ["linear(bias = true)", "linear(scale = 1/2, softcap = 15)", "linear"]),
            ("final_norm", ["none", *NORMS]),
            ("readout", ["last", "weighted", "attend", "attend(heads = 2, norm = layernorm)"]),
        ]  # fmt: skip
        for name, texts in optional:
            if draws.chance(3):
                found.append(f"{name} = {draws.pick(*texts)}")
        return " ".join(found)

    def residual(self) -> str:
        draws = self.draws
        norm = draws.pick(*NORMS)
        return str(
            draws.pick(
                f"pre({norm})",
                f"post({norm})",
                f"sandwich({norm})",
                "none",
                "pre",
                f"pre(norm = {norm})",
                f"x / 2 + f(x |> {norm})",
                "x + (f(rmsnorm(x)) |> gain(init = 1/2)) * sigmoid(x)",
                f"scaled({norm}, stream = 1/2, branch = 1 / (1 + layer))",
            )
        )

    # --- backbone -------------------------------------------------------------------------------

    def layers(self, scope: list[Labelled], nesting: int, copies: int) -> str:
        """One layer or more; `scope` gains the labels, `copies` is how often it is unrolled."""
        found = [self.layer(scope, nesting, copies)]
        while self.left >= copies and not self.draws.chance(3):
            found.append(self.layer(scope, nesting, copies))
        return " ".join(found)

    def layer(self, scope: list[Labelled], nesting: int, copies: int) -> str:
        draws = self.draws
        kind = draws.below(7) if nesting < 2 and self.left >= 2 * copies else 0
        if kind == 4:
            count = draws.pick("2", "4 / 2", "1")
            body = self.layers(list(scope), nesting + 1, copies * (1 if count == "1" else 2))
            return f"repeat {count} {{ {body} }}"
        if kind == 6:
            count = draws.pick("2", "4 / 2", "1")
            return f"loop {count} {{ {self.layers(list(scope), nesting + 1, copies)} }}"
        if kind == 5:
            mode = draws.pick("sum", "mean", "difference", "gated")
            label = ""
            if draws.chance(3):
                scope.append(Labelled(self.label(scope), None, "", False))
                label = f"{scope[-1].label}: "
            count = draws.pick(2, 3) if mode == "difference" else draws.pick(2, 1, 3)
            branches = " ".join(self.branch(scope, nesting, copies) for _ in range(count))
            return f"{label}parallel ({mode}) {{ {branches} }} {self.with_residual()}"
        return self.unit(scope, copies)

    def branch(self, scope: list[Labelled], nesting: int, copies: int) -> str:
        if nesting < 1 and self.draws.chance(6):
            body = self.layers(list(scope), nesting + 2, 2 * copies)
            return f"repeat 2 {{ {body} }}"
        return self.unit(scope, copies)

    def label(self, scope: Sequence[Labelled]) -> str:
        free = [label for label in LABELS if label not in {known.label for known in scope}]
        return str(self.draws.pick(*free))

    def with_residual(self) -> str:
        return f"with residual = {self.residual()}" if self.draws.chance(5) else ""

    def unit(self, scope: list[Labelled], copies: int) -> str:
        draws = self.draws
        self.left -= copies
        modifiers = [self.with_residual()]
        owners = [known for known in scope if known.operator]
        target = draws.pick(*owners) if owners and not draws.chance(3) else None
        reuses = False
        if target is not None and target.operator is not None:
            operator: Written | None = target.operator
            call = target.call
            names = list(target.features())
            if names and not draws.chance(3):
                modifiers.append(f"reuses {self.names(names)} from {target.label}")
                reuses = True
            if not target.reuses and (not reuses or draws.chance(2)):
                weighted = [] if reuses else target.operator.weighted()
                shared = self.names(weighted) if weighted and draws.chance(2) else "*"
                modifiers.append(f"shares {shared} with {target.label}")
        elif self.standard and draws.chance(3):
            module = draws.pick(*STANDARD)
            operator, call = None, str(draws.pick(*STANDARD[module]))
            name = call.partition("(")[0]
            self.uses.append(f"{module}.{name}")
        else:
            operator = draws.pick(*self.operators)
            call = self.call(operator, scope)
        label = ""
        if not draws.chance(3):
            name = self.label(scope)
            scope.append(Labelled(name, operator, call, reuses))
            label = f"{name}: "
        return f"{label}{call} {' '.join(m for m in modifiers if m)}"

    def names(self, names: list[str]) -> str:
        chosen = [name for name in names if self.draws.chance(2)] or [names[0]]
        return " , ".join(chosen)

    def call(self, operator: Written, scope: Sequence[Labelled]) -> str:
        draws, given = self.draws, []
        positional = draws.chance(2)
        for formal in operator.formals:
            if formal.default is not None and draws.chance(2):
                positional = False
                continue
            value = draws.pick(*formal.values, *self.members(formal, scope))
            given.append(value if positional else f"{formal.name} = {value}")
        return f"{operator.name}({' , '.join(given)})"

    def members(self, formal: Formal, scope: Sequence[Labelled]) -> list[str]:
        """Features of earlier units that fit a parameter."""
        if formal.feature is None:
            return []
        fits = [(formal.feature.heads, 1), (1, formal.feature.channels), (1, 1)]
        fits.append((formal.feature.heads, formal.feature.channels))
        return [
            f"{known.label}.{name}"
            for known in scope
            for name, type_ in known.features().items()
            if (type_.heads, type_.channels) in fits
        ]
