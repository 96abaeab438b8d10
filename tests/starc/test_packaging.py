"""What is installed: every folder of code, every data file, and the development set's pins."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import starc
from starc.compiler.options import VERSION

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
FOLDERS = PROJECT["tool"]["setuptools"]["package-dir"]


def package_of(folder: Path) -> str:
    first, *rest = folder.relative_to(ROOT).parts
    (package,) = [name for name, place in FOLDERS.items() if place == first]
    return ".".join([package, *rest])


def test_every_folder_with_code_is_a_package():
    tops = [ROOT / place for place in FOLDERS.values()]
    found = {package_of(init.parent) for top in tops for init in top.rglob("__init__.py")}
    assert found == set(PROJECT["tool"]["setuptools"]["packages"])


def test_code_stands_in_packages_only():
    for top in (ROOT / place for place in FOLDERS.values()):
        for path in top.rglob("*.py"):
            assert (path.parent / "__init__.py").exists(), path


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return dict(line.lower().split("==") for line in lines if "==" in line)


def test_every_requirement_is_pinned_to_one_version():
    optional = PROJECT["project"]["optional-dependencies"].values()
    wanted = [*PROJECT["project"]["dependencies"], *(name for group in optional for name in group)]
    names = {re.split(r"[<>=;\[ ]", name)[0].lower() for name in wanted} - {"starc"}
    assert names <= set(pins())
    assert pins()["torch"] == "2.13.0"
    assert pins()["triton"] == "3.7.1"


def test_the_compiler_and_the_package_have_one_version():
    assert VERSION == starc.__version__


def test_users_get_ranges_and_not_pins():
    assert not [name for name in PROJECT["project"]["dependencies"] if re.search("==[0-9]", name)]


@pytest.mark.slow
def test_a_wheel_holds_code_and_data(tmp_path: Path):
    # From a copy: building leaves files behind, which the next build would take for its own.
    copy = tmp_path / "copy"
    for place in FOLDERS.values():
        shutil.copytree(ROOT / place, copy / place, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "-w", str(tmp_path), str(copy)]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    for place, top in ((place, ROOT / place) for place in FOLDERS.values()):
        for path in top.rglob("*"):
            if path.suffix in (".py", ".j2", ".lark", ".json", ".star") and path.is_file():
                package = package_of(top).replace(".", "/")
                assert f"{package}/{path.relative_to(ROOT / place).as_posix()}" in names
