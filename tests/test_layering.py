"""Who may import whom, how long a file may be, and that compiling never waits for torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("grammar", "compiler", "templates", "runtime", "search", "starc")
LINES = 500

# What a package may import from the others. The vocabulary of diagnostics is everybody's.
EVERYBODY = {"starc.__version__", "starc.grammar.errors"}
MAY_IMPORT = {
    "grammar": {"starc.grammar"},
    "compiler": {"starc.compiler", "starc.grammar"},
    "templates": {"starc.templates"},
    # The oracle evaluates the IR; everything else of the runtime knows generated modules only.
    "runtime": {
        "starc.runtime",
        "starc.compiler.cost",
        "starc.compiler.inventory",
        "starc.compiler.ir",
        "starc.grammar.weight_map",  # the syntax of what importing.py carries out
    },
    "search": {
        "starc.grammar",
        "starc.compiler",
        "starc.templates",
        "starc.runtime",
        "starc.search",
    },
    "starc": {"starc"},
}
MAY_ALSO_IMPORT = {"compiler/emit.py": {"starc.templates"}}
NO_NUMERICS = ("grammar", "compiler", "templates")
NUMERICS = {"torch", "triton", "numpy", "scipy", "pymoo", "transformers", "ray"}


def python_files(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def imports(path: Path) -> Iterator[str]:
    """Full dotted names of what a file imports, such as `starc.grammar.errors.StarError`."""
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Import():
                yield from (alias.name for alias in node.names)
            case ast.ImportFrom(level=0, module=str(module)):
                yield from (f"{module}.{alias.name}" for alias in node.names)
            case ast.ImportFrom():
                yield "." * node.level + (node.module or "")


def within(name: str, allowed: set[str]) -> bool:
    return any(name == package or name.startswith(package + ".") for package in allowed)


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_import_downwards_only(package: str):
    assert python_files(package)
    wrong = []
    for path in python_files(package):
        place = path.relative_to(ROOT).as_posix()
        allowed = MAY_IMPORT[package] | EVERYBODY | MAY_ALSO_IMPORT.get(place, set())
        wrong += [
            f"{place} imports {name}"
            for name in imports(path)
            if name.startswith(("starc", ".")) and not within(name, allowed)
        ]
    assert not wrong


def test_nobody_imports_a_package_without_its_first_name():
    folders = (*PACKAGES[:-1], "tests", "benchmarks", "starc")
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in python_files(*folders)
        for name in imports(path)
        if name.split(".")[0] in PACKAGES[:-1]
    ]
    assert not wrong


def test_the_compiler_imports_no_numerics():
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in python_files(*NO_NUMERICS)
        for name in imports(path)
        if name.split(".")[0] in NUMERICS
    ]
    assert not wrong


def test_files_stay_readable():
    folders = (*PACKAGES, "tests", "benchmarks")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*")]
    long = {
        path.relative_to(ROOT).as_posix(): lines
        for path in files
        if path.suffix in (".py", ".j2", ".lark", ".star")
        and (lines := len(path.read_text().splitlines())) > LINES
    }
    assert not long


def test_no_file_is_a_drawer_for_everything():
    names = {"utils", "util", "helpers", "misc"}
    assert not [path for path in python_files(*PACKAGES) if path.stem in names]


def loaded_by(code: str) -> set[str]:
    program = f"import sys\n{code}\nprint(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd="/"
    )
    return set(done.stdout.split())


PROGRAM = """
use std.attention.mha
model m { vocab = 16 width = 8 context = 8 residual = pre(rmsnorm) backbone { mha(heads = 2) } }
"""
COMPILE = f"import starc\nstarc.compile_text({PROGRAM!r})"


@pytest.mark.parametrize("code", ["import starc", "import starc.cli.app", COMPILE])
def test_compiling_loads_neither_torch_nor_rich(code: str):
    loaded = loaded_by(code)
    assert "starc" in loaded
    assert not {"torch", "triton", "numpy", "rich", "pymoo"} & loaded


COMPILE_ALL = f"""
import pathlib, starc
for path in sorted(pathlib.Path({str(ROOT / "examples")!r}).glob("*.star")):
    starc.compile_file(path, starc.Options(format=False))
"""


def test_compiling_any_example_loads_no_torch():
    assert not NUMERICS & loaded_by(COMPILE_ALL)


def test_the_public_names_exist():
    import starc

    assert all(getattr(starc, name) is not None for name in starc.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        starc.nothing  # noqa: B018
