"""How units are put together: loops, streams, residual schemes and read-outs.

Generated modules beside the oracle, and both beside loops written out here from the papers.
"""

from __future__ import annotations

import pytest
import torch

from starc.compiler.cost import cost_report
from starc.compiler.inventory import model_parameters
from starc.runtime.reference import evaluate, random_parameters
from tests.numerics.agreement import Compiled, build, check_agreement
from tests.numerics.decoding import check_decoding

UNITS = """
operator f() { u = x |> dense(6) |> tanh  w = u |> dense(4)  y = concat(u, w) |> dense(width) }
operator g() { y = x |> conv(3) |> silu }
operator a() {
    C = x |> dense(width) |> heads(2)  B = x |> dense(width) |> heads(2)
    V = x |> dense(width) |> heads(2)
    y = (low_rank(C, B) |> causal |> softmax) @ V |> merge |> dense(width)
}
operator add(first: feature) { y = x + first |> dense(width) }
"""


def program(backbone: str, settings: str = "") -> str:
    return (
        f"{UNITS} model m {{ vocab = 13  width = 8  context = 41 {settings}"
        f" backbone {{ {backbone} }} }}"
    )


def oracle(compiled: Compiled, parameters: dict[str, torch.Tensor], length: int) -> torch.Tensor:
    return evaluate(compiled.model, parameters, compiled.tokens(length))


# --- loops ---------------------------------------------------------------------------------------


def test_a_loop_is_as_deep_as_one_asks_at_run_time() -> None:
    text = program("f() loop 2 { a() g() } f()")
    deeper = build(text.replace("loop 2", "loop 5"))
    check_agreement(deeper, (1, 37))
    parameters = random_parameters(deeper.model, 0)
    network = build(text).network(parameters, torch.float64)
    network.loop.times = 5
    torch.testing.assert_close(network(deeper.tokens(7)), oracle(deeper, parameters, 7))


def test_weights_of_a_loop_count_once_and_its_work_every_time() -> None:
    once, thrice = (build(program(f"loop {n} {{ a() g() }}")).model for n in (1, 3))
    assert list(model_parameters(once)) == list(model_parameters(thrice))
    one, three = cost_report(once), cost_report(thrice)
    head = one.head.flops_forward
    assert one.parameters == three.parameters
    assert three.flops_forward - head == 3 * (one.flops_forward - head)
    assert three.state_elements == 3 * one.state_elements
    assert thrice.depth == 2


@pytest.mark.parametrize("times", [1, 4])
def test_a_loop_is_its_body_written_out_with_shared_weights(times: int) -> None:
    looped = build(program(f"loop {times} {{ a: a() g: g() }}"))
    copies = [f"a{i}: a() shares * with a0 g{i}: g() shares * with g0" for i in range(1, times)]
    unrolled = build(program(f"a0: a() g0: g() {' '.join(copies)}"))
    own = random_parameters(looped.model, 3)
    parameters = {}
    for name in model_parameters(unrolled.model):
        label, _, rest = name.partition("_norm")
        parameters[name] = own.get(
            name,
            own.get(f"loop.{label[0]}_norm{rest}" if rest else f"loop.{name.replace('0', '', 1)}"),
        )
    wanted = oracle(looped, own, 9)
    torch.testing.assert_close(oracle(unrolled, parameters, 9), wanted)


# --- several streams, averages and read-outs along depth ----------------------------------------


def test_streams_averages_and_readouts_agree_with_the_oracle() -> None:
    backbone = (
        "s: a() p: parallel(sum) { f() q: g() } {} loop 2 { add(p) f() } repeat 2 { g() add(s) }"
    )
    for settings, extra in {
        "residual = weighted(pre, block = 2, dilation = 2)  readout = weighted(every = 4)": "f()",
        "residual = weighted(scaled(rmsnorm, 0.3), period = 2)  readout = attend(heads = 2)": "a()",
        "residual = weighted(x + f(x), block = 4)  final_norm = layernorm": "f()",
    }.items():
        check_agreement(build(program(backbone.replace("{}", extra), settings)), (1, 6))


def test_hyper_connections_agree_with_the_oracle() -> None:
    backbone = (
        "s: a() p: parallel(sum) { f() g() with residual = pre } "
        "loop 2 { join(p) f() with residual = hyper(3) } repeat 2 { g() join(s) }"
    )
    join = "operator join(first: feature) { y = concat(x, first |> merge) |> dense(width) } "
    for scheme in ("hyper(3)", "hyper(3, dynamic = true, norm = layernorm(bias = false))"):
        text = join + program(backbone, f"residual = {scheme}").replace(
            "with residual = hyper(3)", "with residual = hyper(3, dynamic = true)"
        )
        check_agreement(build(text), (1, 6))


def rms(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return x * (x.square().mean(-1, keepdim=True) + 1e-6).rsqrt() * weight


def feed_forward(p: dict[str, torch.Tensor], name: str, x: torch.Tensor) -> torch.Tensor:
    """The unit `silu(x W') V'` under that name."""
    hidden = torch.nn.functional.silu(x @ p[f"{name}.u.weight"].T)
    return hidden @ p[f"{name}.y.weight"].T


FEED = "operator ff() { u = x |> dense(12) |> silu  y = u |> dense(width) }"


def network_of(compiled: Compiled) -> tuple[torch.nn.Module, dict[str, torch.Tensor]]:
    parameters = random_parameters(compiled.model, 5)
    return compiled.network(parameters, torch.float64), parameters


@pytest.mark.parametrize("dynamic", ["false", "true"])
def test_hyper_connections_are_those_of_the_paper(dynamic: str) -> None:
    """Algorithm 2 of arXiv 2409.19606, its width and depth connections written out."""
    settings = f"residual = hyper(4, dynamic = {dynamic}, norm = rmsnorm)"
    compiled = build(program("f1: ff() f2: ff() f3: ff()", settings).replace(UNITS, FEED))
    network, p = network_of(compiled)
    tokens = compiled.tokens(9)
    h = p["embedding.weight"][tokens].unsqueeze(2).repeat(1, 1, 4, 1)  # (B, L, N, D)
    for name in ("f1", "f2", "f3"):
        alpha, beta = p[f"{name}_hyper.alpha"], p[f"{name}_hyper.beta"]
        if dynamic == "true":
            norm_h = rms(h, p[f"{name}_hyper.norm.weight"])
            wc = torch.tanh(norm_h @ p[f"{name}_hyper.alpha_map"].T)
            alpha = wc * p[f"{name}_hyper.alpha_scale"] + alpha[None, None]
            dc = torch.tanh(norm_h @ p[f"{name}_hyper.beta_map"][0])
            beta = dc * p[f"{name}_hyper.beta_scale"] + beta[None, None]
        mix_h = alpha.transpose(-1, -2) @ h  # (B, L, N + 1, D)
        h_o = feed_forward(p, name, rms(mix_h[..., 0, :], p[f"{name}_norm.weight"]))
        weights = beta.expand(*h.shape[:3])
        h = torch.einsum("blh,bln->blnh", h_o, weights) + mix_h[..., 1:, :]
    logits = rms(h.sum(2), p["final_norm.weight"]) @ p["head.weight"].T
    torch.testing.assert_close(network(tokens), logits)


def test_hyper_connections_begin_as_pre_norm_residuals() -> None:
    """With the paper's initial values every stream is the stream of pre(norm), times their number
    at the end, which the final norm takes away."""
    hyper = build(program("ff() ff() ff()", "residual = hyper(2)").replace(UNITS, FEED))
    plain = build(program("ff() ff() ff()").replace(UNITS, FEED))
    torch.manual_seed(0)
    first, second = hyper.module.Model().double(), plain.module.Model().double()
    second.load_state_dict({k: v for k, v in first.state_dict().items() if "hyper" not in k})
    tokens = plain.tokens(9)
    torch.testing.assert_close(first(tokens), second(tokens), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("dilation", "period"), [(1, 1), (2, 1), (3, 2)])
def test_denseformer_is_that_of_the_paper(dilation: int, period: int) -> None:
    """Y_i = sum_j alpha_ij X_j, X_i = B_i(Y_(i-1)): arXiv 2402.02622, section 3."""
    scheme = f"weighted(pre, block = 2, dilation = {dilation}, period = {period})"
    text = program("repeat 6 { f1: ff() f2: ff() }", f"residual = {scheme}").replace(UNITS, FEED)
    compiled = build(text)
    network, p = network_of(compiled)
    tokens = compiled.tokens(9)
    y = p["embedding.weight"][tokens]
    xs = [y]
    for i in range(1, 7):
        x = y
        for unit in ("f1", "f2"):
            name = f"blocks.{i - 1}.{unit}"
            x = x + feed_forward(p, name, rms(x, p[f"{name}_norm.weight"]))
        xs.append(x)
        y = x
        if i % period == 0:
            a = list(p[f"average.weights.{i // period - 1}"])
            y = sum(a.pop() * xs[j] for j in range(i, -1, -dilation))
            assert not a
    logits = rms(y, p["final_norm.weight"]) @ p["head.weight"].T
    torch.testing.assert_close(network(tokens), logits)


# --- ties to a transpose, initial values, precision, checkpoints ----------------------------------


def test_a_transposed_weight_gets_the_gradient_of_both_uses() -> None:
    operator = "operator ae() { h = x |> dense(5) |> tanh  y = transposed(h, of = h) }"
    compiled = build(
        program("ae() with residual = none", "final_norm = none").replace(UNITS, operator)
    )
    network, p = network_of(compiled)
    tokens = compiled.tokens(7)
    down = p["ae.h.weight"].clone().requires_grad_()
    up = p["ae.h.weight"].t().clone().requires_grad_()
    x = p["embedding.weight"][tokens]
    expected = torch.tanh(x @ down.T) @ up.T @ p["head.weight"].T
    logits = network(tokens)
    torch.testing.assert_close(logits, expected)
    logits.square().sum().backward()
    expected.square().sum().backward()
    torch.testing.assert_close(network.ae.h.weight.grad, down.grad + up.grad.t())
    assert "ae.y.weight" not in dict(network.named_parameters())


def test_shared_units_share_what_is_transposed() -> None:
    operator = "operator ae() { h = x |> dense(5) |> tanh  y = transposed(h, of = h) }"
    compiled = build(program("a: ae() ae() shares * with a").replace(UNITS, operator))
    check_agreement(compiled, (1, 6))
    assert sum(name.endswith("h.weight") for name in model_parameters(compiled.model)) == 1


@pytest.mark.parametrize(
    ("init", "inner", "outer"),
    [
        ("fan_in", 8**-0.5, 12**-0.5 * 3**-0.5),
        ("fan_in(gain = 2, calm = false)", 2 * 8**-0.5, 2 * 12**-0.5),
        ("normal(0.02)", 0.02, 0.02 * 3**-0.5),
        ("normal(std = 0.02, calm = false)", 0.02, 0.02),
    ],
)
def test_initial_values_follow_the_rule_of_the_model(init: str, inner: float, outer: float) -> None:
    text = program("ff() loop 2 { ff() }", f"init = {init}").replace(UNITS, FEED)
    found = model_parameters(build(text).model)
    assert found["ff.u.weight"].init == ("normal", pytest.approx(inner))
    assert found["loop.ff.y.weight"].init == ("normal", pytest.approx(outer))
    assert found["embedding.weight"].init == ("normal", 0.02)


@pytest.mark.parametrize("dtype", ["bfloat16", "float64", "float16"])
def test_a_model_is_made_in_its_precision(dtype: str) -> None:
    compiled = build(program("a() g() f()", f"dtype = {dtype}"))
    network = compiled.module.Model()
    wanted = getattr(torch, dtype)
    assert {p.dtype for p in network.parameters()} == {wanted}
    if dtype != "float16":  # which CPUs hardly compute in
        logits = network(compiled.tokens(9))
        assert logits.dtype == wanted
        assert logits.isfinite().all()


@pytest.mark.parametrize(
    "settings", ["", "residual = hyper(2, dynamic = true)", "residual = weighted(pre)"]
)
def test_checkpointing_changes_no_gradient(settings: str) -> None:
    backbone = "s: a() loop 2 { f() a() reuses V from s } repeat 2 { parallel(gated) { f() g() } }"
    compiled = build(program(backbone, settings))
    network, _ = network_of(compiled)
    network.train()
    tokens = compiled.tokens(11)
    kept = saved_bytes(network, tokens)
    wanted = {name: p.grad.clone() for name, p in network.named_parameters()}
    network.zero_grad()
    assert not network.checkpointing
    network.checkpointing = True
    assert network.checkpointing
    assert saved_bytes(network, tokens) < kept
    for name, p in network.named_parameters():
        torch.testing.assert_close(p.grad, wanted[name], msg=name)


def saved_bytes(network: torch.nn.Module, tokens: torch.Tensor) -> int:
    """Bytes that one step keeps between its two passes; gradients are left in the network."""
    seen: dict[int, int] = {}

    def pack(x: torch.Tensor) -> torch.Tensor:
        seen[x.data_ptr()] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        loss = network.loss(tokens[:, :-1], tokens[:, 1:])
    loss.backward()
    return sum(seen.values())


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param("", marks=pytest.mark.slow),
        "residual = hyper(2, dynamic = true)",
        pytest.param("residual = weighted(pre)  readout = attend", marks=pytest.mark.slow),
    ],
)
def test_one_graph_is_captured(settings: str) -> None:
    backbone = "s: a() loop 2 { f() a() reuses V from s } repeat 2 { parallel(gated) { f() g() } }"
    compiled = build(program(backbone, settings))
    network, _ = network_of(compiled)
    network.train()
    tokens = compiled.tokens(11)
    captured = torch.compile(network, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(captured(tokens), network(tokens))
    network.checkpointing = True
    torch._dynamo.reset()
    captured = torch.compile(network, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(captured(tokens), network(tokens))
    exported = torch.export.export(network.eval(), (tokens,)).module()
    torch.testing.assert_close(exported(tokens), network(tokens))


# --- decoding -------------------------------------------------------------------------------------

READERS = """
operator join(first: feature) { y = concat(x, first |> merge) |> dense(width) }
operator look(first: feature) {
    C = x |> dense(8) |> heads(2)  B = first |> dense(8) |> heads(2)
    y = (low_rank(C, B) |> causal |> softmax) @ B |> merge |> dense(width)
}
operator turned(theta: real) {
    C = x |> dense(8) |> rope(theta)
    y = (low_rank(C, C) |> causal |> softmax) @ C |> dense(width)
}
operator late() { y = x |> shift(mod(layer, 2)) |> dense(width) }
operator ties() {
    C = x |> dense(width) |> heads(2)  B = transposed(x, C) |> heads(2)
    V = x |> dense(width) |> heads(2)
    y = transposed((low_rank(C, B) |> causal |> softmax) @ V |> merge, V)
}
"""

DECODED = {
    "loop": ("s: a() loop 2 { a() reuses B, V from s  loop 2 { g() a() } repeat 2 { a() } }", ""),
    "branches": ("parallel(gated) { loop 2 { a() } repeat 2 { g() } a() with residual = pre }", ""),
    "streams": (
        "s: a() p: parallel(sum) { f() q: a() } look(s) loop 2 { look(p) } repeat 2 { look(q) }",
        "",
    ),
    "uneven": ("repeat 3 { turned(theta = 2 + mod(layer, 2)) g() late() }", "position = learned"),
    "hyper": (
        "s: a() join(s) loop 2 { a() reuses V from s }",
        "residual = hyper(3, dynamic = true)",
    ),
    "depth": ("repeat 4 { a() g() }", "residual = weighted(pre, block = 2)  readout = attend"),
    "formula": ("a() with residual = rmsnorm(x) + f(rmsnorm(x)) loop 2 { ties() }", ""),
}


@pytest.mark.parametrize("name", DECODED)
def test_decoding_from_a_cache_is_one_forward_pass(name: str) -> None:
    backbone, settings = DECODED[name]
    check_decoding(build(READERS + program(backbone, settings)))
