"""A file as a lock between processes: one process builds, and the others wait."""

from contextlib import contextmanager


@contextmanager
def locked(path):
    with open(path, "w") as file:
        try:
            import fcntl
        except ImportError:  # On Windows a byte of the file is locked.
            import msvcrt

            while True:
                try:
                    msvcrt.locking(file.fileno(), msvcrt.LK_LOCK, 1)
                    break
                except OSError:  # the wait has lasted ten seconds
                    continue
        else:
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
