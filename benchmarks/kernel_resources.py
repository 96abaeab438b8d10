"""Registers, spills and shared memory of chunk kernels, beside those of flash-linear-attention.

Run from the repository: `python benchmarks/kernel_resources.py [TARGET]`, sm_90 unless said
otherwise. Nothing runs on a GPU: kernels are compiled ahead of time, at the same sizes, for
bfloat16. The other package is compared with where it can be imported, and is no dependency. Of its
autotuned kernels the configuration is taken whose tiles and warps are nearest to ours. The table is
printed and written to benchmarks/results/kernel_resources.md.
"""

from __future__ import annotations

import importlib
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from starc.compiler.kernel_plan import Launch, sections
from starc.compiler.kernel_recurrence import Recurrence
from starc.compiler.kernel_structured import Structured
from starc.kernel_check import load
from starc.runtime.kernels import TARGETS, KernelReport, Target, compile_kernel
from starc.templates import render

RESULTS = Path(__file__).parent / "results" / "kernel_resources.md"
HEADS, KEYS, VALUES = 4, 128, 128
HEADER = "import os\n\nimport torch\nimport torch.nn.functional as F\nfrom torch import Tensor\n\n"

STATES_OF, OUTPUTS, GATED = "fla.ops.common.chunk_h", "fla.ops.common.chunk_o", "fla.ops.gla.chunk"

# What does the same as one of our kernels, by its name and whether it runs backwards.
STATES = {("states", False): ((STATES_OF, "chunk_fwd_kernel_h"),)}
STATES |= {("states", True): ((STATES_OF, "chunk_bwd_kernel_dh"),)}
PEERS = {
    "scalar": {
        **STATES,
        ("outputs", False): ((OUTPUTS, "chunk_fwd_kernel_o"),),
        ("outputs", True): ((OUTPUTS, "chunk_bwd_kernel_dv"),),
        ("keys", None): ((OUTPUTS, "chunk_bwd_kernel_dqkwg"),),
    },
    "diagonal": {
        **STATES,
        ("scores", None): (
            (GATED, "chunk_gla_fwd_A_kernel_intra_sub_inter"),
            (GATED, "chunk_gla_fwd_A_kernel_intra_sub_intra"),
        ),
        ("outputs", False): ((GATED, "chunk_gla_fwd_kernel_o"),),
        ("outputs", True): ((GATED, "chunk_gla_bwd_kernel_dv"),),
        ("keys", None): (
            (GATED, "chunk_gla_bwd_kernel_dA"),
            (GATED, "chunk_gla_bwd_kernel_inter"),
            (GATED, "chunk_gla_bwd_kernel_intra"),
        ),
    },
}

DELTA_STATES, SYSTEM = "fla.ops.common.chunk_delta_h", "fla.ops.common.chunk_scaled_dot_kkt"
SOLVE, FACTORS = "fla.ops.utils.solve_tril", "fla.ops.gated_delta_rule.wy_fast"
PEERS["delta"] = {
    ("scores", None): ((SYSTEM, "chunk_scaled_dot_kkt_fwd_kernel"),),
    ("solve", None): ((SOLVE, "merge_16x16_to_64x64_inverse_kernel"),),
    ("factors", None): ((FACTORS, "recompute_w_u_fwd_kernel"),),
    ("states", False): ((DELTA_STATES, "chunk_gated_delta_rule_fwd_kernel_h_blockdim64"),),
    ("states", True): ((DELTA_STATES, "chunk_gated_delta_rule_bwd_kernel_dhu_blockdim64"),),
    ("outputs", False): ((OUTPUTS, "chunk_fwd_kernel_o"),),
    ("keys", None): (
        (OUTPUTS, "chunk_bwd_kernel_dqkwg"),
        (FACTORS, "prepare_wy_repr_bwd_kernel"),
    ),
}

# Arguments of theirs that a training step leaves out, and those in float32.
ABSENT = {"g_gamma", "gv", "h0", "ht", "dht", "dh0", "cu_seqlens", "chunk_indices", "dw"}
ABSENT |= {"split_offsets", "chunk_offsets"}
WIDE = {"g", "gk", "dg", "dg2", "dA"}
WIDE_SCORES = {SYSTEM, SOLVE}
"""Whose scores `A` are float32."""


def constants(decay: str, config: dict[str, int]) -> dict[str, object]:
    """Values of their compile-time arguments, blocks as in a configuration."""
    sizes = {"B": 8, "H": HEADS, "HQ": HEADS, "HV": HEADS, "K": KEYS, "V": VALUES, "NG": 1}
    blocks = {"BT": 64, "BS": 64, "BC": 16, "NC": 4, "BK": 64, "BV": 64}
    on = "USE_GK" if decay == "diagonal" else "USE_G"
    more = {"SAVE_NEW_VALUE": True, "DOT_PRECISION": "tf32x3"}
    return {**sizes, **blocks, **more, on: True, **config}


def ours(decay: str) -> Recurrence | Structured:
    if decay == "delta":
        return Structured(
            digest="0" * 16,
            function="delta_recurrence",
            delta=True,
            decay="scalar",
            heads=HEADS,
            channels=KEYS,
            values=VALUES,
            counts=(HEADS,) * 5,
        )
    return Recurrence(
        digest="0" * 16,
        function=f"{decay}_recurrence",
        decay=decay,
        heads=HEADS,
        groups=HEADS,
        channels=KEYS,
        values=VALUES,
        decay_heads=HEADS,
        c_heads=HEADS,
        b_heads=HEADS,
        v_heads=HEADS,
        state_heads=HEADS,
    )


def theirs(
    module: str, name: str, decay: str, launch: Launch, target: Target
) -> tuple[KernelReport, int]:
    """Their kernel in the configuration nearest to ours, and its warps."""
    kernel: Any = getattr(importlib.import_module(module), name)
    config: dict[str, int] = {}
    warps, stages = launch.warps, launch.stages
    while not hasattr(kernel, "params"):  # under autotune and heuristics decorators
        if hasattr(kernel, "configs"):
            found = min(kernel.configs, key=lambda c: distance(c, launch))
            config, warps, stages = dict(found.kwargs), found.num_warps, found.num_stages
        kernel = kernel.fn
    known, signature = constants(decay, config), {}
    given: dict[str, object] = {}
    absent = ABSENT | ({"gk"} if decay != "diagonal" else set())
    if module == STATES_OF and decay == "diagonal":
        absent = absent | {"g"}
    if module == FACTORS:
        absent = absent - {"dw"}
    for parameter in kernel.params:
        if parameter.is_constexpr:
            given[parameter.name] = known.get(parameter.name, False)
        elif parameter.name in absent:
            given[parameter.name] = None
        elif parameter.name in ("T", "scale"):
            signature[parameter.name] = "i32" if parameter.name == "T" else "fp32"
        else:
            scores = "intra" in name or module in WIDE_SCORES
            wide = parameter.name in WIDE or (parameter.name == "A" and scores)
            signature[parameter.name] = "*fp32" if wide else "*bf16"
    report = compile_kernel(kernel, signature, target, constants=given, warps=warps, stages=stages)
    return report, warps


def distance(config: Any, launch: Launch) -> tuple[int, int, int]:
    tiles = sum(abs(size - 64) for name, size in config.kwargs.items() if name in ("BK", "BV"))
    return tiles, abs(config.num_warps - launch.warps), abs(config.num_stages - launch.stages)


def rows(target: Target) -> Iterator[str]:
    for decay, peers in PEERS.items():
        plan = ours(decay)
        parts = [render(name, **({"kernel": own} if own else {})) for name, own in sections([plan])]
        with tempfile.TemporaryDirectory() as folder:
            module = load(HEADER + "\n\n".join(parts), Path(folder))
            for launch in plan.launches("bf16"):
                kernel = launch.kernel.removeprefix(f"{plan.name}_")
                backwards = launch.constants.get("backwards")
                if (kernel, backwards) not in peers or launch.constants.get("late") is False:
                    continue
                report = compile_kernel(
                    getattr(module, launch.kernel),
                    launch.signature,
                    target,
                    constants=launch.constants,
                    aligned=launch.aligned,
                    warps=launch.warps,
                    stages=launch.stages,
                )
                way = " backwards" if backwards else ""
                yield row(f"{decay} {kernel}{way}", "starc", report, launch.warps)
                for place, name in peers[kernel, backwards]:
                    try:
                        peer, warps = theirs(place, name, decay, launch, target)
                    except ImportError:
                        continue
                    except Exception as failure:  # another version than this was written for
                        yield f"| | {name} | does not compile: {type(failure).__name__} | | | | |"
                        continue
                    yield row("", name, peer, warps)


def row(what: str, whose: str, report: KernelReport, warps: int) -> str:
    figures = (report.registers, report.spills, report.shared_bytes, report.matrix_instructions)
    return f"| {what} | {whose} | {warps} | {' | '.join(map(str, figures))} |"


def main() -> None:
    target = TARGETS[sys.argv[1] if len(sys.argv) > 1 else "sm_90"]
    lines = [
        f"# Resources of chunk kernels on {target.name}",
        "",
        f"bfloat16, {HEADS} heads, keys of {KEYS} and values of {VALUES} channels, chunks of 64",
        "tokens. Compiled, never run. Written by benchmarks/kernel_resources.py.",
        "",
        "| kernel | whose | warps | registers | spills (bytes) | shared memory | products |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for line in lines:
        print(line)
    for line in rows(target):
        lines.append(line)
        print(line, flush=True)
    RESULTS.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
