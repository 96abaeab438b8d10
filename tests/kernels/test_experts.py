"""Kernels of routed experts against float64: their bodies in PyTorch, in Triton, their dispatch."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from starc.compiler.driver import compile_program
from starc.compiler.kernel_experts import ExpertProducts
from starc.compiler.options import Options
from starc.grammar.errors import InternalError
from starc.grammar.source import Source
from starc.runtime.loader import load as load_file

DIGEST = "00112233445566778899"


def plan(**more: Any) -> ExpertProducts:
    sizes = {"experts": 3, "top": 2, "width": 48, "hidden": 40, "out": 48}
    return ExpertProducts(
        **{"digest": DIGEST, "activation": "silu", "gated": True, **sizes, **more}
    )


# Widths that are no multiple of any tile, nor of 16; one expert a token; biases.
GATED = plan()
BIASED = plan(top=1, activation="gelu_tanh", gated=False, bias=(True, True), width=64, out=64)
ODD = plan(experts=5, top=3, out=24, bias=(True, False), width=37, hidden=21, activation="gelu")
MANY = [
    GATED,
    BIASED,
    ODD,
    plan(experts=1, top=1, activation="relu2", gated=False, bias=(False, True)),
    plan(experts=20, top=6, hidden=16, width=160, out=160, activation="relu", gated=False),
]


def test_a_few_experts_agree_with_float64(run_script: Callable[..., Any]) -> None:
    arguments = ("experts.py", [GATED], "interpreted", "35", "float16", "")
    assert run_script(*arguments, TRITON_INTERPRET="1")["findings"] == []


@pytest.mark.kernels
def test_all_experts_agree_with_float64(run_script: Callable[..., Any]) -> None:
    """One token, and more than a tile of each expert."""
    names = ",".join(own.name for own in MANY[:3])
    dtypes = "float32,float16,bfloat16"
    arguments = ("experts.py", MANY, "interpreted", "1,131", dtypes, names)
    assert run_script(*arguments, TRITON_INTERPRET="1")["findings"] == []


@pytest.mark.gpu
def test_all_experts_agree_with_float64_on_a_gpu(run_script: Callable[..., Any]) -> None:
    names = ",".join(own.name for own in MANY)
    arguments = ("experts.py", MANY, "cuda", "1,131,5000", "float32,float16,bfloat16", names)
    assert run_script(*arguments)["findings"] == []


def operands(own: ExpertProducts, tokens: int) -> tuple[list[torch.Tensor], torch.Tensor]:
    """(x, gates and weights in float64, chosen experts)."""
    torch.manual_seed(0)
    shapes = [(own.first_width, own.width), (own.out, own.hidden)]
    shapes += [s for s, has in zip([shapes[0][:1], shapes[1][:1]], own.bias, strict=True) if has]
    found = [torch.randn(2, tokens, own.width), torch.rand(2, tokens, own.top)]
    found += [torch.randn(shape) for shape in shapes for _ in range(own.experts)]
    chosen = torch.rand(2, tokens, own.experts).topk(own.top).indices
    return [x.double().requires_grad_() for x in found], chosen


def as_defined(
    own: ExpertProducts, module: ModuleType, found: list[torch.Tensor], chosen: torch.Tensor
) -> torch.Tensor:
    """Every expert on every token, in the words of the body's nonlinearity."""
    x, gates, *weights = found
    e, results = own.experts, []
    for i in range(e):
        biases = weights[2 * e :]
        gate = torch.nn.functional.linear(x, weights[i], biases[i] if own.bias[0] else None)
        last = biases[i + e * own.bias[0]] if own.bias[1] else None
        value: Any = 1
        if own.gated:
            gate, value = gate.chunk(2, -1)
        activated = eval(own.function.torch, {"F": module.F, "torch": torch}, {"gate": gate})
        y = torch.nn.functional.linear(activated * value, weights[e + i], last)
        results.append((gates * (chosen == i)).sum(-1, keepdim=True) * y)
    return torch.stack(results).sum(0)


@pytest.mark.parametrize("own", MANY, ids=lambda own: own.name)
@pytest.mark.parametrize("tokens", [0, 9])
def test_bodies_have_the_right_gradients(
    load: Callable[..., ModuleType], own: ExpertProducts, tokens: int
) -> None:
    module = load([own])
    operator = getattr(getattr(torch.ops, own.namespace), own.name)
    found, chosen = operands(own, tokens)
    x, gates, *weights = found
    y = operator(x, gates, chosen, weights, True)[0]
    right = as_defined(own, module, found, chosen)
    torch.testing.assert_close(y, right)
    dy = torch.randn_like(y)
    for d, expected in zip(
        torch.autograd.grad(y, found, dy), torch.autograd.grad(right, found, dy), strict=True
    ):
        torch.testing.assert_close(d, expected)
    if tokens and own in (GATED, ODD):
        torch.library.opcheck(operator.default, (x, gates, chosen, weights, True))


PROGRAM = """
use std.channel.swiglu
model m {
    vocab = 8  width = 32  context = 8
    backbone { experts(swiglu(hidden = 16), n = 4, top = 2) }
}
"""


def test_a_graph_holds_one_operator(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.compile and torch.export of a model, with the operator where a GPU would have it: no
    sizes that depend on data, and not every expert on every token."""
    artifact = compile_program(Source("m.star", PROGRAM), Options())
    (own,) = (x for x in artifact.kernels if isinstance(x, ExpertProducts))
    module = load_file(artifact.text)
    torch.manual_seed(0)
    model = module.Model().double()
    tokens = torch.randint(8, (2, 7))
    right = model(tokens)
    right.sum().backward()
    expected = [p.grad for p in model.parameters()]
    model.zero_grad()
    monkeypatch.setattr(module, "runs_kernels", lambda x: True)
    graphs = []

    def backend(graph: Any, _: Any) -> Any:
        graphs.append(graph)
        return graph

    torch.testing.assert_close(torch.compile(model, backend=backend, fullgraph=True)(tokens), right)
    exported = torch.export.export(model, (tokens,))
    torch.testing.assert_close(exported.module()(tokens), right)
    for graph in (*graphs, exported.graph_module):
        called = [str(node.target) for node in graph.graph.nodes if node.op == "call_function"]
        assert sum(own.name in name for name in called) == 1, called
        assert not any("nonzero" in name or "stack" in name for name in called)
    torch._dynamo.reset()
    torch.compile(model, backend="aot_eager", fullgraph=True)(tokens).sum().backward()
    for p, d in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(p.grad, d)


def test_fake_tensors_go_through_the_operator(load: Callable[..., ModuleType]) -> None:
    own = plan(digest="a77e0718")
    module = load([own])
    with FakeTensorMode(), torch.no_grad():  # autograd wants a CUDA that is there
        x = torch.empty(2, 3, 48, device="cuda", dtype=torch.bfloat16)
        gates = torch.empty(2, 3, 2, device="cuda")
        chosen = torch.zeros(2, 3, 2, device="cuda", dtype=torch.int64)
        weights = [torch.empty(s, device="cuda") for s in ((80, 48), (48, 40)) for _ in range(3)]
        assert module.runs_kernels(x)
        operator = getattr(getattr(torch.ops, own.namespace), own.name)
        y, before, *_ = operator(x, gates, chosen, weights, True)
    assert (y.dtype, y.shape) == (torch.float32, (2, 3, 48))
    assert (before.dtype, before.shape) == (torch.bfloat16, (12, 80))


def test_tiles_are_as_many_as_any_routing_needs(load: Callable[..., ModuleType]) -> None:
    module = load([GATED])
    for counts in ([0, 0, 9], [3, 3, 3], [1, 1, 7], [0, 0, 0], [8, 0, 1], [1, 0, 1]):
        needed = sum(-(-n // 4) for n in counts)
        assert needed <= module.tiles_of(sum(counts), 3, 4) <= needed + 2
        chosen = torch.tensor([e for e in (2, 1, 0) for _ in range(counts[e])])
        order, bounds = module.sort_assignments(chosen, 3)
        assert chosen[order].tolist() == sorted(chosen.tolist())
        assert bounds.diff().tolist() == counts
        assert (bounds.dtype, bounds[0]) == (torch.int32, 0)


def test_weights_stay_where_they_are(load: Callable[..., ModuleType]) -> None:
    module = load([GATED])
    weights = [torch.randn(8, 16) for _ in range(3)]
    first, places = module.weights_of(weights, torch.float32, True)
    assert first is weights[0]
    at = [first.data_ptr() + 4 * int(place) for place in places]
    assert at == [w.data_ptr() for w in weights]
    assert module.weights_of(weights, torch.float32, True)[1] is places
    shifted = torch.randn(3 * 128 + 2)[1:-1].split(128)  # not 16 elements apart from the first
    odd = [weights[0], *(x.view(8, 16) for x in shifted[:2])]
    for given, dtype in ((weights, torch.bfloat16), (odd, torch.float32)):
        copies, places = module.weights_of(given, dtype, True)
        assert places.tolist() == [0, 128, 256]
        torch.testing.assert_close(copies[1], given[1].to(dtype), rtol=0, atol=0)


NOT_SERVED = """
operator two(g: feature) { y = (x |> dense(16)) * g |> dense(width) }
operator deep() { y = x |> dense(16) |> relu |> dense(16) |> relu |> dense(width) }
operator thin() { y = x |> dense(16, rank = 2) |> relu |> dense(width) }
operator odd() { y = x |> dense(16) |> sin |> dense(width) }
operator all() {
    g = x |> dense(16)
    y = (x |> experts(two(g = g), n = 4, top = 2)) + (x |> experts(CALL, n = 4, top = 2))
}
model m { vocab = 8  width = 32  context = 8  backbone { all() } }
"""


@pytest.mark.parametrize("call", ["deep()", "thin()", "odd()"])
def test_other_experts_stay_in_pytorch(call: str) -> None:
    artifact = compile_program(Source("m.star", NOT_SERVED.replace("CALL", call)), Options())
    assert not [x for x in artifact.kernels if isinstance(x, ExpertProducts)]
    assert "Experts(" in artifact.text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"activation": "sin"}, "no kernel knows"),
        ({"top": 4}, "4 of 3 experts"),
        ({"experts": 2000}, "2 of 2000 experts"),
    ],
)
def test_impossible_plans_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InternalError, match=message):
        plan(**change)


def test_bytes_are_counted() -> None:
    """At the sizes of Mixtral's example all but the second product move the least, which leaves
    the parts of two experts for each token to be summed."""
    own = plan(experts=8, width=512, hidden=1792, out=512)
    times = {w.kernel.rpartition("512_1792_")[2]: w.moved / w.least for w in own.work(1, 4096, 2)}
    assert times.pop("outputs") < 1.18
    assert times.pop("d_inputs") < 1.15
    assert all(ratio < 1.03 for ratio in times.values()), times
