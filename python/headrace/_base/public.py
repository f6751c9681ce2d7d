"""The public module of a class, which repr, help, pickles and the pages show instead of its private module."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

_Class = TypeVar("_Class", bound=type)


def public(module: str = "headrace") -> Callable[[_Class], _Class]:
    """A decorator that sets a class's module to the public module from which the class can be imported."""

    def shown(cls: _Class) -> _Class:
        cls.__module__ = module
        return cls

    return shown
