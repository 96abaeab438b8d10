"""Folders of tokens: the same corpus as in memory, whatever the size of shards; damage is seen."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from starc.grammar.errors import StarError
from starc.runtime import corpus as corpora
from starc.runtime.corpus import Corpus, open_corpus, tokenize
from starc.runtime.shards import PARTS, Memory, Part, dtype_for
from starc.runtime.tokenizer import ByteTokenizer, Tokenizer, train_tokenizer

BPE = train_tokenizer([b"document number one two three four five six. " * 9], 290, "bpe")


def code_of(error: pytest.ExceptionInfo[StarError]) -> str:
    return error.value.diagnostics[0].code


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("texts")
    for number in range(70):
        (folder / f"{number}.txt").write_text(f"document number {number}. " * (1 + number % 7))
    return folder


@pytest.mark.parametrize("tokenizer", [ByteTokenizer(), BPE], ids=["bytes", "bpe"])
@pytest.mark.parametrize("shard_bytes", [1, 100, 1 << 20])
def test_a_folder_of_tokens_is_the_corpus_in_memory(
    tmp_path: Path, texts: Path, tokenizer: Tokenizer, shard_bytes: int
):
    plain = open_corpus(str(texts), tokenizer)
    shards = 100 if shard_bytes == 1 else shard_bytes
    written = tokenize(str(texts), tokenizer, tmp_path / "out", shard_bytes=shards)
    mapped = open_corpus(str(tmp_path / "out"))
    assert plain.digest == written.digest == mapped.digest
    assert (mapped.vocab, mapped.bytes_per_token) == (plain.vocab, plain.bytes_per_token)
    assert mapped.unigram_bits() == plain.unigram_bits()
    for name in PARTS:
        one, other = plain.part(name), mapped.part(name)
        assert one.text_bytes == other.text_bytes
        np.testing.assert_array_equal(one.ends, other.ends)
    for mine, theirs in zip(
        plain.batch(3, batch=9, length=30, seed=1),
        mapped.batch(3, batch=9, length=30, seed=1),
        strict=True,
    ):
        np.testing.assert_array_equal(mine, theirs)
    largest = max(path.stat().st_size for path in (tmp_path / "out").glob("train-*.bin"))
    assert largest <= shards


def test_memory_stays_small(tmp_path: Path, texts: Path, monkeypatch: pytest.MonkeyPatch):
    """Tokenising hands on what it has read after a few pieces: no more is ever waiting."""
    waiting = []
    pour = corpora._pour_pieces
    monkeypatch.setattr(corpora, "BATCH_BYTES", 200)
    monkeypatch.setattr(
        corpora,
        "_pour_pieces",
        lambda pieces, *more: waiting.append(sum(len(p.content) for p in pieces))
        or pour(pieces, *more),
    )
    done: list[int] = []
    written = tokenize(str(texts), BPE, tmp_path / "out", observe=done.append)
    assert max(waiting) < 200 + 7 * 24
    assert done == sorted(done)
    assert done[-1] == sum(waiting) == sum(written.part(n).text_bytes for n in PARTS) - 70


def test_documents_keep_their_boundaries(texts: Path, tmp_path: Path):
    mapped = tokenize(str(texts), BPE, tmp_path / "out", shard_bytes=50)
    found = set()
    for name in PARTS:
        part = mapped.part(name)
        for index in range(len(part.ends)):
            *tokens, end = part.document(index).tolist()
            assert end == BPE.end
            found.add("".join(BPE.decode(tokens)))
    assert found == {path.read_text() for path in texts.iterdir()}


@given(
    documents=st.lists(st.lists(st.integers(0, 69_999), max_size=9), max_size=9),
    cuts=st.lists(st.integers(1, 7), min_size=1),
)
@settings(max_examples=40, deadline=None)
def test_any_stretch_over_shards_is_that_of_one_array(documents: list[list[int]], cuts: list[int]):
    sink = Memory(dtype_for(70_000))
    for document in documents:
        sink.add(np.array(document, dtype=np.uint32), len(document))
        sink.end_document()
    whole = sink.part()
    array = whole.stretch(0, len(whole))
    places = [place for place in np.cumsum([0, *cuts]).tolist() if place < len(array)]
    shards = tuple(np.split(array, places))
    cut = replace(whole, shards=shards)
    assert cut.digest == whole.digest
    for start in range(len(array)):
        for stop in (start, start + 1, (start + len(array)) // 2 + 1, len(array)):
            assert cut.stretch(start, stop).tolist() == array[start:stop].tolist()
    for index, document in enumerate(documents):
        assert cut.document(index).tolist() == document


@given(texts=st.lists(st.text(st.characters(codec="utf-8"), max_size=30), min_size=1, max_size=6))
@settings(max_examples=25, deadline=None)
def test_text_comes_back_from_shards(texts: list[str]):
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "source")
        source.write_bytes("".join(texts).encode() + b"!")
        mapped = tokenize(str(source), BPE, Path(folder, "out"), shard_bytes=16)
        tokens = [
            token
            for name in ("train", "test", "validation")
            for token in mapped.part(name).stretch(0, len(mapped.part(name))).tolist()
        ]
        assert tokens.pop() == BPE.end
        assert "".join(BPE.decode(tokens)) == "".join(texts) + "!"
        sizes = [mapped.part(name).text_bytes for name in PARTS]
        assert sum(sizes) == source.stat().st_size + 1


@pytest.mark.parametrize(("vocab", "size"), [(256, 1), (257, 2), (65_536, 2), (65_537, 4)])
def test_the_smallest_type_that_holds_the_vocabulary(vocab: int, size: int):
    assert dtype_for(vocab).itemsize == size


def test_chunks_spread_over_a_part(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("starc.runtime.shards._CHUNK", 10)
    part = Part((np.arange(95, dtype=np.uint8),), np.empty(0, np.int64), 95)
    assert [len(chunk) for chunk in part.chunks()] == [10] * 9 + [5]
    assert [chunk.tolist()[-1] for chunk in part.chunks(overlap=1)][:2] == [10, 20]
    assert [int(chunk[0]) for chunk in part.chunks(30)] == [0, 40, 90]


def test_a_folder_is_not_overwritten(texts: Path, tmp_path: Path):
    (tmp_path / "out").mkdir()
    with pytest.raises(StarError) as error:
        tokenize(str(texts), ByteTokenizer(), tmp_path / "out")
    assert code_of(error) == "would-overwrite"


def test_nothing_is_left_of_what_failed(tmp_path: Path):
    (tmp_path / "binary").write_bytes(b"\xff\xfe" * 99)
    with pytest.raises(StarError) as error:
        tokenize(str(tmp_path / "binary"), BPE, tmp_path / "out")
    assert code_of(error) == "not-text"
    assert [path.name for path in tmp_path.iterdir()] == ["binary"]


def _flip(folder: Path) -> None:
    path = folder / "train-00000.bin"
    content = bytearray(path.read_bytes())
    content[7] ^= 1
    path.write_bytes(content)


def _edit(folder: Path, **changes: object) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


DAMAGE: dict[str, Callable[[Path], object]] = {
    "a bit": _flip,
    "truncated": lambda folder: (folder / "train-00000.bin").write_bytes(b"12"),
    "absent": lambda folder: (folder / "train-00000.bin").unlink(),
    "ends": lambda folder: (folder / "test.ends.bin").write_bytes(b""),
    "no parts": lambda folder: _edit(folder, parts={}),
    "parts of another kind": lambda folder: _edit(folder, parts=[3]),
    "no tokenizer": lambda folder: (folder / "tokenizer.json").unlink(),
    "another tokenizer": lambda folder: _edit(folder, tokenizer="0" * 64),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_damage_is_said(texts: Path, tmp_path: Path, damage: Callable[[Path], object]):
    tokenize(str(texts), BPE, tmp_path / "out")
    damage(tmp_path / "out")
    with pytest.raises(StarError) as error:
        open_corpus(str(tmp_path / "out"))
    assert code_of(error) == "tokens-damaged"


def test_a_folder_brings_its_own_tokenizer(texts: Path, tmp_path: Path):
    tokenize(str(texts), BPE, tmp_path / "out")
    assert open_corpus(str(tmp_path / "out"), BPE).vocab == BPE.vocab
    with pytest.raises(StarError) as error:
        open_corpus(str(tmp_path / "out"), ByteTokenizer())
    assert code_of(error) == "tokenizer-mismatch"


def test_bits_per_byte_count_the_same_bytes_whatever_the_tokens(texts: Path):
    plain, merged = open_corpus(str(texts)), open_corpus(str(texts), BPE)
    for name in PARTS:
        assert plain.part(name).text_bytes == merged.part(name).text_bytes
        assert plain.part(name).text_bytes == len(plain.part(name))
    assert merged.bytes_per_token > 2
    assert isinstance(merged, Corpus)
