"""Files: reading programs, and finding the file that a `use` names.

Owns: every read of a `.star` file and what can go wrong with it. `use std.attention.gqa` is the
operator gqa of attention.star in the standard library; `use blocks.conv.mine` is the operator mine
of blocks/conv.star beside the program.
Refuses: what stands in a file (parser.py), and every path that is not made of plain names.
"""

from __future__ import annotations

import re
import sys
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from starc.grammar.errors import Diagnostic, StarError, suggest
from starc.grammar.source import Source, Span

STDIN = "<stdin>"
SUFFIX = ".star"
MAX_BYTES = 64 * 2**20  # no program is as large; /dev/zero and a checkpoint given by mistake are

_STANDARD = "std"
_STANDARD_NAME = "<std>"  # what file names of the standard library begin with in diagnostics
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def read_source(path: str | Path) -> Source:
    """The text of a file, or of the standard input for `-`.

    Raises StarError (`file-not-found`, `file-unreadable`, `not-utf-8`, `program-too-large`).
    """
    name = _printable(str(path))
    if name == "-":
        if sys.stdin is None:
            raise _unreadable(STDIN, "the standard input is closed")
        try:
            return _decode(STDIN, sys.stdin.buffer.read(MAX_BYTES + 1))
        except OSError as failure:
            raise _unreadable(STDIN, _reason(failure)) from failure
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError as failure:
        raise StarError(
            Diagnostic("file-not-found", f"there is no file '{name}'.", hint=_nearby(Path(path)))
        ) from failure
    except IsADirectoryError as failure:
        raise _unreadable(name, "it is a folder", f"name a file: {name}/*{SUFFIX}.") from failure
    except (OSError, ValueError) as failure:  # ValueError: a name with a NUL in it
        raise _unreadable(name, _reason(failure)) from failure
    return _decode(name, data)


def find_use(
    path: tuple[str, ...], relative_to: Source, span: Span | None = None
) -> tuple[Source, str]:
    """The file that a `use` names, read, and the name of the operator in it.

    `relative_to` is the program that holds the `use`; the standard input stands in the current
    folder. `span` is what diagnostics point at. Raises StarError: `use-not-found` when there is no
    such file, or what read_source raises. The caller sees whether the file declares the operator.
    """
    *parts, operator = path
    if not parts or not all(_NAME.fullmatch(part) for part in path):
        raise StarError(
            Diagnostic(
                "use-not-found",
                f"'use {'.'.join(path)}' names no file.",
                span,
                hint=where_declared(operator)
                or "write the file, then the operator: use std.attention.gqa.",
            )
        )
    if parts[0] == _STANDARD and len(parts) > 1:
        return _declaration(_standard(parts[1:], operator, span), operator), operator
    file = _folder(relative_to).joinpath(*parts).with_suffix(SUFFIX)
    if not file.is_file():
        raise StarError(_missing(parts, operator, file, span))
    return read_source(file), operator


def _folder(source: Source) -> Path:
    return Path() if source.name.startswith("<") else Path(source.name).parent


def _declaration(source: Source, operator: str) -> Source:
    """A file with nothing but one operator in it, at its place, so that no other is parsed.

    The whole file when the operator is not found at the beginning of a line.
    """
    found = re.search(rf"^operator[ \t]+{operator}\b.*?^\}}", source.text, re.MULTILINE | re.DOTALL)
    if found is None:
        return source
    above = re.sub(r"[^\n]", " ", source.text[: found.start()])
    return Source(source.name, above + found[0] + "\n")


def whole_file(source: Source) -> Source:
    """The file that a source is, or is one operator of (see `find_use`)."""
    folder, _, rest = source.name.partition("/")
    if folder != _STANDARD_NAME:
        return source
    return _decode(source.name, files("starc.grammar.std").joinpath(*rest.split("/")).read_bytes())


# --- the standard library ----------------------------------------------------------------------


def _standard_files() -> dict[str, Traversable]:
    """The files of the standard library by dotted name."""
    found: dict[str, Traversable] = {}
    folders: list[tuple[str, Traversable]] = [("", files("starc.grammar.std"))]
    for prefix, folder in folders:  # grows while it is walked
        for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
            if entry.name.endswith(SUFFIX):
                found[prefix + entry.name.removesuffix(SUFFIX)] = entry
            elif entry.is_dir() and _NAME.fullmatch(entry.name):
                folders.append((f"{prefix}{entry.name}.", entry))
    return found


def _standard(parts: list[str], operator: str, span: Span | None) -> Source:
    file = files("starc.grammar.std").joinpath(*parts[:-1], parts[-1] + SUFFIX)
    if file.is_file():
        return _decode("/".join([_STANDARD_NAME, *parts]) + SUFFIX, file.read_bytes())
    dotted = ".".join(parts)
    known = _standard_files()
    raise StarError(
        Diagnostic(
            "use-not-found",
            f"the standard library has no file '{dotted}'.",
            span,
            hint=where_declared(operator)
            or suggest(dotted, known)
            or f"it has {', '.join(known) or 'no files'}.",
        )
    )


def where_declared(operator: str) -> str:
    """A hint that names the standard file with an operator of this name, or the empty string."""
    declared = re.compile(rf"^operator\s+{re.escape(operator)}\s*\(", re.MULTILINE)
    for dotted, file in _standard_files().items():
        if declared.search(file.read_text(encoding="utf-8")):
            return f"write use {_STANDARD}.{dotted}.{operator}."
    return ""


# --- what can go wrong -------------------------------------------------------------------------


def _missing(parts: list[str], operator: str, file: Path, span: Span | None) -> Diagnostic:
    if parts == [_STANDARD]:
        message = f"'use {_STANDARD}.{operator}' names no file of the standard library."
        known = ", ".join(_standard_files()) or "no files"
        return Diagnostic(
            "use-not-found", message, span, hint=where_declared(operator) or f"it has {known}."
        )
    return Diagnostic(
        "use-not-found",
        f"there is no file '{_printable(str(file))}'.",
        span,
        hint=where_declared(operator) or _nearby(file),
    )


def _nearby(file: Path) -> str:
    """A hint about files of a similar name in the same folder, or the empty string."""
    try:
        names = [p.name for p in file.parent.iterdir() if p.suffix == SUFFIX]
    except (OSError, ValueError):
        return ""
    return _printable(suggest(file.name, names))


def _decode(name: str, data: bytes) -> Source:
    if len(data) > MAX_BYTES:
        message = f"'{name}' is larger than {MAX_BYTES // 2**20} MiB."
        raise StarError(Diagnostic("program-too-large", message))
    try:
        return Source(name, data.decode("utf-8-sig"))
    except UnicodeDecodeError as failure:
        readable = data[: failure.start].decode("utf-8-sig")
        shown = Source(name, data.decode("utf-8-sig", errors="replace"))
        raise StarError(
            Diagnostic(
                "not-utf-8",
                f"'{name}' is not UTF-8 text.",
                Span(shown, len(readable), len(readable) + 1),
                label=f"byte 0x{data[failure.start]:02x}",
                hint="save the file as UTF-8.",
            )
        ) from failure


def _unreadable(name: str, reason: str, hint: str = "") -> StarError:
    message = f"'{name}' cannot be read: {reason}."
    return StarError(Diagnostic("file-unreadable", message, hint=hint))


def _reason(failure: Exception) -> str:
    text = failure.strerror if isinstance(failure, OSError) else str(failure)
    return (text or type(failure).__name__).lower()


def _printable(name: str) -> str:
    """A file name that can be printed: bytes that are not UTF-8 come as lone surrogates."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
