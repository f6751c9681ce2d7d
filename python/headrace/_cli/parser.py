"""A parser of command lines: errors in one line with the option that may be meant, and help as wide as the terminal."""

from __future__ import annotations

import argparse
import difflib
import math
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from headrace._base.keywords import meant
from headrace._base.layout import WIDEST, width, wrapped
from headrace._cli import screen
from headrace._flow.bases_by_name import NAMES
from headrace.rows._files import STANDARD, suffix_of

USAGE = 2  # the exit code of a wrong command line


class Help(argparse.HelpFormatter):
    """Plain help: lines as wide as the terminal at most, broken between words."""

    def __init__(self, prog: str, **others: Any) -> None:
        super().__init__(prog, max_help_position=26, width=min(width(), WIDEST), **others)

    def _split_lines(self, text: str, width: int) -> list[str]:
        return [line for part in text.splitlines() for line in wrapped(part, columns=width)]

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "\n".join(wrapped(text, indent, indent, width))


class Parser(argparse.ArgumentParser):
    """A parser of one command, or of all."""

    def __init__(self, **keywords: Any) -> None:
        super().__init__(formatter_class=Help, **keywords)
        self.given: list[str] = []

    def format_usage(self) -> str:
        """One line: what is required, and that there are options; the help below it lists them."""
        required = [one for one in self._actions if one.required and one.option_strings]
        named = [f"{one.option_strings[0]} {one.metavar}" for one in required]
        placed = [
            f"[{one.metavar}]"
            if one.nargs in ("?", argparse.REMAINDER)
            else f"{one.metavar}{'...' if one.nargs == '+' else ''}"
            for one in self._actions
            if not one.option_strings
        ]
        return " ".join(["usage:", self.prog, *placed, *named, "[options]"]) + "\n"

    def format_help(self) -> str:
        """The help, with a usage of one line."""
        self.usage = self.format_usage().removeprefix("usage: ").strip().replace("%", "%%")
        return super().format_help()

    def print_help(self, file: Any = None) -> None:
        """The help as the terminal can show it."""
        screen.print_help(self, sys.stdout if file is None else file)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As of argparse; errors know what was given."""
        self.given = list(sys.argv[1:] if args is None else args)
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """End with one line: the error, and the option that may be meant."""
        message = next(self._unknown(), message)
        if "the following arguments are required" in message:
            message += f"; {self.prog} --help explains them"
        screen.tell(f"{self.prog}: error: {message}")
        raise SystemExit(USAGE)

    def refuse(self, extra: Sequence[str]) -> NoReturn:
        """End because of arguments that no command takes."""
        options = [one for one in extra if one.startswith("-") and one != STANDARD]
        if options and options[0].partition("=")[0] in self._option_string_actions:
            self.error(f"argument {options[0]}: expected behind the command, as {self.prog} {options[0]}")
        if options:
            self.given = options
        self.error(f"expected no further argument, got {extra[0]!r}; {self.prog} --help lists what there is")

    def _unknown(self) -> Iterator[str]:
        """Messages about options that the command does not have."""
        known = list(self._option_string_actions)
        names = {one.lstrip("-").replace("-", "_"): one for one in known if one.startswith("--")}
        for token in self.given:
            option = token.partition("=")[0]
            if token == "--" or (not token.startswith("-") and "COMMAND" in self._positional_names()):
                return
            if not option.startswith("--") or any(one.startswith(option) for one in known):
                continue
            if option in self._options_of_commands():
                yield f"argument {option}: expected behind the command, as {self.prog} COMMAND {option}"
            close = meant(option[2:].replace("-", "_").lower(), names)
            more = f"did you mean {names[close]}?" if close else f"{self.prog} --help lists all"
            yield f"expected an option of {self.prog}, got {option}; {more}"

    def _options_of_commands(self) -> set[str]:
        parsers = [sub for one in self._actions if isinstance(one.choices, dict) for sub in one.choices.values()]
        return {option for sub in parsers for option in sub._option_string_actions}

    def _positional_names(self) -> list[Any]:
        return [one.metavar for one in self._actions if not one.option_strings]

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Refuse a value that is not among the choices, with the one that may be meant."""
        if action.choices is not None and value not in action.choices:
            names = [str(one) for one in action.choices]
            raise argparse.ArgumentError(action, f"expected {_listed(names)}, got {value!r}{_meant(str(value), names)}")


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"


def _meant(text: str, names: Sequence[str]) -> str:
    """The end of an error, with the name that is probably meant, or nothing."""
    close = difflib.get_close_matches(text.lower().replace("_", "-"), names, 1, 0.6)
    return f"; did you mean {close[0]}?" if close else ""


# ---- types of arguments ----------------------------------------------------------------------------------------------


def _argument(
    convert: Callable[[str], Any],
    holds: Callable[[Any], bool],
    expected: str,
    more: Callable[[str], str] = lambda text: "",
) -> Callable[[str], Any]:
    """A type of argparse: conversion of a text, with checks. `more`: the end of an error."""

    def read(text: str) -> Any:
        try:
            value = convert(text)
        except ValueError:
            value = None
        if value is None or not holds(value):
            raise argparse.ArgumentTypeError(f"expected {expected}, got {text!r}{more(text)}")
        return value

    return read


def integer(least: int, bits: int = 63) -> Callable[[str], Any]:
    """Integers from a least one on."""
    return _argument(int, lambda n: least <= n < 2**bits, f"an integer of at least {least} and below 2^{bits}")


share = _argument(float, lambda share: 0.0 <= share < 1.0, "a share from 0 and below 1")
rate = _argument(float, lambda rate: 0.0 < rate < math.inf, "a number above 0")
number = _argument(float, math.isfinite, "a finite number")
_sizes = _argument(
    lambda text: tuple(map(int, text.split(","))), lambda sizes: min(sizes) > 0, "integers above 0 with commas between"
)
delimiter = _argument(
    lambda text: {"tab": "\t", "space": " "}.get(text, text),
    lambda mark: len(mark) == 1 and mark not in '"\r\n#',
    "one character, tab or space",
)


_EPOCHS = re.compile("([1-9][0-9]{0,8} )?epochs?")


def _seconds_or_epochs(text: str) -> float | str:
    return text if "epoch" in text else float(text)


_interval = _argument(
    _seconds_or_epochs,
    lambda every: _EPOCHS.fullmatch(every) is not None if isinstance(every, str) else 0 <= every < math.inf,
    "seconds, epoch, or as '10 epochs'",
)
_base = _argument(str, lambda name: name in NAMES, _listed(NAMES), lambda text: _meant(text, NAMES))
KINDS: dict[str, tuple[Callable[[str], Any], str]] = {
    "integer": (integer(0), "N"),
    "size": (integer(1), "N"),
    "sizes": (_sizes, "N,N"),
    "number": (number, "X"),
    "rate": (rate, "RATE"),
    "seconds": (rate, "SECONDS"),
    "interval": (_interval, "TIME"),
    "name": (str, "NAME"),
    "how": (str, "HOW"),
    "file": (str, "FILE"),
    "base": (_base, "NAME"),
}
"""Readers of options that are arguments in Python, and their placeholders, by the `kind` of each `Option`."""


# ---- files -----------------------------------------------------------------------------------------------------------

_UNPACKED = {".bz2": "bunzip2 -c", ".xz": "xz -dc", ".zst": "zstd -dc", ".zip": "unzip -p"}
_SOUNDS = (".mp3", ".flac", ".ogg", ".opus", ".m4a", ".aac", ".aif", ".aiff", ".au", ".wma")
_SHEETS = (".xlsx", ".xls", ".ods", ".numbers")
_OTHERS = (".h5", ".hdf5", ".hdf", ".fits", ".fit", ".root", ".feather", ".arrow", ".pkl", ".pickle", ".mat", ".json")


def file(suffixes: Sequence[str], reads: bool = False) -> Callable[[str], Any]:
    """A path; "-" only if listed among the suffixes. `reads`: whether it is a table to read, which has ways out."""
    named = [one for one in suffixes if one != STANDARD]
    short = [one for one in named if not one.endswith(".gz")]
    packed = f" ({', '.join(one.removesuffix('.gz') for one in named if one.endswith('.gz'))} also with .gz)"
    return _argument(
        str,
        lambda text: (text if text == STANDARD else suffix_of(text)) in suffixes,
        f"a file that ends in {', '.join(short)}" + (packed if len(short) < len(named) else ""),
        lambda text: (
            (_way_out(text) if reads else "") or _meant(suffix_of(text), named) or (_piped(text) if reads else "")
        ),
    )


def _way_out(path: str) -> str:
    """How a table in another kind of file, that is known, can be read; empty for unknown ones."""
    suffix = Path(path).suffix.lower()
    if suffix == ".gz":
        return "; gunzip it first"
    if suffix in _UNPACKED:
        return f"; its text can come by a pipe: {_UNPACKED[suffix]} {path} | headrace ... -"
    if suffix == ".wav":
        return "; fit, score and diagnose take signals"
    if suffix in _SOUNDS:
        return f"; ffmpeg -i {path} -c:a pcm_s16le new.wav makes a signal of it"
    if suffix in _SHEETS:
        return "; save it as .csv"
    if suffix in _OTHERS:
        return "; save it as .npy, .csv or .parquet"
    return ""


def _piped(path: str) -> str:
    """How text with another name is read."""
    return f"; if it is text, headrace ... - < {path} reads it"


def or_folder(read: Callable[[str], Any], is_one: Callable[[str], bool] = os.path.isdir) -> Callable[[str], Any]:
    """An argument of `read`, or a folder."""
    return lambda text: text if is_one(text) else read(text)
