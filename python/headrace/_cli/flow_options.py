"""The flows of ``headrace fit``, and their arguments as options, made from the tables of arguments.

``--set name=value`` sets any argument whose table entry has a help text; each argument in `OPTIONS` also has an option.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import headrace as hr
from headrace._base.keywords import brief, checked, meanings, refuse_others, table_of, type_text
from headrace._core.settings import MapShape

_OF_FITS = ("epochs", "batch_size", "learning_rate", "time_budget", "effort", "checkpoint")
OPTIONS = (*_OF_FITS, "transforms", "hidden", "base")
"""Arguments of fits and of flows that have a separate option."""
READERS: dict[str, tuple[str, str, Callable[[str], Any]]] = {
    "None": ("none", "none", lambda text: {"none": None}[text.lower()]),
    "bool": ("TRUE", "true or false", lambda text: {"true": True, "false": False}[text.lower()]),
    "Sequence[int]": ("N,N", "integers with commas between", lambda text: tuple(map(int, text.split(",")))),
    "int": ("N", "an integer", int),
    "float": ("X", "a number", float),
    "os.PathLike[str]": ("FILE", "a file", str),
    "str": ("NAME", "a name", str),
}
"""For each type, a placeholder and a description of its values, and a reader of texts; "str" takes any text."""


@dataclass(frozen=True)
class Argument:
    """An argument of a flow's constructor, or of its fit."""

    name: str
    entry: Any
    """The entry of the argument in its table."""
    type: str
    default: Any
    meaning: str

    @property
    def help(self) -> str:
        """The argument's help: the text in the table, or the first sentence of the argument's `meaning`."""
        text = self.entry.metadata["option"]
        return brief(self.meaning) if text is True else str(text)

    @property
    def types(self) -> list[str]:
        """The parts of the argument's type that can be read from a text."""
        parts = self.type.split(" | ")
        return [part for part in READERS if part in parts]

    @property
    def placeholder(self) -> str:
        """A placeholder for the argument's value, such as N."""
        return READERS[next(part for part in self.types if part != "None")][0]

    def read(self, text: Any) -> Any:
        """The checked value that a text stands for, by the argument's type; values of other types are not converted.

        Raises:
            TypeError, ValueError: as in Python, with a message that begins with the name.
        """
        value = self._value(text) if isinstance(text, str) else text
        is_checked = "of_plan" in self.entry.metadata  # constructors check settings together
        return checked(self.name, self.entry, self.type, value) if is_checked else value

    def _value(self, text: str) -> Any:
        for part in self.types:
            with suppress(ValueError, KeyError):
                return READERS[part][2](text.strip())
        expected = " or ".join(READERS[part][1] for part in self.types)
        raise ValueError(f"{self.name}: expected {expected}, got {text!r}")


def _arguments(function: Callable[..., Any], without: frozenset[str] = frozenset()) -> dict[str, Argument]:
    """The arguments of a function, by name, whose table entries have a help text."""
    table, taken, texts = table_of(function), inspect.signature(function).parameters, meanings(function.__doc__)
    return {
        name: Argument(name, table[name], type_text(argument.annotation), argument.default, texts.get(name, ""))
        for name, argument in taken.items()
        if name in table and name not in without and table[name].metadata.get("option")
    }


FIT = _arguments(hr.Flow.fit)
"""Arguments of `Flow.fit`, by name."""


@dataclass(frozen=True)
class Kind:
    """A flow that ``fit`` offers."""

    make: Callable[..., Any]
    model: Callable[..., Any] | None = None
    """The class that makes and fits a model; None: the flow's class makes it, and `Flow.fit` fits it."""
    takes_context: bool = True
    without: frozenset[str] = frozenset()
    """Arguments of the flow that the command line does not take."""

    @property
    def settings(self) -> dict[str, Argument]:
        """The arguments of the constructor, by name."""
        return _arguments(self.model or self.make, self.without)

    @property
    def takes(self) -> dict[str, Argument]:
        """The arguments of the constructor and of `Flow.fit`, by name."""
        of_fit = {} if self.model else {name: argument for name, argument in FIT.items() if name not in self.without}
        return of_fit | self.settings

    def read(self, flow: str, options: dict[str, Any], changes: Sequence[str]) -> dict[str, Any]:
        """The checked values of arguments, by name, from options and from ``--set``.

        Raises:
            TypeError, ValueError: an unknown argument, or a refused value; the message begins with the option.
        """
        takes, values = self.takes, dict[str, Any]()
        for name, text in options.items():
            option = f"--{name.replace('_', '-')}"
            if name not in takes:
                raise TypeError(f"{option}: --flow {flow} does not take it")
            try:
                values[name] = takes[name].read(text)
            except (TypeError, ValueError) as error:
                raise ValueError(f"{option}: {str(error).removeprefix(f'{name}: ')}") from None
        for change in changes:
            name, equals, text = change.partition("=")
            name = name.strip().replace("-", "_")
            if not equals or name in values:
                expected = "an argument once" if equals else "NAME=VALUE"
                raise ValueError(f"--set: expected {expected}, got {change!r}")
            try:
                refuse_others(f"--flow {flow}", [name], list(takes))
                values[name] = takes[name].read(text)
            except (TypeError, ValueError) as error:
                raise ValueError(f"--set: {error}") from None
        return values


FLOWS = {cls.__name__: Kind(cls) for cls in (hr.MAF, hr.IAF, hr.RealNVP, hr.NSF, hr.PlanarFlow, hr.RadialFlow)}
FLOWS["DualAscentFlow"] = Kind(hr.ascent.AscentFlow, hr.DualAscentFlow, takes_context=False)
"""Flows of rows, by name."""
DEFAULT = hr.NSF.__name__
SIGNALS = {"WaveNet": Kind(hr.WaveNet, takes_context=False, without=frozenset(("effort", *MapShape.__annotations__)))}
"""Flows of signals, by name; the first is the default."""


# ---- help ------------------------------------------------------------------------------------------------------------


@functools.cache  # cached because the parser needs the result for each option
def takers() -> dict[str, dict[str, Argument]]:
    """For each argument of a constructor, the flows that take it."""
    by_name: dict[str, dict[str, Argument]] = {}
    for flow, kind in (FLOWS | SIGNALS).items():
        for name, argument in kind.settings.items():
            by_name.setdefault(name, {})[flow] = argument
    return by_name


def placeholder_of(name: str) -> str:
    """A placeholder for an argument's value, such as N."""
    return (FIT.get(name) or next(iter(takers()[name].values()))).placeholder


def help_of(name: str) -> str:
    """The meaning of an argument for the fit and for each flow, where meanings differ, and the defaults."""
    each = takers().get(name, {})
    texts = _grouped({flow: argument.help for flow, argument in each.items()})
    defaults = _grouped({flow: shown for flow, argument in each.items() if (shown := _shown(argument.default))})
    lines = [text if len(texts) == 1 else f"{', '.join(flows)}: {text}" for text, flows in texts.items()]
    if defaults:
        is_same = len(defaults) == 1 and len(each) == len(*defaults.values())
        each_of = "; ".join(f"{text} of {', '.join(of)}" for text, of in defaults.items())
        listed = next(iter(defaults)) if is_same else each_of
        lines = [*lines, f"(default: {listed})"] if len(texts) > 1 else [f"{lines[0]} (default: {listed})"]
    if name in FIT:
        default = _shown(FIT[name].default)
        lines = [f"{', '.join(each)}: {line}" for line in lines]
        lines.insert(0, FIT[name].help + (f" (default: {default})" if default else ""))
    return "\n".join(lines)


def set_groups() -> dict[str, dict[str, str]]:
    """The arguments without an option, which ``--set`` takes: placeholder and help of each, grouped by flows."""
    groups: dict[str, dict[str, str]] = {}
    for name in [*FIT, *(name for name in takers() if name not in FIT)]:
        if name not in OPTIONS:
            group = groups.setdefault("of the fit" if name in FIT else ", ".join(takers()[name]), {})
            group[f"{name}={placeholder_of(name)}"] = help_of(name)
    return groups


def _grouped(texts: dict[str, str]) -> dict[str, list[str]]:
    """Lists of the names with equal texts, by text."""
    groups: dict[str, list[str]] = {}
    for name, text in texts.items():
        groups.setdefault(text, []).append(name)
    return groups


def _shown(value: Any) -> str:
    """A default as a user would type it; an empty text for None."""
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value).lower()
