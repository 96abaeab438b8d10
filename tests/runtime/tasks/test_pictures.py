"""The pictures of docs/tasks.md are what `picture` draws.

STARC_REGENERATE=1 writes them into the page, each behind the comment that says what it shows.
"""

from __future__ import annotations

import os
import re
from ast import literal_eval
from pathlib import Path

from starc.runtime.tasks import TASKS, make_task, picture, settings

PAGE = Path(__file__).parents[3] / "docs" / "tasks.md"
PICTURE = re.compile(r"<!-- picture: (\S+)(.*?) -->\n(\n```text\n.*?```\n)?", flags=re.DOTALL)


def drawn(found: re.Match[str]) -> str:
    name, given = found[1], (one.split("=") for one in found[2].split())
    changes = {setting: literal_eval(value) for setting, value in given}
    task = make_task(name, examples=1, held_out_examples=1, **changes)
    return f"<!-- picture: {name}{found[2]} -->\n\n```text\n{picture(task)}```\n"


def test_the_page_shows_every_task_as_it_is():
    text = PAGE.read_text(encoding="utf-8")
    expected = PICTURE.sub(drawn, text)
    if os.environ.get("STARC_REGENERATE"):
        PAGE.write_text(expected, encoding="utf-8")
    assert [found[1] for found in PICTURE.finditer(text)] == list(TASKS)
    assert PAGE.read_text(encoding="utf-8") == expected


def test_the_page_lists_every_task_and_its_settings():
    rows = re.findall(r"^\| `([a-z-]+)` \|(.*)\|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert [name for name, _ in rows] == list(TASKS)
    for name, row in rows:
        for setting in settings(name):
            for value in setting.values():
                assert re.search(rf"[ (]{re.escape(str(value))}[ ,;)]", row)


def test_a_picture_puts_targets_under_their_tokens():
    task = make_task("selective-copying", vocab=6, length=9, data=2, examples=1)
    lines = picture(task).splitlines()
    assert lines[0] == "selective-copying: data 0 to 3, blank 4, copy 5"
    tokens, targets = task.training
    assert lines[2] == "training  tokens  " + " ".join(map(str, tokens[0]))
    assert lines[3] == "          targets . . . . . . . " + " ".join(map(str, targets[0][-2:]))


def test_long_pictures_are_wrapped():
    lines = picture(make_task("compression", length=100, examples=1)).splitlines()
    assert max(map(len, lines)) <= 100
    assert sum(line.split()[:1] == ["tokens"] for line in lines) == 6
