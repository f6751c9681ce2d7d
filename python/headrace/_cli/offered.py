"""The flows of ``headrace fit``, and the options of each: all arguments of their constructors."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import headrace as hr
from headrace._fit.arguments import options

__all__ = ["FIT", "FLOWS", "Kind", "Setting", "settings"]

FIT = options()
"""Options that are arguments of `Flow.fit`, by name."""
# Arguments that come from the table, or from other options.
_OTHERWISE = {"features", "context", "bounds", "periodic", "seed", "dtype"}
_OBJECTS = ("Base | None",)  # types of arguments that have no text form


@dataclass(frozen=True)
class Kind:
    """A flow that ``fit`` offers."""

    make: Callable[..., hr.Flow]
    model: Callable[..., Any] | None = None
    """The class that makes and fits it; None: it makes itself, and `Flow.fit` fits it."""

    @property
    def settings(self) -> dict[str, inspect.Parameter]:
        """The arguments of the constructor that are options of the command line."""
        every = inspect.signature(self.model or self.make).parameters
        return {
            name: argument
            for name, argument in every.items()
            if name not in _OTHERWISE and str(argument.annotation) not in _OBJECTS
        }

    @property
    def takes(self) -> set[str]:
        """The options of the flow."""
        own = {*self.settings, *(() if self.model else FIT)}
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


@dataclass(frozen=True)
class Setting:
    """An option of the command line that is an argument of some flows' constructors."""

    kind: str
    """Its type, as the constructor states it: "int", "float", "str", "bool" or "Sequence[int]"."""
    help: str
    """The flows that take it, with their defaults."""


def settings() -> dict[str, Setting]:
    """All arguments of all flows that are options, by name."""
    found: dict[str, list[tuple[str, inspect.Parameter]]] = {}
    for name, kind in FLOWS.items():
        for key, argument in kind.settings.items():
            found.setdefault(key, []).append((name, argument))
    result = {}
    for key, takers in found.items():
        by_default: dict[str, list[str]] = {}
        for name, argument in takers:
            by_default.setdefault(_default(argument.default), []).append(name)
        told = "; ".join(", ".join(names) + value for value, names in by_default.items())
        stated = str(takers[0][1].annotation).removesuffix(" | None").removesuffix(" | Network")
        result[key] = Setting(stated, told)
    return result


def _default(value: Any) -> str:
    if value is None:
        return ""
    return f" ({','.join(map(str, value)) if isinstance(value, tuple) else value})"
