"""The command line: `starc COMMAND`.

Owns: the entry point, exit statuses, and that no input ever ends in a traceback.
Refuses: the commands themselves (`app`), and importing anything that a command does not use.

Exit statuses: 0 done, 1 something is wrong with what was given, 2 wrong usage, 70 a fault of starc
itself, 130 interrupted. `STARC_DEBUG=1` lets the tracebacks of faults through.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

EXIT_WRONG = 1
EXIT_FAULT = 70
EXIT_INTERRUPTED = 130


def main() -> None:
    """Run the command line of this process and exit."""
    if hasattr(sys.stdout, "reconfigure"):  # a terminal that lacks a character gets an escape
        sys.stdout.reconfigure(errors="backslashreplace")
    status = run(sys.argv[1:])
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:  # whoever was reading has gone; Python would complain again at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = status or EXIT_WRONG
    sys.exit(status)


def run(arguments: Sequence[str]) -> int:
    """Run one command with these arguments and return its exit status."""
    from starc.cli.app import app
    from starc.grammar.errors import Diagnostic, StarError, render

    try:
        app(args=list(arguments), prog_name="starc")
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 0 if stop.code is None else EXIT_WRONG
    except StarError as error:
        complain(render(error.diagnostics))
    except BrokenPipeError:
        return EXIT_WRONG
    except OSError as error:
        place = "" if error.filename is None else f": '{os.fsdecode(error.filename)}'"
        message = f"{error.strerror or error}{place}."
        complain(render([Diagnostic("system", message)]))
    except KeyboardInterrupt:
        complain("interrupted\n")
        return EXIT_INTERRUPTED
    except Exception as error:  # the front door: whatever is left is a fault of starc, and is said
        if os.environ.get("STARC_DEBUG"):
            raise
        text = f"{type(error).__name__}: {error}".rstrip(": ")
        hint = "this is a fault of starc; report it with the program. STARC_DEBUG=1 shows where."
        complain(render([Diagnostic("internal", f"{text}.", hint=hint)]))
        return EXIT_FAULT
    else:
        return 0
    return EXIT_WRONG


def complain(text: str) -> None:
    """Write to standard error, if there is one."""
    if sys.stderr is not None:
        sys.stderr.write(text)
