"""Compiles the kernels of all examples for all targets: what the committed table is made of.

    reported.py [--targets sm_80,...] [--programs NAME,...] [--jobs 2] [--out FILE]

Writes `tests/kernels/report.json`, or FILE. Kernels that differ in nothing but their names, those
of their tensors' programs or comments are compiled once. What came out is kept under
`build/kernel_reports` by their text, the target and the version of Triton, so that a second run
compiles what changed. The process must not have TRITON_INTERPRET=1.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import triton

from starc.compiler.driver import Artifact, compile_program
from starc.compiler.kernel_plan import Launch
from starc.compiler.options import Options
from starc.grammar.library import read_source
from starc.kernel_check import DEFAULT_TARGETS, defects, load
from starc.runtime.files import write_atomic
from starc.runtime.kernels import TARGETS, KernelReport, compile_kernel

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
REPORT = Path(__file__).parent / "report.json"
KEPT = ROOT / "build" / "kernel_reports"
COLUMNS = (
    "registers",
    "spills",
    "shared_bytes",
    "matrix_instructions",
    "group_instructions",
    "wide_accesses",
    "narrow_accesses",
    "warps",
)
"""Figures of a row, in order."""

Table = dict[str, dict[str, list[int]]]
"""Kernel, target -> figures."""


@dataclass(frozen=True)
class Entry:
    """A launch of a program's kernel on a target; `key` is the same where the code is."""

    program: str
    name: str
    target: str
    key: str
    launch: Launch


FEW = {"sm_100": ("byte_hybrid",)}
"""Programs that are compiled for a target, where these are not all examples."""


def programs(target: str) -> list[str]:
    if target in FEW:
        return list(FEW[target])
    return sorted(path.stem for path in EXAMPLES.glob("*.star"))


def compiled(program: str) -> Artifact:
    return compile_program(read_source(str(EXAMPLES / f"{program}.star")), Options(format=False))


def entries(program: str, targets: Sequence[str]) -> Iterator[Entry]:
    """All launches of a program's kernels with bfloat16 operands."""
    artifact = compiled(program)
    functions = {node.name: node for node in ast.walk(ast.parse(artifact.text)) if jitted(node)}
    for target in targets:
        names: Counter[str] = Counter()
        for plan in dict.fromkeys(artifact.kernels):
            for launch in plan.launches("bf16", TARGETS[target].shared_limit):
                on = [name for name, value in launch.constants.items() if value is True]
                name = " ".join([launch.kernel, *on])
                names[name] += 1
                number = f" {names[name]}" if names[name] > 1 else ""
                key = digest(code_of(launch.kernel, functions), launch, target)
                yield Entry(program, f"{program}/{name}{number}", target, key, launch)


def jitted(node: ast.AST) -> bool:
    if not isinstance(node, ast.FunctionDef):
        return False
    return any("triton.jit" in ast.unparse(decorator) for decorator in node.decorator_list)


def code_of(kernel: str, functions: dict[str, ast.FunctionDef]) -> str:
    """A kernel and the functions that it calls, without comments and docstrings; the kernel's own
    name, which holds that of a program's function, is left out."""
    found: list[str] = []
    waiting = [kernel]
    for name in waiting:
        for node in ast.walk(functions[name]):
            if isinstance(node, ast.Name) and node.id in functions and node.id not in waiting:
                waiting.append(node.id)
        body = ast.parse(ast.unparse(functions[name])).body[0]
        assert isinstance(body, ast.FunctionDef)
        if ast.get_docstring(body) is not None:
            body.body = body.body[1:]
        found.append(ast.unparse(body))
    return "\n".join(found).replace(kernel, "kernel")


def digest(code: str, launch: Launch, target: str) -> str:
    arguments = list(launch.signature.items()), sorted(launch.constants.items())
    how = launch.aligned, launch.warps, launch.stages, target, triton.__version__, reader()
    return hashlib.sha256(repr((code, arguments, how)).encode()).hexdigest()[:32]


@cache
def reader() -> str:
    """What reads the figures; an edit of it makes all kept ones stale."""
    return (ROOT / "runtime" / "kernels.py").read_text()


def kept(key: str) -> KernelReport | None:
    """A report that an earlier run left."""
    try:
        return KernelReport(**json.loads((KEPT / f"{key}.json").read_text()))
    except (OSError, ValueError, TypeError):  # none, or none of this version
        return None


def compile_entries(given: tuple[Entry, ...]) -> int:
    """Compiles entries of one program and keeps the reports; returns how many."""
    with tempfile.TemporaryDirectory() as folder:
        # What Triton itself would keep is of no use: its keys hold line numbers.
        os.environ["TRITON_CACHE_DIR"] = folder
        module = load(compiled(given[0].program).text, Path(folder))
        for entry in given:
            report = compile_kernel(
                getattr(module, entry.launch.kernel),
                entry.launch.signature,
                TARGETS[entry.target],
                constants=entry.launch.constants,
                aligned=entry.launch.aligned,
                warps=entry.launch.warps,
                stages=entry.launch.stages,
            )
            write_atomic(KEPT / f"{entry.key}.json", json.dumps(asdict(report)).encode())
    return len(given)


def compile_missing(found: Sequence[Entry], jobs: int) -> None:
    """Compiles what no earlier run left."""
    missing = {e.key: e for e in reversed(found) if kept(e.key) is None}
    work: dict[str, list[Entry]] = {}
    for entry in missing.values():
        work.setdefault(entry.program, []).append(entry)
    if not work:
        return
    KEPT.mkdir(parents=True, exist_ok=True)
    done = 0
    with ProcessPoolExecutor(jobs, initializer=os.nice, initargs=(5,)) as pool:
        for count in pool.map(compile_entries, map(tuple, work.values())):
            done += count
            print(f"{done} of {len(missing)} kernels compiled", file=sys.stderr, flush=True)


def table(targets: Sequence[str], wanted: Sequence[str] = (), jobs: int = 1) -> dict[str, Any]:
    """`rows`: figures, each code once, under the first program that has it; `names` and `defects`
    of a row, by `kernel target`: all kernels with that code, and what is wrong, in words."""
    found = [e for t in targets for name in wanted or programs(t) for e in entries(name, [t])]
    compile_missing(found, jobs)
    rows: Table = {}
    first: dict[str, str] = {}
    names: dict[str, list[str]] = {}
    wrong: dict[str, list[str]] = {}
    for entry in found:
        row = f"{first.setdefault(entry.key, entry.name)} {entry.target}"
        names.setdefault(row, []).append(entry.name)
        if first[entry.key] != entry.name:
            continue
        report = kept(entry.key)
        assert report is not None, entry.name
        figures = {**asdict(report), "warps": entry.launch.warps}
        rows.setdefault(entry.name, {})[entry.target] = [figures[name] for name in COLUMNS]
        if words := defects(report, entry.launch, "bf16"):
            wrong[row] = words
    return {"columns": COLUMNS, "rows": rows, "names": names, "defects": wrong}


def text_of(rows: Table) -> str:
    """The table, a kernel a line."""
    lines = [f"{json.dumps(name)}: {json.dumps(rows[name])}" for name in sorted(rows)]
    columns = json.dumps(COLUMNS)
    return f'{{"columns": {columns}, "rows": {{\n' + ",\n".join(lines) + "\n}}\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--targets", default=",".join(DEFAULT_TARGETS))
    parser.add_argument("--programs", default="")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    targets, wanted = options.targets.split(","), [x for x in options.programs.split(",") if x]
    found = table(targets, wanted, options.jobs)
    if options.out:
        options.out.write_text(json.dumps(found))
        return
    if wanted:
        parser.error("the committed table holds no choice of programs: name a file with --out")
    known = json.loads(REPORT.read_text())["rows"] if REPORT.exists() else {}
    for row in known.values():  # other targets stay as they are
        for target in targets:
            row.pop(target, None)
    for name, row in found["rows"].items():
        known[name] = dict(sorted({**known.get(name, {}), **row}.items()))
    write_atomic(REPORT, text_of({name: row for name, row in known.items() if row}).encode())
    for place, words in found["defects"].items():
        print(f"{place}: {'; '.join(words)}")


if __name__ == "__main__":
    main()
