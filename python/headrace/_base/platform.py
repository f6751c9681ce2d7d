"""Differences between operating systems; no other module depends on the operating system.

On POSIX systems an open file can be replaced and removed; on Windows, an open file can be neither replaced nor removed.
A lock on POSIX is a lock of the temporary file itself; a lock on Windows is a second file, which cannot be removed
while a process has it open.
"""

from __future__ import annotations

import ctypes
import os
import sys
import time
from contextlib import suppress
from typing import BinaryIO

try:
    import fcntl
except ImportError:  # fcntl is missing on Windows
    fcntl = None  # type: ignore[assignment]

_ENDING, _LOCK_ENDING = ".tmp", ".lock"
_PATIENCE = 2.0  # the seconds to wait while another process reads a file that is to be replaced


def ends_in_separator(path: str) -> bool:
    """Whether a path has the form of a folder: its end is a slash, or on Windows a slash or a backslash."""
    return path.endswith((os.sep, os.altsep or os.sep))


def without_separator(path: str) -> str:
    """The path without separators at its end; a root keeps its separator."""
    return os.path.dirname(path) if ends_in_separator(path) else path


def give_memory_back() -> None:
    """Return freed memory to the system: glibc keeps the freed memory of each thread for its next requests."""
    with suppress(TypeError, OSError, AttributeError):  # Windows and some C libraries lack the function
        ctypes.CDLL(None).malloc_trim(0)


class Temporary:
    """A new file with a stream for writing; no other process removes the file as abandoned while this process lives."""

    def __init__(self, name: str, mode: int | None) -> None:
        self.name = name
        file = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666 if mode is None else 0o600)
        self.stream: BinaryIO = os.fdopen(file, "wb")
        if mode is not None and hasattr(os, "fchmod"):
            os.fchmod(file, mode)

    def replace(self, target: str) -> None:
        """Rename the temporary file to `target`, replacing any file of this name."""
        raise NotImplementedError

    def remove(self) -> None:
        """Close the file, and remove the file if `replace` has not renamed it."""
        raise NotImplementedError


class _Flocked(Temporary):
    """A temporary file that is locked while its stream is open; the system releases the lock when the process ends."""

    def __init__(self, name: str, mode: int | None) -> None:
        super().__init__(name, mode)
        try:
            _flock(self.stream.fileno(), wait=True)
        except BaseException:
            self.remove()
            raise

    def replace(self, target: str) -> None:
        os.replace(self.name, target)

    def remove(self) -> None:
        with suppress(FileNotFoundError):
            os.unlink(self.name)
        self.stream.close()


class _Beside(Temporary):
    """A temporary file that counts as in use while an open lock file, of the same name with another ending, exists."""

    def __init__(self, name: str, mode: int | None) -> None:
        self._lock = os.open(_lock_of(name), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        self.name = name
        try:
            super().__init__(name, mode)
        except BaseException:
            self._unlock()
            raise

    def replace(self, target: str) -> None:
        self.stream.close()
        end = time.monotonic() + _PATIENCE
        while True:
            try:
                os.replace(self.name, target)
                break
            except PermissionError as error:  # raised, for example, while another process reads the target
                if time.monotonic() >= end:
                    raise PermissionError(f"path: expected a file that no process has open, got {target}") from error
                time.sleep(0.02)
        self._unlock()

    def remove(self) -> None:
        self.stream.close()
        with suppress(FileNotFoundError):
            os.unlink(self.name)
        self._unlock()

    def _unlock(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1
            with suppress(OSError):  # another process may already remove the lock file
                os.unlink(_lock_of(self.name))


def new_temporary(start: str, mode: int | None) -> Temporary:
    """A temporary file whose name begins with `start`. `mode`: the file's permissions; None for the default."""
    import secrets  # imported here because only writing of files needs it

    while True:
        made = (_Beside if fcntl is None else _Flocked)(f"{start}{secrets.token_hex(8)}{_ENDING}", mode)
        if os.path.exists(made.name):  # no process removed the file before it was locked
            return made
        made.remove()


def remove_abandoned(start: str) -> None:
    """Remove temporary files whose names begin with `start`, unless a live process writes them."""
    from glob import escape, glob  # imported here because only writing of files needs it

    if fcntl is None:
        for name in glob(f"{escape(start)}*{_LOCK_ENDING}"):
            with suppress(OSError):  # an open lock file is not removed
                os.unlink(name)
    for name in glob(f"{escape(start)}*{_ENDING}"):
        with suppress(OSError):  # another process has opened or removed the file
            if fcntl is None:
                if not os.path.exists(_lock_of(name)):
                    os.unlink(name)
                continue
            file = os.open(name, os.O_WRONLY)
            try:
                if _flock(file, wait=False):
                    os.unlink(name)
            finally:
                os.close(file)


def _flock(file: int, *, wait: bool) -> bool:
    """Try to lock a file; return whether this process has the lock, which is False on file systems without locks."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        return False
    return True


def _lock_of(name: str) -> str:
    return name.removesuffix(_ENDING) + _LOCK_ENDING


def why_no_core(error: ImportError) -> str:
    """An explanation of why the compiled core cannot be loaded, for the person who installed it."""
    import importlib.machinery  # imported here because only failures need these modules
    import platform
    import sysconfig
    from pathlib import Path

    here = f"{sys.implementation.cache_tag}, {sysconfig.get_platform()}"
    folder = Path(__file__).parents[1]
    built = sorted(path.name for path in folder.glob("_cpu.*") if path.suffix in (".so", ".pyd"))
    if not any((folder / f"_cpu{ending}").exists() for ending in importlib.machinery.EXTENSION_SUFFIXES):
        return (
            f"headrace: expected a compiled core for this Python ({here}), got {', '.join(built) or 'none'}; install a "
            "wheel for this platform, or build from source"
        )
    if "GLIBC" in str(error):
        name, version = platform.libc_ver()
        return (
            f"headrace: this wheel needs a newer C library than this system's {name} {version} ({error}); build from "
            "source here"
        )
    return f"headrace: its compiled core cannot be loaded on this system ({here}): {error}"
