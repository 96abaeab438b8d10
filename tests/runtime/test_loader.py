"""Importing generated modules: once per content, from a real file, and never a traceback."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path

import pytest

from starc.grammar.errors import StarError
from starc.runtime.files import write_atomic
from starc.runtime.loader import load, unload

PATH = Path(__file__).parent / "fixtures" / "tiny.py"


def test_the_same_content_is_one_module():
    assert load(PATH) is load(PATH.read_text())
    assert load(PATH.read_text() + "\n# changed") is not load(PATH)


def test_source_can_be_read_as_triton_does():
    module = load(PATH.read_text() + "\n# from text")
    assert inspect.getsource(module.Model).startswith("class Model")


def test_a_module_can_be_forgotten():
    module = load(PATH.read_text() + "\n# to forget")
    name = module.Model.__module__
    assert name in sys.modules
    unload(module)
    assert name not in sys.modules


def test_no_files_appear_beside_the_module(tmp_path: Path):
    (tmp_path / "model.py").write_text(PATH.read_text() + "\n# beside")
    load(tmp_path / "model.py")
    assert [path.name for path in tmp_path.iterdir()] == ["model.py"]


@pytest.mark.parametrize("text", ["", "Model = 1", "raise SystemError", "def", "a\0b", "1 / 0"])
def test_what_is_no_generated_module(text: str):
    before = set(sys.modules)
    with pytest.raises(StarError) as error:
        load(text)
    assert error.value.diagnostics[0].code == "not-a-module"
    assert set(sys.modules) == before


def test_no_file_there(tmp_path: Path):
    with pytest.raises(StarError) as error:
        load(tmp_path / "absent.py")
    assert error.value.diagnostics[0].code == "cannot-read"


def test_atomic_writes_follow_links_and_keep_permissions(tmp_path: Path):
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_text("old")
    target.chmod(0o640)
    link.symlink_to(target)
    write_atomic(link, b"new")
    assert link.is_symlink()
    assert target.read_text() == "new"
    assert target.stat().st_mode & 0o777 == 0o640
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "target"]


def test_atomic_writes_leave_devices_alone():
    write_atomic(Path("/dev/null"), b"text")
    assert Path("/dev/null").is_char_device()
