"""How a file is written, beside its place, and into it once it is whole; and how text is made harmless.

A save that fails, or is killed, leaves what was there. What a kill leaves is a temporary file, which the next save to
the same place removes. It sees by a lock whether its writer lives: the system takes a lock away with the process.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import secrets
import stat
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from glob import escape, glob
from typing import BinaryIO

__all__ = ["NO_ROOM", "check_regular", "check_writable", "printable", "refuse_inputs", "replacing", "spreadsheet_cell"]

NO_ROOM = {errno.ENOSPC, errno.EFBIG, errno.EDQUOT}  # errors of a write, of which the system does not name the file

_UNSEEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}  # Unicode's categories of what steers a terminal, or the order of writing


@contextmanager
def replacing(path: str, instead: Callable[[], str | None] | None = None) -> Iterator[BinaryIO]:
    """A stream whose bytes become the file once the block ends, and are thrown away if it raises.

    A link stays, and what it points to is replaced. Permissions are those of the old file, or of any new one.
    `instead` is asked at the end whether the file is to have another name, in the same folder.

    Raises:
        FileNotFoundError: the folder does not exist.
        OSError: the path is a folder, a device, a socket or a pipe, or the file cannot be written.
        ValueError: the path has characters that no path has.
    """
    target, temporary, stream = _begin("path", path)
    try:
        with stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
            other = None if instead is None else instead()
            os.replace(temporary, target if other is None else os.path.join(os.path.dirname(target), other))
    except BaseException as error:  # Ctrl-C too
        with suppress(FileNotFoundError):
            os.unlink(temporary)
        if isinstance(error, OSError) and error.errno in NO_ROOM and error.filename is None:
            error.filename = path
        raise


def check_writable(argument: str, path: str) -> None:
    """Say before the work what would stop `replacing`: a file is made beside the path, and removed.

    Raises:
        OSError, ValueError: as `replacing` does; the message names the argument.
    """
    _, temporary, stream = _begin(argument, path)
    with stream:
        os.unlink(temporary)


def check_regular(name: str, argument: str = "path") -> os.stat_result:
    """Neither a folder, nor a device or a pipe, which would be replaced or read for ever; what is known of it."""
    if os.path.isdir(name) or name.endswith(os.sep):
        raise IsADirectoryError(f"{argument}: expected a file, got the folder {name}")
    status = os.stat(name)
    if not stat.S_ISREG(status.st_mode):
        raise OSError(f"{argument}: expected a regular file, got a device, socket or pipe, {name}")
    return status


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


def _begin(argument: str, path: str) -> tuple[str, str, BinaryIO]:
    """Where the file is to be, links followed; and the temporary file beside it, its name and a stream into it."""
    mode = None
    try:
        with suppress(FileNotFoundError, NotADirectoryError):
            mode = stat.S_IMODE(check_regular(path, argument).st_mode)
        target = os.path.realpath(path)
        folder, name = os.path.split(target)
        if not os.path.isdir(folder):
            raise FileNotFoundError(f"{argument}: expected an existing folder, got {folder} (for {path})")
        # Names may fill all the bytes that a system allows, so that a temporary one has a digest of it.
        start = os.path.join(folder, f".headrace-{hashlib.blake2b(os.fsencode(name), digest_size=8).hexdigest()}-")
        _remove_abandoned(start)
        return target, *_create(start, mode)
    except OSError as error:  # the system's own, which may name the temporary file
        if error.errno is None:
            raise
        raise type(error)(f"{argument}: expected a file that can be written, got {path}: {error.strerror}") from None
    except ValueError as error:  # a null byte, or half a character
        raise ValueError(f"{argument}: expected a path, got {path!r}: {error}") from None


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
