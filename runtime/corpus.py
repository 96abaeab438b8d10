"""Text to train on: bytes in, batches of token windows out.

Owns: finding the documents of a corpus by name or path, holding out whole documents for validation,
and drawing batches that depend on a seed and a step alone.
Refuses: anything about models, and any tokenizer but bytes.

A document is a file. Documents follow each other in the order of their names, each ended by the
byte 0.
"""

from __future__ import annotations

import hashlib
import os
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import nn

from starc.grammar.errors import Diagnostic, StarError
from starc.runtime.data import Split, Tokens

Bytes = NDArray[np.uint8]

VOCAB = 256
"""Tokens are bytes: a model needs a vocabulary of at least this size."""

HELD_OUT = 20
"""One document in this many is held out for validation, chosen by a hash of its name."""

_BOUNDARY = b"\0"

# Tests and generated tables would teach a model of source code nothing; `_sysconfigdata` differs by
# machine.
_STDLIB_SKIPPED = frozenset(
    {"site-packages", "__pycache__", "test", "tests", "idle_test", "encodings", "lib2to3"}
)


@dataclass(frozen=True, eq=False)
class Corpus:
    """Two byte strings, training and validation, as one-dimensional uint8 arrays.

    `name` is what the user asked for; `digest` identifies both parts to the byte.
    """

    name: str
    train: Bytes = field(repr=False)
    validation: Bytes = field(repr=False)
    vocab: int = VOCAB
    bytes_per_token: float = 1.0

    @cached_property
    def digest(self) -> str:
        """SHA-256 of both parts, in hexadecimal."""
        digest = hashlib.sha256(len(self.train).to_bytes(8, "little"))
        digest.update(np.ascontiguousarray(self.train).data)
        digest.update(np.ascontiguousarray(self.validation).data)
        return digest.hexdigest()

    def batch(self, step: int, *, batch: int, length: int, seed: int) -> tuple[Tokens, Tokens]:
        """Windows of the training part at places drawn from (seed, step), the same everywhere.

        Returns tokens and targets, both (batch, length) int64; targets are the tokens one place
        later.
        Raises StarError when the training part is shorter than a window.
        """
        self._require(self.train, length, "training")
        places = np.random.default_rng([seed, step]).integers(
            0, len(self.train) - length, size=batch, dtype=np.int64
        )
        windows = self.train[places[:, None] + np.arange(length + 1)].astype(np.int64)
        return windows[:, :-1], windows[:, 1:]

    def held_out(self, split: Split, *, length: int, limit: int) -> tuple[Tokens, Tokens]:
        """Non-overlapping windows of the validation part, evenly spread over it, `limit` at most.

        Both splits are that part.

        Returns tokens and targets, both (n, length) int64 with n >= 1.
        Raises StarError when the validation part is shorter than a window.
        """
        self._require(self.validation, length, "validation")
        count = (len(self.validation) - 1) // length
        chosen = np.linspace(0, count - 1, num=min(count, limit)).round().astype(np.int64)
        windows = self.validation[chosen[:, None] * length + np.arange(length + 1)].astype(np.int64)
        return windows[:, :-1], windows[:, 1:]

    def adapt(self, model: nn.Module) -> nn.Module:
        """The model itself: a language model needs no other head."""
        return model

    def unigram_bits(self) -> float:
        """Bits per byte of the validation part under the byte frequencies of training (plus one).

        What a model that ignores its context can reach; a trained model must be well below it.
        """
        counts = np.bincount(self.train, minlength=VOCAB) + 1.0
        return float(-np.log2(counts / counts.sum())[self.validation].mean())

    def _require(self, part: Bytes, length: int, name: str) -> None:
        if len(part) <= length:
            raise _error(
                "corpus-too-short",
                f"the {name} part of '{self.name}' is shorter than a window: "
                f"{len(part):,} bytes for {length:,} tokens and their successors.",
                "give more text, or a smaller --length.",
            )


def open_corpus(name: str) -> Corpus:
    """The corpus called `name`: `stdlib`, or the path of a text file or of a folder of text files.

    `stdlib` is the source of Python's standard library as installed here, without its tests. In a
    folder, hidden files and files that are not UTF-8 text are left out; a single file is taken as
    it is. Corpora of fewer than 20 documents hold out the last tenth of their text instead of whole
    documents.
    Raises StarError when there is nothing to read.
    """
    if name == "stdlib":
        return _split(name, _stdlib())
    path = Path(name)
    try:
        if path.is_dir():
            documents = _read_all(path, sorted(_files(path)), _is_text)
        else:
            documents = [(path.name, _read_file(path))]
    except (OSError, ValueError) as error:
        raise _error(
            "cannot-read",
            f"cannot read the corpus '{name}': {getattr(error, 'strerror', None) or error}.",
            "a corpus is 'stdlib', a text file or a folder of text files.",
        ) from error
    if not any(text for _, text in documents):
        raise _error("corpus-empty", f"'{name}' holds no text.", "binary files are left out.")
    return _split(name, documents)


def _stdlib() -> list[tuple[str, bytes]]:
    root = Path(sysconfig.get_path("stdlib"))
    paths = [
        path
        for path in sorted(_files(root, skipped=_STDLIB_SKIPPED))
        if path.suffix == ".py" and not path.name.startswith("_sysconfigdata")
    ]
    documents = _read_all(root, paths, _is_text)
    if not documents:
        raise _error(
            "corpus-empty",
            f"this Python has no library source in {root}.",
            "give the path of a text file or of a folder of text files.",
        )
    return documents


def _read_file(path: Path) -> bytes:
    if path.exists() and not path.is_file():  # a device or a pipe may never end
        raise ValueError("it is neither a file nor a folder")
    return path.read_bytes()


def _files(root: Path, skipped: frozenset[str] = frozenset()) -> list[Path]:
    found: list[Path] = []
    for folder, subfolders, names in os.walk(root):
        subfolders[:] = [n for n in subfolders if not n.startswith(".") and n not in skipped]
        found += [Path(folder, n) for n in names if not n.startswith(".")]
    return found


def _read_all(
    root: Path, paths: list[Path], accept: Callable[[bytes], bool]
) -> list[tuple[str, bytes]]:
    named = ((path.relative_to(root).as_posix(), path) for path in paths if path.is_file())
    documents = [(name, path.read_bytes()) for name, path in named]
    return [(name, text) for name, text in documents if text and accept(text)]


def _is_text(content: bytes) -> bool:
    if _BOUNDARY in content:
        return False
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _split(name: str, documents: list[tuple[str, bytes]]) -> Corpus:
    if len(documents) < HELD_OUT:
        whole = b"".join(text + _BOUNDARY for _, text in documents)
        cut = len(whole) - len(whole) // 10
        return Corpus(name, _array(whole[:cut]), _array(whole[cut:]))
    parts: tuple[list[bytes], list[bytes]] = ([], [])
    for document, text in documents:
        parts[_is_held_out(document)].append(text + _BOUNDARY)
    if not parts[1]:
        parts[1].append(parts[0].pop())
    return Corpus(name, _array(b"".join(parts[0])), _array(b"".join(parts[1])))


def _is_held_out(document: str) -> bool:
    digest = hashlib.sha256(document.encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8], "little") % HELD_OUT == 0


def _array(content: bytes) -> Bytes:
    return np.frombuffer(content, dtype=np.uint8)


def _error(code: str, message: str, hint: str) -> StarError:
    return StarError(Diagnostic(code, message, hint=hint))
