"""Tokenizers: bytes, and whatever a `tokenizers` JSON file describes.

Owns: text to tokens and back, and training a byte-level BPE.
Refuses: where text comes from.

Byte pair encoding of text: Sennrich et al., arXiv 1508.07909; over bytes, so that every text can be
written and read back, as in GPT-2.
"""

from __future__ import annotations

import codecs
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from starc.grammar.errors import Diagnostic, StarError

if TYPE_CHECKING:
    import tokenizers

Ids = NDArray[np.unsignedinteger[Any]]

BYTES = 256
"""The vocabulary of the byte tokenizer."""

END = "<|endoftext|>"
"""The token that ends a document, in tokenizers trained here."""

_ENDS = (END, "<|end_of_text|>", "</s>", "<eos>", "<|eot_id|>", "<|im_end|>", "[SEP]")


class Tokenizer(Protocol):
    """Text to tokens 0 .. vocab - 1, and back.

    `end` ends every document; `digest` identifies the tokenizer; `name` is for people.
    """

    @property
    def name(self) -> str: ...

    @property
    def vocab(self) -> int: ...

    @property
    def end(self) -> int: ...

    @property
    def digest(self) -> str: ...

    def encode(self, texts: Sequence[bytes]) -> list[Ids]:
        """The tokens of each text, without one at its end; StarError for what is no text."""
        ...

    def decode(self, tokens: Iterable[int]) -> Iterator[str]:
        """Text as soon as its characters are whole."""
        ...

    def to_json(self) -> bytes | None:
        """The file that describes it; None for bytes."""
        ...


class ByteTokenizer:
    """Tokens are bytes, and the byte 0 ends a document."""

    name = "bytes"
    vocab = BYTES
    end = 0
    digest = "bytes"

    def encode(self, texts: Sequence[bytes]) -> list[Ids]:
        return [np.frombuffer(text, dtype=np.uint8) for text in texts]

    def decode(self, tokens: Iterable[int]) -> Iterator[str]:
        """What is no UTF-8 becomes the replacement character."""
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        for token in tokens:
            if text := decoder.decode(bytes([token])):
                yield text
        if rest := decoder.decode(b"", final=True):
            yield rest

    def to_json(self) -> None:
        return None


class FileTokenizer:
    """A tokenizer of the `tokenizers` library.

    Text that spells a special token is read as ordinary text. A tokenizer without a token that
    ends a document gets one.
    """

    def __init__(self, inner: tokenizers.Tokenizer, name: str) -> None:
        inner.no_truncation()
        inner.no_padding()
        known = inner.get_vocab(with_added_tokens=True)
        if not any(token in known for token in _ENDS):
            inner.add_special_tokens([END])
            known = inner.get_vocab(with_added_tokens=True)
        self._inner = inner
        self.name = name
        self.end = next(known[token] for token in _ENDS if token in known)
        self.vocab = max(known.values()) + 1

    @cached_property
    def digest(self) -> str:
        return hashlib.sha256(self.to_json()).hexdigest()

    def encode(self, texts: Sequence[bytes]) -> list[Ids]:
        try:
            decoded = [text.decode("utf-8") for text in texts]
        except UnicodeDecodeError as error:
            raise _error(
                "not-text",
                f"the tokenizer '{self.name}' reads UTF-8 text, and this is none: {error.reason}.",
                "without --tokenizer, any file is read as bytes.",
            ) from error
        # Not part of the file: it would change what other programs make of it.
        self._inner.encode_special_tokens = True
        encodings = self._inner.encode_batch_fast(decoded, add_special_tokens=False)
        self._inner.encode_special_tokens = False
        return [np.array(encoding.ids, dtype=np.uint32) for encoding in encodings]

    def decode(self, tokens: Iterable[int]) -> Iterator[str]:
        """Special tokens are left out; bytes at the end that are no whole character are, too."""
        from tokenizers.decoders import DecodeStream

        stream = DecodeStream(skip_special_tokens=True)
        for token in tokens:
            if text := stream.step(self._inner, token):
                yield text

    def to_json(self) -> bytes:
        return str(self._inner.to_str(pretty=True)).encode()


def open_tokenizer(name: str) -> Tokenizer:
    """The tokenizer called `bytes`, or that of a `tokenizers` JSON file; raises StarError."""
    if name == ByteTokenizer.name:
        return ByteTokenizer()
    try:
        content = Path(name).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise _error(
            "cannot-read",
            f"cannot read the tokenizer '{name}': {getattr(error, 'strerror', None) or error}.",
            "give 'bytes' or a file such as 'starc tokenizer train' writes.",
        ) from error
    return parse_tokenizer(content, name)


def parse_tokenizer(content: str, name: str) -> Tokenizer:
    """The tokenizer that the text of a `tokenizers` JSON file describes; raises StarError."""
    library = _library()
    try:
        return FileTokenizer(library.Tokenizer.from_str(content), name)
    except Exception as error:  # the library's own errors are plain Exceptions
        raise _error(
            "bad-tokenizer",
            f"'{name}' is no tokenizer: {str(error).rstrip('.')}.",
            "give 'bytes' or a file such as 'starc tokenizer train' writes.",
        ) from error


def train_tokenizer(texts: Iterable[bytes], vocab: int, name: str) -> FileTokenizer:
    """A byte-level BPE of at most `vocab` tokens, the same for the same texts.

    256 tokens are bytes, one ends documents, and every other joins two that follow each other
    twice at least. Raises StarError for too small a vocabulary.
    """
    if vocab <= BYTES:
        raise _error(
            "bad-vocab",
            f"a vocabulary of {vocab} cannot hold all bytes and a token that ends documents.",
            f"give --vocab {BYTES + 1} or more; 4096 suits small models.",
        )
    library = _library()
    from tokenizers import decoders, models, pre_tokenizers, trainers

    inner = library.Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        min_frequency=2,
        special_tokens=[END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    inner.train_from_iterator((text.decode("utf-8", "replace") for text in texts), trainer)
    return FileTokenizer(inner, name)


def _library() -> Any:
    try:
        import tokenizers
    except ImportError as error:
        raise _error(
            "missing-extra",
            "tokenizers other than bytes need the package 'tokenizers', which is not installed.",
            "pip install 'starc[text]'.",
        ) from error
    return tokenizers


def _error(code: str, message: str, hint: str) -> StarError:
    return StarError(Diagnostic(code, message, hint=hint))
