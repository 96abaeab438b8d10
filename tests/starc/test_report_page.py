"""The page of a report in a browser: it draws, says nothing on the console, and runs nobody's code.

Skipped where there is no Chromium: `apt-get install chromium` or any other build of it, on PATH or
named by STARC_BROWSER.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from starc.report.building import build_report
from starc.report.page import render_page
from starc.report.record import read_record
from tests.starc.searched import HOSTILE

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome", "headless_shell")


def browser() -> str | None:
    named = os.environ.get("STARC_BROWSER")
    return named or next(filter(None, map(shutil.which, NAMES)), None)


pytestmark = pytest.mark.skipif(
    browser() is None, reason="no Chromium on PATH, nor named by STARC_BROWSER"
)


class Page(HTMLParser):
    """What stands in a document: counts of tags and of charts, charts by label, texts by tag."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.charts: dict[str, Counter[str]] = {}
        self.attributes: dict[str, str | None] = {}
        self.texts: dict[str, list[str]] = {}
        self.values: list[str | None] = []
        self._open: list[str] = []
        self._chart = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = dict(attributes)
        self.tags[tag] += 1
        self.values += given.values()
        self._open.append(tag)
        if tag == "html":
            self.attributes = given
        if tag == "svg":
            self._chart = given.get("aria-label") or ""
            self.charts[self._chart] = Counter()
        elif self._chart:
            self.charts[self._chart][tag] += 1

    def handle_endtag(self, tag: str) -> None:
        if tag == "svg":
            self._chart = ""
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if self._open:
            self.texts.setdefault(self._open[-1], []).append(data)


def opened(page: Path, folder: Path, anchor: str = "") -> tuple[Page, list[str]]:
    """The document after its scripts have run, and what the console was told."""
    done = subprocess.run(
        [
            str(browser()),
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-background-networking",
            "--host-resolver-rules=MAP * ~NOTFOUND",
            f"--user-data-dir={folder}",
            "--enable-logging=stderr",
            "--virtual-time-budget=5000",
            "--dump-dom",
            page.as_uri() + anchor,
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return Page(done.stdout), re.findall(r"CONSOLE.*", done.stderr)


def test_the_page_draws(searched: Path, tmp_path: Path):
    report = build_report(read_record(searched))
    page = tmp_path / "report.html"
    page.write_text(render_page(report))
    found, said = opened(page, tmp_path / "profile", "#member-20")
    assert said == []
    charts = found.charts
    assert found.attributes["data-drawn"] == str(len(charts))

    judged = [m for m in report["members"] if None not in m["values"]]
    assert len(judged) == 32
    for label in ("quality against cache bytes", "quality against parameters"):
        assert charts[label]["circle"] == len(judged) + 2  # a ring and a halo
    assert charts["cache bytes against parameters"]["path"] >= 1
    generations = len(report["generations"])
    assert charts["quality by generation"]["circle"] == generations + 1
    assert charts["parallel coordinates"]["path"] == len(judged) + 1
    assert charts["hypervolume over evaluations"]["path"] == 1
    cells = sum(1 for row in report["motifs"]["counts"] for n in row if n)
    assert 0 < charts["classes of units"]["rect"] <= cells
    runs = report["motifs"]["grams"][0]["rows"]
    assert charts["runs of 2 units"]["rect"] == generations * len(runs)
    assert charts["statuses by generation"]["rect"] == sum(
        len(row["statuses"]) for row in report["generations"]
    )
    for row in report["importance"]["objectives"]:
        label = f"genes and {row['objective']}"
        assert charts[label]["circle"] == len(row["genes"]) > 0

    # Member 20 was asked for: it and its ancestors, and the steps that lead to it.
    members = {m["number"]: m for m in report["members"]}
    ancestors, queue = set(), [20]
    for number in queue:
        if number not in ancestors:
            ancestors.add(number)
            queue += members[number]["parents"]
    assert charts["genealogy"]["circle"] == len(ancestors) + 1
    assert "#20" in found.texts["h3"]
    assert any(text.startswith(("+ ", "- ")) for text in found.texts["span"])

    assert not any("NaN" in (value or "") for value in found.values)

    # Nothing of a program, a reason or a command became an element.
    assert found.tags["script"] == 2
    assert not found.tags["img"]
    assert any(HOSTILE in text for text in found.texts["pre"])


def test_a_page_without_a_program_draws_too(searched: Path, tmp_path: Path):
    record = read_record(searched)
    report = build_report(replace(record, members=(), attempts=()))
    page = tmp_path / "report.html"
    page.write_text(render_page(report))
    found, said = opened(page, tmp_path / "profile")
    assert said == []
    assert found.attributes["data-drawn"] == str(len(found.charts))
    assert not any("NaN" in (value or "") for value in found.values)
