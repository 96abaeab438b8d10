"""Text to train on: documents in, batches of token windows out.

Owns: opening a corpus by name or path, as tokens in memory or in mapped files; drawing batches that
depend on a seed and a step alone; what the text can be compared with.
Refuses: anything about models.

Documents follow each other, each ended by the tokenizer's token for that, which is the byte 0 where
tokens are bytes. Their text, with one byte for each end, is what bits per byte count.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from starc import __version__
from starc.grammar.errors import Diagnostic, StarError
from starc.runtime import shards
from starc.runtime.data import IGNORED, Split, Tokens
from starc.runtime.documents import Piece, Source, find, pieces
from starc.runtime.files import write_folder_atomic
from starc.runtime.shards import PARTS, Files, Memory, Part, Sink
from starc.runtime.tokenizer import ByteTokenizer, Tokenizer, parse_tokenizer

BATCH_BYTES = 1 << 22
"""Documents are handed to the tokenizer this many bytes at a time, or one piece."""

_TOKENIZER = "tokenizer.json"


@dataclass(frozen=True, eq=False)
class Corpus:
    """Three parts of a text as tokens.

    `name` is what the user asked for; `digest` identifies all parts and the tokenizer to the byte.
    """

    name: str
    train: Part
    validation: Part
    test: Part
    tokenizer: Tokenizer = field(default_factory=ByteTokenizer)

    @classmethod
    def of(
        cls,
        name: str,
        train: NDArray[np.uint8],
        validation: NDArray[np.uint8],
        test: NDArray[np.uint8] | None = None,
    ) -> Corpus:
        """A corpus of byte arrays (n,); where there is no text for the test, validation's is."""
        nothing = np.empty(0, np.int64)
        learnt, chosen, judged = (
            Part((array,), nothing, len(array))
            for array in (train, validation, validation if test is None else test)
        )
        return cls(name, learnt, chosen, judged)

    @property
    def vocab(self) -> int:
        """Tokens are 0 .. vocab - 1."""
        return self.tokenizer.vocab

    @property
    def bytes_per_token(self) -> float:
        """Bytes of text a token of the validation part stands for; exactly 1 for bytes."""
        return self.validation.bytes_per_token

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the parts' digests and the tokenizer's, in hexadecimal."""
        whole = [self.tokenizer.digest, *(self.part(name).digest for name in PARTS)]
        return hashlib.sha256(" ".join(whole).encode()).hexdigest()

    def part(self, name: str) -> Part:
        """The part called `train`, `validation` or `test`."""
        return {"train": self.train, "validation": self.validation, "test": self.test}[name]

    def batch(self, step: int, *, batch: int, length: int, seed: int) -> tuple[Tokens, Tokens]:
        """Windows of the training part at places drawn from (seed, step), the same everywhere.

        Returns tokens and targets, both (batch, length) int64; targets are the tokens one place
        later.
        Raises StarError when the training part is shorter than a window.
        """
        self._require("train", length)
        places = np.random.default_rng([seed, step]).integers(
            0, len(self.train) - length, size=batch, dtype=np.int64
        )
        windows = self.train.windows(places, length + 1)
        return windows[:, :-1], windows[:, 1:]

    def held_out(self, split: Split, *, length: int, limit: int) -> tuple[Tokens, Tokens]:
        """Non-overlapping windows of a held-out part, evenly spread over it, `limit` at most.

        Where all are asked for, the last may be shorter than the others, and its targets are filled
        up with IGNORED: together they score every token of the part but the first.

        Returns tokens and targets, both (n, length) int64 with n >= 1.
        Raises StarError when the part is shorter than a window.
        """
        self._require(split, length)
        part = self.part(split)
        count, rest = divmod(len(part) - 1, length)
        if not rest or limit <= count:
            chosen = np.linspace(0, count - 1, num=min(count, limit)).round().astype(np.int64)
            windows = part.windows(chosen * length, length + 1)
            return windows[:, :-1], windows[:, 1:]
        whole = part.windows(np.arange(count) * length, length + 1)
        last = np.zeros((1, length + 1), dtype=np.int64)
        last[0, : rest + 1] = part.stretch(count * length, len(part))
        tokens = np.concatenate([whole[:, :-1], last[:, :-1]])
        last[0, rest + 1 :] = IGNORED
        return tokens, np.concatenate([whole[:, 1:], last[:, 1:]])

    def adapt(self, model: nn.Module) -> nn.Module:
        """The model itself: a language model needs no other head."""
        return model

    def unigram_bits(self) -> float:
        """Bits per byte of the validation part under the token frequencies of training (plus one).

        What a model that ignores its context can reach; a trained model must be well below it.
        """
        return self._unigram_bits

    @cached_property
    def _unigram_bits(self) -> float:
        counts = _counts(self.train, self.vocab) + 1.0
        bits = -np.log2(counts / counts.sum())
        held_out = _counts(self.validation, self.vocab)
        tokens = held_out.sum()
        return float(held_out @ bits / tokens / self.bytes_per_token) if tokens else float("nan")

    def _require(self, name: str, length: int) -> None:
        if len(self.part(name)) <= length:
            words = {"train": "training"}.get(name, name)
            raise _error(
                "corpus-too-short",
                f"the {words} part of '{self.name}' is shorter than a window: "
                f"{len(self.part(name)):,} tokens for {length:,} and their successors.",
                "give more text, or a smaller --length.",
            )


def open_corpus(name: str, tokenizer: Tokenizer | None = None) -> Corpus:
    """The corpus called `name`, read by `tokenizer`, which is bytes where none is given.

    `name` is a folder that `tokenize` wrote, which has its own tokenizer and is mapped rather than
    read, or anything that `documents.find` knows, which is read into memory.
    Raises StarError when there is nothing to read, or for another tokenizer than the folder's.
    """
    folder = Path(name)
    if shards.is_folder(folder):
        return _open_folder(name, folder, tokenizer)
    tokenizer = tokenizer or ByteTokenizer()
    dtype = shards.dtype_for(tokenizer.vocab)
    sinks = {part: Memory(dtype) for part in PARTS}
    _pour(find(name), tokenizer, sinks)
    train, validation, test = (sinks[part].part() for part in PARTS)
    return Corpus(name, train, validation, test, tokenizer)


def tokenize(
    name: str,
    tokenizer: Tokenizer,
    folder: Path,
    *,
    shard_bytes: int = shards.SHARD_BYTES,
    observe: Callable[[int], None] = lambda size: None,
) -> Corpus:
    """Write the corpus called `name` as a folder of tokens, whole or not at all, and open it.

    Memory holds a few pieces of text at a time. `observe` is told the bytes of text done so far.
    Raises StarError when there is nothing to read or `folder` is there already; OSError.
    """
    if folder.exists():
        raise _error(
            "would-overwrite",
            f"'{folder}' is there already.",
            "name another folder with --out, or remove that one.",
        )
    source = find(name)
    write_folder_atomic(
        folder, partial(_write, source, tokenizer, shard_bytes=shard_bytes, observe=observe)
    )
    return _open_folder(str(folder), folder, None)


def _write(
    source: Source,
    tokenizer: Tokenizer,
    folder: Path,
    *,
    shard_bytes: int,
    observe: Callable[[int], None],
) -> None:
    dtype = shards.dtype_for(tokenizer.vocab)
    sinks = {part: Files(folder, part, dtype, shard_bytes) for part in PARTS}
    try:
        _pour(source, tokenizer, sinks, observe)
    finally:
        manifests = {part: sink.close() for part, sink in sinks.items()}
    description = tokenizer.to_json()
    if description is not None:
        (folder / _TOKENIZER).write_bytes(description)
    manifest = {
        "format": shards.FORMAT,
        "starc": __version__,
        "data": source.name,
        "tokenizer": tokenizer.digest,
        "vocab": tokenizer.vocab,
        "dtype": dtype.name,
        "parts": manifests,
    }
    (folder / shards.MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")


def _open_folder(name: str, folder: Path, tokenizer: Tokenizer | None) -> Corpus:
    try:
        recorded = str(json.loads((folder / shards.MANIFEST).read_text())["tokenizer"])
        own: Tokenizer = ByteTokenizer()
        if recorded != own.digest:
            path = folder / _TOKENIZER
            own = parse_tokenizer(path.read_text(encoding="utf-8"), str(path))
    except (OSError, ValueError, KeyError) as error:
        raise shards.damaged(folder, str(error)) from error
    if own.digest != recorded:
        raise shards.damaged(folder, f"'{_TOKENIZER}' is not the tokenizer they were made with")
    if tokenizer is not None and tokenizer.digest != own.digest:
        raise _error(
            "tokenizer-mismatch",
            f"the tokens in '{folder}' were not made by the tokenizer '{tokenizer.name}'.",
            "a folder of tokens brings its own tokenizer: tokenize the text again for another.",
        )
    parts = shards.open_parts(folder, own.vocab)
    return Corpus(name, parts["train"], parts["validation"], parts["test"], own)


def _pour(
    source: Source,
    tokenizer: Tokenizer,
    sinks: Mapping[Any, Sink],
    observe: Callable[[int], None] = lambda size: None,
) -> None:
    """Tokenise all text of a source into the sinks of its parts, a few megabytes at a time."""
    done = size = 0
    waiting: list[Piece] = []
    for piece in pieces(source):
        waiting.append(piece)
        size += len(piece.content)
        if size >= BATCH_BYTES:
            _pour_pieces(waiting, tokenizer, sinks)
            done, size = done + size, 0
            waiting.clear()
            observe(done)
    _pour_pieces(waiting, tokenizer, sinks)
    observe(done + size)


def _pour_pieces(waiting: list[Piece], tokenizer: Tokenizer, sinks: Mapping[Any, Sink]) -> None:
    encoded = tokenizer.encode([piece.content for piece in waiting])
    end = np.array([tokenizer.end], dtype=np.uint32)
    for piece, tokens in zip(waiting, encoded, strict=True):
        sink = sinks[piece.part]
        sink.add(tokens, len(piece.content))
        if piece.ends:
            sink.add(end, 1)
            sink.end_document()


def _counts(part: Part, vocab: int) -> NDArray[np.float64]:
    """How often each token stands in a part (vocab,)."""
    counts = np.zeros(vocab)
    for chunk in part.chunks(shards.COUNTED):
        counts += np.bincount(chunk, minlength=vocab)
    return counts


def _error(code: str, message: str, hint: str) -> StarError:
    return StarError(Diagnostic(code, message, hint=hint))
