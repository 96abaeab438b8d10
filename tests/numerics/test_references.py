"""The standard library's recurrences against independent references: token by token, from papers.

Each reference computes a unit's output from its weights with a loop over tokens, as the paper
writes the recurrence, and knows nothing of starc but the names of weights. Where flash-linear-
attention or xlstm are installed (the extra `peers`), the generated functions are also compared
with their plain PyTorch references.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from starc.compiler.plan import MixerPlan
from starc.runtime.reference import random_parameters
from tests.numerics.agreement import build
from tests.templates.generated import load

WIDTH, HEADS, LENGTH = 16, 2, 37

Weights = Callable[[str], Tensor]
Unit = Callable[[Weights, Tensor], Tensor]


def heads(x: Tensor) -> Tensor:
    return x.unflatten(-1, (HEADS, -1))


def convolved(p: Weights, name: str, x: Tensor) -> Tensor:
    """A dense map, a causal convolution whose tap i meets the token i steps back, SiLU."""
    u = x @ p(f"{name}_dense.weight").T
    return F.silu(causal_filter(u, p(f"{name}_conv.weight")))


def causal_filter(u: Tensor, taps: Tensor) -> Tensor:
    padded = F.pad(u, (0, 0, taps.shape[1] - 1, 0))
    lags = range(taps.shape[1])
    return sum(taps[:, i] * padded[:, taps.shape[1] - 1 - i :][:, : u.shape[1]] for i in lags)


def unit_length(x: Tensor) -> Tensor:
    return x / (x.square().sum(-1, keepdim=True) + 1e-6).sqrt()


def rms(x: Tensor, weight: Tensor) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * weight


def head_norm(x: Tensor, weight: Tensor, bias: Tensor | float, eps: float) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + eps).sqrt() * weight + bias


def delta_rule(q: Tensor, writes: list[tuple[Tensor, Tensor, Tensor]], decay: Tensor) -> Tensor:
    """S = decay S; then for every (k, v, beta): S += beta k (v - S' k)'; y = S' q."""
    state = torch.zeros(*q.shape[:1], *q.shape[2:], writes[0][1].shape[-1], dtype=q.dtype)
    read = []
    for t in range(q.shape[1]):
        state = decay[:, t].unsqueeze(-1) * state
        for k, v, beta in writes:
            held = torch.einsum("bhn,bhnp->bhp", k[:, t], state)
            error = beta[:, t] * (v[:, t] - held)
            state = state + torch.einsum("bhn,bhp->bhnp", k[:, t], error)
        read.append(torch.einsum("bhn,bhnp->bhp", q[:, t], state))
    return torch.stack(read, 1)


def beta_of(p: Weights, name: str, x: Tensor) -> Tensor:
    return heads(torch.sigmoid(x @ p(f"{name}.weight").T))


def deltanet(p: Weights, x: Tensor) -> Tensor:
    q, k, v = (heads(convolved(p, name, x)) for name in "CBV")
    q, k, beta = unit_length(q) * q.shape[-1] ** -0.5, unit_length(k), beta_of(p, "beta", x)
    o = delta_rule(q, [(k, v, beta)], torch.ones_like(beta))
    return rms(o, p("y_rmsnorm.weight")).flatten(2) @ p("y_dense.weight").T


def gated_deltanet(p: Weights, x: Tensor) -> Tensor:
    q, k, v = (heads(convolved(p, name, x)) for name in "CBV")
    q, k, beta = unit_length(q) * q.shape[-1] ** -0.5, unit_length(k), beta_of(p, "beta", x)
    dt = F.softplus(x @ p("dt.weight").T + p("b"))
    g = -p("alpha").squeeze(-1).exp() * dt
    o = delta_rule(q, [(k, v, beta)], g.exp().unsqueeze(-1))
    gate = F.silu(x @ p("g.weight").T)
    return (rms(o, p("y_rmsnorm.weight")).flatten(2) * gate) @ p("y_dense.weight").T


def kda(p: Weights, x: Tensor) -> Tensor:
    q, k, v = (heads(convolved(p, name, x)) for name in "CBV")
    q, k, beta = unit_length(q) * q.shape[-1] ** -0.5, unit_length(k), beta_of(p, "beta", x)
    dt = F.softplus((x @ p("dt.down.weight").T) @ p("dt.up.weight").T + p("b"))
    g = -p("alpha").exp() * heads(dt)
    o = delta_rule(q, [(k, v, beta)], g.exp())
    gate = (x @ p("g.down.weight").T) @ p("g.up.weight").T + p("g.up.bias")
    return (rms(o, p("y_rmsnorm.weight")).flatten(2) * gate.sigmoid()) @ p("y_dense.weight").T


def deltaproduct(p: Weights, x: Tensor) -> Tensor:
    q = unit_length(heads(convolved(p, "C", x)))
    writes = []
    for i in "12":
        k, v = unit_length(heads(convolved(p, f"B{i}", x))), heads(convolved(p, f"V{i}", x))
        writes.append((k, v, 2 * beta_of(p, f"beta{i}", x)))
    dt = F.softplus(x @ p("dt.weight").T + p("b"))
    decay = (-p("alpha").squeeze(-1).exp() * dt).exp().unsqueeze(-1)
    o = delta_rule(q * q.shape[-1] ** -0.5, writes, decay)
    gate = F.silu(x @ p("g.weight").T)
    return (rms(o, p("y_rmsnorm.weight")).flatten(2) * gate) @ p("y_dense.weight").T


def previous(x: Tensor) -> Tensor:
    return F.pad(x, (0, 0, 1, 0))[:, :-1]


def rwkv6(p: Weights, x: Tensor) -> Tensor:
    """Finch, 2404.05892, eqs. 14 to 20."""
    d = previous(x) - x
    inner = torch.tanh((x + d * p("m_param")) @ p("m_dense.weight").T).chunk(5, -1)
    mixed = {}
    for name, m in zip("rwkvg", inner, strict=True):
        share = p(f"m{name}_param") + m @ p(f"m{name}_dense.weight").T
        mixed[name] = x + d * share
    r = heads(mixed["r"] @ p("C.weight").T)
    k = heads(mixed["k"] @ p("B.weight").T)
    v = heads(mixed["v"] @ p("V.weight").T)
    g = F.silu(mixed["g"] @ p("g.weight").T)
    low = torch.tanh(mixed["w"] @ p("w_dense.weight").T) @ p("w_dense_2.weight").T
    w = heads(torch.exp(-torch.exp(p("w_param") + low)))
    state, read = torch.zeros(x.shape[0], HEADS, k.shape[-1], v.shape[-1], dtype=x.dtype), []
    for t in range(x.shape[1]):
        kv = torch.einsum("bhn,bhp->bhnp", k[:, t], v[:, t])
        seen = state + p("u").unsqueeze(-1) * kv
        read.append(torch.einsum("bhn,bhnp->bhp", r[:, t], seen))
        state = w[:, t].unsqueeze(-1) * state + kv
    o = head_norm(
        torch.stack(read, 1), p("y_groupnorm.weight"), p("y_groupnorm.bias"), 64e-5
    ).flatten(2)
    return (o * g) @ p("y_dense.weight").T


def rwkv7_values(p: Weights, x: Tensor) -> Tensor:
    """v of the first layer, which later layers mix into theirs."""
    xv = x + (previous(x) - x) * p("xv")
    return xv @ p("V.weight").T


def rwkv7(p: Weights, x: Tensor, first: Tensor | None = None) -> Tensor:
    """Goose, 2503.14456, section 4; S has a row for every value channel, as in the paper."""
    d = previous(x) - x
    xr, xw, xk, xv, xa, xg = (x + d * p(f"x{name}") for name in "rwkvag")
    r, k = xr @ p("C.weight").T, xk @ p("K.weight").T
    if first is None:
        v = xv @ p("V.weight").T
    else:
        v = xv @ p("V0.weight").T
        low = (xv @ p("mv_dense.down.weight").T) @ p("mv_dense.up.weight").T
        v = torch.lerp(v, first, torch.sigmoid(p("mv_param") + low))
    low = torch.tanh(xw @ p("w_dense.weight").T) @ p("w_dense_2.weight").T
    w = torch.exp(-math.exp(-0.5) * torch.sigmoid(p("w0") + low))
    a = torch.sigmoid((xa @ p("a.down.weight").T) @ p("a.up.weight").T + p("a.up.bias"))
    g = torch.sigmoid(xg @ p("g_dense.weight").T) @ p("g_dense_2.weight").T
    kappa = unit_length(heads(k * p("k")))
    k = heads(k * (1 + (a - 1) * p("B")))
    r, w, a, v = heads(r), heads(w), heads(a), heads(v)
    state, read = torch.zeros(x.shape[0], HEADS, v.shape[-1], k.shape[-1], dtype=x.dtype), []
    for t in range(x.shape[1]):
        removed = torch.einsum("bhn,bhm->bhnm", kappa[:, t], a[:, t] * kappa[:, t])
        state = state @ (torch.diag_embed(w[:, t]) - removed)
        state = state + torch.einsum("bhp,bhn->bhpn", v[:, t], k[:, t])
        read.append(torch.einsum("bhpn,bhn->bhp", state, r[:, t]))
    o = head_norm(torch.stack(read, 1), p("S.weight"), p("S.bias"), 64e-5)
    o = o + (r * k * p("u")).sum(-1, keepdim=True) * v
    return (o.flatten(2) * g) @ p("y.weight").T


def mlstm(p: Weights, x: Tensor) -> Tensor:
    """2405.04517, eqs. 19 to 27, with the stabiliser m of appendix A and no trace of it."""

    def blocks(u: Tensor, name: str) -> Tensor:
        weight = p(f"{name}.weight")
        return torch.einsum("btgi,goi->btgo", u.unflatten(-1, weight.shape[::2]), weight).flatten(2)

    u, z = x @ p("u.weight").T, F.silu(x @ p("z.weight").T)
    c = F.silu(causal_filter(u, p("c.weight")) + p("c.bias"))
    q, k, v = blocks(c, "q"), blocks(c, "k"), blocks(u, "v")
    gates = torch.cat((q, k, v), -1)
    i, f = (gates @ p(f"{name}_dense.weight").T + p(f"{name}_param") for name in "if")
    q, k, v = heads(q), heads(k) / (k.shape[-1] // HEADS) ** 0.5, heads(v)
    cell = torch.zeros(x.shape[0], HEADS, v.shape[-1], k.shape[-1], dtype=x.dtype)
    n, m = torch.zeros_like(q[:, 0]), torch.full_like(i[:, 0], -math.inf)
    read = []
    for t in range(x.shape[1]):
        log_f = F.logsigmoid(f[:, t])
        highest = torch.maximum(log_f + m, i[:, t])
        forget, enter = (log_f + m - highest).exp(), (i[:, t] - highest).exp()
        m = highest
        cell = forget[..., None, None] * cell + enter[..., None, None] * torch.einsum(
            "bhp,bhn->bhpn", v[:, t], k[:, t]
        )
        n = forget[..., None] * n + enter[..., None] * k[:, t]
        divisor = torch.maximum((n * q[:, t]).sum(-1).abs(), (-m).exp())
        read.append(torch.einsum("bhpn,bhn->bhp", cell, q[:, t]) / divisor.unsqueeze(-1))
    o = head_norm(torch.stack(read, 1), p("S.weight"), 0.0, 1e-5).flatten(2)
    return ((o + p("y_gain") * c) * z) @ p("y_dense.weight").T


def gla(p: Weights, x: Tensor) -> Tensor:
    q, k, v = (heads(x @ p(f"{name}.weight").T) for name in "CBV")
    low = (x @ p("A.down.weight").T) @ p("A.up.weight").T + p("A.up.bias")
    decay = heads(torch.sigmoid(low) ** (1 / 16))
    o = forgetting(q * q.shape[-1] ** -0.5, k, v, decay)
    o = rms(o, p("y_rmsnorm.weight")).flatten(2) * F.silu(x @ p("g.weight").T)
    return o @ p("y_dense.weight").T


def hgrn2(p: Weights, x: Tensor) -> Tensor:
    q, f, v = F.silu(x @ p("C.weight").T), torch.sigmoid(x @ p("f.weight").T), x @ p("V.weight").T
    o = forgetting(heads(q), heads(1 - f), heads(v), heads(f))
    return rms(o, p("y_rmsnorm.weight")).flatten(2) @ p("y_dense.weight").T


def forgetting(q: Tensor, k: Tensor, v: Tensor, decay: Tensor) -> Tensor:
    """S = diag(decay) S + k v'; y = S' q."""
    state = torch.zeros(q.shape[0], *q.shape[2:], v.shape[-1], dtype=q.dtype)
    read = []
    for t in range(q.shape[1]):
        state = decay[:, t].unsqueeze(-1) * state
        state = state + torch.einsum("bhn,bhp->bhnp", k[:, t], v[:, t])
        read.append(torch.einsum("bhn,bhnp->bhp", q[:, t], state))
    return torch.stack(read, 1)


UNITS: dict[str, tuple[str, Unit]] = {
    "deltanet": ("deltanet(heads = 2)", deltanet),
    "gated_deltanet": ("gated_deltanet(heads = 2)", gated_deltanet),
    "kda": ("kda(heads = 2)", kda),
    "deltaproduct": ("deltaproduct(heads = 2)", deltaproduct),
    "rwkv6": ("rwkv6(heads = 2, rank = 3, gate = 4)", rwkv6),
    "rwkv7_first": ("rwkv7_first(heads = 2)", rwkv7),
    "mlstm": ("mlstm(heads = 2)", mlstm),
    "gla": ("gla(heads = 2, rank = 3)", gla),
    "hgrn2": ("hgrn2(heads = 2)", hgrn2),
}

PROGRAM = """{uses}
model m {{ vocab = 13  width = 16  context = 40  residual = none  backbone {{ {units} }} }}"""


@pytest.mark.parametrize("name", UNITS)
def test_library(name: str) -> None:
    call, reference = UNITS[name]
    compiled = build(PROGRAM.format(uses=f"use std.linear.{name}", units=f"u: {call}"))
    parameters = random_parameters(compiled.model, seed=3)
    network = compiled.network(parameters, torch.float64)
    x = torch.randn(2, LENGTH, WIDTH, dtype=torch.float64)
    expected = reference(lambda key: parameters[f"u.{key}"], x)
    torch.testing.assert_close(network.u(x), expected, rtol=1e-8, atol=1e-10)


def test_later_layers_of_rwkv7_mix_in_the_values_of_the_first() -> None:
    uses = "use std.linear.rwkv7_first use std.linear.rwkv7"
    units = "a: rwkv7_first(heads = 2)  u: rwkv7(heads = 2, first = a.V)"
    compiled = build(PROGRAM.format(uses=uses, units=units))
    parameters = random_parameters(compiled.model, seed=3)
    network = compiled.network(parameters, torch.float64)
    x = torch.randn(2, LENGTH, WIDTH, dtype=torch.float64)
    first = rwkv7_values(lambda key: parameters[f"a.{key}"], x)
    between = rwkv7(lambda key: parameters[f"a.{key}"], x)
    expected = rwkv7(lambda key: parameters[f"u.{key}"], between, first)
    y, values = network.a(x)
    torch.testing.assert_close(network.u(y, values), expected, rtol=1e-8, atol=1e-10)


# --- references of other packages --------------------------------------------------------------


def package_file(package: str, path: str) -> ModuleType:
    """A file of an installed package, without importing the package around it."""
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        pytest.skip(f"{package} is not installed")
    file = Path(found.submodule_search_locations[0]) / path
    spec = importlib.util.spec_from_file_location(f"{package}_{path.replace('/', '_')}", file)
    if not file.exists() or spec is None or spec.loader is None:
        pytest.skip(f"{package} has no {path}")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except ImportError as missing:
        pytest.skip(f"{package} needs {missing.name}")
    return module


N, P = 8, 6


def draw(*shape: int) -> Tensor:
    return torch.randn(2, LENGTH, HEADS, *shape)


def recurrence(template: str, **more: object) -> Callable[..., Tensor]:
    given: dict[str, Any] = {"c_heads": HEADS, "b_heads": HEADS, "v_heads": HEADS} | more
    plan = MixerPlan(template, template, HEADS, N, v_channels=P, **given)
    found: Callable[..., Tensor] = getattr(load(plan), template)
    return found


def close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)


def test_delta_rule_of_fla() -> None:
    theirs = package_file("fla", "ops/delta_rule/naive.py")
    q, k, v, beta = draw(N), unit_length(draw(N)), draw(P), torch.rand(2, LENGTH, HEADS, 1)
    swapped = (x.transpose(1, 2) for x in (q, k, v, beta.squeeze(-1)))
    expected, _ = theirs.delta_rule_recurrence(*swapped)
    ours = recurrence("delta_recurrence", beta_heads=HEADS)
    close(ours(q / N**0.5, k, beta, v), expected.transpose(1, 2))


def test_gated_delta_rule_of_fla() -> None:
    theirs = package_file("fla", "ops/gated_delta_rule/naive.py")
    q, k, v, beta = draw(N), unit_length(draw(N)), draw(P), torch.rand(2, LENGTH, HEADS, 1)
    g = -torch.rand(2, LENGTH, HEADS, 1)
    expected, _ = theirs.naive_recurrent_gated_delta_rule(q, k, v, beta.squeeze(-1), g.squeeze(-1))
    ours = recurrence("delta_recurrence", beta_heads=HEADS, a_heads=HEADS, a_channels=1)
    close(ours(q / N**0.5, g, k, beta, v), expected)


def test_kda_of_fla() -> None:
    theirs = package_file("fla", "ops/kda/naive.py")
    q, k, v, beta = draw(N), unit_length(draw(N)), draw(P), torch.rand(2, LENGTH, HEADS, 1)
    g = -torch.rand(2, LENGTH, HEADS, N)
    expected, _ = theirs.naive_recurrent_kda(q, k, v, g, beta.squeeze(-1))
    ours = recurrence("delta_recurrence", beta_heads=HEADS, a_heads=HEADS, a_channels=N)
    close(ours(q / N**0.5, g, k, beta, v), expected)


def test_diagonal_plus_low_rank_of_fla() -> None:
    theirs = package_file("fla", "ops/generalized_delta_rule/dplr/naive.py")
    q, k, v, b = draw(N), draw(N), draw(P), unit_length(draw(N))
    a, w = -torch.rand(2, LENGTH, HEADS, N) * b, -torch.rand(2, LENGTH, HEADS, N)
    swapped = (x.transpose(1, 2) for x in (q, k, v, b, a, w))
    expected, _ = theirs.dplr_recurrence(*swapped)
    heads_of = {"a_heads": HEADS, "left_heads": HEADS, "right_heads": HEADS}
    ours = recurrence("dplr_recurrence", a_channels=N, **heads_of)
    close(ours(q / N**0.5, w, a, b, k, v), expected.transpose(1, 2))


def test_gla_and_retention_of_fla() -> None:
    theirs = package_file("fla", "ops/gla/naive.py")
    q, k, v, g = draw(N), draw(N), draw(P), -torch.rand(2, LENGTH, HEADS, N)
    expected, _ = theirs.naive_recurrent_gla(q, k, v, g)
    ours = recurrence("diagonal_recurrence", a_heads=HEADS, a_channels=N)
    close(ours(q / N**0.5, g, k, v), expected)
    theirs = package_file("fla", "ops/retention/naive.py")
    expected = theirs.naive_retention(*(x.transpose(1, 2) for x in (q, k, v)))
    decay = (1 - 2.0 ** -(5 + torch.arange(HEADS))).log().view(1, 1, HEADS, 1)
    ours = recurrence("scalar_recurrence", a_heads=HEADS, a_channels=1)
    close(ours(q / N**0.5, decay.expand(2, LENGTH, -1, -1), k, v), expected.transpose(1, 2))


def test_mlstm_of_xlstm() -> None:
    theirs = package_file("xlstm", "blocks/mlstm/backends.py")
    q, k, v, i, f = draw(N), draw(N), draw(P), draw(1), draw(1) + 3
    # the package adds eps to the divisor
    swapped = (x.transpose(1, 2) for x in (q, k, v, i, f))
    expected = theirs.parallel_stabilized_simple(*swapped, eps=0.0).transpose(1, 2)
    ours = recurrence("scalar_recurrence", a_heads=HEADS, a_channels=1, floor=1.0)
    close(ours(q, F.logsigmoid(f), i.exp() * k / N**0.5, v), expected)
