"""Files are found where `use` says, and every way of not finding one is told."""

from __future__ import annotations

import io
import os
import sys
from importlib.resources import files
from pathlib import Path

import pytest

from starc.grammar.errors import Diagnostic, StarError, render
from starc.grammar.library import MAX_BYTES, find_use, read_source
from starc.grammar.parser import parse
from starc.grammar.source import Source, Span


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "blocks").mkdir()
    (tmp_path / "blocks" / "conv.star").write_text("operator mine() { y = x }\n")
    (tmp_path / "main.star").write_text("use blocks.conv.mine\n")
    return tmp_path


def fault(call: object, *arguments: object) -> Diagnostic:
    with pytest.raises(StarError) as caught:
        call(*arguments)  # type: ignore[operator]
    (diagnostic,) = caught.value.diagnostics
    render([diagnostic]).encode()
    return diagnostic


def used(path: str, program: Path) -> tuple[Source, str]:
    source = Source(str(program), f"use {path}")
    return find_use(tuple(path.split(".")), source, Span(source, 0, len(source.text)))


def test_files_are_found_beside_the_program(folder: Path) -> None:
    found, name = used("blocks.conv.mine", folder / "main.star")
    assert (found.text, name) == ("operator mine() { y = x }\n", "mine")
    assert found.name == str(folder / "blocks" / "conv.star")
    assert used("conv.mine", folder / "blocks" / "other.star")[0].text == found.text


def test_the_standard_input_stands_in_the_current_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    found, _ = used("blocks.conv.mine", Path("<stdin>"))
    assert found.name == os.path.join("blocks", "conv.star")


def test_the_standard_library_is_read() -> None:
    entries = [e.name for e in files("starc.grammar.std").iterdir() if e.name.endswith(".star")]
    assert entries
    for entry in entries:
        found, name = used(f"std.{entry.removesuffix('.star')}.anything", Path("elsewhere/p.star"))
        assert found.name == f"<std>/{entry}"
        assert name == "anything"
        assert parse(found).declarations


@pytest.mark.parametrize(
    ("path", "message", "hint"),
    [
        (
            "blocks.cnov.mine",
            "there is no file '{folder}/blocks/cnov.star'.",
            "did you mean 'conv.star'?",
        ),
        ("nowhere.at.all", "there is no file '{folder}/nowhere/at.star'.", ""),
        (
            "mine",
            "'use mine' names no file.",
            "write the file, then the operator: use std.attention.gqa.",
        ),
        (
            "std.attentoin.nothing",
            "the standard library has no file 'attentoin'.",
            "did you mean 'attention'?",
        ),
        (
            "std.nothing.gqa",
            "the standard library has no file 'nothing'.",
            "write use std.attention.gqa.",
        ),
        (
            "std.gqa",
            "'use std.gqa' names no file of the standard library.",
            "write use std.attention.gqa.",
        ),
        ("gqa", "'use gqa' names no file.", "write use std.attention.gqa."),
        (
            "attention.gqa",
            "there is no file '{folder}/attention.star'.",
            "write use std.attention.gqa.",
        ),
    ],
)
def test_files_that_are_not_there(folder: Path, path: str, message: str, hint: str) -> None:
    found = fault(used, path, folder / "main.star")
    assert found.code == "use-not-found"
    assert found.message == message.format(folder=folder)
    assert found.hint == hint
    assert found.span is not None
    assert found.span.text == f"use {path}"


@pytest.mark.parametrize(
    "path",
    [("..", "etc", "x"), ("/etc", "x"), ("a/b", "x"), ("", "x"), ("a\0", "x"), ("std", "..", "x")],
)
def test_no_path_leaves_the_folder(folder: Path, path: tuple[str, ...]) -> None:
    (folder / "etc.star").write_text("operator x() { y = x }")
    program = Source(str(folder / "blocks" / "main.star"), "")
    assert fault(find_use, path, program).code == "use-not-found"


def test_reading(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder / "main.star"
    assert read_source(path) == Source(str(path), "use blocks.conv.mine\n")
    path.write_bytes(b"\xef\xbb\xbfuse a.b\r\n")
    assert read_source(str(path)).text == "use a.b\r\n"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"use a.b\n")))
    assert read_source("-") == Source("<stdin>", "use a.b\n")


def test_what_cannot_be_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = fault(read_source, folder / "mian.star")
    assert (missing.code, missing.hint) == ("file-not-found", "did you mean 'main.star'?")
    assert fault(read_source, folder / "no" / "such.star").code == "file-not-found"
    a_folder = fault(read_source, folder)
    assert a_folder.code == "file-unreadable"
    assert a_folder.message == f"'{folder}' cannot be read: it is a folder."
    assert fault(read_source, folder / "main.star" / "x").code == "file-unreadable"
    assert fault(read_source, "a\0b").code == "file-unreadable"
    assert fault(read_source, "x" * 5000).code == "file-unreadable"
    monkeypatch.setattr(sys, "stdin", None)
    assert fault(read_source, "-").code == "file-unreadable"


def test_no_permission(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    found = fault(read_source, folder / "main.star")
    assert found.message == f"'{folder / 'main.star'}' cannot be read: permission denied."


def test_bytes_that_are_not_utf_8(folder: Path) -> None:
    path = folder / "latin.star"
    path.write_bytes("# \N{LATIN SMALL LETTER A WITH DIAERESIS}\nuse ".encode() + b"\xe4.b\n")
    assert render([fault(read_source, path)]) == (
        f"error[not-utf-8]: '{path}' is not UTF-8 text.\n"
        f" --> {path}:2:5\n"
        " 2 | use \N{REPLACEMENT CHARACTER}.b\n"
        "   |     ^ byte 0xe4\n"
        "hint: save the file as UTF-8.\n"
    )


def test_files_larger_than_any_program(folder: Path) -> None:
    with open(folder / "huge.star", "wb") as file:
        file.truncate(MAX_BYTES + 1)
    assert fault(read_source, folder / "huge.star").code == "program-too-large"


def test_names_that_cannot_be_printed(folder: Path) -> None:
    found = fault(read_source, os.fsdecode(os.fsencode(folder) + b"/\xff.star"))
    assert found.message.encode()
