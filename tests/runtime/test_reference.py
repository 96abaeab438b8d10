"""The oracle against computations that share nothing with it: token loops, and torch's own."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from starc.compiler import ir
from starc.compiler.catalog import ALGORITHMS, ENTRIES
from starc.compiler.driver import resolve_source
from starc.compiler.options import Options
from starc.compiler.passes.share import share
from starc.grammar.errors import InternalError
from starc.grammar.source import Source
from starc.runtime.reference import OPERATIONS, evaluate, random_parameters

B, T, D = 2, 9, 8


def resolve(text: str) -> ir.Model:
    model, _ = resolve_source(Source("test.star", text), Options())
    return share(model)


def model_of(operators: str, backbone: str, settings: str = "") -> ir.Model:
    return resolve(
        f"{operators}\nmodel m {{ vocab = {D}  width = {D}  context = 16  residual = none\n"
        f"{settings}\nbackbone {{ {backbone} }} }}"
    )


class Run:
    """One operator `y = ...` alone in a model whose head copies y: x, y and parameters by name."""

    def __init__(self, body: str, tokens: int = T) -> None:
        self.model = model_of(f"operator op() {{ {body} }}", "u: op()")
        self.parameters = random_parameters(self.model, seed=1)
        self.parameters["head.weight"] = torch.eye(D, dtype=torch.float64)
        self.tokens = torch.randint(0, D, (B, tokens), generator=torch.Generator().manual_seed(2))
        self.x = self.parameters["embedding.weight"][self.tokens] * 50  # scaled in `y` too
        self.parameters["embedding.weight"] = self.parameters["embedding.weight"] * 50
        self.y = evaluate(self.model, self.parameters, self.tokens)

    def __getitem__(self, name: str) -> Tensor:
        return self.parameters[f"u.{name}"]

    def dense(self, name: str, heads: int = 1) -> Tensor:
        """x through the dense stage of a binding, (B, T, heads, d)."""
        return (self.x @ self[f"{name}.weight"].T).unflatten(-1, (heads, -1))


def check(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-10)


def test_it_knows_the_whole_catalog() -> None:
    chosen_by_the_compiler = {entry.op for entry in ALGORITHMS}
    evaluated = {*OPERATIONS, "input", "experts", "branch"}
    assert evaluated == ENTRIES.keys() - chosen_by_the_compiler


# --- mixers ------------------------------------------------------------------------------------


def attention(
    c: Tensor, b: Tensor, v: Tensor, scale: float, sees: Callable[[int, int], bool]
) -> Tensor:
    """Softmax attention, one query at a time; head h of C reads head h // ratio of B and V."""
    y = torch.zeros(B, c.shape[1], c.shape[2], v.shape[3], dtype=torch.float64)
    for n, i, h in product(range(B), range(c.shape[1]), range(c.shape[2])):
        hb, hv = h * b.shape[2] // c.shape[2], h * v.shape[2] // c.shape[2]
        seen = [j for j in range(c.shape[1]) if sees(i, j)]
        scores = [scale * float(c[n, i, h] @ b[n, j, hb]) for j in seen]
        total = sum(math.exp(s) for s in scores)
        for j, s in zip(seen, scores, strict=True):
            y[n, i, h] += math.exp(s) / total * v[n, j, hv]
    return y


def test_softmax_attention() -> None:
    run = Run("""
        C = x |> dense(8) |> heads(2)   B = x |> dense(8) |> heads(2)
        V = x |> dense(8) |> heads(2)
        y = (low_rank(C, B) |> scale(1 / sqrt(4)) |> causal |> softmax) @ V |> merge""")
    y = attention(run.dense("C", 2), run.dense("B", 2), run.dense("V", 2), 0.5, lambda i, j: j <= i)
    check(run.y, y.flatten(2))


def test_grouped_queries_in_a_band() -> None:
    run = Run("""
        C = x |> dense(8) |> heads(4)   B = x |> dense(4) |> heads(2)   V = x |> dense(2)
        y = (low_rank(C, B) |> band(3) |> causal |> softmax) @ V |> merge""")
    sees = lambda i, j: i - 3 < j <= i  # noqa: E731
    y = attention(run.dense("C", 4), run.dense("B", 2), run.dense("V"), 1.0, sees)
    check(run.y, y.flatten(2))


def recurrence(c: Tensor, a: Tensor, b: Tensor, v: Tensor) -> Tensor:
    """S = a S + b v^T; y = c S, token by token, all heads equal in number."""
    state = torch.zeros(B, c.shape[2], c.shape[3], v.shape[3], dtype=torch.float64)
    rows = []
    for t in range(c.shape[1]):
        state = a[:, t, :, :, None] * state + b[:, t, :, :, None] * v[:, t, :, None, :]
        rows.append((c[:, t, :, :, None] * state).sum(2))
    return torch.stack(rows, 1)


@pytest.mark.parametrize("n", [1, 4], ids=["scalar", "diagonal"])
def test_semi_separable_is_a_recurrence(n: int) -> None:
    run = Run(f"""
        C = x |> dense(8) |> heads(2)   B = x |> dense(8) |> heads(2)
        V = x |> dense(8) |> heads(2)
        A = x |> dense({2 * n}) |> heads(2) |> sigmoid
        y = semi_separable(C, A, B) @ V |> merge""")
    y = recurrence(
        run.dense("C", 2), run.dense("A", 2).sigmoid(), run.dense("B", 2), run.dense("V", 2)
    )
    check(run.y, y.flatten(2))


def test_semi_separable_groups_heads_and_takes_constants() -> None:
    run = Run("""
        C = x |> dense(4)   V = x |> dense(8) |> heads(4)   A = x |> dense(2) |> sigmoid |> heads(2)
        B = param(4, 4)
        y = semi_separable(C, A, B) @ V |> merge""")
    c = run.dense("C").expand(B, T, 4, 4)
    a = run.dense("A", 2).sigmoid().repeat_interleave(2, 2)
    b = run["B"].expand(B, T, 4, 4)
    check(run.y, recurrence(c, a, b, run.dense("V", 4)).flatten(2))


def test_normalised_linear_attention_is_two_recurrences() -> None:
    run = Run("""
        C = x |> dense(8) |> heads(2) |> elu1   B = x |> dense(8) |> heads(2) |> elu1
        V = x |> dense(8) |> heads(2)
        y = (low_rank(C, B) |> causal |> normalize(0.01)) @ V |> merge""")
    c, b, v = (F.elu(run.dense("C", 2)) + 1, F.elu(run.dense("B", 2)) + 1, run.dense("V", 2))
    one = torch.ones_like(v[..., :1])
    y = recurrence(c, one, b, v) / recurrence(c, one, b, one)
    check(run.y, y.flatten(2))


@pytest.mark.parametrize(("lanes", "heads"), [(8, 2), (2, 2), (1, 2), (8, 1)])
def test_toeplitz_is_a_convolution(lanes: int, heads: int) -> None:
    run = Run(
        f"K = explicit({lanes}, 4)  V = x |> dense(8) |> heads({heads})"
        "y = toeplitz(K) @ V |> merge"
    )
    taps, v = run["K"].repeat_interleave(D // lanes, 0), run.dense("V").flatten(2)
    y = torch.zeros_like(v)
    for i, j, c in product(range(T), range(T), range(D)):
        if 0 <= i - j < 4:
            y[:, i, c] += taps[c, i - j] * v[:, j, c]
    check(run.y, y)


def test_explicit_filter_longer_than_the_sequence() -> None:
    run = Run("K = explicit(1, 9)  y = toeplitz(K) @ x", tokens=2)
    y = torch.stack(
        [run["K"][0, 0] * run.x[:, 0], run["K"][0, 1] * run.x[:, 0] + run["K"][0, 0] * run.x[:, 1]],
        1,
    )
    check(run.y, y)


@pytest.mark.parametrize("decay", ["true", "false"])
def test_implicit_filter_entry_by_entry(decay: str) -> None:
    run = Run(f"K = implicit(8, 5, decay = {decay})  y = toeplitz(K) @ x")
    taps = torch.zeros(D, T, dtype=torch.float64)
    for t in range(T):
        u = t / 16
        z = [
            u,
            *(math.sin(2 * math.pi * f * u) for f in range(1, 9)),
            *(math.cos(2 * math.pi * f * u) for f in range(1, 9)),
        ]
        h = run["K.inner.weight"] @ torch.tensor(z, dtype=torch.float64) + run["K.inner.bias"]
        h = run["K.hidden.weight"] @ h.sin() + run["K.hidden.bias"]
        for c in range(D):
            rate = math.log(100) * (1 / 1.5 + c / (D - 1) * (1 / 0.3 - 1 / 1.5))
            window = math.exp(-rate * u) if decay == "true" else 1.0
            taps[c, t] = run["K.outer.weight"][c] @ h.sin() * window
    y = torch.zeros_like(run.x)
    for i in range(T):
        for j in range(i + 1):
            y[:, i] += taps[:, i - j] * run.x[:, j]
    check(run.y, y)


def test_mixer_stages_and_algebra_entry_by_entry() -> None:
    """0.5 g (sigmoid of capped scores, none outside) - relu of scores, applied after a gate."""
    run = Run("""
        C = x |> dense(8) |> heads(2)   B = x |> dense(8) |> heads(2)
        g = x |> dense(2) |> heads(2)
        S = low_rank(C, B) |> causal
        T = 0.5 * (g * (S |> softcap(2) |> sigmoid)) - (S |> relu |> band(2))
        y = T @ diagonal(x |> heads(2)) @ (x |> heads(2)) |> merge""")
    c, b, g = run.dense("C", 2), run.dense("B", 2), run.dense("g", 2)
    x = run.x.unflatten(-1, (2, 4))
    y = torch.zeros_like(x)
    for n, i, h in product(range(B), range(T), range(2)):
        for j in range(i + 1):
            s = float(c[n, i, h] @ b[n, j, h])
            t = 0.5 * float(g[n, i, h, 0]) / (1 + math.exp(-2 * math.tanh(s / 2)))
            t -= max(s, 0) if i - j < 2 else 0
            y[n, i, h] += t * x[n, j, h] ** 2
    check(run.y, y.flatten(2))


def test_product_of_mixers_is_one_after_the_other() -> None:
    shared = "C = x |> dense(4)  B = x |> dense(4)  K = explicit(1, 3)"
    once = Run(f"{shared}  y = (low_rank(C, B) |> causal) @ toeplitz(K) @ x")
    twice = Run(f"{shared}  y = (low_rank(C, B) |> causal) @ (toeplitz(K) @ x)")
    check(once.y, twice.y)
    assert not torch.allclose(
        once.y, Run(f"{shared} y = toeplitz(K) @ (low_rank(C, B) |> causal) @ x").y
    )


# --- stages ------------------------------------------------------------------------------------

WEIGHT, BIAS = "y.weight", "y.bias"

STAGES: dict[str, Callable[[Run], Tensor]] = {
    "dense(8, bias = true)": lambda r: F.linear(r.x, r[WEIGHT], r[BIAS]),
    "dense(8, rank = 3)": lambda r: F.linear(F.linear(r.x, r["y.down.weight"]), r["y.up.weight"]),
    "dense(8, groups = 4)": lambda r: r.x @ torch.block_diag(*r[WEIGHT]).T,
    "heads(2) |> headwise(4, bias = true) |> merge": lambda r: (
        r.x @ torch.block_diag(*r[WEIGHT]).T + r[BIAS].flatten()
    ),
    "gain": lambda r: r.x * r["y"],
    "scale(-3/4)": lambda r: r.x * -0.75,
    "conv(3, dilation = 2, bias = true)": lambda r: F.conv1d(
        F.pad(r.x.mT, (4, 0)), r[WEIGHT].flip(-1)[:, None], r[BIAS], dilation=2, groups=D
    ).mT,
    "heads(2) |> conv(4, groups = 2) |> merge": lambda r: F.conv1d(
        F.pad(r.x.mT, (3, 0)), r[WEIGHT].flip(-1), groups=2
    ).mT,
    "shift(2)": lambda r: F.pad(r.x.mT, (2, -2)).mT,
    "slice(2, 6) |> repeat(2) |> merge": lambda r: r.x[..., 2:6].repeat(1, 1, 2),
    "heads(2) |> repeat(2) |> slice(0, 2) |> merge": lambda r: r.x[..., [0, 1, 0, 1, 4, 5, 4, 5]],
    "rmsnorm(weight = offset, eps = 1e-3)": lambda r: F.rms_norm(r.x, (D,), 1 + r[WEIGHT], 1e-3),
    "layernorm": lambda r: F.layer_norm(r.x, (D,), r[WEIGHT], r[BIAS]),
    "heads(2) |> layernorm(weight = own, bias = true) |> merge": lambda r: (
        F.group_norm(r.x.flatten(0, 1), 2, r[WEIGHT].flatten(), r[BIAS].flatten()).view_as(r.x)
    ),
    "heads(2) |> rmsnorm |> merge": lambda r: (
        F.rms_norm(r.x.unflatten(-1, (2, 4)), (4,), r[WEIGHT], 1e-6).flatten(2)
    ),
    "groupnorm(groups = 4, weight = none, bias = false)": lambda r: (
        F.group_norm(r.x.flatten(0, 1), 4).view_as(r.x)
    ),
    "heads(2) |> groupnorm |> merge": lambda r: F.group_norm(
        r.x.flatten(0, 1), 2, r[WEIGHT].flatten(), r[BIAS].flatten()
    ).view_as(r.x),
    "l2norm(1e-12)": lambda r: F.normalize(r.x, dim=-1),
    "softmax": lambda r: F.softmax(r.x, -1),
    "silu": lambda r: F.silu(r.x),
    "gelu": lambda r: F.gelu(r.x),
    "gelu(tanh)": lambda r: F.gelu(r.x, approximate="tanh"),
    "relu2": lambda r: F.relu(r.x) ** 2,
    "softplus": lambda r: F.softplus(r.x),
    "logsigmoid": lambda r: F.logsigmoid(r.x),
    "elu1": lambda r: F.elu(r.x) + 1,
    "square |> sqrt": lambda r: r.x.abs(),
    "exp |> log": lambda r: r.x,
    "tanh": lambda r: r.x.tanh(),
    "sin |> cos |> abs": lambda r: r.x.sin().cos().abs(),
}


@pytest.mark.parametrize("stage", STAGES)
def test_stage(stage: str) -> None:
    run = Run(f"y = x |> {stage}")
    check(run.y, STAGES[stage](run))


def test_arithmetic_broadcasts_heads_and_channels() -> None:
    run = Run(
        "P = param(2, 1)  Q = param(1, 4)  h = x |> heads(2)"
        "y = concat((h - P) / (2 + Q * Q) |> slice(0, 3), Q |> repeat(2) |> slice(3, 4)) |> merge"
    )
    h = run.x.unflatten(-1, (2, 4))
    y = (h - run["P"]) / (2 + run["Q"] ** 2)
    y = torch.cat([y[..., :3], run["Q"][3].expand(B, T, 2, 1)], -1)
    check(run.y, y.flatten(2))


@pytest.mark.parametrize("pairs", ["half", "interleaved"])
def test_rope_turns_pairs(pairs: str) -> None:
    run = Run(f"y = x |> heads(1) |> rope(100, dims = 6, pairs = {pairs})")
    y = run.x.clone()
    for j, t in product(range(3), range(T)):
        a, b = (j, j + 3) if pairs == "half" else (2 * j, 2 * j + 1)
        turned = torch.view_as_complex(run.x[:, t, [a, b]].contiguous())
        turned = turned * complex(math.cos(t * 100 ** (-j / 3)), math.sin(t * 100 ** (-j / 3)))
        y[:, t, a], y[:, t, b] = turned.real, turned.imag
    check(run.y, y)


# --- backbone ----------------------------------------------------------------------------------

UNITS = "operator f() { y = x |> dense(width) |> tanh }  operator g() { y = x |> dense(width) }"


def test_residual_schemes() -> None:
    backbone = """a: f() with residual = pre(rmsnorm)  b: f() with residual = post(layernorm)
                  c: f() with residual = sandwich(rmsnorm)  d: f()"""
    model = model_of(
        UNITS, backbone, "final_norm = layernorm(bias = false)  head = linear(bias = true)"
    )
    p = random_parameters(model, 3)
    tokens = torch.randint(0, D, (B, T))

    def rms(x: Tensor, name: str) -> Tensor:
        return F.rms_norm(x, (D,), p[f"{name}.weight"], 1e-6)

    def f(x: Tensor, name: str) -> Tensor:
        return (x @ p[f"{name}.y.weight"].T).tanh()

    x = p["embedding.weight"][tokens]
    x = x + f(rms(x, "a_norm"), "a")
    x = F.layer_norm(x + f(x, "b"), (D,), p["b_norm.weight"], p["b_norm.bias"])
    x = x + rms(f(rms(x, "c_norm"), "c"), "c_post_norm")
    x = F.layer_norm(f(x, "d"), (D,), p["final_norm.weight"])
    check(evaluate(model, p, tokens), F.linear(x, p["head.weight"], p["head.bias"]))


@pytest.mark.parametrize("mode", ["sum", "mean", "difference"])
def test_parallel(mode: str) -> None:
    model = model_of(
        UNITS, f"parallel({mode}) {{ a: f()  b: g()  c: g() }} with residual = pre(rmsnorm)"
    )
    p = random_parameters(model, 3)
    tokens = torch.randint(0, D, (B, T))
    x = p["embedding.weight"][tokens]
    n = F.rms_norm(x, (D,), p["parallel_norm.weight"], 1e-6)
    a, b, c = (n @ p[f"{name}.y.weight"].T for name in "abc")
    a = a.tanh()
    y = {"sum": a + b + c, "mean": (a + b + c) / 3, "difference": a - b - c}[mode]
    check(evaluate(model, p, tokens), (x + y) @ p["head.weight"].T)


def test_sharing_weights_and_reusing_features() -> None:
    operators = """
        operator two() { u = x |> dense(width) |> tanh   w = u |> dense(width)   y = u + w }
        operator mix(first: feature) { y = (x |> dense(width) |> shift) + first }"""
    model = model_of(
        operators,
        """a: two()  b: two() reuses u from a
           repeat 2 { two() shares u with a  mix(first = b.w) }""",
    )
    p = random_parameters(model, 3)
    tokens = torch.randint(0, D, (B, T))
    e = p["embedding.weight"][tokens]
    u = (e @ p["a.u.weight"].T).tanh()
    w = u @ p["b.w.weight"].T
    x = u + w  # b ignores its input: u comes from a
    for i in range(2):
        v = (x @ p["a.u.weight"].T).tanh()
        x = v + v @ p[f"blocks.{i}.two.w.weight"].T
        x = F.pad((x @ p[f"blocks.{i}.mix.y.weight"].T).mT, (1, -1)).mT + w
    check(evaluate(model, p, tokens), x @ p["head.weight"].T)
    assert not any(name.startswith("blocks.0.two.u") for name in p)


@pytest.mark.parametrize("position", ["learned", "sinusoidal"])
def test_embedding_and_head(position: str) -> None:
    settings = f"""embedding = tied(scale = 3, norm = rmsnorm)  position = {position}
                   head = linear(scale = 1/2, softcap = 2)"""
    model = model_of(UNITS, "f()", settings)
    p = random_parameters(model, 3)
    tokens = torch.randint(0, D, (B, T))
    if position == "learned":
        places = p["position.weight"][:T]
    else:
        places = torch.tensor(
            [
                [(math.sin, math.cos)[c % 2](t / 10_000 ** (c // 2 * 2 / D)) for c in range(D)]
                for t in range(T)
            ],
            dtype=torch.float64,
        )
    x = (
        F.rms_norm(3 * p["embedding.weight"][tokens], (D,), p["embedding_norm.weight"], 1e-6)
        + places
    )
    x = (x @ p["f.y.weight"].T).tanh()
    check(evaluate(model, p, tokens), 2 * (x @ p["embedding.weight"].T / 2 / 2).tanh())


WHOLE = """
operator mixed() {
    C = x |> dense(8) |> conv(3) |> heads(2) |> rope(100)   B = x |> dense(8) |> shift |> heads(2)
    V = x |> dense(8) |> heads(2)   A = x |> dense(2) |> sigmoid |> heads(2)   K = implicit(2, 4)
    T = (low_rank(C, B) |> causal |> band(4) |> softmax) - semi_separable(C, A, B) @ toeplitz(K)
    y = T @ V |> merge
}
"""


def test_causal_and_the_same_at_every_length() -> None:
    model = model_of(WHOLE, "mixed() mixed()", "final_norm = rmsnorm")
    p = random_parameters(model, 5)
    tokens = torch.randint(0, D, (B, T))
    whole = evaluate(model, p, tokens)
    for length in (1, 2, T - 1):
        check(evaluate(model, p, tokens[:, :length]), whole[:, :length])
    changed = tokens.clone()
    changed[:, 4] = (changed[:, 4] + 1) % D
    other = evaluate(model, p, changed)
    check(other[:, :4], whole[:, :4])
    assert not torch.allclose(other[:, 4:], whole[:, 4:])


def test_gradients_are_those_of_finite_differences() -> None:
    model = model_of(WHOLE, "mixed()")
    p = random_parameters(model, 5)
    tokens = torch.randint(0, D, (1, 4))
    names = ["mixed.A.weight", "mixed.K.inner.bias", "mixed.C_conv.weight"]

    def loss(*values: Tensor) -> Tensor:
        return evaluate(model, p | dict(zip(names, values, strict=True)), tokens).sin().sum()

    assert torch.autograd.gradcheck(loss, [p[name].requires_grad_() for name in names])


def test_random_parameters_hide_nothing() -> None:
    model = model_of(
        WHOLE + "operator n() { y = x |> layernorm |> dense(width, bias = true) }", "n() mixed()"
    )
    p = random_parameters(model, 0)
    again, other = random_parameters(model, 0), random_parameters(model, 1)
    assert all(torch.equal(p[name], again[name]) for name in p)
    for name, value in p.items():
        assert value.dtype == torch.float64
        assert not torch.equal(value, other[name])
        assert value.unique().numel() == value.numel(), name
        assert not ((value == 0) | (value == 1)).any(), name


def test_a_missing_parameter_is_an_internal_error() -> None:
    model = model_of(UNITS, "f()")
    p = random_parameters(model, 0)
    del p["f.y.weight"]
    with pytest.raises(InternalError, match=r"f\.y\.weight"):
        evaluate(model, p, torch.zeros(1, 1, dtype=torch.int64))
