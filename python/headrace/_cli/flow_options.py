"""The flows of ``headrace fit``, and the options of each: arguments that have an option in the tables of arguments."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import headrace as hr
from headrace._base.keywords import Option, table_of
from headrace._core.settings import MapShape
from headrace._flow.fit_arguments import Arguments

FIT: dict[str, Option] = {
    name: one.metadata["option"] for name, one in table_of(Arguments).items() if one.metadata["option"]
}
"""Options that are arguments of `Flow.fit`, by name."""
_BREAK = "\n"  # in a help: what follows begins a line


@dataclass(frozen=True)
class Kind:
    """A flow that ``fit`` offers."""

    make: Callable[..., Any]
    model: Callable[..., Any] | None = None
    """The class that makes and fits it; None: it makes itself, and `Flow.fit` fits it."""
    takes_context: bool = True
    without: frozenset[str] = frozenset()
    """Arguments that have an option, but not of this flow."""

    @property
    def arguments(self) -> Mapping[str, inspect.Parameter]:
        """The arguments of the constructor."""
        return inspect.signature(self.model or self.make).parameters

    @property
    def settings(self) -> dict[str, Option]:
        """The options that are arguments of the constructor."""
        table = table_of(self.model or self.make)
        taken = [name for name in self.arguments if name in table and name not in self.without]
        return {name: one for name in taken if (one := table[name].metadata.get("option"))}

    @property
    def takes(self) -> set[str]:
        """The options of the flow."""
        return {*self.settings, *(() if self.model else FIT.keys() - self.without), *["context"] * self.takes_context}


FLOWS = {
    "maf": Kind(hr.MAF),
    "iaf": Kind(hr.IAF),
    "realnvp": Kind(hr.RealNVP),
    "nsf": Kind(hr.NSF),
    "planar": Kind(hr.PlanarFlow),
    "radial": Kind(hr.RadialFlow),
    "dual-ascent": Kind(hr.ascent.AscentFlow, hr.DualAscentFlow, takes_context=False),
}
"""Flows of rows, by name."""
SIGNALS = {"wavenet": Kind(hr.WaveNet, takes_context=False, without=frozenset(("effort", *MapShape.__annotations__)))}
"""Flows of signals, by name; the first is the default."""


@dataclass(frozen=True)
class Setting:
    """An option of the command line that is an argument of some flows' constructors."""

    option: Option
    takers: tuple[str, ...]
    """The flows that take it."""
    help: str
    """Its meaning, and its defaults."""


@functools.cache  # a parser asks for them at each option
def settings() -> dict[str, Setting]:
    """All arguments of all flows that are options, by name."""
    taken: dict[str, dict[str, Option]] = {}
    for flow, kind in (FLOWS | SIGNALS).items():
        for name, option in kind.settings.items():
            taken.setdefault(name, {})[flow] = option
    return {
        name: Setting(
            next(iter(each.values())), tuple(each), _help(name, {flow: one.help for flow, one in each.items()})
        )
        for name, each in taken.items()
    }


def fit_help(name: str) -> str:
    """The meaning and the default of an argument of `Flow.fit`, and of flows that have one of this name."""
    default = _shown(table_of(Arguments)[name].default)
    text = FIT[name].help + (f" (default: {default})" if default else "")
    own = settings().get(name)
    return text if own is None else f"{text}{_BREAK}{', '.join(own.takers)}: {own.help}"


def _help(name: str, helps: dict[str, str]) -> str:
    """The meaning for each flow, where they differ behind its name, and the defaults."""
    each = _grouped(helps)
    text = _BREAK.join(
        meaning if len(each) == 1 else f"{', '.join(flows)}: {meaning}" for meaning, flows in each.items()
    )
    makers = {flow: (FLOWS | SIGNALS)[flow] for flow in helps}
    defaults = _grouped(
        {
            flow: _shown(inspect.signature(kind.model or kind.make).parameters[name].default)
            for flow, kind in makers.items()
        }
    )
    if shown := [(value, flows) for value, flows in defaults.items() if value]:
        listed = "; ".join(f"{value} of {', '.join(flows)}" for value, flows in shown)
        text += f"{_BREAK if len(each) > 1 else ' '}(default: {shown[0][0] if len(defaults) == 1 else listed})"
    return text


def _grouped(texts: dict[str, str]) -> dict[str, list[str]]:
    """The names that have each text."""
    found: dict[str, list[str]] = {}
    for name, text in texts.items():
        found.setdefault(text, []).append(name)
    return found


def _shown(value: Any) -> str:
    """A default as it would be typed; empty where there is none."""
    if value is None or isinstance(value, bool):
        return {True: "on", False: "off"}.get(value, "") if isinstance(value, bool) else ""
    if isinstance(value, float):
        return f"{value:g}"
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
