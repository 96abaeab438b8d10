"""Where commands write their results.

Owns: `-` as standard output, and diagnostics for files that cannot be written.
Refuses: reading, which grammar/library.py does, and what is written.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from starc.grammar.errors import Diagnostic, StarError
from starc.runtime.files import write_atomic

STANDARD = "-"

_MARK = b"written by starc"
_HEADER_BYTES = 4096
"""Generated files say so at their top."""


def write_text(file: str, text: str) -> None:
    """Write UTF-8 text to `file` in one step, or to standard output.

    Raises StarError when it cannot be written, BrokenPipeError when nobody reads any more.
    """
    if file == STANDARD:
        if sys.stdout is None:
            raise _error("cannot-write", "there is no standard output.")
        sys.stdout.flush()
        sys.stdout.buffer.write(text.encode("utf-8"))
        sys.stdout.buffer.flush()
        return
    try:
        write_atomic(Path(file), text.encode("utf-8"))
    except BrokenPipeError:
        raise
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise _error("cannot-write", f"cannot write '{file}': {reason}.") from error


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file in one step; raises StarError when it cannot be written."""
    try:
        write_atomic(path, content)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise _error("cannot-write", f"cannot write '{path}': {reason}.") from error


def default_output(program: str, model: str) -> str:
    """Where a model goes when the user does not say: MODEL.py here, or through, if it came through.

    Raises StarError rather than replace a file that starc did not write.
    """
    if program == STANDARD:
        return STANDARD
    path = Path(f"{model}.py")
    try:
        with path.open("rb") as file:
            ours = _MARK in file.read(_HEADER_BYTES)
    except FileNotFoundError:
        ours = True
    except OSError:
        ours = False
    if not ours:
        raise _error(
            "would-overwrite",
            f"'{path}' is there already, and starc did not write it.",
            "name the file to write with -o.",
        )
    return str(path)


def refuse_overwriting_program(program: str, output: str) -> None:
    """Raise StarError when the output is the program itself."""
    if STANDARD in (program, output):
        return
    try:
        same = os.path.samefile(program, output)
    except (OSError, ValueError):  # no such file yet, or no possible name
        return
    if same:
        raise _error(
            "would-overwrite", f"'{output}' is the program itself.", "name another file with -o."
        )


def _error(code: str, message: str, hint: str = "") -> StarError:
    return StarError(Diagnostic(code, message, hint=hint))
