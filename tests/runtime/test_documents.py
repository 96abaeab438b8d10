"""Documents: data sets and large files as sources, and what cannot be read."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from starc.grammar.errors import StarError
from starc.runtime import documents
from starc.runtime.corpus import open_corpus


def code_of(error: pytest.ExceptionInfo[StarError]) -> str:
    return error.value.diagnostics[0].code


def whole(name: str) -> bytes:
    source = documents.find(name)
    return b"".join(
        piece.content + (b"\0" if piece.ends else b"") for piece in documents.pieces(source)
    )


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(texts=st.lists(st.text("ab\né✓🙂", min_size=1, max_size=40), min_size=1, max_size=30))
def test_large_files_come_in_pieces_that_cut_no_character(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, texts: list[str]
):
    folder = tmp_path_factory.mktemp("texts")
    for number, text in enumerate(texts):
        (folder / f"{number:02d}").write_bytes(text.encode())
    plain = whole(str(folder))
    monkeypatch.setattr(documents, "PIECE", 8)
    found = list(documents.pieces(documents.find(str(folder))))
    assert whole(str(folder)) == plain == b"".join(text.encode() + b"\0" for text in texts)
    for piece in found:
        piece.content.decode("utf-8")
        assert len(piece.content) <= 8 + 40 * 4


def test_a_file_of_bytes_without_lines_is_read_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    content = bytes(range(128, 192)) * 9
    (tmp_path / "binary").write_bytes(content)
    monkeypatch.setattr(documents, "PIECE", 16)
    assert whole(str(tmp_path / "binary")) == content + b"\0"


ROWS = [{"id": str(number), "text": f"row {number}\n" * 3} for number in range(100)]


@pytest.fixture
def saved(tmp_path: Path) -> str:
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    datasets.Dataset.from_list(ROWS).save_to_disk(tmp_path / "saved")
    return str(tmp_path / "saved")


def test_a_data_set_saved_on_disk(saved: str):
    corpus = open_corpus(f"hf:{saved}")
    parts = [part.stretch(0, len(part)).tobytes() for part in map(corpus.part, documents_parts())]
    assert all(parts)
    assert sorted(b"".join(parts).split(b"\0")[:-1]) == sorted(r["text"].encode() for r in ROWS)


def documents_parts() -> tuple[str, ...]:
    return ("train", "validation", "test")


def test_a_data_set_of_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("datasets")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "rows.jsonl").write_text('{"content": "one"}\n{"content": "two"}\n')
    assert whole(f"hf:{tmp_path}") == b"one\0two\0"


def test_rows_keep_their_part_wherever_they_stand(monkeypatch: pytest.MonkeyPatch):
    held_out = []
    for rows in (ROWS, ROWS[::-1]):
        monkeypatch.setattr(documents, "open_rows", lambda dataset, config, rows=rows: rows)
        found = documents.pieces(documents.find("hf:any"))
        held_out.append({piece.content for piece in found if piece.part == "validation"})
    assert held_out[0] == held_out[1]
    assert len(held_out[0]) > 1


def test_a_configuration_goes_to_the_library(monkeypatch: pytest.MonkeyPatch):
    asked = []
    monkeypatch.setattr(documents, "open_rows", lambda *names: asked.append(names) or ROWS)
    documents.find("hf:group/name:config")
    documents.find("hf:name")
    assert asked == [("group/name", "config"), ("name", None)]


def test_a_data_set_without_a_network(monkeypatch: pytest.MonkeyPatch):
    datasets = pytest.importorskip("datasets")

    def refuse(*_: Any, **__: Any) -> None:
        raise ConnectionError("Couldn't reach 'x' on the Hub (LocalEntryNotFoundError).\nmore")

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    with pytest.raises(StarError) as error:
        open_corpus("hf:x")
    assert code_of(error) == "cannot-read"
    assert "Couldn't reach 'x' on the Hub" in error.value.diagnostics[0].message


def test_a_data_set_that_breaks_off(monkeypatch: pytest.MonkeyPatch):
    def rows() -> Iterator[dict[str, str]]:
        yield ROWS[0]
        raise RuntimeError("the connection was lost")

    monkeypatch.setattr(documents, "open_rows", lambda dataset, config: rows())
    with pytest.raises(StarError) as error:
        open_corpus("hf:x")
    assert code_of(error) == "cannot-read"


def test_a_data_set_without_the_library(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(StarError) as error:
        open_corpus("hf:x")
    assert code_of(error) == "missing-extra"


@pytest.mark.parametrize(
    ("rows", "code"),
    [
        ([], "corpus-empty"),
        ([{"text": ""}, {"text": None}], "corpus-empty"),
        ([{"question": "a", "answer": "b"}], "no-text-column"),
        ([{"number": 1}], "no-text-column"),
    ],
)
def test_data_sets_without_text(
    monkeypatch: pytest.MonkeyPatch, rows: list[dict[str, Any]], code: str
):
    monkeypatch.setattr(documents, "open_rows", lambda dataset, config: rows)
    with pytest.raises(StarError) as error:
        open_corpus("hf:x")
    assert code_of(error) == code


def test_an_empty_file(tmp_path: Path):
    (tmp_path / "empty").touch()
    with pytest.raises(StarError) as error:
        open_corpus(str(tmp_path / "empty"))
    assert code_of(error) == "corpus-empty"
