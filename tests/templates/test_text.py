"""The text of mixers and functions: what it calls, how it is set, what its templates read."""

from __future__ import annotations

import ast
import itertools
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import black
import jinja2.meta
import pytest

from starc.compiler.plan import FunctionPlan, MixerPlan
from starc.compiler.support import NAMES, SUPPORT, required
from starc.templates import environment
from tests.templates.generated import file_text, own_text

TEMPLATES = Path(__file__).parents[2] / "templates"
MODE = black.Mode(line_length=100, target_versions={black.TargetVersion.PY311})
STATE = (
    "scalar_recurrence",
    "diagonal_recurrence",
    "signed_recurrence",
    "scan",
    "delta_recurrence",
    "dplr_recurrence",
)


def mixers() -> Iterator[MixerPlan]:
    """All templates over head counts, floors, sizes of V and scales, at widths of large models."""
    for path in sorted(TEMPLATES.glob("mixer/*.py.j2")):
        name = path.name.removesuffix(".py.j2")
        state = name in STATE
        for c, b, v, a in itertools.product((1, 64, 128), repeat=4):
            if not state and a > 1:
                continue
            wide = (c + b + v + a) % 2
            yield MixerPlan(
                template=name,
                name=name,
                heads=max(c, b, v, a if state else 1),
                channels=128,
                c_heads=c,
                b_heads=b,
                v_heads=v,
                v_channels=1 if name == "scan" else 256 if wide else 64,
                a_heads=a if state else 0,
                a_channels=0 if not state else 1 if wide or name == "scalar_recurrence" else 128,
                scale=0.08838834764831845,
                floor=1e-6 if a == 64 else None,
                band=1024,
                logarithmic=name != "signed_recurrence"
                and (a > 1 or name not in ("scan", "delta_recurrence", "dplr_recurrence")),
                beta_heads=b,
                left_heads=a,
                right_heads=b,
                steps=1 if wide else 2,
            )
    for name, v in itertools.product(("delta_recurrence", "dplr_recurrence"), (0, 64)):
        yield MixerPlan(name, name, 8, 64, 8, 8, 8, v, beta_heads=8, left_heads=8, right_heads=8)


FUNCTIONS = (
    *(
        FunctionPlan(name, name)
        for name in (
            "l2norm",
            "shift",
            "short_convolution",
            "depthwise_convolution",
            "long_convolution",
            "toeplitz_matrix",
            "diagonal_matrix",
            "decay_scores",
            "distances",
            "softmax_with_sink",
            "quick_gelu",
            "modal_convolution",
            "positions",
        )
    ),
    FunctionPlan(
        "visible",
        "visible",
        (("code", "(j <= i) & (i - j < 8)"), ("rows", True), ("words", "j <= i and |i - j| < 8")),
    ),
    FunctionPlan("standardize", "standardize", (("eps", "1e-05"),)),
    *(
        FunctionPlan("select", "select", (("block", block), ("groups", groups), ("top", 1024)))
        for block in (1, 1024)
        for groups in (0, 1, 128)
    ),
    *(
        FunctionPlan("relative_scores", "relative_scores", values)
        for values in (
            (("channels", 1024), ("edges", ()), ("farthest", 0)),
            (("channels", 4), ("edges", (1, 2, 5)), ("farthest", 8)),
        )
    ),
    FunctionPlan("sinusoidal", "sinusoidal", (("width", 768),)),
    *(FunctionPlan("taylor", "taylor", (("order", order),)) for order in (1, 2)),
    FunctionPlan("implicit_filter", "ImplicitFilter"),
    FunctionPlan("ssm_filter", "SSMFilter"),
    *(
        FunctionPlan(
            "rotary_tables",
            "rotary_tables",
            (("attention", a), ("dims", 128), ("scaling", rule), ("theta", 500_000.0)),
        )
        for a, *rule in (
            (1.0, "none"),
            (1.0, "linear", 4.0),
            (1.0, "ntk", 4.0),
            (1.0, "llama3", 8.0, 8192.0, 1.0, 4.0),
            (1.138629436111989, "yarn", 4.0, 32768.0, 32.0, 1.0, 0.0, True),
            (1.19, "factors", 1.19, *(64 * [1.25])),
        )
    ),
    FunctionPlan("read_before", "read_before"),
    *(
        FunctionPlan("transition_matrix", "transition_matrix", (("before", before),))
        for before in (True, False)
    ),
    *(
        FunctionPlan("rotate", "rotate", (("dims", dims), ("pairs", pairs)))
        for dims in (0, 64)
        for pairs in ("half", "interleaved")
    ),
    *(
        FunctionPlan("semi_separable_matrix", "semi_separable_matrix", (("logarithmic", value),))
        for value in (True, False)
    ),
)

PLANS: tuple[MixerPlan | FunctionPlan, ...] = (*mixers(), *FUNCTIONS)


def names_read(text: str) -> set[str]:
    return {node.id for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Name)}


def test_a_file_holds_the_support_functions_that_are_called_and_no_others():
    reads: dict[str, set[str]] = {
        name: names_read(own_text(FunctionPlan(name, name))) & NAMES - {name} for name in NAMES
    }
    for plan in PLANS:
        needed: set[str] = set()
        waiting = names_read(own_text(plan)) & NAMES
        while waiting:
            needed |= waiting
            waiting = set().union(*(reads[name] for name in waiting)) - needed
        assert set(required(plan)) == needed, plan


def test_what_is_called_stands_first():
    for plan in PLANS:
        order = required(plan)
        for place, name in enumerate(order):
            assert set(SUPPORT.get(name, ())) <= set(order[:place])


def test_every_support_function_is_needed_somewhere():
    assert set().union(*(required(plan) for plan in PLANS)) == NAMES


def test_text_is_one_documented_definition():
    for plan in PLANS:
        definitions = ast.parse(own_text(plan)).body
        assert [getattr(d, "name", None) for d in definitions] == [plan.name]
        assert ast.get_docstring(definitions[0])  # type: ignore[arg-type]


def test_black_leaves_it_within_100_columns():
    every_kind = {
        (p.template, *(getattr(p, f) == p.heads for f in ("c_heads", "b_heads", "v_heads"))): p
        for p in mixers()
    }
    support = [FunctionPlan(name, name) for name in sorted(NAMES)]
    for plan in (*every_kind.values(), *FUNCTIONS, *support):
        formatted = black.format_str(own_text(plan), mode=MODE)
        assert black.format_str(formatted, mode=MODE) == formatted
        assert max(map(len, formatted.splitlines())) <= 100, formatted


def test_whole_files_parse():
    for plan in FUNCTIONS:
        compile(file_text(plan), plan.name, "exec")


@pytest.mark.parametrize("path", sorted(TEMPLATES.glob("mixer/*.py.j2")), ids=lambda p: p.stem)
def test_a_mixer_template_reads_fields_of_its_plan(path: Path):
    text = path.read_text()
    assert text.splitlines()[0] == "{# MixerPlan #}"
    read = jinja2.meta.find_undeclared_variables(environment().parse(text))
    assert read <= {field.name for field in fields(MixerPlan)}


@pytest.mark.parametrize("path", sorted(TEMPLATES.glob("function/*.py.j2")), ids=lambda p: p.stem)
def test_a_function_template_says_what_it_reads(path: Path):
    text = path.read_text()
    first = text.splitlines()[0]
    assert first.startswith("{# FunctionPlan")
    said = first.removeprefix("{# FunctionPlan").removesuffix("#}").strip(": ")
    read = jinja2.meta.find_undeclared_variables(environment().parse(text)) - {"name"}
    assert read == {name for name in said.split(", ") if name}
