"""What the README says is so: its program compiles, its commands and its examples exist."""

from __future__ import annotations

import re
from pathlib import Path

import typer.main

import starc
from starc.cli.app import app

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def test_its_program_compiles():
    (program,) = re.findall(r"```star\n(.*?)```", README, re.DOTALL)
    artifact = starc.compile_text(program, starc.Options(format=False))
    assert artifact.model_name == "hybrid"
    assert not artifact.warnings


def test_it_names_every_command():
    described = set(re.findall(r"^\| `starc ([\w-]+)", README, re.MULTILINE))
    assert described == set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]


def test_the_examples_in_its_table_exist():
    (table,) = re.findall(r"^\| program \|.*\n\|.*\n((?:\|.*\n)+)", README, re.MULTILINE)
    listed = re.findall(r"^\| (\w+) \|", table, re.MULTILINE)
    assert len(listed) > 10
    assert set(listed) <= {path.stem for path in (ROOT / "examples").glob("*.star")}


def test_its_make_targets_and_links_exist():
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"make ([a-z-]+)", README):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    for link in re.findall(r"\]\(([^):]+)\)", README):
        assert (ROOT / link).exists(), link
