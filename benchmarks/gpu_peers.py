"""What other packages offer for the same as each kernel: part of gpu.py.

PyTorch's own is always there; flash-linear-attention, mamba-ssm, causal-conv1d and Liger where they
can be imported. Operands are random ones of their own layouts; where theirs is another operation
than ours, the title says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import wraps
from importlib import import_module
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from starc.compiler.kernel_attention import FusedAttention
from starc.compiler.kernel_attention_step import AttentionStep
from starc.compiler.kernel_convolution_step import ConvolutionStep
from starc.compiler.kernel_long_convolution import LongConvolution
from starc.compiler.kernel_loss import CrossEntropy
from starc.compiler.kernel_norm import NormKernel
from starc.compiler.kernel_plan import GatedConvolution, GatedProduct, KernelPlan
from starc.compiler.kernel_recurrence import Recurrence
from starc.compiler.kernel_rotary import Rotary
from starc.compiler.kernel_scan import Scan
from starc.compiler.kernel_structured import Structured

EPS = 1e-6


@dataclass(frozen=True)
class Peer:
    """Another implementation, with operands; `runs_anywhere` says that it needs no GPU."""

    title: str
    function: Callable[..., Any]
    given: tuple[Any, ...]
    runs_anywhere: bool = False


def found(module: str, name: str) -> Callable[..., Any] | None:
    """A function of a package, or None where that cannot be imported."""
    try:
        return getattr(import_module(module), name, None)
    except Exception:  # a package for CUDA alone raises what it likes without
        return None


def peers_of(plan: KernelPlan, operation: str, where: Any) -> Iterator[Peer]:
    """Implementations of one operation of a plan, on operands of the sizes in `where`."""
    match plan, operation:
        case FusedAttention(), "forward":
            yield from attention(plan, where)
        case AttentionStep(), "step":
            yield from attention_step(plan, where)
        case Recurrence(), "forward":
            yield from recurrence(plan, where)
        case Structured(), "forward":
            yield from structured(plan, where)
        case Scan(), "forward":
            yield from scan(plan, where)
        case GatedConvolution(), "forward":
            yield from convolution(plan, where)
        case LongConvolution(), "forward":
            yield from long_convolution(plan, where)
        case ConvolutionStep(), "step":
            yield from convolution_step(plan, where)
        case GatedProduct(), "forward":
            yield from product(plan, where)
        case NormKernel(), "forward":
            yield from norm(plan, where)
        case Rotary(), "forward":
            yield from rotary(plan, where)
        case CrossEntropy(), "loss":
            yield from loss(plan, where)


def attention(plan: FusedAttention, where: Any) -> Iterator[Peer]:
    B, T = where.batch, where.tokens
    q = where.random(B, plan.heads, T, plan.channels)
    k = where.random(B, plan.key_heads, T, plan.channels)
    v = where.random(B, plan.key_heads, T, plan.v_channels)

    def causal(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)

    yield Peer("  torch SDPA, plain causal", causal, (q, k, v), True)
    if plan.softmax and not plan.later and not plan.sink and plan.seen:
        i, j = torch.arange(T, device=where.device)[:, None], torch.arange(T, device=where.device)
        seen = eval(plan.seen, {"i": i, "j": j})  # a formula of ours: |, &, comparisons

        def masked(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            return F.scaled_dot_product_attention(q, k, v, attn_mask=seen, enable_gqa=True)

        yield Peer("  torch SDPA with the mask", masked, (q, k, v), True)
    if function := found("fla.ops.attn", "parallel_attn"):
        turned = tuple(x.transpose(1, 2).contiguous() for x in (q, k, v))
        yield Peer("  fla parallel_attn, plain causal", function, turned)


def attention_step(plan: AttentionStep, where: Any) -> Iterator[Peer]:
    B, T = where.batch, where.tokens
    q = where.random(B, plan.heads, 1, sum(plan.parts))
    k = where.random(B, plan.key_heads, T, sum(plan.parts))
    v = where.random(B, plan.key_heads, T, plan.v_channels)

    def step(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, enable_gqa=True)

    yield Peer("  torch SDPA, one query, all keys", step, (q, k, v), True)


def qkv(plan: Recurrence | Structured, where: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values with as many heads each."""
    shape = where.batch, where.tokens, plan.heads
    c, b = (where.random(*shape, plan.channels) for _ in range(2))
    return c, F.normalize(b, dim=-1), where.random(*shape, plan.values)


def recurrence(plan: Recurrence, where: Any) -> Iterator[Peer]:
    B, T, H = where.batch, where.tokens, plan.heads
    given = qkv(plan, where)
    if plan.decay == "none":
        if function := found("fla.ops.linear_attn", "chunk_linear_attn"):
            more = (1.0, None, False, plan.floor is not None)
            yield Peer("  fla chunk_linear_attn", function, (*given, *more))
    elif plan.decay == "scalar":
        if function := found("fla.ops.simple_gla", "chunk_simple_gla"):
            gates = where.decay(B, T, H)
            yield Peer("  fla chunk_simple_gla", function, (*given, gates, None, 1.0))
        where_is = "mamba_ssm.ops.triton.ssd_combined", "mamba_chunk_scan_combined"
        if function := found(*where_is):
            groups = [where.random(B, T, plan.groups, plan.channels) for _ in range(2)]
            A = -torch.rand(H, device=where.device)
            dt = torch.rand(B, T, H, device=where.device)
            yield Peer("  mamba-ssm chunk scan", function, (given[2], dt, A, *groups, 64))
    elif function := found("fla.ops.gla", "chunk_gla"):
        gates = where.decay(B, T, H, plan.channels)
        yield Peer("  fla chunk_gla", function, (*given, gates, 1.0))


def structured(plan: Structured, where: Any) -> Iterator[Peer]:
    B, T, H = where.batch, where.tokens, plan.heads
    q, k, v = qkv(plan, where)
    beta = where.random(B, T, H).sigmoid()
    match plan.delta, plan.decay:
        case True, "none":
            name, module, more = "chunk_delta_rule", "delta_rule", (beta, 1.0)
        case True, "scalar":
            gates = where.decay(B, T, H)
            name, module = "chunk_gated_delta_rule", "gated_delta_rule"
            more = (gates, beta, 1.0)
        case True, _:
            name, module = "chunk_kda", "kda"
            more = (where.decay(B, T, H, plan.channels), beta, 1.0)
        case _:
            name, module = "chunk_dplr_delta_rule", "generalized_delta_rule"
            left, gates = k * beta[..., None], where.decay(B, T, H, plan.channels)
            more = (-left, k, gates, 1.0)
    if function := found(f"fla.ops.{module}", name):
        once = "" if plan.steps_of_token == 1 else ", one step a token"
        yield Peer(f"  fla {name}{once}", function, (q, k, v, *more))


def scan(plan: Scan, where: Any) -> Iterator[Peer]:
    if plan.channels == 1 or not plan.factored:
        return
    if function := found("mamba_ssm.ops.selective_scan_interface", "selective_scan_fn"):
        B, T, H, N = where.batch, where.tokens, plan.heads, plan.channels
        u, dt = where.random(B, H, T), where.random(B, H, T).sigmoid()
        A = -torch.rand(H, N, device=where.device)
        shared = where.random(B, N, T), where.random(B, N, T)
        yield Peer("  mamba-ssm selective_scan_fn", function, (u, dt, A, *shared))


def convolution(plan: GatedConvolution, where: Any) -> Iterator[Peer]:
    x = where.random(where.batch, plan.channels, where.tokens)
    taps = where.random(plan.channels, plan.taps)

    def filtered(x: Tensor, taps: Tensor) -> Tensor:
        groups, past = taps.shape[0], taps.shape[1] - 1
        return F.conv1d(F.pad(x, (past, 0)), taps[:, None], groups=groups)

    yield Peer("  torch conv1d, no gates", filtered, (x, taps), True)
    if 2 <= plan.taps <= 4 and (function := found("causal_conv1d", "causal_conv1d_fn")):
        yield Peer("  causal-conv1d, no gates", function, (x, taps))


def long_convolution(plan: LongConvolution, where: Any) -> Iterator[Peer]:
    """By transforms, which serve longer filters: with it the table of lengths can be corrected."""
    T = where.tokens
    filter = where.random(T, plan.lanes, dtype=torch.float32) / T**0.5
    gates = (plan.output_gate, plan.input_gate)
    operands = [where.random(where.batch, T, plan.channels) for _ in range(1 + sum(gates))]

    def transformed(filter: Tensor, value: Tensor, *gates: Tensor) -> Tensor:
        u = gates[-1] * value if plan.input_gate else value
        each = u.float().unflatten(2, (plan.lanes, -1)).movedim(1, -1)
        K = torch.fft.rfft(filter.t().unsqueeze(1), n=2 * T)
        y = torch.fft.irfft(K * torch.fft.rfft(each, n=2 * T), n=2 * T)[..., :T]
        y = y.movedim(-1, 1).flatten(2).to(u.dtype)
        return gates[0] * y if plan.output_gate else y

    yield Peer("  torch.fft", transformed, (filter, *operands), True)


def convolution_step(plan: ConvolutionStep, where: Any) -> Iterator[Peer]:
    taps = plan.of.taps
    if 2 <= taps <= 4 and (function := found("causal_conv1d", "causal_conv1d_update")):
        x, past = where.random(where.batch, plan.channels), (where.batch, plan.channels, taps)
        given = (x, where.random(*past), where.random(plan.channels, taps))
        yield Peer("  causal-conv1d update, no gates", function, given)


def product(plan: GatedProduct, where: Any) -> Iterator[Peer]:
    gate, value = (where.random(where.batch, where.tokens, plan.channels) for _ in range(2))
    own = {"silu": F.silu, "gelu": F.gelu, "sigmoid": torch.sigmoid, "relu": F.relu}
    if plan.activation in own:
        activation = own[plan.activation]
        function = lambda gate, value: activation(gate) * value  # noqa: E731
        yield Peer(f"  torch {plan.activation}(gate) * value", function, (gate, value), True)
    name = {"silu": "liger_swiglu", "gelu_tanh": "liger_geglu"}.get(plan.activation, "")
    if function := found("liger_kernel.transformers.functional", name):
        yield Peer(f"  {name}", function, (gate, value))


def norm(plan: NormKernel, where: Any) -> Iterator[Peer]:
    if plan.heads > 1 or plan.kind == "l2":
        return
    shape, size = (where.batch, where.tokens, plan.channels), (plan.channels,)
    x, more, weight = where.random(*shape), where.random(*shape), where.random(*size)
    layer = plan.kind == "layer"

    def plain(x: Tensor, weight: Tensor) -> Tensor:
        return F.layer_norm(x, size, weight) if layer else F.rms_norm(x, size, weight)

    def added(x: Tensor, more: Tensor, weight: Tensor) -> Tensor:
        return plain(x + more, weight)

    title = f"  torch {plan.kind} norm{' of x + more' if plan.residual else ''}"
    given = (x, more, weight) if plan.residual else (x, weight)
    yield Peer(title, added if plan.residual else plain, given, True)
    name = "" if layer else "liger_fused_add_rms_norm" if plan.residual else "liger_rms_norm"
    if function := found("liger_kernel.transformers.functional", name):
        yield Peer(f"  {name}", function, (*given, EPS))


def rotary(plan: Rotary, where: Any) -> Iterator[Peer]:
    if not plan.others or plan.rest or plan.pairs != "half":
        return
    if function := found("liger_kernel.transformers.functional", "liger_rope"):
        B, T = where.batch, where.tokens
        heads = [where.random(B, n, T, plan.channels) for n in (plan.heads, plan.others)]
        tables = [where.random(1, T, plan.channels) for _ in range(2)]
        yield Peer("  liger_rope", function, (*heads, *tables))


def loss(plan: CrossEntropy, where: Any) -> Iterator[Peer]:
    rows = where.batch * where.tokens
    x, weight = where.random(rows, plan.width), where.random(plan.vocab, plan.width)
    targets = torch.randint(plan.vocab, (rows,), device=where.device)

    def all_logits(x: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(F.linear(x, weight).float(), targets)

    def with_gradients(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """What our loss gives in one pass."""

        @wraps(function)  # with its signature
        def both(x: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
            with torch.enable_grad():
                leaves = [x.detach().requires_grad_(), weight.detach().requires_grad_()]
                y = function(*leaves, targets)
                torch.autograd.grad(y, leaves)
            return y

        return both

    given = (x, weight, targets)
    yield Peer("  torch, all logits, gradients too", with_gradients(all_logits), given, True)
    name = "liger_fused_linear_cross_entropy"
    if function := found("liger_kernel.transformers.functional", name):
        yield Peer(f"  {name}, gradients too", with_gradients(function), given)
