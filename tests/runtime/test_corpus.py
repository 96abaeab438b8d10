"""Corpora: what is read, what is held out, and that batches depend on seed and step alone."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from starc.grammar.errors import StarError
from starc.runtime.corpus import Corpus, open_corpus
from starc.runtime.data import IGNORED
from starc.runtime.documents import part_of
from starc.runtime.shards import Part


def _text(part: Part) -> bytes:
    return part.stretch(0, len(part)).tobytes()


def _code(error: pytest.ExceptionInfo[StarError]) -> str:
    return error.value.diagnostics[0].code


@pytest.fixture
def counting() -> Corpus:
    ramp = np.arange(200, dtype=np.uint8)
    return Corpus.of("ramp", ramp, ramp[:50])


def test_stdlib_is_python_source_with_whole_documents_held_out():
    corpus = open_corpus("stdlib")
    assert len(corpus.train) > 5_000_000
    seen: set[bytes] = set()
    for part in (corpus.train, corpus.validation, corpus.test):
        documents = _text(part).split(b"\0")
        assert documents.pop() == b""
        assert len(documents) == len(part.ends)
        compile(documents[0], "document", "exec")
        assert not seen & set(filter(None, documents))
        seen |= set(documents)
    for part in (corpus.validation, corpus.test):
        assert 0.01 < len(part) / len(corpus.train) < 0.2


def test_unigram_bits_of_the_library_is_far_from_trivial():
    assert 4.0 < open_corpus("stdlib").unigram_bits() < 5.0


def test_unigram_bits_of_known_frequencies():
    flat = np.tile(np.arange(4, dtype=np.uint8), 100_000)
    assert Corpus.of("flat", flat, flat).unigram_bits() == pytest.approx(2.0, abs=1e-2)


def test_a_folder_takes_text_and_leaves_out_the_rest(tmp_path: Path):
    (tmp_path / "b.txt").write_text("beta")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "z.md").write_text("alpha")
    (tmp_path / "image.bin").write_bytes(b"\xff\xfe\0")
    (tmp_path / ".hidden").write_text("secret")
    corpus = open_corpus(str(tmp_path))
    whole = _text(corpus.train) + _text(corpus.test) + _text(corpus.validation)
    assert whole == b"alpha\0beta\0"


def test_few_documents_hold_out_two_tenths_of_their_text(tmp_path: Path):
    (tmp_path / "text").write_text("x" * 800 + "y" * 100 + "z" * 99)
    corpus = open_corpus(str(tmp_path / "text"))
    assert _text(corpus.train) == b"x" * 800
    assert _text(corpus.test) == b"y" * 100
    assert _text(corpus.validation) == b"z" * 99 + b"\0"


def test_no_cut_goes_through_a_character(tmp_path: Path):
    text = "✓é" * 60 + "x"
    (tmp_path / "text").write_text(text)
    corpus = open_corpus(str(tmp_path / "text"))
    parts = [_text(part) for part in (corpus.train, corpus.test, corpus.validation)]
    assert "".join(part.decode() for part in parts) == text + "\0"
    assert all(parts)


@pytest.mark.parametrize("part", ["validation", "test"])
def test_many_documents_are_split_the_same_way_whatever_stands_beside_them(
    tmp_path: Path, part: str
):
    for number in range(200):
        (tmp_path / f"{number}.txt").write_text(f"document {number}")
    before = set(_text(open_corpus(str(tmp_path)).part(part)).split(b"\0"))
    (tmp_path / "new.txt").write_text("document new")
    after = set(_text(open_corpus(str(tmp_path)).part(part)).split(b"\0"))
    assert len(before) > 3
    assert before <= after


def test_parts_that_names_leave_empty_are_cut_from_the_text(tmp_path: Path):
    names = [str(number) for number in range(60) if part_of(str(number)) != "test"]
    for name in names:
        (tmp_path / name).write_text("document")
    corpus = open_corpus(str(tmp_path))
    assert len(corpus.validation) == len(corpus.test) == len(names) * 9 // 10


def test_batches_are_windows_and_their_successors(counting: Corpus):
    tokens, targets = counting.batch(7, batch=5, length=11, seed=3)
    assert tokens.shape == targets.shape == (5, 11)
    assert tokens.dtype == targets.dtype == np.int64
    np.testing.assert_array_equal(targets, tokens + 1)


def test_batches_depend_on_seed_and_step_alone(counting: Corpus):
    first = counting.batch(7, batch=5, length=11, seed=3)[0]
    np.testing.assert_array_equal(first, counting.batch(7, batch=5, length=11, seed=3)[0])
    assert not np.array_equal(first, counting.batch(8, batch=5, length=11, seed=3)[0])
    assert not np.array_equal(first, counting.batch(7, batch=5, length=11, seed=4)[0])


def test_every_window_of_the_training_part_can_be_drawn():
    ramp = np.arange(13, dtype=np.uint8)
    tokens, targets = Corpus.of("ramp", ramp, ramp).batch(0, batch=300, length=10, seed=0)
    assert set(tokens[:, 0]) == {0, 1, 2}
    assert targets.max() == 12


@pytest.mark.parametrize(("length", "limit", "starts"), [(7, 100, 7), (7, 3, 3), (49, 1, 1)])
def test_validation_windows_do_not_overlap(counting: Corpus, length: int, limit: int, starts: int):
    tokens, targets = counting.held_out("validation", length=length, limit=limit)
    np.testing.assert_array_equal(targets, tokens + 1)
    assert len(tokens) == starts
    assert len(set(tokens[:, 0])) == starts
    assert all(start % length == 0 for start in tokens[:, 0])


def test_the_last_window_may_be_short(counting: Corpus):
    tokens, targets = counting.held_out("validation", length=20, limit=9)
    assert tokens.shape == targets.shape == (3, 20)
    scored = targets != IGNORED
    assert scored.sum() == len(counting.validation) - 1
    np.testing.assert_array_equal(targets[scored], np.arange(1, 50))
    np.testing.assert_array_equal(tokens[scored], np.arange(49))


def test_too_short_for_a_window(counting: Corpus):
    with pytest.raises(StarError) as error:
        counting.held_out("validation", length=50, limit=1)
    assert _code(error) == "corpus-too-short"
    with pytest.raises(StarError) as error:
        counting.batch(0, batch=1, length=200, seed=0)
    assert _code(error) == "corpus-too-short"


def test_nothing_to_read(tmp_path: Path):
    with pytest.raises(StarError) as error:
        open_corpus(str(tmp_path))
    assert _code(error) == "corpus-empty"
    with pytest.raises(StarError) as error:
        open_corpus(str(tmp_path / "absent"))
    assert _code(error) == "cannot-read"
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(StarError) as error:
        open_corpus(str(tmp_path / "pipe"))
    assert _code(error) == "cannot-read"


def test_digest_sees_every_byte_and_the_split():
    ramp = np.arange(200, dtype=np.uint8)
    one = Corpus.of("ramp", ramp, ramp[:50], ramp[:60])
    assert Corpus.of("other", ramp, ramp[:50], ramp[:60]).digest == one.digest
    others = [
        Corpus.of("ramp", ramp[:-1], np.append(ramp[-1:], ramp[:50]), ramp[:60]),
        Corpus.of("ramp", ramp, ramp[:50], ramp[:61]),
        Corpus.of("ramp", ramp, ramp[1:51], ramp[:60]),
    ]
    assert one.digest not in {other.digest for other in others}
