"""Names, shapes and order of every tensor of a model."""

from __future__ import annotations

from dataclasses import replace

import pytest

from starc.compiler.cost import cost_report
from starc.compiler.driver import resolve_source
from starc.compiler.inventory import model_parameters, tied, unfused_names
from starc.compiler.ir import Model, Parameter
from starc.compiler.options import Options
from starc.compiler.passes.share import share
from starc.grammar.source import Source

TEXT = """
operator mix(heads: int) {
    C = x |> dense(width) |> heads(heads)
    B = x |> dense(width) |> conv(3, bias = true) |> heads(heads)
    V = x |> dense(width) |> heads(heads)
    T = low_rank(C, B) |> causal |> softmax
    y = param(1, width) * (T @ V |> layernorm |> merge) |> dense(width, rank = 2)
}
operator gate() { K = explicit(width, 3)   y = toeplitz(K) @ x }
model m {
    vocab = 10   width = 8   context = 12
    residual = pre(rmsnorm)
    SETTINGS
    backbone { BACKBONE }
}
"""


def resolved(backbone: str, settings: str = "") -> Model:
    text = TEXT.replace("BACKBONE", backbone).replace("SETTINGS", settings)
    return resolve_source(Source("test.star", text), Options())[0]


def shapes(model: Model) -> dict[str, tuple[int, ...]]:
    return {name: parameter.shape for name, parameter in model_parameters(model).items()}


def test_every_tensor_of_a_small_model() -> None:
    model = resolved(
        "repeat 2 { a: mix(heads = 2) with residual = sandwich(layernorm)  gate() }",
        "position = learned  head = linear(bias = true)",
    )
    block = {
        "a_norm.weight": (8,),
        "a_norm.bias": (8,),
        "a_post_norm.weight": (8,),
        "a_post_norm.bias": (8,),
        "a.C.weight": (8, 8),
        "a.B_dense.weight": (8, 8),
        "a.B_conv.weight": (8, 3),
        "a.B_conv.bias": (8,),
        "a.V.weight": (8, 8),
        "a.y_param": (8,),
        "a.y_layernorm.weight": (4,),
        "a.y_layernorm.bias": (4,),
        "a.y_dense.down.weight": (2, 8),
        "a.y_dense.up.weight": (8, 2),
        "gate_norm.weight": (8,),
        "gate.K": (8, 3),
    }
    found = shapes(model)
    wanted = {"embedding.weight": (10, 8), "position.weight": (12, 8)}
    for i in (0, 1):
        wanted.update({f"blocks.{i}.{name}": shape for name, shape in block.items()})
    wanted.update({"final_norm.weight": (8,), "head.weight": (10, 8), "head.bias": (10,)})
    assert found == wanted
    assert list(found)[:2] == ["embedding.weight", "position.weight"]
    assert list(found)[-3:] == ["final_norm.weight", "head.weight", "head.bias"]
    norm, own = (list(found).index(f"blocks.1.a{end}") for end in ("_norm.weight", ".C.weight"))
    assert norm < own


def test_parallel_owns_its_norm() -> None:
    found = shapes(resolved("parallel(sum) { gate() gate() }"))
    assert [n for n in found if "norm" in n or "gate" in n] == [
        "parallel_norm.weight",
        "gate.K",
        "gate_2.K",
        "final_norm.weight",
    ]


def test_tied_weights_have_one_name() -> None:
    model = resolved(
        "a: mix(heads = 2)  b: mix(heads = 2) shares B, V with a  mix(heads = 2) shares * with b",
        "embedding = tied",
    )
    sources = tied(model)
    assert "head.weight" not in shapes(model)
    assert sources.pop("head.weight") == "embedding.weight"
    assert sources["b.B_conv.bias"] == "a.B_conv.bias"
    assert sources["mix.V.weight"] == "a.V.weight"
    assert sources["mix.C.weight"] == "b.C.weight"
    assert "b.C.weight" in shapes(model)
    assert not sources.keys() & shapes(model).keys()
    assert set(sources.values()) <= shapes(model).keys()
    # The pass that turns the text of `shares` into ties changes none of it.
    after = share(model)
    assert shapes(after) == shapes(model)
    assert tied(after) == tied(model)


@pytest.mark.parametrize(
    ("backbone", "settings"),
    [
        ("mix(heads = 2) gate()", ""),
        (
            "a: mix(heads = 2) repeat 3 { mix(heads = 4) shares C with a  gate() }",
            "embedding = tied",
        ),
        ("parallel(mean) { mix(heads = 2) gate() } with residual = sandwich(layernorm)", ""),
        ("a: mix(heads = 2) mix(heads = 2) reuses B, V from a", "head = linear(bias = true)"),
        ("gate() with residual = post(rmsnorm)", "final_norm = none  position = learned"),
        ("gate()", "embedding = untied(norm = layernorm)"),
    ],
)
def test_cost_counts_what_the_inventory_lists(backbone: str, settings: str) -> None:
    model = resolved(backbone, settings)
    listed = sum(p.size for p in model_parameters(model).values() if p.learned)
    assert cost_report(model).parameters == listed


def test_buffers_are_listed_but_not_counted() -> None:
    text = """operator f() { y = x * param(1, width, init = 1, learned = false) }
    model m { vocab = 10 width = 8 context = 4 residual = none  backbone { f() } }"""
    model = resolve_source(Source("test.star", text), Options())[0]
    buffers = [n for n, p in model_parameters(model).items() if not p.learned]
    assert len(buffers) == 1
    assert cost_report(model).units[0].parameters == 0


def test_stacked_parameters_name_their_parts() -> None:
    model = resolved("repeat 2 { gate() }")
    (operator,) = model.operators
    stacked = Parameter("K", (8, 3), ("zeros",), parts=(("K_a", 5), ("K_b", 3)))
    fused = replace(model, operators=(replace(operator, parameters=(stacked,)),))
    assert unfused_names(model) == {}
    assert unfused_names(fused) == {
        f"blocks.{i}.gate.K": ((f"blocks.{i}.gate.K_a", 5), (f"blocks.{i}.gate.K_b", 3))
        for i in (0, 1)
    }
