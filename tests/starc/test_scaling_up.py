"""`starc scale-up`: a member of a search at another size."""

from __future__ import annotations

import json
from pathlib import Path

from starc.compiler.driver import resolve_source
from starc.compiler.options import Options
from starc.grammar.library import read_source
from starc.grammar.source import Source
from starc.search.store import Store
from tests.starc.conftest import Command


def program(run: Path, number: int) -> str:
    with Store.read(run) as store:
        texts = {row.id: row.text for row in store.programs()}
        return texts[store.proposals()[number].program]


def test_the_program_is_the_members_at_the_size_asked_for(
    searched: Path, tmp_path: Path, command: Command
):
    out = tmp_path / "large.star"
    done = command("scale-up", searched, 0, "--width", 256, "--units", 16, "-o", out)
    assert (done.status, done.err) == (0, "")
    small = resolve_source(Source("x.star", program(searched, 0)), Options())[0]
    large = resolve_source(read_source(str(out)), Options())[0]
    assert (large.name, large.width, large.depth) == (small.name, 256, 16)
    rows = {line[:30].strip(): line[30:].split() for line in done.out.splitlines()[1:]}
    assert rows["units"][1] == "16"
    assert rows["width"] == [str(small.width), "256", f"{256 / small.width:.1f}"]


def test_costs_are_those_of_the_programs(searched: Path, tmp_path: Path, command: Command):
    out = tmp_path / "x.star"
    done = command("scale-up", searched, 0, "--width", 256, "--length", 512, "--json", "-o", out)
    report = json.loads(done.out)
    assert report["program"] == out.read_text()
    cost = json.loads(command("cost", out, "--length", 512, "--json").out)
    for name in ("parameters", "cache_bytes", "flops_train", "flops_decode"):
        assert report["scaled"][name] == cost[name]
    assert report["found"]["parameters"] < report["scaled"]["parameters"]


def test_the_table_leaves_standard_output_to_the_program(searched: Path, command: Command):
    done = command("scale-up", searched, 0, "--units", 16)
    assert done.out.splitlines()[0].startswith("use std.")
    assert "FLOPs, decoding a token" in done.err


def test_what_is_not_there_is_said(searched: Path, tmp_path: Path, command: Command):
    for arguments, code in (
        ((searched, 99), "no-such-member"),
        ((tmp_path, 0), "no-run"),
        ((searched, 0, "--width", 64, "--parameters", 10**6), "wrong-argument"),
        ((searched, 0, "--units", 3, "--repeat", 2), "cannot-resize"),
        ((searched, 0, "-o", tmp_path / "no" / "such" / "x.star"), "cannot-write"),
    ):
        done = command("scale-up", *arguments)
        assert (done.status, done.out) == (1, "")
        assert f"error[{code}]" in done.err


def test_nothing_is_written_when_the_costs_cannot_be_counted(
    searched: Path, tmp_path: Path, command: Command
):
    out = tmp_path / "x.star"
    assert command("scale-up", searched, 0, "--dtype", "fp3", "-o", out).status == 1
    assert not out.exists()
