"""A standard error stream whose text a test reads."""

__all__ = ["Stream"]


class Stream:
    """A standard error that is, or is not, a terminal."""

    encoding = "utf-8"

    def __init__(self, tty):
        self.tty, self.text = tty, ""

    def isatty(self):
        return self.tty

    def write(self, text):
        self.text += text

    def flush(self):
        pass

    def fileno(self):
        raise OSError
