"""The flows of ``headrace fit``, and the options of each: all arguments of their constructors and of `Flow.fit`.

Names, defaults and meanings come from the signatures and the help of the classes, which state each once.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import headrace as hr
from headrace._flow.fit_arguments import Arguments, options

FIT = options()
"""Options that are arguments of `Flow.fit`, by name."""
# Arguments that come from the table, or from other options.
_OTHERWISE = {"features", "context", "bounds", "periodic", "seed", "dtype"}
_BREAK = "\n"  # in a help: the text after it begins a line


@dataclass(frozen=True)
class Kind:
    """A flow that ``fit`` offers."""

    make: Callable[..., Any]
    model: Callable[..., Any] | None = None
    """The class that makes and fits it; None: it makes itself, and `Flow.fit` fits it."""
    only: tuple[str, ...] = ()
    """The arguments of the constructor that are options; (): all."""
    without: frozenset[str] = frozenset()
    """Arguments of `Flow.fit` that its own `fit` refuses."""

    @property
    def settings(self) -> dict[str, inspect.Parameter]:
        """The arguments of the constructor that are options of the command line."""
        every = inspect.signature(self.model or self.make).parameters
        return {
            name: argument
            for name, argument in every.items()
            if (name in self.only if self.only else name not in _OTHERWISE)
        }

    @property
    def takes(self) -> set[str]:
        """The options of the flow."""
        own = {*self.settings, *(() if self.model else FIT.keys() - self.without)}
        if self.only:
            return own
        return {*own, "context"} if "context" in inspect.signature(self.model or self.make).parameters else own


FLOWS = {
    "maf": Kind(hr.MAF),
    "iaf": Kind(hr.IAF),
    "realnvp": Kind(hr.RealNVP),
    "nsf": Kind(hr.NSF),
    "planar": Kind(hr.PlanarFlow),
    "radial": Kind(hr.RadialFlow),
    "dual-ascent": Kind(hr.AscentFlow, hr.DualAscentFlow),
}
"""Flows of rows, by name."""
SIGNALS = {
    "wavenet": Kind(
        hr.WaveNet,
        only=("layers", "channels", "kernel", "dilations", "skip", "prediction", "companded", "level"),
        without=frozenset(("effort", "seconds")),
    ),
}
"""Flows of signals, by name; the first is the default."""


@dataclass(frozen=True)
class Setting:
    """An option of the command line that is an argument of some flows' constructors."""

    kind: str
    """Its type, as the constructor states it: "int", "float", "str", "bool" or "Sequence[int]"."""
    takers: tuple[str, ...]
    """The flows that take it."""
    help: str
    """Its meaning, and its defaults."""


@functools.cache  # a parser asks for them at each option
def settings() -> dict[str, Setting]:
    """All arguments of all flows that are options, by name."""
    found: dict[str, dict[str, inspect.Parameter]] = {}
    for name, kind in (FLOWS | SIGNALS).items():
        for key, argument in kind.settings.items():
            found.setdefault(key, {})[name] = argument
    result = {}
    for key, takers in found.items():
        stated = str(next(iter(takers.values())).annotation).removesuffix(" | None").removesuffix(" | Network")
        help_text = _meaning_of_flows(key, tuple(takers))
        defaults = _grouped({name: _shown(argument.default) for name, argument in takers.items()})
        given = [(names, text) for text, names in defaults.items() if text]
        if given:
            listed = "; ".join(f"{text} of {', '.join(names)}" for names, text in given)
            help_text += (
                f"{_BREAK if _BREAK in help_text else ' '}(default: {given[0][1] if len(defaults) == 1 else listed})"
            )
        result[key] = Setting(stated, tuple(takers), help_text.strip())
    return result


def fit_help(name: str) -> str:
    """The meaning and the default of an argument of `Flow.fit`."""
    stated = next(one for one in fields(Arguments) if one.name == name)
    meaning, default = _for_the_command_line(stated.metadata["meaning"]), _shown(stated.default)
    meaning += f" (default: {default})" if default else ""
    others = settings().get(name)  # of a flow that has an argument of this name for its own fit
    return meaning if others is None else f"{meaning}{_BREAK}{', '.join(others.takers)}: {others.help}"


def _meaning_of_flows(key: str, takers: tuple[str, ...]) -> str:
    """The meaning of an argument; where flows differ, each one's behind its name."""
    every = FLOWS | SIGNALS
    made = {name: every[name].model or every[name].make for name in takers}
    each = _grouped({name: _for_the_command_line(_meaning(made[name], key)) for name in takers})
    whole = next(iter(each), "")
    parts = [whole] if len(each) < 2 or any(text.startswith(whole) for text in [*each][1:]) else []
    for text, names in each.items():
        if text == whole and parts:
            continue
        rest = text.removeprefix(whole).strip(" .") if parts else text
        rest = rest if rest is text else _begun_small(rest)
        parts += [f"{', '.join(names)}: {rest}"] if rest else []
    return _BREAK.join(parts)


def _grouped(texts: dict[str, str]) -> dict[str, list[str]]:
    """The names that have each text."""
    found: dict[str, list[str]] = {}
    for name, text in texts.items():
        found.setdefault(text, []).append(name)
    return found


def _shown(value: Any) -> str:
    """A default as it would be typed; empty where the meaning states it, or there is none."""
    if value is None or isinstance(value, bool):
        return {True: "on", False: "off"}.get(value, "") if isinstance(value, bool) else ""
    if isinstance(value, float):
        return f"{value:g}"
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


# ---- meanings, from docstrings ---------------------------------------------------------------------------------------

_ENTRY = re.compile(r"^    (?! )((?:\*{0,2}\w+)(?:, \*{0,2}\w+)*): ", re.MULTILINE)
_ELSEWHERE = re.compile(r"See `(\w+)`(?:[^.;]*)[.;]?\s*")


@functools.cache
def meanings(cls: Any) -> dict[str, str]:
    """The meaning of each argument in a class's docstring, in one line each; empty for Python without docstrings."""
    text = inspect.getdoc(cls) or ""
    begin = text.find("Args:\n")
    if begin < 0:
        return {}
    block = re.split(r"\n(?=\S)", text[begin + len("Args:\n") :], maxsplit=1)[0]
    parts = _ENTRY.split(block)[1:]
    found = {}
    for names, meaning in zip(parts[::2], parts[1::2], strict=True):
        for name in names.split(", "):
            found[name] = " ".join(meaning.split())
    return found


def _meaning(cls: Any, key: str) -> str:
    """The meaning of an argument of a class; "See `MAF`." is replaced by the meaning there."""
    meaning = meanings(cls).get(key, "")
    if (other := _ELSEWHERE.match(meaning)) is None:
        return meaning
    place = hr.transforms if other[1] in hr.transforms.__all__ else hr
    return f"{_meaning(getattr(place, other[1]), key)} {meaning[other.end() :]}".strip()


# Parentheses that have only names of Python, or a page of the documentation.
_ASIDE = re.compile(r"\s*\((?:see )?(?:docs/[\w/.-]+|`[\w.]+`|`[\w.]+` is \"\w+\"; [^)]*|``\w+=[^)]*)\)")


def _for_the_command_line(text: str) -> str:
    """A meaning without what is only Python: None, marks of code, classes and pages of the documentation."""
    text = re.sub(_ASIDE, "", text)
    text = re.sub(r"(?:[,;]? or|[,;:]) (?:a `headrace\.\w+`|its ends, ``\([^)]*\)``|None\b)[^.;]*(?=[.;]|$)", "", text)
    text = re.sub(r"; see `[\w.]+`(?=[.;]|$)|,? see `[\w.]+`(?=[.;]|$)", "", text)
    text = re.sub(r'``[a-z_]+="(\w+)"``', r'"\1"', text)
    text = re.sub(r'"(\d+ \w+)"', r"'\1'", text)  # an argument with a space
    text = re.sub(r"`+(?:headrace\.)?([^`]+)`+", lambda m: m[1].replace("_", "-") if m[1].islower() else m[1], text)
    text = text.replace('"', "").replace("Flow.fit", "fit").strip().removesuffix(".")
    return _begun_small(text)


def _begun_small(text: str) -> str:
    return text[:1].lower() + text[1:] if text[1:2].islower() or text[1:2] == " " else text
