"""Attention kernels on a GPU against what PyTorch and flash-linear-attention offer.

    python benchmarks/gpu.py [--tokens 4096] [--batch 4] [--repeat 50]

Prints a row per program, pass and implementation: the median time, the part of the device's
published matrix rate (of FLOPs of visible pairs) and of its bandwidth (of the bytes in
`KernelPlan.work`). Without a GPU it says so and ends with status 0.

This script has never run: there was no GPU.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from starc.compiler.driver import compile_program
from starc.compiler.kernel_attention import FusedAttention
from starc.compiler.kernel_roofline import DEVICES
from starc.compiler.options import Options
from starc.grammar.source import Source
from starc.kernel_check import load

PROGRAM = """
operator attention(heads: int) {{
    C = x |> dense(width) |> heads(heads)
    B = x |> dense(width) |> heads(heads)
    V = x |> dense(width) |> heads(heads)
    S = low_rank(C, B) |> scale(1 / sqrt(width / heads)) {before} |> causal {masks}
    y = (S {after}) @ V |> merge |> dense(width)
}}
model m {{ vocab = 8  width = 1024  context = 4096  backbone {{ attention(heads = 16) }} }}
"""

CASES = {
    "window 512": ("", "|> band(512)", "|> softmax"),
    "window 512, first 4": ("", "|> band(512) |> first(4)", "|> softmax"),
    "soft-cap": ("|> softcap(50)", "", "|> softmax"),
    "alibi": ("|> alibi", "", "|> softmax"),
    "sigmoid": ("", "", "|> sigmoid"),
}
"""Stages before the mask, masks, and what makes weights."""


def kernel_of(case: str, folder: Path) -> tuple[Any, FusedAttention]:
    """A generated module and the plan of its attention kernel."""
    before, masks, after = CASES[case]
    text = PROGRAM.format(before=before, masks=masks, after=after)
    artifact = compile_program(Source("m.star", text), Options())
    (plan,) = (p for p in artifact.kernels if isinstance(p, FusedAttention))
    return load(artifact.text, folder), plan


def terms_of(plan: FusedAttention, batch: int, tokens: int) -> list[torch.Tensor]:
    return [torch.rand(batch, tokens, plan.heads, 1, device="cuda") for _ in plan.terms]


def written_out(
    plan: FusedAttention, c: torch.Tensor, b: torch.Tensor, v: torch.Tensor
) -> torch.Tensor | None:
    """The same by scaled_dot_product_attention with a mask, where it is no more than that."""
    if not plan.softmax or plan.later or plan.sink:
        return None
    T = c.shape[1]
    i, j = torch.arange(T, device="cuda")[:, None], torch.arange(T, device="cuda")
    seen = eval(plan.seen, {"i": i, "j": j})
    c, b, v = (x.transpose(1, 2) for x in (c, b, v))
    return F.scaled_dot_product_attention(c, b, v, attn_mask=seen, scale=plan.scale)


def others(tokens: int) -> Iterator[tuple[str, Callable[..., torch.Tensor]]]:
    """Implementations of plain causal attention, for scale."""
    yield "SDPA, plain causal", lambda c, b, v: F.scaled_dot_product_attention(
        c.transpose(1, 2), b.transpose(1, 2), v.transpose(1, 2), is_causal=True
    )
    try:
        from fla.ops.attn import parallel_attn
    except ImportError:
        return
    yield "fla, plain causal", lambda c, b, v: parallel_attn(c, b, v)


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


def passes(
    function: Callable[..., torch.Tensor], inputs: list[torch.Tensor], repeat: int
) -> tuple[float, float]:
    """Milliseconds forward, and forward with backward less that."""
    with torch.no_grad():
        forward = milliseconds(lambda: function(*inputs), repeat)
    own = [x.detach().requires_grad_() for x in inputs]

    def both() -> None:
        y = function(*own)
        torch.autograd.grad(y, own, torch.ones_like(y))

    return forward, milliseconds(both, repeat) - forward


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--repeat", type=int, default=50)
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("there is no GPU here: nothing was measured", file=sys.stderr)
        return
    name = torch.cuda.get_device_name()
    device = next((d for own, d in DEVICES.items() if own in name.replace(" ", "")), None)
    print(f"{name}, torch {torch.__version__}, {options.batch} x {options.tokens} tokens, bfloat16")
    shape = (options.batch, options.tokens, 16, 64)
    inputs = [torch.randn(shape, device="cuda", dtype=torch.bfloat16) for _ in range(3)]
    for title, function in others(options.tokens):
        forward, backward = passes(function, inputs, options.repeat)
        print(f"{title:28} {forward:8.3f} ms forward {backward:8.3f} ms backward")
    for case in CASES:
        with tempfile.TemporaryDirectory() as folder:
            module, plan = kernel_of(case, Path(folder))
            terms = terms_of(plan, options.batch, options.tokens)
            own = [*inputs, *terms]
            times = passes(getattr(module, plan.name), own, options.repeat)
        work = plan.work(options.batch, options.tokens, 2)
        for title, spent in zip(("forward", "backward"), times, strict=True):
            mine = [w for w in work if w.operation == title]
            line = f"{case:28} {spent:8.3f} ms {title}"
            if device is not None:
                rate = sum(w.flops for w in mine) / (spent * 1e-3) / device.matrix
                bandwidth = sum(w.moved for w in mine) / (spent * 1e-3) / device.bandwidth
                line += f"  {rate:6.1%} of the matrix rate  {bandwidth:6.1%} of the bandwidth"
            print(line)
        if written_out(plan, *inputs) is not None:
            masked = milliseconds(lambda p=plan: written_out(p, *inputs), options.repeat)
            print(f"{'  SDPA with the mask':28} {masked:8.3f} ms forward, mask included")


if __name__ == "__main__":
    main()
