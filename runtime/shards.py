"""Tokens in shards: in memory, or in the files of a folder that are mapped rather than read.

    DIR/manifest.json          what there is, with checksums; written last
    DIR/tokenizer.json         the tokenizer, unless tokens are bytes
    DIR/train-00000.bin ...    tokens: uint8, uint16 or uint32, little-endian, nothing else
    DIR/train.ends.bin         where documents end: int64, the place after each one's last token

and the same for `validation` and `test`.

Owns: that layout, its checksums, and reading any stretch of tokens over the borders of shards.
Refuses: text, and what the tokens mean.
"""

from __future__ import annotations

import bisect
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from starc.grammar.errors import Diagnostic, StarError
from starc.runtime.data import Tokens
from starc.runtime.documents import PartName
from starc.runtime.tokenizer import Ids

PARTS: tuple[PartName, ...] = ("train", "validation", "test")

MANIFEST = "manifest.json"
FORMAT = "starc tokens 1"

SHARD_BYTES = 1 << 28
"""How large a shard becomes."""

CHECKED_BYTES = 1 << 30
"""Folders up to this size are checked to the byte when they are opened, larger ones by size."""

COUNTED = 1 << 27
"""Statistics of a part with more tokens than this are taken from pieces spread evenly over it."""

_CHUNK = 1 << 20


@dataclass(frozen=True, eq=False)
class Part:
    """The tokens of one part of a corpus, one document after the other.

    `ends` has the place after each document's last token, in order; `text_bytes` is the size of
    the text, with one byte for each end of a document.
    """

    shards: tuple[Ids, ...] = field(repr=False)
    ends: NDArray[np.int64] = field(repr=False)
    text_bytes: int
    recorded: str = field(default="", repr=False)

    def __len__(self) -> int:
        return self._starts[-1]

    @property
    def bytes_per_token(self) -> float:
        """Bytes of text a token stands for, on average over the part; 0 where there is none."""
        return self.text_bytes / len(self) if len(self) else 0.0

    @cached_property
    def digest(self) -> str:
        """SHA-256 of tokens, ends of documents and size; however the tokens lie in shards."""
        return self.recorded or self.checksum()

    def checksum(self) -> str:
        """The digest, from the tokens themselves."""
        check = Checksum()
        for chunk in self.chunks():
            check.tokens(chunk)
        check.ends(self.ends)
        return check.digest(self.text_bytes)

    @cached_property
    def _starts(self) -> list[int]:
        """The place of each shard's first token, and the end of the last."""
        return list(accumulate((len(shard) for shard in self.shards), initial=0))

    def stretch(self, start: int, stop: int) -> Ids:
        """Tokens start .. stop - 1, which must be there."""
        first = bisect.bisect_right(self._starts, start, hi=len(self.shards)) - 1
        offset = self._starts[first]
        if stop <= self._starts[first + 1]:
            return self.shards[first][start - offset : stop - offset]
        pieces = []
        for shard, offset in zip(self.shards[first:], self._starts[first:], strict=False):
            if offset >= stop:
                break
            pieces.append(shard[max(0, start - offset) : stop - offset])
        return np.concatenate(pieces)

    def windows(self, starts: NDArray[np.int64], length: int) -> Tokens:
        """The `length` tokens from each of `starts` (n,) on: (n, length)."""
        found = np.empty((len(starts), length), dtype=np.int64)
        for row, start in enumerate(starts.tolist()):
            found[row] = self.stretch(start, start + length)
        return found

    def document(self, index: int) -> Ids:
        """The tokens of a document with its end; IndexError when there is none."""
        stop = int(self.ends[index])
        return self.stretch(int(self.ends[index - 1]) if index else 0, stop)

    def chunks(self, limit: int | None = None, overlap: int = 0) -> Iterator[Ids]:
        """All tokens a million at a time, or pieces with `limit` in all, spread evenly.

        Each goes on for `overlap` tokens of the next.
        """
        count = -(-len(self) // _CHUNK)
        kept = count if limit is None else min(count, max(1, limit // _CHUNK))
        for chunk in np.linspace(0, count - 1, num=kept).round().astype(np.int64).tolist():
            yield self.stretch(chunk * _CHUNK, min(len(self), (chunk + 1) * _CHUNK + overlap))


class Checksum:
    """The digest of a part, as its tokens come."""

    def __init__(self) -> None:
        self._tokens, self._ends = hashlib.sha256(), hashlib.sha256()

    def tokens(self, tokens: Ids) -> None:
        self._tokens.update(np.ascontiguousarray(tokens).data)

    def ends(self, ends: NDArray[np.int64]) -> None:
        self._ends.update(np.ascontiguousarray(ends).data)

    def digest(self, text_bytes: int) -> str:
        whole = f"{self._tokens.hexdigest()} {self._ends.hexdigest()} {text_bytes}"
        return hashlib.sha256(whole.encode()).hexdigest()


class Sink(Protocol):
    """What takes the tokens of a part in."""

    def add(self, tokens: Ids, text_bytes: int) -> None: ...

    def end_document(self) -> None:
        """The tokens so far end a document."""
        ...


class Memory:
    """A sink that becomes a part in memory."""

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self._tokens: list[Ids] = [np.empty(0, dtype)]
        self._dtype, self._size, self._bytes = dtype, 0, 0
        self._ends: list[int] = []

    def add(self, tokens: Ids, text_bytes: int) -> None:
        self._tokens.append(tokens.astype(self._dtype, copy=False))
        self._size += len(tokens)
        self._bytes += text_bytes

    def end_document(self) -> None:
        self._ends.append(self._size)

    def part(self) -> Part:
        tokens = np.concatenate(self._tokens)
        return Part((tokens,), np.array(self._ends, dtype=np.int64), self._bytes)


class Files:
    """A sink that writes shards of at most `size` bytes; `close()` gives its manifest."""

    def __init__(self, folder: Path, name: str, dtype: np.dtype[Any], size: int) -> None:
        self._folder, self._name, self._dtype = folder, name, dtype
        self._room = max(1, size // dtype.itemsize)
        self._check = Checksum()
        self._shards: list[int] = []
        self._file: Any = None
        self._ends = (folder / _ends(name)).open("wb")
        self._tokens = self._bytes = self._documents = 0

    def add(self, tokens: Ids, text_bytes: int) -> None:
        tokens = tokens.astype(self._dtype, copy=False)
        self._check.tokens(tokens)
        self._tokens += len(tokens)
        self._bytes += text_bytes
        while len(tokens):
            if self._file is None or self._shards[-1] == self._room:
                self._next()
            piece = tokens[: self._room - self._shards[-1]]
            self._file.write(np.ascontiguousarray(piece).data)
            self._shards[-1] += len(piece)
            tokens = tokens[len(piece) :]

    def end_document(self) -> None:
        end = np.array([self._tokens], dtype="<i8")
        self._check.ends(end)
        self._ends.write(end.data)
        self._documents += 1

    def close(self) -> dict[str, Any]:
        self._ends.close()
        if self._file is not None:
            self._file.close()
        return {
            "tokens": self._tokens,
            "text_bytes": self._bytes,
            "documents": self._documents,
            "shards": self._shards,
            "sha256": self._check.digest(self._bytes),
        }

    def _next(self) -> None:
        if self._file is not None:
            self._file.close()
        self._file = (self._folder / _shard(self._name, len(self._shards))).open("wb")
        self._shards.append(0)


def dtype_for(vocab: int) -> np.dtype[Any]:
    """The smallest type that holds tokens 0 .. vocab - 1."""
    return np.dtype("<u1" if vocab <= 1 << 8 else "<u2" if vocab <= 1 << 16 else "<u4")


def is_folder(path: Path) -> bool:
    """Whether `path` is a folder of tokens."""
    try:
        return bool(json.loads((path / MANIFEST).read_text())["format"] == FORMAT)
    except (OSError, ValueError, TypeError, KeyError):
        return False


def open_parts(folder: Path, vocab: int) -> dict[PartName, Part]:
    """The parts in a folder of tokens, mapped into memory; StarError when it is damaged."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text())["parts"]
        parts = {name: _open_part(folder, name, manifest[name], dtype_for(vocab)) for name in PARTS}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise damaged(folder, str(error)) from error
    if sum(shard.nbytes for part in parts.values() for shard in part.shards) <= CHECKED_BYTES:
        for name, part in parts.items():
            if part.checksum() != part.recorded:
                raise damaged(folder, f"the checksum of '{name}' differs")
    return parts


def damaged(folder: Path, reason: str) -> StarError:
    """The error for a folder of tokens that cannot be used."""
    return StarError(
        Diagnostic(
            "tokens-damaged",
            f"the tokens in '{folder}' cannot be used: {reason}.",
            hint="make them again with 'starc tokenize'.",
        )
    )


def _open_part(folder: Path, name: str, entry: dict[str, Any], dtype: np.dtype[Any]) -> Part:
    sizes, documents = [int(size) for size in entry["shards"]], int(entry["documents"])
    if sum(sizes) != int(entry["tokens"]):
        raise ValueError(f"the sizes of the shards of '{name}' do not add up")
    shards = [_map(folder / _shard(name, i), dtype, size) for i, size in enumerate(sizes)]
    ends = _map(folder / _ends(name), np.dtype("<i8"), documents)
    shards = shards or [np.empty(0, dtype)]  # a part is one array at least
    return Part(tuple(shards), ends, int(entry["text_bytes"]), str(entry["sha256"]))


def _map(path: Path, dtype: np.dtype[Any], count: int) -> NDArray[Any]:
    if path.stat().st_size != count * dtype.itemsize:
        raise ValueError(f"'{path.name}' has another size than it was written with")
    if not count:  # nothing cannot be mapped
        return np.empty(0, dtype)
    # As a plain array, slices of which take a tenth of the time.
    return np.asarray(np.memmap(path, dtype, mode="r", shape=(count,)))


def _shard(name: str, index: int) -> str:
    return f"{name}-{index:05d}.bin"


def _ends(name: str) -> str:
    return f"{name}.ends.bin"
