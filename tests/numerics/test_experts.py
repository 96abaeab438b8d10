"""Experts, routers and memories against the oracle, and against definitions written here."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from starc.compiler.cost import cost_report
from starc.compiler.inventory import model_parameters
from starc.runtime.reference import evaluate, random_parameters
from tests.numerics.agreement import build, check_agreement
from tests.numerics.decoding import check_decoding
from tests.numerics.test_graphs import check

OPERATORS = """
use std.attention.mha
use std.channel.gelu_mlp
use std.channel.memory
use std.channel.memory_plus
use std.channel.moe
use std.channel.pattention
use std.channel.swiglu
operator plain() { y = x |> rmsnorm |> tanh }
operator gated(g: feature, n: int = 6) { y = (x |> dense(n)) * g |> gain |> dense(width) }
operator attend(B: feature, V: feature) {
    C = x |> dense(8) |> heads(2)
    y = (low_rank(C, B) |> causal |> softmax) @ V |> merge |> dense(width)
}
operator routed() { y = x |> dense(width) |> experts(swiglu(hidden = 6), n = 4, top = 2) }
operator choosing() {
    g = x |> dense(6)
    c = x |> dense(8) |> heads(2)
    y = (x |> experts(gated(g = g), n = 3, top = 2)) + (g |> experts(gated(c |> merge |> dense(1)),
        n = 2, top = 1, normalize = false, gate = sigmoid) |> dense(width))
}
operator soft() {
    B = x |> dense(8) |> heads(2)
    y = x |> experts(attend(B, V = x |> dense(8) |> heads(2)), n = 3, top = 3)
}
operator remember() {
    q = x |> dense(12) |> heads(3)
    table = param(20, 10, init = normal(0.3))
    V = retrieve(q |> headwise(5), q |> headwise(4), table, top = 6)
    y = V |> dense(width)
}
operator sparse() { y = x |> dense(12) |> top(5) |> dense(width) }
operator by_another() {
    u = x |> dense(12) |> heads(2)
    s = x |> dense(12) |> heads(2)
    c = param(2, 6, init = linspace(1, 2), learned = false) |> top(2, by = s)
    y = (u |> top(3, by = s)) * (c + 1) |> merge |> dense(width)
}
operator compared() {
    a = x |> dense(width)
    b = param(1, width, init = normal(0.1))
    c = less(a, b) + equal(less(0, a), 1) + where(less(a, 0), 2, 1/2)
    d = where(less(b, a), a * b, where(equal(a, 3), 0, square(b)))
    y = d + c * where(1, a, b) |> dense(width)
}
operator in_groups(n: int, groups: int, keep: int) {
    w = x |> dense(n) |> softmax
    g = w |> heads(groups) |> top(1) |> sum |> merge
    o = 1 |> top(keep, by = g) |> heads(groups)
    t = o * (w |> heads(groups)) |> merge |> top(2)
    y = x |> experts(swiglu(hidden = 6), n, 2, shared = 1, weights = t)
}
operator attended() {
    w = x |> dense(3) |> softmax |> top(2)
    y = x |> experts(mha(heads = 2), 3, 2, weights = w)
}
"""

UNITS = {
    "mixtral": "experts(swiglu(hidden = 6), n = 4, top = 2)",
    "switch": "experts(gelu_mlp(hidden = 6), 4, 1, normalize = false)",
    "all": "experts(gelu_mlp(hidden = 6), n = 3, top = 3)",
    "one": "experts(swiglu(hidden = 6), n = 1, top = 1, normalize = false)",
    "shared": "experts(swiglu(hidden = 6), n = 4, top = 2, shared = 2, scale = 5/2)",
    "deepseek": "experts(swiglu(hidden = 6), n = 8, top = 3, gate = sigmoid, correction = true,"
    " groups = 4, keep = 2, scale = 5/2, balance = 0)",
    "attention": "experts(mha(heads = 2), n = 2, top = 1, normalize = false)",
    "nested": "experts(routed(), n = 2, top = 1, normalize = false)",
    "weightless": "experts(plain(), n = 4, top = 2)",
    "stages": "choosing()",
    "soft": "soft()",
    "shares": "a: experts(swiglu(hidden = 6), n = 4, top = 2)  routed() "
    "experts(swiglu(hidden = 6), n = 4, top = 2) shares * with a  repeat 2 { routed() }",
    "memory": "a: remember()  remember() shares table with a",
    "top": "sparse()",
    "top-by": "by_another()",
    "compared": "compared()",
    "given": "in_groups(n = 8, groups = 4, keep = 2)",
    "given-attention": "attended()",
    "moe": "moe(n = 4, shared = 1, hidden = 6)",
    "product-keys": "memory(keys = 4, heads = 2, top = 3, key = 6)",
    "pool": "a: memory_plus(keys = 4, heads = 2, top = 3, key = 6) "
    "memory_plus(keys = 4, heads = 1, top = 5, key = 4) shares pool with a",
    "tokens": "pattention(tokens = 7)",
}


def program(units: str) -> str:
    sizes = "vocab = 32  width = 8  context = 40"
    return f"{OPERATORS} model m {{ {sizes} backbone {{ {units} }} }}"


@pytest.mark.parametrize("name", UNITS)
def test_agreement(name: str) -> None:
    check_agreement(build(program(UNITS[name])), (1, 5, 37))


@pytest.mark.parametrize(
    "name",
    ["stages", *(pytest.param(n, marks=pytest.mark.slow) for n in ("deepseek", "soft", "memory"))],
)
def test_graphs(name: str) -> None:
    torch.manual_seed(0)
    check(build(program(UNITS[name])).module.Model())


@pytest.mark.parametrize("name", UNITS)
def test_cost_counts_what_is_there(name: str) -> None:
    compiled = build(program(UNITS[name]))
    network = compiled.module.Model()
    report = cost_report(compiled.final)
    assert report.parameters == sum(p.numel() for p in network.parameters())
    assert report == cost_report(compiled.model)
    names = [n for n, p in model_parameters(compiled.final).items() if p.learned]
    assert sorted(names) == sorted(n for n, _ in network.named_parameters())


@pytest.mark.parametrize(
    "name",
    "mixtral deepseek attention stages soft memory given given-attention compared".split(),
)
def test_decoding(name: str) -> None:
    check_decoding(build(program(UNITS[name])))


def test_weights_of_a_program_choose_as_the_router_does() -> None:
    routed = build(program("experts(swiglu(hidden = 6), n = 4, top = 2)"))
    given = "operator own() { y = x |> experts(swiglu(hidden = 6), n = 4, top = 2, weights = g) }"
    given = given.replace(
        "y =", "s = x |> dense(4)  w = s |> softmax |> top(2)  g = w / sum(w)  y ="
    )
    own = build(given + program("own()"))
    parameters = random_parameters(routed.model, 0)
    names = {"experts.router": "own.s", "experts.experts": "own.y_experts", "experts_": "own_"}
    renamed = {}
    for name, value in parameters.items():
        start = next((old for old in names if name.startswith(old)), "")
        renamed[names.get(start, "") + name.removeprefix(start)] = value
    tokens = routed.tokens(37)
    expected = routed.network(parameters, torch.float64)(tokens)
    torch.testing.assert_close(own.network(renamed, torch.float64)(tokens), expected)


def test_active_parameters() -> None:
    report = cost_report(build(program("experts(swiglu(hidden = 6), n = 8, top = 2)")).model)
    assert report.parameters - report.active_parameters == 6 * 3 * 8 * 6
    (unit,) = report.units
    tokens = report.length
    assert unit.flops_forward == 2 * tokens * (8 * 8 + 2 * 3 * 8 * 6)  # the router and two experts
    report = cost_report(build(program("remember()")).model)
    assert report.parameters - report.active_parameters == (5 * 4 - 3 * 6) * 10


def test_noise_is_for_training() -> None:
    compiled = build(program("experts(swiglu(hidden = 6), n = 4, top = 2, noisy = true)"))
    parameters = random_parameters(compiled.model, 0)
    network, tokens = compiled.network(parameters, torch.float64), compiled.tokens(9)
    expected = evaluate(compiled.model, parameters, tokens)
    torch.testing.assert_close(network.eval()(tokens), expected)
    assert (network.train()(tokens) - expected).abs().max() > 1e-3
    # Scores scatter: noise has a gradient.
    network(tokens).square().sum().backward()
    assert all(p.grad.abs().max() > 0 for n, p in network.named_parameters() if "router" in n)


def test_balance_is_part_of_the_loss_in_training_alone() -> None:
    compiled = build(program("a: experts(swiglu(hidden = 6), n = 4, top = 2, balance = 1/8)"))
    network = compiled.network(random_parameters(compiled.model, 1), torch.float64)
    tokens = compiled.tokens(20)
    inputs, targets = tokens[:, :-1], tokens[:, 1:]
    plain = F.cross_entropy(network(inputs).flatten(0, 1), targets.flatten())
    torch.testing.assert_close(network.eval().loss(inputs, targets), plain)
    seen: list[torch.Tensor] = []
    network.a.router.register_forward_hook(lambda module, given, scores: seen.append(scores))
    loss = network.train().loss(inputs, targets)
    p = seen[0].softmax(-1).flatten(0, 1)
    share = torch.zeros(4, dtype=torch.float64)
    for row in p:
        for e in row.topk(2).indices:
            share[e] += 1 / (2 * len(p))
    wanted = 4 * (share * p.mean(0)).sum() / 8
    torch.testing.assert_close(loss - plain, wanted, rtol=1e-6, atol=1e-7)
    loss.backward()
    assert network.a.router.weight.grad.abs().max() > 0


def test_no_token_is_dropped() -> None:
    """All tokens choose the same expert, and all are served."""
    compiled = build(program("a: experts(swiglu(hidden = 6), n = 4, top = 1, normalize = false)"))
    parameters = random_parameters(compiled.model, 2)
    tokens = torch.full((2, 33), 7)
    expected = evaluate(compiled.model, parameters, tokens)
    network = compiled.network(parameters, torch.float64)
    torch.testing.assert_close(network(tokens), expected)


def test_memory_finds_the_best_of_all_entries() -> None:
    compiled = build(program("remember()"))
    rows, columns = torch.randn(2, 7, 3, 5), torch.randn(2, 7, 3, 4)
    table = torch.randn(20, 10)
    for k in (1, 6, 20):
        y = compiled.module.retrieve(rows, columns, table, k)
        for b, t in torch.cartesian_prod(torch.arange(2), torch.arange(7)):
            wanted = torch.zeros(10)
            for h in range(3):
                every = [rows[b, t, h, i] + columns[b, t, h, j] for i in range(5) for j in range(4)]
                best = sorted(range(20), key=lambda e: -every[e])[:k]
                weight = torch.stack([every[e] for e in best]).softmax(0)
                wanted += weight @ table[best]
            torch.testing.assert_close(y[b, t], wanted, rtol=1e-4, atol=1e-5)
