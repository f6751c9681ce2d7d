"""How a file is written, beside its place, and into it once it is whole; and how text is made harmless.

A save that fails, or is killed, leaves what was there. What a kill leaves is a temporary file, which the next save to
the same place removes. It sees by a lock whether its writer lives: the system takes a lock away with the process.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
import stat
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from glob import escape, glob
from typing import BinaryIO

__all__ = ["check_regular", "printable", "refuse_inputs", "replacing", "spreadsheet_cell"]

_UNSEEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}  # Unicode's categories of what steers a terminal, or the order of writing


@contextmanager
def replacing(path: str) -> Iterator[BinaryIO]:
    """A stream whose bytes become the file once the block ends, and are thrown away if it raises.

    A link stays, and what it points to is replaced. Permissions are those of the old file, or of any new one.

    Raises:
        FileNotFoundError: the folder does not exist.
        OSError: the path is a folder, a device, a socket or a pipe, or the file cannot be written.
    """
    target = os.path.realpath(path)
    folder, name = os.path.split(target)
    if not os.path.isdir(folder):
        raise FileNotFoundError(f"path: expected an existing folder, got {folder}")
    mode = None
    if os.path.exists(target):
        check_regular(target)
        mode = stat.S_IMODE(os.stat(target).st_mode)
    # Names may fill all the bytes that a system allows, so that a temporary one has a digest of it.
    start = os.path.join(folder, f".headrace-{hashlib.blake2b(os.fsencode(name), digest_size=8).hexdigest()}-")
    _remove_abandoned(start)
    temporary, stream = _create(start, mode)
    try:
        with stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
            os.replace(temporary, target)
    except BaseException:  # Ctrl-C too
        with suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def check_regular(name: str) -> None:
    """Neither a folder, nor a device or a pipe, which would be replaced or read for ever."""
    if os.path.isdir(name):
        raise IsADirectoryError(f"path: expected a file, got the folder {name}")
    if not stat.S_ISREG(os.stat(name).st_mode):
        raise OSError(f"path: expected a regular file, got a device, socket or pipe, {name}")


def refuse_inputs(option: str, output: str, inputs: Sequence[str]) -> None:
    """Refuse an output that is one of the inputs, by whatever name or link.

    Raises:
        ValueError: it is.
    """
    for path in inputs:
        if os.path.exists(output) and os.path.exists(path) and os.path.samefile(output, path):
            raise ValueError(f"{option}: expected another file than {path}, which is read, got {output}")


def printable(text: str) -> str:
    """The text with a question mark for each character that is not seen, as those that steer a terminal.

    >>> printable("\\x1b[31mred")
    '?[31mred'
    """
    return "".join("?" if unicodedata.category(mark) in _UNSEEN else mark for mark in text)


def spreadsheet_cell(text: str) -> str:
    """The text as a cell of a .csv file: printable, and behind an apostrophe where a spreadsheet would compute it.

    >>> spreadsheet_cell("=1+1")
    "'=1+1"
    """
    harmless = printable(text)
    return f"'{harmless}" if harmless.lstrip().startswith(("=", "+", "-", "@")) else harmless


def _create(start: str, mode: int | None) -> tuple[str, BinaryIO]:
    """A new file that is locked for as long as it is open."""
    while True:
        name = f"{start}{secrets.token_hex(8)}.tmp"
        stream = os.fdopen(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666 if mode is None else 0o600), "wb")
        try:
            _lock(stream.fileno(), wait=True)
            if os.path.exists(name):  # nobody took it for abandoned before it was locked
                if mode is not None:
                    os.fchmod(stream.fileno(), mode)
                return name, stream
        except BaseException:
            stream.close()
            with suppress(FileNotFoundError):
                os.unlink(name)
            raise
        stream.close()


def _remove_abandoned(start: str) -> None:
    for name in glob(f"{escape(start)}*.tmp"):
        with suppress(OSError):  # it is another's, or gone
            file = os.open(name, os.O_WRONLY)
            try:
                if _lock(file, wait=False):
                    os.unlink(name)
            finally:
                os.close(file)


def _lock(file: int, *, wait: bool) -> bool:
    """Whether the lock was had; not on file systems without locks."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        return False
    return True
