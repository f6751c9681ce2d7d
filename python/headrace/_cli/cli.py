"""The command line: ``headrace info | fit | report | score | diagnose | sample | export | bench | demo | run``.

Results are written to the standard output; progress, notes and errors to the standard error. With ``--json`` the
standard output is one JSON object; numbers that are not finite are null. Exit codes are 0 for success; 1 for an error,
with a line about it; 2 for a wrong command line, and for an empty one, which prints the help; 130 after Ctrl-C, which
keeps the best weights and the scores so far; 141 if the reader of the output has closed it.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import headrace as hr
from headrace._base.output import NO_ROOM, printable
from headrace._cli import options, screen
from headrace._cli import run as program
from headrace._cli import score_and_sample as use
from headrace._cli.screen import FAILED, INTERRUPTED, USAGE
from headrace.rows._files import STANDARD

PIPE_CLOSED = 141


@contextmanager
def _warnings_in_one_line() -> Iterator[None]:
    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        screen.tell(f"headrace: warning: {_one_line(message).replace('leave out epochs=', 'leave out --epochs')}")

    with warnings.catch_warnings():
        warnings.simplefilter("always", RuntimeWarning)  # warnings of headrace
        warnings.showwarning = show
        yield


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line; returns the exit code."""
    words = sys.argv[1:] if argv is None else list(argv)
    try:
        code = _run(words)
        sys.stdout.flush()
    except SystemExit as stop:  # raised by argparse after it printed the reason
        return stop.code if isinstance(stop.code, int) else USAGE
    except KeyboardInterrupt as interrupt:
        screen.tell(": ".join(["headrace: interrupted", *map(_one_line, interrupt.args)]))
        return INTERRUPTED
    except BrokenPipeError:
        _give_up_output()
        return PIPE_CLOSED
    except (ValueError, TypeError, OSError, ImportError, MemoryError, OverflowError, RuntimeError) as error:
        screen.tell(f"headrace: error: {_one_line(error)}")
        try:
            sys.stdout.flush()
        except OSError:  # usually because the disk is full
            _give_up_output()
        return FAILED
    return code


def _run(words: Sequence[str]) -> int:
    """Parse and run a command line; returns the exit code."""
    parser = options.parser()
    if not words:
        parser.print_help()
        return USAGE  # not 0, because a script with an empty command line has not done its task
    arguments, extra = parser.parse_known_args(words)
    if extra:
        arguments.refuse(extra)
    if arguments.run in (use.score, use.sample) and arguments.output == STANDARD:
        arguments.output = None
    if arguments.threads:
        hr.set_num_threads(arguments.threads)
    if arguments.run is program.run:  # warnings and errors of the user's program stay unchanged
        return int(arguments.run(arguments))
    with _warnings_in_one_line():
        return int(arguments.run(arguments))


def _give_up_output() -> None:
    """Discard output that cannot be written, because Python would report it again when it closes the stream."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _one_line(message: object) -> str:
    if isinstance(message, OSError) and message.strerror:
        name = message.filename or ("standard output" if message.errno in NO_ROOM else None)
        if name is not None:
            return printable(f"{name}: {message.strerror}")
    return printable(" ".join(str(message).split())) or type(message).__name__
