"""A lock among processes, by a file: one builds, and the others wait."""

from contextlib import contextmanager


@contextmanager
def locked(path):
    with open(path, "w") as file:
        try:
            import fcntl
        except ImportError:  # Windows, where a byte is locked
            import msvcrt

            while True:
                try:
                    msvcrt.locking(file.fileno(), msvcrt.LK_LOCK, 1)
                    break
                except OSError:  # after ten seconds of waiting
                    continue
        else:
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
