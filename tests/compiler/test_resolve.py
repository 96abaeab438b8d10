"""What the resolver makes of programs: numbers, types, operators, places, sharing."""

from __future__ import annotations

import math
import re
from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from starc.compiler import numbers
from starc.compiler.arguments import MAX_SIZE, size_of
from starc.compiler.calls import Surroundings
from starc.compiler.driver import check_program, resolve_source
from starc.compiler.instance import Request, instantiate
from starc.compiler.ir import (
    FeatureRef,
    Loop,
    Model,
    Operator,
    Parallel,
    Repeat,
    Unit,
    Value,
    units,
)
from starc.compiler.options import Limits, Options
from starc.compiler.passes.share import share
from starc.compiler.types import Constant, Feature, Filter, Mixer, Problem, Transition
from starc.grammar import nodes
from starc.grammar.errors import StarError
from starc.grammar.parser import parse
from starc.grammar.source import Source, Span

ROOT = Path(__file__).parents[2]
SIZES = "vocab = 256  width = 96  context = 64"


def resolve(text: str, options: Options | None = None) -> Model:
    model, _ = resolve_source(Source("program.star", text), options or Options())
    return model


def operator(body: str, parameters: str = "", call: str = "op()") -> Operator:
    (found,) = resolve(
        f"operator op({parameters}) {{ {body} }} model m {{ {SIZES} backbone {{ {call} }} }}"
    ).operators
    return found


def backbone(text: str, settings_: str = SIZES) -> Model:
    ops = """
        operator attn(groups: int = 2) {
            C = x |> dense(width) |> heads(4)
            B = x |> dense(groups * 24) |> heads(groups)
            V = x |> dense(groups * 24) |> heads(groups)
            y = (low_rank(C, B) |> causal |> softmax) @ V |> merge |> dense(width)
        }
        operator mlp(hidden: int = 4 * width) {
            C = x |> dense(hidden) |> silu
            V = x |> dense(hidden)
            y = C * V |> dense(width)
        }
        operator deep() { y = x |> scale(1 / (layer + 1)) }
        operator reader(f: feature = 1/2, g: feature = 2) { y = f * g * x }
    """
    return resolve(f"{ops} model m {{ {settings_} backbone {{ {text} }} }}")


def paths(model: Model) -> list[str]:
    return [unit.path for unit in units(model.layers)]


# --- numbers -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("8/3 * 768", 2048),
        ("multiple(8/3 * 96, 64)", 256),
        ("1e3 / 3 * 3", 1000),
        ("2 + 3 * 4 - 6 / 2", 11),
        ("-(2 - 5) * 50_0", 1500),
        ("sqrt(9/4) * 2", 3),
        ("power(2, 10)", 1024),
        ("power(1/2, -3)", 8),
        ("floor(7/2) + ceil(7/2)", 7),
        ("min(width, context, 5) + max(1, 2)", 7),
        ("0.1 + 0.2 - 0.3 + 1", 1),
        ("mod(7, 4) + mod(-1, 4) + equal(1/2, 2/4) + less(2, 2)", 7),
        ("where(equal(mod(5, 2), 1), 3, 1/0.5)", 3),
        ("log(exp(3)) + sin(0) + cos(0) - tanh(0) - abs(-1)", 3),
    ],
)
def test_arithmetic_is_exact(expression: str, value: int) -> None:
    op = operator(f"y = x |> scale({expression})")
    scale = next(v.attribute("s") for v in op.values if v.op == "scale")
    assert scale == value
    assert isinstance(scale, Fraction) == ("exp" not in expression)


@given(st.fractions(), st.fractions(), st.sampled_from("+-*/"))
def test_arithmetic_of_rationals_is_that_of_python(a: Fraction, b: Fraction, sign: str) -> None:
    if sign == "/" and b == 0:
        with pytest.raises(Problem, match="division by zero"):
            numbers.arithmetic(sign, a, b)
        return
    expected = {"+": a + b, "-": a - b, "*": a * b}[sign] if sign != "/" else a / b
    assert numbers.arithmetic(sign, a, b) == expected


@given(
    st.sampled_from(sorted(numbers.FUNCTIONS)),
    st.lists(st.fractions() | st.floats(-1e308, 1e308), max_size=3),
)
def test_functions_give_a_finite_number_or_a_problem(
    name: str, arguments: list[Fraction | float]
) -> None:
    try:
        value = numbers.call(name, arguments)
    except Problem:
        return
    assert isinstance(value, Fraction | float)
    assert math.isfinite(value)


def test_sizes_are_whole_and_bounded() -> None:
    span = Span(Source("program.star", "n"), 0, 1)
    assert size_of(Fraction(6, 2), "n", span) == 3
    assert size_of(3.0, "n", span) == 3
    for wrong in (Fraction(1, 2), Fraction(0), Fraction(MAX_SIZE + 1), 2.5, Fraction(-1)):
        with pytest.raises(StarError):
            size_of(wrong, "n", span)


# --- types -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expression", "type_"),
    [
        ("x", Feature(1, 96)),
        ("x |> dense(48)", Feature(1, 48)),
        ("x |> heads(8)", Feature(8, 12)),
        ("x |> heads(8) |> headwise(5)", Feature(8, 5)),
        ("x |> heads(8) |> merge", Feature(1, 96)),
        ("x |> heads(8) |> repeat(3)", Feature(24, 12)),
        ("x |> heads(8) |> slice(2, 5)", Feature(8, 3)),
        ("concat(x |> heads(8), param(8, 3))", Feature(8, 15)),
        ("concat(param(1, 2), param(1, 3))", Constant(1, 5)),
        ("x |> conv(4) |> shift |> silu |> rmsnorm |> gain |> softmax", Feature(1, 96)),
        ("(x |> heads(8)) * param(8, 1) + param(1, 12)", Feature(8, 12)),
        ("param(8, 1) * param(1, 12)", Constant(8, 12)),
        ("x * (x |> dense(1)) / 3", Feature(1, 96)),
        ("explicit(96, 3)", Filter(96, 3)),
        ("implicit(8)", Filter(8, None)),
        ("diagonal(x |> heads(8))", Mixer(8, 12, causal=True)),
        ("low_rank(x |> heads(8), x |> heads(8))", Mixer(8)),
        ("low_rank(x |> heads(8), x |> slice(0, 24) |> heads(2)) |> causal", Mixer(8, causal=True)),
        ("low_rank(x, x) |> causal |> softmax", Mixer(1, causal=True, linear=False)),
        ("semi_separable(x, 0.9, x)", Mixer(1, causal=True)),
        ("householder(x |> heads(8), x |> dense(2) |> heads(2))", Transition(8, 12)),
        ("dplr(0.9, x, x)", Transition(1, 96)),
        ("x @ householder(x, 1)", Transition(1, 96)),
        ("-2 * householder(x |> heads(8), 1) / 3", Transition(8, 12)),
        ("semi_separable(x, householder(x, 1), x, read = before)", Mixer(1, causal=True)),
        ("x |> heads(8) |> sum", Feature(8, 1)),
        ("toeplitz(explicit(96, 3))", Mixer(96, flat=True, causal=True)),
        ("toeplitz(explicit(96, 3)) @ diagonal(x)", Mixer(1, 96, causal=True)),
        ("(low_rank(x, x) |> causal) - diagonal(x)", Mixer(1, 96, causal=True)),
        ("x * (low_rank(x, x) |> causal)", Mixer(1, 96, causal=True)),
        (
            "(low_rank(x |> heads(8), x |> heads(8)) |> causal) @ (x |> dense(8) |> heads(2))",
            Feature(8, 4),
        ),
        ("diagonal(2) @ x", Feature(1, 96)),
        ("toeplitz(explicit(8, 3)) @ (x |> heads(8))", Feature(8, 12)),
    ],
)
def test_type_of(expression: str, type_: object) -> None:
    found = next(v.type for v in resolve_all(f"a = {expression}  y = x") if v.name == "a")
    assert found == type_


def resolve_all(body: str) -> tuple[Value, ...]:
    """All values of an operator, also those that y does not need."""
    (node,) = parse(Source("program.star", f"operator op() {{ {body} }}")).declarations
    assert isinstance(node, nodes.Operator)
    scope = {"width": Fraction(96), "context": Fraction(64)}
    around = Surroundings(scope, {}, node.span.source, Limits(), lambda warning: None)
    return instantiate(Request(node, {}, {}), around).values


# --- operators ---------------------------------------------------------------------------------


def test_what_y_does_not_need_is_not_kept() -> None:
    op = operator("unused = x |> dense(3)  y = x |> silu")
    assert [v.op for v in op.values] == ["input", "silu"]
    assert op.parameters == ()


def test_parameters_are_named_after_bindings_and_stages() -> None:
    op = operator("""
        C = x |> dense(width, bias = true)
        B = x |> dense(width) |> conv(3) |> rmsnorm
        V = x |> dense(width, rank = 4)
        g = param(1, width, init = -normal(1))
        y = C * B * V * g |> gain |> dense(width)
    """)
    assert [(p.name, p.shape) for p in op.parameters] == [
        ("C.weight", (96, 96)),
        ("C.bias", (96,)),
        ("B_dense.weight", (96, 96)),
        ("B_conv.weight", (96, 3)),
        ("B_rmsnorm.weight", (96,)),
        ("V.down.weight", (4, 96)),
        ("V.up.weight", (96, 4)),
        ("g", (96,)),
        ("y_gain", (96,)),
        ("y_dense.weight", (96, 96)),
    ]
    assert op.parameter("g").init == ("negate", ("normal", 1.0))


def test_names_that_python_needs_are_kept_apart() -> None:
    model = resolve(
        "operator class() { type = x |> dense(width)  type_ = type |> dense(width)  y = type_ }"
        f"model m {{ {SIZES} backbone {{ class()  head: class()  if: class() }} }}"
    )
    assert paths(model) == ["class_", "head_2", "if_"]
    assert [p.name for p in model.operators[0].parameters] == ["type_.weight", "type__2.weight"]


def test_calls_that_mean_the_same_are_one_operator() -> None:
    model = backbone("mlp()  mlp(hidden = 384)  mlp(4 * width)  mlp(hidden = 64)")
    assert [u.operator for u in units(model.layers)] == ["mlp", "mlp", "mlp", "mlp_2"]
    assert model.operators[0].arguments == (("hidden", 384),)


def test_operators_that_read_the_layer_differ_by_layer() -> None:
    model = backbone("deep()  repeat 2 { mlp()  deep() }")
    scales = {o.name: o.values[1].attribute("s") for o in model.operators if o.name != "mlp"}
    assert scales == {"deep": 1, "deep_2": Fraction(1, 3), "deep_3": Fraction(1, 5)}


def test_documentation_reaches_the_ir() -> None:
    model = resolve(
        'operator op() { "What it does." y = x } model m { "What it is." '
        + SIZES
        + " backbone { op() } }"
    )
    assert (model.doc, model.operators[0].doc) == ("What it is.", "What it does.")


# --- backbone ----------------------------------------------------------------------------------


def test_paths_follow_labels_operators_and_iterations() -> None:
    model = backbone(
        "a: mlp()  mlp()  mlp()  repeat 2 { mlp()  repeat 2 { b: mlp() } }  repeat 1 { mlp() }"
    )
    assert paths(model) == [
        "a",
        "mlp",
        "mlp_2",
        "blocks.0.mlp",
        "blocks.0.blocks.0.b",
        "blocks.0.blocks.1.b",
        "blocks.1.mlp",
        "blocks.1.blocks.0.b",
        "blocks.1.blocks.1.b",
        "blocks_2.0.mlp",
    ]
    assert [u.layer for u in units(model.layers)] == list(range(10))
    assert model.depth == 10


def test_repeats_count_by_any_number_and_may_vanish() -> None:
    model = backbone("mlp()  repeat 0 { attn() }  repeat width / 48 { repeat 0 { mlp() }  attn() }")
    assert [type(layer) for layer in model.layers] == [Unit, Repeat]
    assert paths(model) == ["mlp", "blocks_2.0.attn", "blocks_2.1.attn"]


def test_a_loop_has_one_set_of_units_and_labels_of_its_own() -> None:
    model = backbone("a: attn()  loop 3 { attn() reuses V from a  b: mlp() }  loop 2 { b: mlp() }")
    assert paths(model) == ["a", "loop.attn", "loop.b", "loop_2.b"]
    assert [layer.times for layer in model.layers if isinstance(layer, Loop)] == [3, 2]
    assert [u.layer for u in units(model.layers)] == [0, 1, 2, 3]
    scaled = next(p for p in model.operators[0].parameters if p.name == "y.weight")
    assert scaled.init == ("normal", (4 * 24) ** -0.5 * (1 + 3 * 2 + 2) ** -0.5)


def test_parallel_has_the_residual_and_its_branches_have_none() -> None:
    model = backbone(
        "p: parallel(difference) { mlp()  attn() with residual = post(l2norm) }"
        "parallel(mean) { repeat 2 { mlp() }  mlp() } with residual = none"
    )
    first, second = model.layers
    assert isinstance(first, Parallel)
    assert isinstance(second, Parallel)
    assert (first.path, first.mode, first.residual.scheme) == ("p", "difference", "pre")
    schemes = [u.residual.scheme for u in units(first.branches)]
    assert schemes == ["none", "post"]
    assert (second.mode, second.residual.scheme) == ("mean", "none")
    assert len(second.branches) == 2


def test_settings() -> None:
    model = backbone(
        "mlp()",
        "vocab = 9 width = 96 context = 2 * width position = learned final_norm = none "
        "residual = sandwich(rmsnorm, l2norm) head = linear(softcap = 30) "
        "embedding = tied(scale = sqrt(width / 6), norm = layernorm)",
    )
    assert (model.vocab, model.width, model.context) == (9, 96, 192)
    assert (model.embedding.tied, model.embedding.scale) == (True, 4.0)
    assert model.embedding.norm is not None
    assert (model.head.softcap, model.head.bias, model.head.scale) == (30.0, False, 1.0)
    assert (model.position, model.final_norm) == ("learned", None)
    (unit,) = units(model.layers)
    assert [(name, norm.op) for name, norm in unit.residual.norms] == [
        ("norm", "rmsnorm"),
        ("post_norm", "l2norm"),
    ]


@pytest.mark.parametrize(
    ("residual", "final"),
    [
        ("", "rmsnorm"),
        ("residual = pre(layernorm)", "layernorm"),
        ("residual = post(rmsnorm)", None),
    ],
)
def test_the_final_norm_follows_the_residual(residual: str, final: str | None) -> None:
    norm = backbone("mlp()", f"{SIZES} {residual}").final_norm
    assert (norm and norm.op) == final


def test_overrides_replace_settings_and_what_follows_from_them() -> None:
    sizes = "vocab = 8 width = 64 context = 2 * width"
    text = f"operator op() {{ y = x |> dense(width) }} model m {{ {sizes} backbone {{ op() }} }}"
    options = Options(overrides=(("width", "8 * 4"), ("position", "learned"), ("vocab", "9")))
    model = resolve(text, options)
    assert (model.vocab, model.width, model.context, model.position) == (9, 32, 64, "learned")


# --- sharing -----------------------------------------------------------------------------------


def test_reused_features_become_inputs_and_lose_their_weights() -> None:
    model = backbone("a: attn()  attn() reuses B, V from a")
    first, second = units(model.layers)
    assert second.inputs == (("B", FeatureRef("a", "B")), ("V", FeatureRef("a", "V")))
    giver, taker = model.operator(first.operator), model.operator(second.operator)
    assert [name for name, _ in giver.outputs] == ["y", "B", "V"]
    assert [name for name, _ in taker.inputs] == ["x", "B", "V"]
    assert [p.name for p in taker.parameters] == ["C.weight", "y.weight"]


def test_reuse_of_all_features() -> None:
    _, second = units(backbone("a: attn()  attn() reuses * from a").layers)
    assert [name for name, _ in second.inputs] == ["B", "C", "V"]


def test_labels_in_a_repeat_are_those_of_the_iteration() -> None:
    model = backbone(
        "o: attn()  repeat 2 { i: attn()  attn() reuses V from i  attn() reuses V from o }"
    )
    read = [u.inputs[0][1].unit for u in units(model.layers) if u.inputs]
    assert read == ["blocks.0.i", "o", "blocks.1.i", "o"]


def test_feature_arguments() -> None:
    model = backbone("a: mlp(hidden = 96)  reader(f = a.V)  reader(a.C, g = 3)  reader()")
    inputs = [u.inputs for u in units(model.layers)]
    assert inputs == [
        (),
        (("f", FeatureRef("a", "V")),),
        (("f", FeatureRef("a", "C")),),
        (),
    ]
    assert len({u.operator for u in units(model.layers)}) == 4


def test_except_leaves_a_binding_its_own_weights() -> None:
    model = share(backbone("a: mlp()  b: mlp() shares y except V with a"))
    _, b = units(model.layers)
    tied = {tie.parameter for tie in b.ties}
    every = {p.name for o in model.operators if o.name == b.operator for p in o.parameters}
    assert tied == {name for name in every if not name.startswith("V")}
    assert tied < every


def test_shares_tie_to_the_unit_that_owns_the_weights() -> None:
    model = share(backbone("a: mlp()  b: mlp() shares V with a  c: mlp() shares * with b"))
    ties = {u.name: {t.parameter: t.unit for t in u.ties} for u in units(model.layers)}
    assert ties == {
        "a": {},
        "b": {"V.weight": "a"},
        "c": {"C.weight": "b", "V.weight": "a", "y.weight": "b"},
    }


def test_shared_names_cover_all_weights_on_the_way_from_x() -> None:
    model = resolve(
        "operator op() { c = x |> dense(8)  V = c |> dense(width)  y = V |> dense(width) }"
        f"model m {{ {SIZES} backbone {{ a: op()  op() shares V with a }} }}"
    )
    _, second = units(share(model).layers)
    assert sorted(t.parameter for t in second.ties) == ["V.weight", "c.weight"]


# --- never a traceback -------------------------------------------------------------------------

TOKEN = re.compile(r'#[^\n]*|"[^"\n]*"|\|>|\.\.|[A-Za-z_]\w*|\d[\d_]*(?:\.\d+)?|\s+|.')
PROGRAMS = [
    TOKEN.findall(path.read_text(encoding="utf-8"))
    for path in sorted((ROOT / "examples").rglob("*.star"))
]
KEYWORDS = frozenset(
    "use operator model backbone repeat loop parallel shares reuses with from except".split()
)
ODD = "0 1 2 7 1e39 1e-300 2147483647 x y e index width layer causal softmax none true a0".split()


def kind(token: str) -> str:
    """Tokens that may stand in each other's place without upsetting the parser."""
    if token in KEYWORDS or not re.match(r"[\w+\-*/@]", token):
        return token
    return "number" if token[0].isdigit() else "sign" if token in "+-*/@" else "name"


POOL: dict[str, list[str]] = {}
for _token in sorted({t for program in PROGRAMS for t in program if not t.isspace()} | {*ODD}):
    POOL.setdefault(kind(_token), []).append(_token)


@given(st.data())
@settings(max_examples=250, deadline=None)
def test_no_text_makes_the_compiler_fail(data: st.DataObject) -> None:
    """Programs with some names, numbers and signs replaced by others are fine or refused."""
    tokens = list(data.draw(st.sampled_from(PROGRAMS)))
    places = [i for i, t in enumerate(tokens) if len(POOL.get(kind(t), ())) > 1 and t[0] != "#"]
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.sampled_from(places))
        tokens[place] = data.draw(st.sampled_from(POOL[kind(tokens[place])]))
    options = Options(limits=Limits(units=100))
    with suppress(StarError):
        check_program(Source("examples/program.star", "".join(tokens)), options)
