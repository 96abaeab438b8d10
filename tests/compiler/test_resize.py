"""Programs at other sizes: legal, of the wanted depth, in proportion, and otherwise unchanged."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given, settings

from starc.compiler.cost import cost_report
from starc.compiler.digest import digest
from starc.compiler.driver import check_program, resolve_source
from starc.compiler.fitting import count_parameters, fit_parameters
from starc.compiler.ir import Model
from starc.compiler.options import Options
from starc.compiler.program import link
from starc.compiler.resize import count_units, resize
from starc.compiler.sizes import Roles, Use
from starc.grammar.errors import StarError
from starc.grammar.library import read_source
from starc.grammar.parser import parse
from starc.grammar.printer import format_program
from starc.grammar.source import Source
from tests.strategies.programs import programs

ROOT = Path(__file__).parents[2]
EXAMPLES = [
    *sorted((ROOT / "examples").glob("*.star")),
    *sorted((ROOT / "examples" / "families").glob("*.star")),
]
PLAIN = Options()
SMALL = {"width": 64, "units": 6, "vocab": 32, "context": 64}


def resolved(source: Source) -> Model:
    return resolve_source(source, PLAIN)[0]


def called(model: Model) -> set[str]:
    """The operators that units call, whatever their arguments."""
    return {re.sub(r"_\d+$", "", unit.operator) for unit in cost_report(model).units}


def text(program: str, **sizes: int) -> str:
    return resize(Source("program.star", program), PLAIN, **sizes).text


def check_resized(path: Path, sizes: dict[str, int]) -> None:
    source = read_source(path)
    found = resize(source, PLAIN, **sizes)
    assert check_program(found, PLAIN) == ()
    assert format_program(parse(found)) == found.text
    model, before = resolved(found), resolved(source)
    for name in ("width", "vocab", "context"):
        assert getattr(model, name) == sizes.get(name, getattr(before, name))
    assert called(model) == called(before)
    again = resize(found, PLAIN, **{n: v for n, v in sizes.items() if n != "units"})
    assert again.text == found.text


@pytest.mark.parametrize("path", [pytest.param(p, id=p.stem) for p in EXAMPLES[::7]])
def test_examples_at_a_small_size(path: Path) -> None:
    check_resized(path, SMALL)


@pytest.mark.slow
@pytest.mark.parametrize("path", [pytest.param(p, id=str(p.relative_to(ROOT))) for p in EXAMPLES])
@pytest.mark.parametrize("width", [64, 128, 256])
def test_every_example_at_small_and_at_double_depth(path: Path, width: int) -> None:
    check_resized(path, SMALL if width == 64 else {"width": width})
    source = read_source(path)
    units = count_units(source, PLAIN)
    twice = resize(source, PLAIN, width=width, units=2 * units)
    # Units outside of repeats stay, and what repeats is a whole motif.
    assert units < count_units(twice, PLAIN) <= 3 * units


# --- depth -------------------------------------------------------------------------------------

OPERATORS = "use std.channel.swiglu  use std.channel.gelu_mlp\n"
MODEL = OPERATORS + "model m {{ vocab = 8  width = 16  context = 8  {} backbone {{ {} }} }}"
PAIR = "swiglu()  gelu_mlp()"


def depth(settings: str, backbone: str, **sizes: int) -> str:
    """The resized program's own numbers and backbone, on one line."""
    found = text(MODEL.format(settings, backbone), **sizes)
    return " ".join(found.partition("context = 8")[2].split()).replace("backbone ", "")


@pytest.mark.parametrize(
    ("settings", "backbone", "sizes", "expected"),
    [
        ("", f"repeat 6 {{ {PAIR} }}", {"units": 4}, "{ repeat 2 { swiglu() gelu_mlp() } } }"),
        ("", f"repeat 6 {{ {PAIR} }}", {"units": 24}, "{ repeat 12 { swiglu() gelu_mlp() } } }"),
        ("", f"repeat 6 {{ {PAIR} }}", {"units": 1}, "{ repeat 1 { swiglu() gelu_mlp() } } }"),
        # what stands before and behind stays
        ("", f"swiglu()  repeat 6 {{ {PAIR} }}", {"units": 5},
         "{ swiglu() repeat 2 { swiglu() gelu_mlp() } } }"),
        # two repeats keep their proportion
        ("", "repeat 2 { swiglu() } repeat 6 { gelu_mlp() }", {"units": 4},
         "{ repeat 1 { swiglu() } repeat 3 { gelu_mlp() } } }"),
        # inner repeats are the motif, until there is no other way
        ("", "repeat 4 { repeat 3 { swiglu() } gelu_mlp() }", {"units": 8},
         "{ repeat 2 { repeat 3 { swiglu() } gelu_mlp() } } }"),
        ("", "repeat 4 { repeat 3 { swiglu() } gelu_mlp() }", {"units": 3},
         "{ repeat 1 { repeat 2 { swiglu() } gelu_mlp() } } }"),
        # counts that follow from a number of the model
        ("layers = 12 ", f"repeat layers / 3 {{ {PAIR} }}", {"units": 4},
         "layers = 6 { repeat layers / 3 { swiglu() gelu_mlp() } } }"),
        ("layers = 12 ", f"repeat layers / 3 {{ {PAIR} }}", {"repeat": 2},
         "layers = 6 { repeat layers / 3 { swiglu() gelu_mlp() } } }"),
        ("layers = 12  every = 4 ", "repeat layers / every { repeat every - 1 { swiglu() } "
         "gelu_mlp() }", {"units": 8},
         "layers = 8 every = 4 { repeat layers / every "
         "{ repeat every - 1 { swiglu() } gelu_mlp() } } }"),
        # without repeats: a whole is repeated, what is written out is folded
        ("", PAIR, {"units": 6}, "{ repeat 3 { swiglu() gelu_mlp() } } }"),
        ("", PAIR, {"units": 1}, "{ swiglu() gelu_mlp() } }"),
        ("", f"{PAIR} {PAIR} {PAIR} {PAIR}", {"units": 4},
         "{ repeat 2 { swiglu() gelu_mlp() } } }"),
        ("", f"{PAIR} {PAIR} a: swiglu() gelu_mlp() shares * with b", {}, ""),
        # a loop keeps its applications
        ("", f"loop 3 {{ repeat 4 {{ {PAIR} }} }}", {"units": 4},
         "{ loop 3 { repeat 2 { swiglu() gelu_mlp() } } } }"),
        ("", f"repeat width / 4 {{ {PAIR} }}", {"width": 32},
         "{ repeat 4 { swiglu() gelu_mlp() } } }"),
    ],
)  # fmt: skip
def test_depth(settings: str, backbone: str, sizes: dict[str, int], expected: str) -> None:
    if not sizes:
        with pytest.raises(StarError):
            depth(settings, backbone, units=2)
        return
    assert depth(settings, backbone, **sizes) == expected


# --- width -------------------------------------------------------------------------------------

ATTENTION = """
operator attention(h: int, g: int = 4, c: int = 64, span: int = 512) {
    C = x |> dense(h * c) |> heads(h) |> rope
    B = x |> dense(g * c) |> heads(g) |> rope
    V = x |> dense(g * c) |> heads(g)
    T = low_rank(C, B) |> scale(1 / sqrt(c)) |> causal |> band(span) |> softmax
    y = T @ V |> merge |> dense(width)
}
operator recurrence(n: int, inner: int) {
    u = x |> dense(inner) |> conv(4)
    A = exp(-(u |> dense(8) |> heads(8) |> softplus))
    y = semi_separable(x |> dense(n), A, x |> dense(n)) @ (u |> heads(8)) |> merge |> dense(width)
}
model m {
    vocab = 1000  width = 768  context = 1024
    backbone { repeat 2 { attention(h = 12)  recurrence(n = 16, inner = 2 * 768) } }
}
"""


def test_roles_are_read_off_the_places_that_numbers_reach() -> None:
    program = parse(Source("program.star", ATTENTION))
    linked = link(program, PLAIN.limits)
    roles = Roles(lambda node: linked.operators)
    assert roles.of(linked.operators["attention"]) == {
        "h": Use.HEADS,
        "g": Use.HEADS,
        "c": Use.HEAD_SIZE,
        "span": Use.TOKENS,
    }
    assert roles.of(linked.operators["recurrence"]) == {"n": Use.STATE, "inner": Use.SIZE}


def test_numbers_follow_the_width() -> None:
    found = text(ATTENTION, width=256, context=256)
    assert "h: int, g: int = 1, c: int = 64, span: int = 128" in found
    assert "attention(h = 4)" in found
    assert "recurrence(n = 16, inner = 512)" in found
    assert "|> dense(3) |> heads(3)" in found or "|> dense(2) |> heads(2)" in found


def test_a_head_shrinks_where_not_even_one_is_left() -> None:
    settings = "heads = 8  groups = 2  channels = 128  hidden = 4096  rotated = 64"
    operators = (
        "operator a(heads: int, groups: int, channels: int, rotated: int) {\n"
        "    C = x |> dense(heads * channels) |> heads(heads) |> rope(dims = rotated)\n"
        "    B = x |> dense(groups * channels) |> heads(groups) |> rope(dims = rotated)\n"
        "    T = low_rank(C, B) |> causal |> softmax\n"
        "    y = T @ (x |> dense(groups * channels) |> heads(groups)) |> merge |> dense(width)\n"
        "}\n"
        "operator f(hidden: int) { y = x |> dense(hidden) |> relu |> dense(width) }\n"
    )
    units = "a(heads = heads, groups = groups, channels = channels, rotated = rotated)"
    program = (
        f"{operators} model m {{ vocab = 8  width = 1024  context = 64  {settings} "
        f"backbone {{ {units}  f(hidden = hidden) }} }}"
    )
    found = " ".join(text(program, width=64).split())
    assert "heads = 1 groups = 1 channels = 64 hidden = 256 rotated = 32" in found
    found = " ".join(text(program, width=512).split())
    assert "heads = 4 groups = 1 channels = 128 hidden = 2048 rotated = 64" in found


@pytest.mark.parametrize(
    ("width", "expected"),
    [
        (256, "heads = width / 64, groups = ceil(width / 256)"),
        (384, "heads = width / 64, groups = ceil(width / 256)"),
        (320, "heads = width / 64, groups = 1"),  # 2 would not divide 5
        (96, "heads = 2, groups = ceil(width / 256)"),
        (32, "heads = 1, groups = ceil(width / 256)"),
    ],
)
def test_expressions_stay_where_they_fit(width: int, expected: str) -> None:
    program = (
        "use std.attention.gqa model m { vocab = 8  width = 1024  context = 64  "
        "backbone { gqa(heads = width / 64, groups = ceil(width / 256)) } }"
    )
    assert expected in text(program, width=width)


def test_sizes_that_are_not_asked_for_keep_their_values() -> None:
    program = (
        "use std.channel.swiglu # why\n"
        "model m { width = 64  vocab = 2 * width  context = 16 * width  # long\n"
        "backbone { swiglu() } }"
    )
    found = text(program, width=128)
    assert "vocab = 128" in found
    assert "context = 1024" in found
    assert "# why" in found
    assert "# long" in found


def test_overrides_and_the_chosen_model_are_written_into_the_result() -> None:
    other = "model other { vocab = 8  width = 8  context = 8  backbone { swiglu() } }"
    program = MODEL.format("", PAIR) + other
    options = Options(model="m", overrides=(("context", "32"), ("position", "learned")))
    found = resize(Source("program.star", program), options, width=24)
    model = resolved(found)
    assert (model.name, model.width, model.context, model.position) == ("m", 24, 32, "learned")
    assert "other" not in found.text


def test_a_program_of_its_own_size_means_the_same() -> None:
    source = read_source(ROOT / "examples" / "latent_experts.star")
    found = resize(source, PLAIN, width=768, vocab=50_304)
    assert digest(resolved(found)) == digest(resolved(source))


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"width": 0}, "'width' must be at least 1, not 0."),
        ({"units": 2, "repeat": 2}, "both 'units' and 'repeat' say how deep it is."),
        ({"width": 7}, "'m' does not pass the checks with width = 7: "),
    ],
)
def test_what_cannot_be_is_refused(sizes: dict[str, int], message: str) -> None:
    program = (
        "operator f() { y = x |> heads(2) |> slice(0, width / 2) |> merge }\n"
        "model m { vocab = 8  width = 16  context = 8  backbone { f() } }"
    )
    with pytest.raises(StarError) as refused:
        text(program, **sizes)
    (diagnostic,) = refused.value.diagnostics
    assert diagnostic.code == "cannot-resize"
    assert diagnostic.message.startswith(message)


def test_faults_of_the_program_are_said_as_always() -> None:
    with pytest.raises(StarError) as refused:
        text(MODEL.format("", "swiglo()"), width=32)
    assert [d.code for d in refused.value.diagnostics] == ["unknown-name"]


@settings(max_examples=12, deadline=None)
@given(programs())
def test_random_programs_keep_their_width_at_another_depth_or_pass_at_another(program: str) -> None:
    source = Source("program.star", program)
    deeper = resize(source, PLAIN, units=6)
    assert count_units(deeper, PLAIN) >= 1
    check_program(deeper, PLAIN)
    try:
        wider = resize(source, PLAIN, width=2 * resolved(source).width)
    except StarError as failure:
        codes = [d.code for d in failure.diagnostics]
    else:
        check_program(wider, PLAIN)
        codes = []
    assert codes in ([], ["cannot-resize"])


# --- equal parameters --------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["transformer_pp", "striped_hyena"])
def test_fitted_parameters_are_exact_and_near(name: str) -> None:
    source = read_source(ROOT / "examples" / f"{name}.star")
    sizes = {"units": 8, "vocab": 256, "context": 128}
    found = fit_parameters(source, PLAIN, parameters=1_000_000, **sizes)
    assert found.parameters == cost_report(resolved(found.source)).parameters
    assert abs(found.parameters / 1_000_000 - 1) <= 0.02
    assert resolved(found.source).width == found.width
    units = fit_parameters(source, PLAIN, parameters=1_000_000, embedding=False, **sizes)
    assert abs(count_parameters(units.source, PLAIN, embedding=False) / 1_000_000 - 1) <= 0.02
    assert units.width > found.width


def test_no_width_is_small_enough() -> None:
    source = read_source(ROOT / "examples" / "mixtral.star")
    with pytest.raises(StarError) as refused:
        fit_parameters(source, PLAIN, parameters=100)
    assert refused.value.diagnostics[0].code == "cannot-resize"
