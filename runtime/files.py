"""Files that are either whole or absent.

Owns: writing a file, or a folder of files, so that no reader and no power cut ever sees half of it.
Refuses: knowing what is in them, and importing torch.
"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path


def write_atomic(path: Path, content: bytes) -> None:
    """Replace the file at `path` by one with `content`, in one step; raises OSError.

    Follows links, keeps the permissions of a file that is replaced, and writes straight into what
    is no regular file (a terminal, a pipe, /dev/null), since such a thing must not be replaced.
    """
    target = Path(os.path.realpath(path))
    try:
        mode = target.stat().st_mode
    except FileNotFoundError:
        mode = stat.S_IFREG | (0o666 & ~_umask())
    if not stat.S_ISREG(mode):
        target.write_bytes(content)
        return
    handle, name = tempfile.mkstemp(
        prefix=f".{target.name[:200]}.", suffix=".tmp", dir=target.parent
    )
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, stat.S_IMODE(mode))
        os.replace(name, target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def write_folder_atomic(path: Path, fill: Callable[[Path], None]) -> None:
    """Make the folder `path`, not there yet, with what `fill(folder)` writes; raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent))
    try:
        fill(scratch)
        for file in scratch.iterdir():
            _sync(file)
        scratch.chmod(0o777 & ~_umask())
        scratch.rename(path)
        _sync(path.parent)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise


def _sync(path: Path) -> None:
    """Ask the system to put a file or the entries of a folder on the disk before going on."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
