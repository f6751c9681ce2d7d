"""A parser of command lines: errors in one line suggest the intended option, and help is as wide as the terminal."""

from __future__ import annotations

import argparse
import difflib
import math
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from headrace._base.keywords import meant
from headrace._base.layout import Block, Grid
from headrace._base.moved import ENDS
from headrace._cli import screen
from headrace._cli.screen import USAGE
from headrace.rows._files import STANDARD, suffix_of


class _Help(argparse.Action):
    """Print the help and exit; `const`: whether the help lists every option."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        screen.show(parser.blocks(self.const), sys.stdout)  # type: ignore[attr-defined]
        parser.exit()


class Parser(argparse.ArgumentParser):
    """A parser of one command, or of all commands."""

    def __init__(self, **keywords: Any) -> None:
        super().__init__(add_help=False, **keywords)
        self.given: list[str] = []
        self.old: Mapping[str, str | Mapping[str, str]] = {}
        """The successors of old options and of old values; a successor that ends in "=" is followed by the value."""
        self.brief: Sequence[str] = ()  # options that --help shows if the command has --help-all
        self.more: Mapping[str, Mapping[str, str]] = {}  # further groups of options, which --help-all shows
        self.add_argument("-h", "--help", action=_Help, nargs=0, const=False, help="show this help and exit")

    def shorten(self, brief: Sequence[str], more: Mapping[str, Mapping[str, str]]) -> None:
        """Let ``--help`` show some options, and ``--help-all`` all options and further groups."""
        self.brief, self.more = (*brief, "help", "help_all"), more
        self.add_argument("--help-all", action=_Help, nargs=0, const=True, help="show all options and exit")

    def format_usage(self) -> str:
        """The usage in one line: the required arguments, and "[options]" for all others."""
        required = [action for action in self._actions if action.required and action.option_strings]
        named = [f"{action.option_strings[0]} {action.metavar}" for action in required]
        forms = {"?": "[{}]", argparse.REMAINDER: "[{}]", "+": "{}..."}
        placed = [forms.get(str(arg.nargs), "{}").format(arg.metavar) for arg in self._get_positional_actions()]
        return " ".join(["usage:", self.prog, *placed, *named, "[options]"])

    def print_help(self, file: Any = None) -> None:
        """Print the whole help in a form that the terminal can show."""
        screen.show(self.blocks(True), sys.stdout if file is None else file)

    def blocks(self, everything: bool) -> list[Block]:
        """The help: usage, description, groups of options, and closing text; the short help has one group."""
        brief = () if everything else self.brief
        groups: dict[tuple[str, str], dict[str, str]] = {}
        for group in self._action_groups:
            key = (f"{group.title}:", group.description or "") if not brief else ("options:", "")
            for action in group._group_actions:
                for option in action._get_subactions() if hasattr(action, "_get_subactions") else [action]:
                    if option.help and (not brief or not option.option_strings or option.dest in brief):
                        form = f"{', '.join(option.option_strings)} {option.metavar or ''}".strip()
                        text = re.split(r"; | \(default: [^)]*;", option.help)[0] if brief else option.help
                        groups.setdefault(key, {})[form] = text
        for of, entries in self.more.items() if everything else ():
            groups["--set:", of] = {**entries}
        blocks: list[Block] = [self.format_usage(), "", self.description or ""]
        for head, entries in groups.items():
            lines = [(name, line) for name, text in entries.items() for line in text.splitlines()]
            rows = [(f"  {name}" * (i == 0 or lines[i - 1][0] != name), line) for i, (name, line) in enumerate(lines)]
            blocks += ["", Grid(head, rows, wraps=(1,))]
        return [*blocks, *(["", self.epilog] if self.epilog else [])]

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse as argparse does, after old names are replaced by their successors with a warning."""
        self.given = self._renamed(list(sys.argv[1:] if args is None else args))
        return super().parse_known_args(self.given, namespace)

    def _renamed(self, arguments: list[str]) -> list[str]:
        """The command line with former options and values replaced by their successors, with a warning."""
        end = arguments.index("--") if "--" in arguments else len(arguments)
        renamed, names, words = list[str](), list[str](), iter(arguments[:end])
        for word in words:
            option, equals, value = word.partition("=")
            new = self.old.get(option, option)
            if not isinstance(new, str) or new[-1:] == "=":
                value = value if equals else next(words, "")
                now = f"{new}{value}" if isinstance(new, str) else f"{option}={new.get(value, value)}"
                word = f"{option}={value}"
            else:
                now = word.replace(option, new, 1)
            names += [now.replace("=", " ", 1) + f" for {word.replace('=', ' ', 1)}"] * (now != word)
            renamed.append(now)
        if names:
            screen.tell(f"headrace: warning: {', '.join(names)}: the old names end with {ENDS}")
        return [*renamed, *arguments[end:]]

    def error(self, message: str) -> NoReturn:
        """Exit after one line with the error and the option that is probably meant."""
        message = next(self._unknown(), message)
        if "the following arguments are required" in message:
            message += f"; {self.prog} --help explains them"
        screen.tell(f"{self.prog}: error: {message}")
        raise SystemExit(USAGE)

    def refuse(self, extra: Sequence[str]) -> NoReturn:
        """Exit with an error about arguments that no command takes."""
        if options := [word for word in extra if word.startswith("-") and word != STANDARD]:
            self.given = options
        self.error(f"expected no further argument, got {extra[0]!r}; {self.prog} --help lists what there is")

    def _unknown(self) -> Iterator[str]:
        """Yield messages about options that the command does not have."""
        known = list(self._option_string_actions)
        names = {form.lstrip("-").replace("-", "_"): form for form in known if form.startswith("--")}
        for token in self.given:
            option = token.partition("=")[0]
            if token == "--" or (token[:1] != "-" and any(action.metavar == "COMMAND" for action in self._actions)):
                return
            if not option.startswith("--") or any(name_of.startswith(option) for name_of in known):
                continue
            close = meant(option[2:].replace("-", "_").lower(), names)
            more = f"did you mean {names[close]}?" if close else f"{self.prog} --help lists all"
            yield f"expected an option of {self.prog}, got {option}; {more}"

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Raise an error for a value that is not among the choices, with the probably intended choice."""
        if action.choices is not None and value not in action.choices:
            names = [str(choice) for choice in action.choices]
            listed = " or ".join(", ".join(names).rsplit(", ", 1))
            raise argparse.ArgumentError(action, f"expected {listed}, got {value!r}{_meant(str(value), names)}")


def _meant(text: str, names: Sequence[str]) -> str:
    """The end of an error message, with the probably intended name; empty without a similar name."""
    by_letters = {name.lower(): name for name in names}
    close = difflib.get_close_matches(text.lower().replace("_", "-"), by_letters, 1, 0.6)
    return f"; did you mean {by_letters[close[0]]}?" if close else ""


# ---- types of arguments ----------------------------------------------------------------------------------------------


Reader = Callable[[str], Any]


def _argument(
    convert: Reader, holds: Callable[[Any], bool], expected: str, more: Callable[[str], str] = lambda text: ""
) -> Reader:
    """A type for argparse that converts a text and checks the value. `more` returns the end of an error message."""

    def read(text: str) -> Any:
        try:
            value = convert(text)
        except ValueError:
            value = None
        if value is None or not holds(value):
            raise argparse.ArgumentTypeError(f"expected {expected}, got {text!r}{more(text)}")
        return value

    return read


def integer(least: int, bits: int = 63) -> Reader:
    """A type for argparse: integers of at least `least` and below 2^bits."""
    return _argument(int, lambda n: least <= n < 2**bits, f"an integer of at least {least} and below 2^{bits}")


share = _argument(float, lambda share: 0.0 <= share < 1.0, "a share from 0 and below 1")
rate = _argument(float, lambda rate: 0.0 < rate < math.inf, "a number above 0")
number = _argument(float, math.isfinite, "a finite number")
delimiter = _argument(
    lambda text: {"tab": "\t", "space": " "}.get(text, text),
    lambda mark: len(mark) == 1 and mark not in '"\r\n#',
    "one character, tab or space",
)


# ---- files -----------------------------------------------------------------------------------------------------------

_UNPACKED = {".bz2": "bunzip2 -c", ".xz": "xz -dc", ".zst": "zstd -dc", ".zip": "unzip -p"}
_SOUNDS = (".mp3", ".flac", ".ogg", ".opus", ".m4a", ".aac", ".aif", ".aiff", ".au", ".wma")
_OTHERS = (".h5", ".hdf5", ".hdf", ".fits", ".fit", ".root", ".feather", ".arrow", ".pkl", ".pickle", ".mat", ".json")
_WAYS = {
    (".gz",): "; gunzip it first",
    tuple(_UNPACKED): "; its text can come by a pipe: {unpack} {path} | headrace ... -",
    (".wav",): "; fit, score and diagnose take signals",
    _SOUNDS: "; ffmpeg -i {path} -c:a pcm_s16le new.wav makes a signal of it",
    (".xlsx", ".xls", ".ods", ".numbers"): "; save it as .csv",
    _OTHERS: "; save it as .npy, .csv or .parquet",
}
"""Advice for a table in an unsupported kind of file."""


def file(suffixes: Sequence[str], reads: bool = False) -> Reader:
    """A type for argparse: paths with one of `suffixes`, or "-". `reads`: whether errors advise on other formats."""
    named = [suffix for suffix in suffixes if suffix != STANDARD]
    short = [suffix for suffix in named if not suffix.endswith(".gz")]
    packed = f" ({', '.join(suffix.removesuffix('.gz') for suffix in named if suffix.endswith('.gz'))} also with .gz)"
    return _argument(
        str,
        lambda text: (text if text == STANDARD else suffix_of(text)) in suffixes,
        f"a file that ends in {', '.join(short)}" + (packed if len(short) < len(named) else ""),
        lambda text: (
            (_way_out(text) if reads else "")
            or _meant(suffix_of(text), named)
            or (f"; if it is text, headrace ... - < {text} reads it" if reads else "")
        ),
    )


def _way_out(path: str) -> str:
    """Advice on how to read a table in a known but unsupported kind of file; empty for unknown kinds."""
    suffix = Path(path).suffix.lower()
    way = next((way for suffixes, way in _WAYS.items() if suffix in suffixes), "")
    return way.format(path=path, unpack=_UNPACKED.get(suffix))


def or_folder(read: Reader, is_one: Callable[[str], bool] = os.path.isdir) -> Reader:
    """A type for argparse: a folder's path unchanged, or another argument as converted by `read`."""
    return lambda text: text if is_one(text) else read(text)
