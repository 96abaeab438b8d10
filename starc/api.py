"""The compiler as functions of text and files.

Owns: reading a program's file before compiling it. Refuses: the terminal, and writing files.
"""

from __future__ import annotations

import os

from starc.compiler.driver import Artifact, check_program, compile_program
from starc.compiler.options import Options
from starc.grammar.errors import Diagnostic
from starc.grammar.library import read_source
from starc.grammar.source import Source


def compile_text(text: str, options: Options | None = None, *, name: str = "<text>") -> Artifact:
    """Compile a program; `name` stands for it in diagnostics, and `use` is relative to it.

    Raises StarError for whatever is wrong with the program.
    """
    return compile_program(Source(name, text), options or Options())


def compile_file(path: str | os.PathLike[str], options: Options | None = None) -> Artifact:
    """Compile the program in a file. Raises StarError, also when the file cannot be read."""
    return compile_program(read_source(os.fspath(path)), options or Options())


def check_file(
    path: str | os.PathLike[str], options: Options | None = None
) -> tuple[Diagnostic, ...]:
    """The warnings about the program in a file; raises StarError for its errors."""
    return check_program(read_source(os.fspath(path)), options or Options())
