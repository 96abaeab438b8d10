"""Tokenizers: whatever text goes in comes out, the same text trains the same one, and faults."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from starc.grammar.errors import StarError
from starc.runtime.tokenizer import (
    END,
    ByteTokenizer,
    FileTokenizer,
    open_tokenizer,
    train_tokenizer,
)

TEXT = ["the cat sat on the mat. " * 20, "def f(x):\n    return x + 1\n" * 20, "naïve ✓\n" * 9]


def code_of(error: pytest.ExceptionInfo[StarError]) -> str:
    return error.value.diagnostics[0].code


def trained(vocab: int = 300) -> FileTokenizer:
    return train_tokenizer([text.encode() for text in TEXT], vocab, "trained")


TRAINED = trained()


@pytest.mark.parametrize("tokenizer", [ByteTokenizer(), TRAINED], ids=["bytes", "bpe"])
@settings(max_examples=40, deadline=None)
@given(texts=st.lists(st.text(st.characters(codec="utf-8")), max_size=4))
def test_what_goes_in_comes_out(tokenizer: ByteTokenizer | FileTokenizer, texts: list[str]):
    encoded = tokenizer.encode([text.encode() for text in texts])
    assert ["".join(tokenizer.decode(tokens.tolist())) for tokens in encoded] == texts
    assert all(tokens.max(initial=0) < tokenizer.vocab for tokens in encoded)


def test_training_joins_what_is_frequent_and_is_deterministic():
    (tokens,) = TRAINED.encode([TEXT[0].encode()])
    assert len(tokens) < len(TEXT[0]) / 3
    assert trained().to_json() == TRAINED.to_json()
    assert trained(290).digest != TRAINED.digest
    assert trained(290).vocab == 290


def test_text_that_spells_a_special_token_is_text():
    (tokens,) = TRAINED.encode([f"a{END}b".encode()])
    assert TRAINED.end not in tokens
    assert "".join(TRAINED.decode([*tokens.tolist(), TRAINED.end])) == f"a{END}b"


def test_decoding_gives_whole_characters_only():
    (tokens,) = TRAINED.encode(["🙂!".encode()])
    pieces = list(TRAINED.decode(tokens.tolist()))
    assert "".join(pieces) == "🙂!"
    assert "�" not in "".join(pieces)


def test_a_file_is_read_back(tmp_path: Path):
    path = tmp_path / "tok.json"
    path.write_bytes(TRAINED.to_json())
    again = open_tokenizer(str(path))
    assert again.digest == TRAINED.digest
    assert (again.vocab, again.end) == (TRAINED.vocab, TRAINED.end)
    np.testing.assert_array_equal(again.encode([b"the mat"])[0], TRAINED.encode([b"the mat"])[0])


def test_files_of_others(tmp_path: Path):
    """Truncation, padding and tokens around a text are for other uses; an end is added."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    inner = Tokenizer(models.WordLevel({"[UNK]": 0, "a": 1, "b": 2}, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.enable_truncation(2)
    inner.enable_padding(length=5)
    path = tmp_path / "words.json"
    inner.save(str(path))
    tokenizer = open_tokenizer(str(path))
    np.testing.assert_array_equal(tokenizer.encode([b"a b c a"])[0], [1, 2, 0, 1])
    assert tokenizer.end == tokenizer.vocab - 1
    assert json.loads(tokenizer.to_json() or b"")["truncation"] is None


def test_bytes_by_name():
    assert open_tokenizer("bytes").vocab == 256


@pytest.mark.parametrize("content", [b"", b"{}", b'{"model": 3}', b"\xff\xfe", b"[1, 2"])
def test_what_is_no_tokenizer(tmp_path: Path, content: bytes):
    path = tmp_path / "tok.json"
    path.write_bytes(content)
    with pytest.raises(StarError) as error:
        open_tokenizer(str(path))
    assert code_of(error) in ("bad-tokenizer", "cannot-read")


def test_faults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(StarError) as error:
        open_tokenizer(str(tmp_path / "absent.json"))
    assert code_of(error) == "cannot-read"
    with pytest.raises(StarError) as error:
        TRAINED.encode([b"\xff\xfe"])
    assert code_of(error) == "not-text"
    with pytest.raises(StarError) as error:
        trained(256)
    assert code_of(error) == "bad-vocab"
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(StarError) as error:
        trained()
    assert code_of(error) == "missing-extra"
