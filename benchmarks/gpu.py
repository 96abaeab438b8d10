"""Every kind of kernel on a GPU, beside what PyTorch and other packages offer.

    python benchmarks/gpu.py [PROGRAM...] [--tokens 4096] [--batch 4] [--repeat 50] [--dry]

Compiles programs (those in PROGRAMS unless some are named), and times each of their kernels on
random operands in bfloat16. A row is a kernel and a pass, or another implementation of the same
(`gpu_peers.py`): the median time, and which part it reaches of the matrix rate and of the bandwidth
that are measured first, on a product of squares and a copy. FLOPs and bytes are those of
`KernelPlan.work`. Without a GPU it says so and ends with status 0.

`--dry` needs no GPU: every call goes through its body in PyTorch on a few tokens, operands of other
packages are bound to their signatures where these can be imported, and nothing is timed.

This script has never run on a GPU: there was none.
"""

from __future__ import annotations

import argparse
import inspect
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from gpu_peers import Peer, peers_of
from torch import Tensor

from starc.compiler.driver import compile_program
from starc.compiler.kernel_attention import FusedAttention
from starc.compiler.kernel_attention_step import AttentionStep
from starc.compiler.kernel_convolution_step import ConvolutionStep
from starc.compiler.kernel_experts import ExpertProducts
from starc.compiler.kernel_gather import Gather
from starc.compiler.kernel_long_convolution import LongConvolution
from starc.compiler.kernel_loss import CrossEntropy
from starc.compiler.kernel_norm import NormKernel
from starc.compiler.kernel_plan import GatedConvolution, GatedProduct, KernelPlan
from starc.compiler.kernel_recurrence import Recurrence
from starc.compiler.kernel_rotary import Rotary
from starc.compiler.kernel_scan import Scan
from starc.compiler.kernel_structured import Structured
from starc.compiler.options import Options
from starc.grammar.library import read_source
from starc.kernel_check import load

EXAMPLES = Path(__file__).parents[1] / "examples"

PROGRAMS = (
    "mistral",  # attention in a window, its step, rotations, added norms, gated products, losses
    "sigmoid_attention",
    "streaming",
    "latent",
    "linear_attention",
    "retnet",
    "gla",
    "mamba2",
    "mamba",
    "hybrid",  # gated convolutions and their steps
    "hyena",  # long convolutions
    "deltanet",
    "gated_deltanet",
    "kimi_linear",
    "rwkv7",
    "sparse_experts",
    "product_key_memory",
)
"""Examples that between them have each kind of kernel, and each kind of transition."""

EPS = 1e-6
IGNORED = -100


@dataclass(frozen=True)
class Where:
    """Where operands live, and how many: `batch` sequences of `tokens`."""

    batch: int
    tokens: int
    device: str

    def random(self, *shape: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
        return torch.randn(shape, device=self.device, dtype=dtype)

    def decay(self, *shape: int) -> Tensor:
        """Logarithms of decays."""
        return -torch.rand(shape, device=self.device)


Arguments = list[Any]


def operands(plan: KernelPlan, where: Where) -> Iterator[tuple[str, str, Arguments]]:
    """(operation, operator, its arguments) of what a plan's kernels compute; nothing for kinds of
    plans that this script does not know."""
    B, T, random = where.batch, where.tokens, where.random
    if isinstance(plan, FusedAttention):
        shapes = (plan.c_heads, plan.channels), (plan.b_heads, plan.channels)
        found = [random(B, T, *shape) for shape in (*shapes, (plan.v_heads, plan.v_channels))]
        yield "forward", plan.name, [*found, *terms(plan, where, T)]
    elif isinstance(plan, AttentionStep):
        query = random(B, 1, plan.c_heads, sum(plan.parts))
        keys = [random(B, T, plan.b_heads, part) for part in plan.parts]
        value = [random(B, T, plan.v_heads, plan.v_channels)] if plan.own_value else []
        yield "step", plan.name, [query, *keys, *value, *terms(plan, where, 1)]
    elif isinstance(plan, Recurrence | Scan | Structured):
        yield "forward", plan.name, [*recurrent(plan, where), None]
        if plan.steps:
            width = plan.state_width if isinstance(plan, Recurrence) else 1
            width = plan.values if isinstance(plan, Structured) else width
            state = random(B, plan.heads, plan.channels, width, dtype=torch.float32)
            step = [*recurrent(plan, replace(where, tokens=1)), state]
            yield "step", f"{plan.name}_step", step
    elif isinstance(plan, GatedProduct):
        yield "forward", plan.name, [random(B, T, plan.width) for _ in plan.inputs]
    elif isinstance(plan, GatedConvolution | ConvolutionStep):
        own = plan.of if isinstance(plan, ConvolutionStep) else plan
        tokens = 1 if isinstance(plan, ConvolutionStep) else T
        found = [random(B, tokens, own.width) for _ in own.inputs]
        found.append(random(own.channels, own.taps, dtype=torch.float32))
        found += [random(own.channels, dtype=torch.float32)] if own.bias else []
        if isinstance(plan, ConvolutionStep):
            yield "step", plan.name, [*found, random(B, plan.past, plan.channels)]
        else:
            yield "forward", plan.name, found
    elif isinstance(plan, LongConvolution):
        filter = random(T, plan.lanes, dtype=torch.float32) / T**0.5
        there = (plan.output_gate, plan.input_gate, True)
        found = [random(B, T, plan.channels) if x else None for x in there]
        yield "forward", plan.name, [filter, *found]
    elif isinstance(plan, NormKernel):
        shape = (plan.heads, plan.channels) if plan.heads > 1 else (plan.channels,)
        found = [random(B, T, *shape) for _ in range(1 + plan.residual)]
        found += [random(*plan.weight_shape, dtype=torch.float32) for _ in plan.weights]
        yield "forward", plan.name, [*found, EPS]
    elif isinstance(plan, Rotary):
        found = [random(B, T, n, plan.channels) for n in (plan.heads, plan.others) if n]
        angle = torch.rand(T, 1, plan.half, device=where.device)
        yield "forward", plan.name, [*found, angle.cos(), angle.sin(), False]
    elif isinstance(plan, CrossEntropy):
        weight = random(plan.vocab, plan.width)
        targets = torch.randint(plan.vocab, (B, T), device=where.device)
        x = random(B, T, plan.width)
        yield "loss", plan.name, [x, weight, None, targets, IGNORED, True]
    elif isinstance(plan, Gather):
        rows = torch.randint(plan.rows, (B * T, plan.reads), device=where.device)
        found = [rows, random(B * T, plan.reads), random(plan.rows, plan.channels)]
        yield "forward", plan.name, found
    elif isinstance(plan, ExpertProducts):
        gates = random(B, T, plan.top).softmax(-1)
        chosen = torch.rand(B, T, plan.experts, device=where.device).topk(plan.top).indices
        maps = (plan.first_width, plan.width), (plan.out, plan.hidden)
        shapes = [*maps, *((rows,) for (rows, _), has in zip(maps, plan.bias, strict=True) if has)]
        weights = [
            random(*shape) / plan.width**0.5 for shape in shapes for _ in range(plan.experts)
        ]
        yield "forward", plan.name, [random(B, T, plan.width), gates, chosen, weights, True]


def terms(plan: FusedAttention | AttentionStep, where: Where, queries: int) -> list[Tensor]:
    """A number for each head, and each query or each key, as float32."""
    found = []
    for name in plan.terms:
        tokens = where.tokens if name in plan.key_terms else queries
        x = torch.rand(where.batch, tokens, plan.heads, 1, device=where.device)
        found.append(-x.cumsum(1) if name == "total" else x)
    return found


def recurrent(plan: Recurrence | Scan | Structured, where: Where) -> list[Tensor]:
    """Operands of a recurrence, in the order of its operator's arguments."""
    found = []
    steps = plan.steps_of_token if isinstance(plan, Structured) else 1
    for name, (heads, channels) in plan.sizes.items():
        several = isinstance(plan, Structured) and steps > 1 and name in plan.of_steps
        shape = (where.batch, where.tokens, *((steps,) if several else ()), heads, channels)
        if name == "slope":
            found.append(torch.rand(heads, channels, device=where.device) + 0.5)
        elif name == "A":
            found.append(where.decay(*shape))
        elif name == "beta":
            found.append(where.random(*shape).sigmoid())
        else:
            x = where.random(*shape)
            unit = isinstance(plan, Structured) and name in ("B", "left", "right")
            found.append(torch.nn.functional.normalize(x, dim=-1) if unit else x)
    if isinstance(plan, Structured) and not plan.delta:  # a transition that lets no state grow
        names = list(plan.sizes)
        found[names.index("left")] = -found[names.index("right")]
    return found


def first_of(results: Any) -> Tensor:
    return results if isinstance(results, Tensor) else results[0]


def copied(x: Any) -> Any:
    """An operand of its own, or a list of them."""
    if isinstance(x, list):
        return [copied(one) for one in x]
    return x.detach().clone() if isinstance(x, Tensor) else x


def pass_of(operation: str) -> str:
    """The pass that a plan's operation is part of: gradients have names of their own."""
    if operation in ("forward", "backward", "step", "loss"):
        return operation
    return "backward" if operation.startswith("d_") else "forward"


def calls(
    function: Callable[..., Any], operation: str, given: Sequence[Any]
) -> dict[str, Callable[[], Any]]:
    """What is timed of a function: itself, and with its gradients where it is a forward pass."""

    def forward() -> None:
        with torch.no_grad():
            function(*given)

    def both() -> None:
        y = first_of(function(*own))
        torch.autograd.grad(y, leaves, torch.ones_like(y))

    if operation != "forward":
        return {operation: forward}
    own = [copied(x) for x in given]
    flat = [x for many in own for x in (many if isinstance(many, list) else [many])]
    leaves = [x for x in flat if isinstance(x, Tensor) and x.is_floating_point()]
    if given[-1] is False:  # of a rotation, whose tables have no gradients
        leaves = leaves[:-2]
    for x in leaves:
        x.requires_grad_()
    return {"forward": forward, "backward": both}


def milliseconds(function: Callable[[], Any], repeat: int) -> float:
    """Median of `repeat` runs behind a warm-up, each between two events on the device."""
    for _ in range(5):
        function()
    times = []
    for _ in range(repeat):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        function()
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end))
    return statistics.median(times)


@dataclass(frozen=True)
class Rates:
    """What the device was measured to do: FLOP/s of bfloat16 products, bytes/s of a copy."""

    matrix: float
    bandwidth: float


def measured(repeat: int) -> Rates:
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    product = 2 * 8192**3 / (milliseconds(lambda: a @ b, repeat) * 1e-3)
    source = torch.empty(2**30, device="cuda", dtype=torch.uint8)
    target = torch.empty_like(source)
    copy = 2 * 2**30 / (milliseconds(lambda: target.copy_(source), repeat) * 1e-3)
    return Rates(product, copy)


def timed(named: dict[str, Callable[[], Any]], repeat: int) -> dict[str, float]:
    """Milliseconds of each pass; what a backward pass takes is both passes less the first."""
    found = {name: milliseconds(run, repeat) for name, run in named.items()}
    if "backward" in found:
        found["backward"] -= found["forward"]
    return found


def line(
    title: str, operation: str, spent: float, plan: KernelPlan | None, work: Any, on: Rates
) -> str:
    text = f"{title:44} {operation:8} {spent:9.3f} ms"
    mine = [w for w in work if pass_of(w.operation) == operation]
    if plan is None or not mine:
        return text
    seconds = spent * 1e-3
    rate = sum(w.flops for w in mine) / seconds / on.matrix
    bandwidth = sum(w.moved for w in mine) / seconds / on.bandwidth
    return f"{text}  {rate:6.1%} of the matrix rate  {bandwidth:6.1%} of the bandwidth"


def compare(plan: KernelPlan, where: Where, repeat: int, rates: Rates | None) -> Iterator[str]:
    """Rows of one plan, whose file is loaded: its own, and those of others."""
    work = plan.work(where.batch, where.tokens, 2)
    known = False
    for operation, name, given in operands(plan, where):
        known = True
        own = calls(getattr(getattr(torch.ops, plan.namespace), name), operation, given)
        for title, named, subject in (
            (name, own, plan),
            *((p.title, peer_calls(p, operation), None) for p in peers_of(plan, operation, where)),
        ):
            if rates is None:
                for run in named.values():
                    run()
                yield f"{title:44} {', '.join(named)}: fine"
                continue
            try:
                spent = timed(named, repeat)
            except Exception as failure:  # another version, or sizes that a package does not take
                if subject is not None:
                    raise
                yield f"{title:44} does not run: {type(failure).__name__}: {failure}"
                continue
            for which, each in spent.items():
                yield line(title, which, each, subject, work, rates)
    if not known:
        yield f"{plan.name:44} no operands are known for {type(plan).__name__}"


def peer_calls(peer: Peer, operation: str) -> dict[str, Callable[[], Any]]:
    """What is timed of another implementation; without a GPU those of PyTorch run, and the others
    are held against their signatures."""
    here = all(not isinstance(x, Tensor) or not x.is_cuda for x in peer.given)
    if here and not peer.runs_anywhere:
        return {f"{operation} binds": lambda: inspect.signature(peer.function).bind(*peer.given)}
    return calls(peer.function, operation, peer.given)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("programs", nargs="*", default=PROGRAMS)
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--repeat", type=int, default=50)
    parser.add_argument("--dry", action="store_true")
    options = parser.parse_args()
    if not options.dry and not torch.cuda.is_available():
        print("there is no GPU here: nothing was measured (--dry runs without)", file=sys.stderr)
        return
    where, rates = Where(options.batch, options.tokens, "cuda"), None
    if options.dry:
        where = Where(1, 40, "cpu")
    else:
        rates = measured(options.repeat)
        print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, bfloat16,", end=" ")
        print(f"{options.batch} x {options.tokens} tokens; measured:", end=" ")
        print(f"{rates.matrix / 1e12:.0f} TFLOP/s, {rates.bandwidth / 1e9:.0f} GB/s")
    seen: set[KernelPlan] = set()
    for program in options.programs:
        path = program if program.endswith(".star") else EXAMPLES / f"{program}.star"
        artifact = compile_program(read_source(str(path)), Options(format=False))
        print(f"\n{program}")
        with tempfile.TemporaryDirectory() as folder:
            load(artifact.text, Path(folder))
            for plan in dict.fromkeys(artifact.kernels):
                same = replace(plan, digest="0" * 8)
                if same not in seen:
                    seen.add(same)
                    for row in compare(plan, where, options.repeat, rates):
                        print(row, flush=True)


if __name__ == "__main__":
    main()
