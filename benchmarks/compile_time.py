"""How long compiling takes: cold from the shell, in process by stage; static cost of changes.

Run from the repository: `python benchmarks/compile_time.py`. The table is printed and written to
benchmarks/results/compile_time.md. All is processor time, of this process or of whole commands, and
commands that are compared take turns, so that both see the same machine. The best time is the one
that other work on the machine disturbed least.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median

from starc.compiler.cost import CostModel
from starc.compiler.digest import digest
from starc.compiler.driver import compile_program
from starc.compiler.emit import emit
from starc.compiler.lower import lower
from starc.compiler.memo import Memo
from starc.compiler.options import Limits, Options
from starc.compiler.passes import PIPELINE
from starc.compiler.program import choose_model, link, parse_limited
from starc.compiler.resolve import resolve_model
from starc.compiler.verify import verify
from starc.grammar import nodes
from starc.grammar.source import Source

RESULTS = Path(__file__).parent / "results" / "compile_time.md"

PROGRAM = """\
# A hybrid of 24 units: four kinds of sequence mixers, and a gated channel mixer after each.
use std.attention.gqa
use std.attention.sliding
use std.convolution.gconv
use std.recurrent.mamba2
use std.channel.swiglu

model hybrid {
    vocab = 50_304   width = 768   context = 4096
    residual = pre(rmsnorm)
    backbone {
        a: gqa(heads = 12, groups = 4)
        s: swiglu()
        gconv()                           swiglu()
        mamba2()                          swiglu()
        sliding(heads = 12, groups = 4)   swiglu()
        gconv()                           swiglu()
        mamba2()                          swiglu()
        gqa(heads = 12, groups = 4)       swiglu()
        gconv()                           swiglu()
        mamba2()                          swiglu()
        sliding(heads = 12, groups = 4)   swiglu()
        gconv()                           swiglu()
        gqa(heads = 12, groups = 4)       swiglu()
    }
}
"""

REPLACEMENTS = (
    *(f"gqa(heads = 12, groups = {groups})" for groups in (1, 2, 3, 4, 6, 12)),
    *(f"sliding(heads = 12, groups = 4, window = {window})" for window in (64, 128, 256, 512)),
    *(f"gconv(kernel = {kernel})" for kernel in range(2, 9)),
    *(f"mamba2(state = {state})" for state in (16, 32, 64, 128)),
    *(f"swiglu(hidden = {64 * n})" for n in range(8, 48, 2)),
    "gqa(heads = 12, groups = 4) reuses B, V from a",
    "gqa(heads = 12, groups = 4) shares * with a",
    "swiglu() shares * with s",
)
"""What a change puts in the place of a unit."""

Row = tuple[str, str, str, str]
"""What was measured, its median, its best, and what it is held against."""


def durations(what: str, seconds: Sequence[float], target: str = "") -> Iterator[Row]:
    yield what, f"{1e3 * median(seconds):.2f} ms", f"{1e3 * min(seconds):.2f} ms", target


def timed(run: Callable[[], object]) -> float:
    """Processor time: what this one thread takes of a core, whoever else waits for it."""
    start = time.process_time()
    run()
    return time.process_time() - start


# --- cold, from the shell -------------------------------------------------------------------------


def children() -> float:
    """Processor time of all commands so far, in seconds."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def cold(rounds: int) -> Iterator[Row]:
    """Whole processes: `starc compile` and `import torch`, in turn."""
    with tempfile.TemporaryDirectory() as folder:
        program, output = Path(folder, "hybrid.star"), Path(folder, "hybrid.py")
        program.write_text(PROGRAM)
        commands = {
            "starc compile": ["-m", "starc.cli", "compile", str(program), "-o", str(output)],
            "import torch": ["-c", "import torch"],
            "python": ["-c", ""],
        }
        # Python keeps compiled modules, whatever this process was told; here they leave no trace.
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(Path(folder, "compiled"))}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        times: dict[str, list[float]] = {name: [] for name in commands}
        for i in range(rounds + 1):
            for name, arguments in commands.items():
                start = children()
                command = [sys.executable, *arguments]
                subprocess.run(command, check=True, capture_output=True, env=environment)
                seconds = children() - start
                if i:  # the first round only fills the caches of files and modules
                    times[name].append(seconds)
    for name, values in times.items():
        yield from durations(f"cold `{name}`", values)
    shares = [a / b for a, b in zip(times["starc compile"], times["import torch"], strict=True)]
    figures = f"{median(shares):.2f}", f"{min(shares):.2f}"
    yield "cold `starc compile` / `import torch`", *figures, "below 1, aim 0.5"


# --- in process -----------------------------------------------------------------------------------


def in_process(rounds: int) -> Iterator[Row]:
    """Compiling again and again in one process, which parses the standard library once."""
    source, whole, formatted = Source("hybrid.star", PROGRAM), [], []
    stages: dict[str, list[float]] = {}
    compile_program(source, Options())  # imports, templates, the parser's tables
    for _ in range(rounds):
        whole.append(timed(lambda: compile_program(source, Options(format=False))))
        for name, seconds in by_stage(source):
            stages.setdefault(name, []).append(seconds)
    for _ in range(max(rounds // 5, 3)):
        formatted.append(timed(lambda: compile_program(source, Options())))
    yield from durations("in process, without layout", whole, "below 30 ms")
    for name, values in stages.items():
        yield from durations(f"- {name}", values)
    yield from durations("in process, laid out too", formatted)


def by_stage(source: Source) -> Iterator[tuple[str, float]]:
    """The stages of one compilation, as the driver runs them, with the seconds each took."""
    limits, clock = Limits(), time.process_time
    start = clock()
    program = parse_limited(source, limits)
    yield "parse", clock() - start
    start = clock()
    linked = link(program, limits)
    yield "link (parse what it uses)", clock() - start
    start = clock()
    model, _ = resolve_model(choose_model(linked, Options()), linked.operators, limits)
    yield "resolve", clock() - start
    start = clock()
    verify(model, "resolve")
    checking = clock() - start
    running = naming = 0.0
    identity = ""
    for name, run in PIPELINE:
        start = clock()
        before, model = model, run(model)
        ran = clock()
        verify(model, name, before)
        running, checking = running + ran - start, checking + clock() - ran
        if name == "drop_unused":
            start = clock()
            identity = digest(model)
            naming = clock() - start
    yield f"{len(PIPELINE)} passes", running
    yield "verify after each", checking
    yield "digest", naming
    start = clock()
    plan = lower(model, identity, source.text)
    yield "lower", clock() - start
    start = clock()
    emit(plan, format=False)
    yield "render", clock() - start


# --- static cost of changed programs --------------------------------------------------------------


def parsed_units(texts: tuple[str, ...]) -> list[nodes.Unit]:
    body = "\n".join(f"model m{i} {{ backbone {{ {text} }} }}" for i, text in enumerate(texts))
    found = []
    for declaration in parse_limited(Source("units.star", body), Limits()).declarations:
        assert isinstance(declaration, nodes.Model)
        unit = declaration.backbone[0]
        assert isinstance(unit, nodes.Unit)
        found.append(unit)
    return found


def changed(model: nodes.Model, units: list[nodes.Unit], rng: random.Random) -> nodes.Model:
    """The model with another unit in the place of one that nobody refers to."""
    place = rng.randrange(2, len(model.backbone))
    backbone = list(model.backbone)
    backbone[place] = rng.choice(units)
    return replace(model, backbone=tuple(backbone))


def static_cost(programs: int, walks: int) -> Iterator[Row]:
    """Random walks: each step changes one unit, resolves the program and costs it, on one core."""
    linked = link(parse_limited(Source("hybrid.star", PROGRAM), Limits()), Limits())
    units, limits = parsed_units(REPLACEMENTS), Limits()
    rates, resolving, costing = [], [], []
    for walk in range(walks):
        rng, memo, costs = random.Random(walk), Memo(), CostModel()
        model = linked.models[0]
        resolved_in = 0.0
        start = time.process_time()
        for _ in range(programs):
            model = changed(model, units, rng)
            before = time.process_time()
            resolved, _ = resolve_model(model, linked.operators, limits, memo)
            resolved_in += time.process_time() - before
            costs.report(resolved)
        total = time.process_time() - start
        rates.append(programs / total)
        resolving.append(resolved_in / programs)
        costing.append((total - resolved_in) / programs)
    figures = f"{median(rates):,.0f} / s", f"{max(rates):,.0f} / s"
    yield "static cost of changed programs", *figures, "at least 1,000 / s"
    yield from durations("- resolve", resolving)
    yield from durations("- cost", costing)


# --- the record -----------------------------------------------------------------------------------


def machine() -> str:
    """The processor, the system and the versions that figures depend on."""
    processor = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [x.split(":")[1].strip() for x in info.read_text().split("\n") if "model name" in x]
        processor = f"{len(names)} x {names[0]}" if names else processor
    load = os.getloadavg()[0]
    version = platform.python_version()
    return f"{processor}, {platform.system()}, Python {version}; load average {load:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=15, help="cold runs of each command")
    parser.add_argument("--programs", type=int, default=1000, help="changed programs in a walk")
    parser.add_argument("--out", type=Path, default=RESULTS, help="the record to write")
    options = parser.parse_args()
    rows = [
        *static_cost(options.programs, 5),
        *in_process(2 * options.rounds),
        *cold(options.rounds),
    ]
    lines = [
        "# Compile time",
        "",
        "The program is a hybrid of 24 units, in benchmarks/compile_time.py. Processor time: cold "
        "that of whole processes, in turn, all else in one process.",
        "",
        "| what | median | best | target |",
        "|---|---|---|---|",
        *(f"| {' | '.join(row)} |" for row in rows),
        "",
        f"{datetime.date.today()}, {machine()}.",
        f"`python benchmarks/compile_time.py --rounds {options.rounds} "
        f"--programs {options.programs}`",
        "",
    ]
    print("\n".join(lines))
    options.out.parent.mkdir(exist_ok=True)
    options.out.write_text("\n".join(lines))


if __name__ == "__main__":
    main()
