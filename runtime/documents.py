"""Text as documents: found by name or path, read piece by piece, divided into three parts.

Owns: which documents a corpus has, and which part each belongs to.
Refuses: tokens, and holding more of a large file than a piece.

A document is a file, or a row of a Hugging Face data set. Documents come in the order of their
names (rows in their own). Whole documents are held out, chosen by a hash of the name alone, so that
a document stays in its part whatever is added beside it. Where that leaves a part empty, or there
are fewer than 20 documents, the last tenth of the text is for validation and the tenth before it
for the test.
"""

from __future__ import annotations

import bisect
import hashlib
import os
import sysconfig
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from starc.grammar.errors import Diagnostic, StarError

HELD_OUT = 20
"""One document in this many is for validation, and one for the test."""

PIECE = 1 << 24
"""Files are read this many bytes at a time."""

HUB = "hf:"

PartName = Literal["train", "validation", "test"]

_TEXT_COLUMNS = ("text", "content", "code", "document")

# Tests and generated tables would teach a model of source code nothing; `_sysconfigdata` differs by
# machine.
_STDLIB_SKIPPED = frozenset(
    {"site-packages", "__pycache__", "test", "tests", "idle_test", "encodings", "lib2to3"}
)


@dataclass(frozen=True)
class Document:
    """`pieces()` gives the content, cut between characters, as often as it is called."""

    name: str
    pieces: Callable[[], Iterator[bytes]]


@dataclass(frozen=True)
class Source:
    """`documents()` gives all documents, as often as it is called; raises StarError."""

    name: str
    documents: Callable[[], Iterator[Document]]


@dataclass(frozen=True)
class Piece:
    """Some text of a part; `ends` says that a document ends with it."""

    part: PartName
    content: bytes
    ends: bool = False


def find(name: str) -> Source:
    """The documents called `name`: `stdlib`, `hf:NAME[:CONFIG]`, or the path of a file or folder.

    `stdlib` is the source of Python's standard library as installed here, without its tests. In a
    folder, hidden files and files that are not UTF-8 text are left out; a single file is taken as
    it is. Raises StarError for a data set that cannot be opened; what is wrong with a path is said
    on reading it.
    """
    if name == "stdlib":
        return Source(name, _stdlib)
    if name.startswith(HUB):
        dataset, _, config = name.removeprefix(HUB).partition(":")
        return Source(name, partial(_rows, name, open_rows(dataset, config or None)))
    return Source(name, partial(_path, name))


def pieces(source: Source) -> Iterator[Piece]:
    """All text of a source with the part that it belongs to; StarError when there is none."""
    size = _size_of_few(source)
    return _by_document(source) if size is None else _by_text(source, size)


def _size_of_few(source: Source) -> int | None:
    """Bytes of all text with a byte per end of a document; None where whole documents are split."""
    count = size = 0
    found: set[PartName] = set()
    for document in source.documents():
        count += 1
        found.add(part_of(document.name))
        if count >= HELD_OUT and len(found) == 3:
            return None
        size += sum(map(len, document.pieces())) + 1
    if size == count:
        raise _error(
            "corpus-empty", f"'{source.name}' holds no text.", "binary files are left out."
        )
    return size


def _by_document(source: Source) -> Iterator[Piece]:
    for document in source.documents():
        part = part_of(document.name)
        for content in document.pieces():
            yield Piece(part, content)
        yield Piece(part, b"", ends=True)


def _by_text(source: Source, size: int) -> Iterator[Piece]:
    names: tuple[PartName, ...] = ("train", "test", "validation")
    cuts = (size - 2 * (size // 10), size - size // 10)
    at = 0
    for document in source.documents():
        for content in document.pieces():
            begin = 0
            while begin < len(content):
                part = bisect.bisect_right(cuts, at + begin)
                end = len(content)
                if part < len(cuts) and cuts[part] - at < end:
                    end = _next_character(content, cuts[part] - at)
                yield Piece(names[part], content[begin:end])
                begin = end
            at += len(content)
        yield Piece(names[bisect.bisect_right(cuts, at)], b"", ends=True)
        at += 1


def part_of(document: str) -> PartName:
    """The part that a document of this name belongs to, where whole documents are held out."""
    digest = hashlib.sha256(document.encode("utf-8", "surrogateescape")).digest()
    residue = int.from_bytes(digest[:8], "little") % HELD_OUT
    return "validation" if residue == 0 else "test" if residue == 1 else "train"


def _stdlib() -> Iterator[Document]:
    root = Path(sysconfig.get_path("stdlib"))
    paths = [
        path
        for path in _files(root, skipped=_STDLIB_SKIPPED)
        if path.suffix == ".py" and not path.name.startswith("_sysconfigdata")
    ]
    if not paths:
        raise _error(
            "corpus-empty",
            f"this Python has no library source in {root}.",
            "give the path of a text file or of a folder of text files.",
        )
    with _reading("stdlib"):
        yield from _texts("stdlib", root, paths)


def _path(name: str) -> Iterator[Document]:
    path = Path(name)
    with _reading(name):
        if path.is_dir():
            yield from _texts(name, path, _files(path))
        elif path.exists() and not path.is_file():  # a device or a pipe may never end
            raise ValueError("it is neither a file nor a folder")
        else:
            yield _document(name, path.name, path)


def _texts(source: str, root: Path, paths: list[Path]) -> Iterator[Document]:
    for path in paths:
        if not path.is_file():
            continue
        document = _document(source, path.relative_to(root).as_posix(), path)
        sizes = [len(content) if _is_text(content) else -1 for content in document.pieces()]
        if sizes and min(sizes) >= 0:
            yield document


def _document(source: str, name: str, path: Path) -> Document:
    """A small file is read once and kept until the next one, a large one when it is asked for."""
    if path.stat().st_size <= PIECE:
        content = path.read_bytes()
        return Document(name, lambda: iter((content,) if content else ()))
    return Document(name, partial(_blocks, source, path))


def _blocks(source: str, path: Path) -> Iterator[bytes]:
    """The content of a file, cut at ends of lines where there are any, else between characters."""
    rest = b""
    with _reading(source), path.open("rb") as file:
        while block := file.read(PIECE):
            block = rest + block
            cut = block.rfind(b"\n") + 1 or _last_character(block)
            yield block[:cut]
            rest = block[cut:]
    if rest:
        yield rest


def _files(root: Path, skipped: frozenset[str] = frozenset()) -> list[Path]:
    found: list[Path] = []
    for folder, subfolders, names in os.walk(root):
        subfolders[:] = [n for n in subfolders if not n.startswith(".") and n not in skipped]
        found += [Path(folder, n) for n in names if not n.startswith(".")]
    return sorted(found)


def _is_text(content: bytes) -> bool:
    if b"\0" in content:
        return False
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _next_character(content: bytes, at: int) -> int:
    """The first place from `at` on where a UTF-8 character begins, in text at most 3 further."""
    for place in range(at, min(at + 4, len(content))):
        if content[place] & 0xC0 != 0x80:
            return place
    return min(at + 4, len(content))


def _last_character(content: bytes) -> int:
    """The place where the last UTF-8 character begins, or the end where that leaves nothing."""
    for place in range(len(content) - 1, max(len(content) - 5, 0), -1):
        if content[place] & 0xC0 != 0x80:
            return place
    return len(content)


def open_rows(dataset: str, config: str | None) -> Iterable[Mapping[str, Any]]:
    """The rows of a Hugging Face data set, streamed; of its `train` split where it has several.

    `dataset` is a name on the hub, a folder of files that `datasets` reads, or one that
    `Dataset.save_to_disk` wrote. Raises StarError.
    """
    try:
        import datasets
    except ImportError as error:
        raise _error(
            "missing-extra",
            "Hugging Face data sets need the package 'datasets', which is not installed.",
            "pip install 'starc[datasets]'.",
        ) from error
    with _reading_rows(HUB + dataset):
        saved = any(Path(dataset, f"{kind}.json").exists() for kind in ("state", "dataset_dict"))
        if saved:
            opened: Any = datasets.load_from_disk(dataset)
        else:
            opened = datasets.load_dataset(dataset, config, streaming=True)
    if isinstance(opened, dict):
        opened = opened["train"] if "train" in opened else next(iter(opened.values()))
    rows: Iterable[Mapping[str, Any]] = opened
    return rows


def _rows(source: str, rows: Iterable[Mapping[str, Any]]) -> Iterator[Document]:
    """Documents named by a hash of their content: rows may change places, and equal ones stay
    in one part."""
    column: str | None = None
    with _reading_rows(source):
        for row in rows:
            column = column or _text_column(source, row)
            text = row[column]
            if text:
                content = str(text).encode("utf-8", "replace")
                name = hashlib.sha256(content).hexdigest()
                yield Document(name, partial(_cut, content))


def _cut(content: bytes) -> Iterator[bytes]:
    while len(content) > PIECE:
        end = _next_character(content, PIECE)
        yield content[:end]
        content = content[end:]
    yield content


def _text_column(source: str, row: Mapping[str, Any]) -> str:
    texts = [name for name, value in row.items() if isinstance(value, str)]
    known = [name for name in _TEXT_COLUMNS if name in texts]
    if known or len(texts) == 1:
        return (known or texts)[0]
    raise _error(
        "no-text-column",
        f"none of the columns of '{source}' is clearly its text: {', '.join(row)}.",
        f"rename one to '{_TEXT_COLUMNS[0]}'.",
    )


@contextmanager
def _reading(name: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:
        raise _error(
            "cannot-read",
            f"cannot read the corpus '{name}': {getattr(error, 'strerror', None) or error}.",
            "a corpus is 'stdlib', a text file, a folder of texts, or hf:NAME.",
        ) from error


@contextmanager
def _reading_rows(name: str) -> Iterator[None]:
    try:
        yield
    except StarError:
        raise
    except Exception as error:  # the library lets through whatever its many back ends raise
        reason = str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__
        raise _error(
            "cannot-read",
            f"cannot read the data set '{name}': {reason}.",
            "the hub needs a network; a folder that 'datasets' reads does not.",
        ) from error


def _error(code: str, message: str, hint: str) -> StarError:
    return StarError(Diagnostic(code, message, hint=hint))
