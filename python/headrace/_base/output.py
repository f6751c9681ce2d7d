"""Atomic writing of files, and removal of control characters from text.

If a save fails or is killed, the old file stays unchanged. A killed save also leaves a temporary file, which the next
save to the same path removes unless the process that writes the temporary file still runs.
"""

from __future__ import annotations

import errno
import os
import stat
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import BinaryIO

from headrace._base import platform as _platform

NO_ROOM = {
    errno.ENOSPC,
    errno.EFBIG,
    getattr(errno, "EDQUOT", errno.ENOSPC),
}  # errors of a full disk, which the system raises without a file name

_UNSEEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}  # Unicode's categories of invisible characters


@contextmanager
def replacing(path: str, instead: Callable[[], str | None] | None = None) -> Iterator[BinaryIO]:
    """A context manager of a stream, whose bytes become the file at the block's end, or are lost if the block raises.

    If the path is a symbolic link, the link's target is replaced. The file has the permissions of the old file, or the
    usual permissions of a new file. `instead` is called at the end and may return another name for the file, in the
    same folder.

    Raises:
        FileNotFoundError: the folder does not exist.
        OSError: the path is a folder, a device, a socket or a pipe, or the file cannot be written.
        ValueError: the path has characters that paths cannot have.
    """
    target, temporary = _begin("path", path)
    try:
        with temporary.stream as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
            other = None if instead is None else instead()
            temporary.replace(target if other is None else os.path.join(os.path.dirname(target), other))
    except BaseException as error:  # Ctrl-C also removes the temporary file
        temporary.remove()
        if isinstance(error, OSError) and error.errno in NO_ROOM and error.filename is None:
            error.filename = path
        raise


def check_writable(argument: str, path: str) -> None:
    """Raise the errors of `replacing` before any work: a temporary file is made beside the path, and removed.

    Raises:
        OSError, ValueError: `replacing` would raise the same error; the message has the argument's name.
    """
    _, temporary = _begin(argument, path)
    temporary.remove()


def check_regular(name: str, argument: str = "path") -> os.stat_result:
    """The status of a regular file; folders, devices, sockets and pipes are refused: their reading may not end."""
    if os.path.isdir(name) or _platform.ends_in_separator(name):
        raise IsADirectoryError(f"{argument}: expected a file, got the folder {name}")
    status = os.stat(name)
    if not stat.S_ISREG(status.st_mode):
        raise OSError(f"{argument}: expected a regular file, got a device, socket or pipe, {name}")
    return status


def refuse_inputs(option: str, output: str, inputs: Sequence[str]) -> None:
    """Refuse an output that is the same file as an input, under any name or link.

    Raises:
        ValueError: the output is the same file as an input.
    """
    for path in inputs:
        if os.path.exists(output) and os.path.exists(path) and os.path.samefile(output, path):
            raise ValueError(f"{option}: expected another file than {path}, which is read, got {output}")


def printable(text: str) -> str:
    """The text with a question mark in place of each invisible character, such as a terminal's control characters.

    >>> printable("\\x1b[31mred")
    '?[31mred'
    """
    return "".join("?" if unicodedata.category(mark) in _UNSEEN else mark for mark in text)


def spreadsheet_cell(text: str) -> str:
    """The printable text for a cell of a .csv file, after an apostrophe if a spreadsheet would take it for a formula.

    >>> spreadsheet_cell("=1+1")
    "'=1+1"
    """
    harmless = printable(text)
    return f"'{harmless}" if harmless.lstrip().startswith(("=", "+", "-", "@")) else harmless


def _begin(argument: str, path: str) -> tuple[str, _platform.Temporary]:
    """The path after its links are resolved, and a new temporary file in the same folder."""
    import hashlib  # imported here because only writing needs hashlib

    mode = None
    try:
        with suppress(FileNotFoundError, NotADirectoryError):
            mode = stat.S_IMODE(check_regular(path, argument).st_mode)
        target = os.path.realpath(path)
        folder, name = os.path.split(target)
        if not os.path.isdir(folder):
            raise FileNotFoundError(f"{argument}: expected an existing folder, got {folder} (for {path})")
        # A file name may be as long as the system allows, so that a temporary name has a short digest of the file name.
        start = os.path.join(folder, f".headrace-{hashlib.blake2b(os.fsencode(name), digest_size=8).hexdigest()}-")
        _platform.remove_abandoned(start)
        return target, _platform.new_temporary(start, mode)
    except OSError as error:  # the system's message may name the temporary file
        if error.errno is None:
            raise
        raise type(error)(f"{argument}: expected a file that can be written, got {path}: {error.strerror}") from None
    except ValueError as error:  # the path has a null byte or half a surrogate pair
        raise ValueError(f"{argument}: expected a path, got {path!r}: {error}") from None
