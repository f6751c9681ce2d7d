"""The public module of a class: its repr, its help, its pickles and the pages show that one, and no private folder."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

_Class = TypeVar("_Class", bound=type)


def public(module: str = "headrace") -> Callable[[_Class], _Class]:
    """Show a class as one of a public module, in which it can be imported."""

    def shown(cls: _Class) -> _Class:
        cls.__module__ = module
        return cls

    return shown
