"""Corpora: what is read, what is held out, and that batches depend on seed and step alone."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from starc.grammar.errors import StarError
from starc.runtime.corpus import Corpus, open_corpus


def _code(error: pytest.ExceptionInfo[StarError]) -> str:
    return error.value.diagnostics[0].code


@pytest.fixture
def counting() -> Corpus:
    ramp = np.arange(200, dtype=np.uint8)
    return Corpus("ramp", ramp, ramp[:50])


def test_stdlib_is_python_source_with_whole_documents_held_out():
    corpus = open_corpus("stdlib")
    assert len(corpus.train) > 5_000_000
    assert 0.01 < len(corpus.validation) / len(corpus.train) < 0.12
    for part in (corpus.train, corpus.validation):
        documents = part.tobytes().split(b"\0")
        assert documents.pop() == b""
        compile(documents[0], "document", "exec")
    train = set(corpus.train.tobytes().split(b"\0"))
    assert not train & set(filter(None, corpus.validation.tobytes().split(b"\0")))


def test_unigram_bits_of_the_library_is_far_from_trivial():
    assert 4.0 < open_corpus("stdlib").unigram_bits() < 5.0


def test_unigram_bits_of_known_frequencies():
    flat = np.tile(np.arange(4, dtype=np.uint8), 100_000)
    assert Corpus("flat", flat, flat).unigram_bits() == pytest.approx(2.0, abs=1e-2)


def test_a_folder_takes_text_and_leaves_out_the_rest(tmp_path: Path):
    (tmp_path / "b.txt").write_text("beta")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "z.md").write_text("alpha")
    (tmp_path / "image.bin").write_bytes(b"\xff\xfe\0")
    (tmp_path / ".hidden").write_text("secret")
    corpus = open_corpus(str(tmp_path))
    whole = corpus.train.tobytes() + corpus.validation.tobytes()
    assert whole == b"alpha\0beta\0"


def test_few_documents_hold_out_the_last_tenth(tmp_path: Path):
    (tmp_path / "text").write_text("x" * 900 + "y" * 99)
    corpus = open_corpus(str(tmp_path / "text"))
    assert (len(corpus.train), len(corpus.validation)) == (900, 100)
    assert corpus.validation.tobytes() == b"y" * 99 + b"\0"


def test_many_documents_are_split_the_same_way_whatever_stands_beside_them(tmp_path: Path):
    for number in range(200):
        (tmp_path / f"{number}.txt").write_text(f"document {number}")
    before = set(open_corpus(str(tmp_path)).validation.tobytes().split(b"\0"))
    (tmp_path / "new.txt").write_text("document new")
    after = set(open_corpus(str(tmp_path)).validation.tobytes().split(b"\0"))
    assert len(before) > 3
    assert before <= after


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
    tokens, targets = Corpus("ramp", ramp, ramp).batch(0, batch=300, length=10, seed=0)
    assert set(tokens[:, 0]) == {0, 1, 2}
    assert targets.max() == 12


@pytest.mark.parametrize(("length", "limit", "starts"), [(7, 100, 7), (7, 3, 3), (49, 1, 1)])
def test_validation_windows_do_not_overlap(counting: Corpus, length: int, limit: int, starts: int):
    tokens, targets = counting.held_out("validation", length=length, limit=limit)
    np.testing.assert_array_equal(targets, tokens + 1)
    assert len(tokens) == starts
    assert len(set(tokens[:, 0])) == starts
    assert all(start % length == 0 for start in tokens[:, 0])


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


def test_digest_sees_every_byte_and_the_split(counting: Corpus):
    moved = Corpus("ramp", counting.train[:-1], np.append(counting.train[-1:], counting.validation))
    assert moved.digest != counting.digest
    assert Corpus("other", counting.train, counting.validation).digest == counting.digest
