"""Former names of modules and arguments, which still work for one version, with a warning."""

from __future__ import annotations

import functools
import importlib
import sys
import warnings
from collections.abc import Callable, Collection, Mapping
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, TypeVar, cast

from headrace._base.warn import warn

F = TypeVar("F", bound=Callable[..., Any])

ENDS = "0.7"  # the version that removes the old names
PUBLIC = {
    "headrace.bases": "headrace._flow.bases",
    "headrace.conditional": "headrace._flow.flow",
    "headrace.ensemble": "headrace._fit.ensemble",
    "headrace.flow": "headrace._flow.flow",
    "headrace.flows": "headrace._flow.flows",
    "headrace.many": "headrace._fit.ensemble",
    "headrace.network": "headrace._flow.transforms.network",
    "headrace.tails": "headrace._flow.tails",
}
"""Modules whose public names are those of `headrace`."""
FOLDERS = {"headrace.transforms": "headrace._flow.transforms"}
"""Folders whose files moved; the module that has a folder's old name has their public names."""
NAMES = {
    **dict.fromkeys(("Diagnosis", "SequenceDiagnosis"), "diagnosis"),
    **dict.fromkeys(("DensityFit", "Distillation", "FreeEnergy"), "variational"),
    **dict.fromkeys(("SequenceDistillation", "Speed", "StepHistory"), "variational"),
    **dict.fromkeys(("AscentFlow", "AscentHistory"), "ascent"),
    "Choice": "choosing",
    **dict.fromkeys(("Continuation", "Stream"), "sequences"),
    "History": "training",
    "include": "config",
}
"""The public module that now has a name of `headrace`, for each former name apart from transforms."""
PICKLED = {
    "headrace._tables.names": "headrace._arrays.names",
    "headrace.choosing.columns": "headrace._tables.density",
    "headrace._xla": "headrace.jax._calls",
}
"""Private modules in pickles of earlier versions; importing one causes no warning."""
ARGUMENTS = {"jitter": "spread", "seconds": "time_budget"}
"""Former keywords of public functions, and the keywords that replace them."""
MOVED = PUBLIC | PICKLED


def _successor(name: str) -> str | None:
    """The module that replaces the module `name`, or None; the successor of a folder also serves its files."""
    folder, _, file = name.rpartition(".")
    above = FOLDERS.get(folder, MOVED.get(folder))
    return MOVED.get(name) or (f"{above}.{file}" if above else None)


class _Finder:
    """An import finder for old names of moved modules; Python's own finder would import a moved file twice."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        return ModuleSpec(name, self) if _successor(name) else None  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> None:
        """Return None, so that Python makes an empty module, which `exec_module` replaces."""

    def exec_module(self, module: ModuleType) -> None:
        name = module.__name__
        sys.modules[name] = importlib.import_module(str(_successor(name)))
        folder = name.rpartition(".")[0]
        if name in PUBLIC or folder in FOLDERS:
            place = folder if folder in FOLDERS else "headrace"
            warnings.warn(
                f"{name}: import its names from {place}, because the module moved; the old name ends with {ENDS}",
                DeprecationWarning,
                stacklevel=2,
            )


def renamed(old: str, new: str, **keywords: Any) -> Any:
    """A method for the name `old`, which calls the method `new` with further keywords, and warns."""

    def called(self: Any, *values: Any, **more: Any) -> Any:
        warn_of(f"{type(self).__name__}.{old}", new, keywords)
        return getattr(self, new)(*values, **more, **keywords)

    return called


def warn_of(old: str, new: str, keywords: Mapping[str, Any] | None = None) -> None:
    """Warn the user that `new`, called with the keywords, replaces the name `old`."""
    call = f"{new}({', '.join(['...', *(f'{name}={v!r}' for name, v in keywords.items())])})" if keywords else new
    warn(f"{old}: use {call}; the old name ends with {ENDS}", DeprecationWarning)


def find_moved_modules() -> None:
    """Make moved modules importable under their former names."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


def renamed_keywords(owner: str, keywords: dict[str, Any], known: Collection[str]) -> dict[str, Any]:
    """The keywords with former names replaced, and a warning for each; `known`: the present names."""
    old = [name for name in keywords if name not in known and ARGUMENTS.get(name) in known]
    for name in old:
        if (now := ARGUMENTS[name]) in keywords:
            raise TypeError(f"{name}: expected one of {now} and {name}, its old name, got both")
        warn(f"{owner}({name}=...): {now}= has the same meaning; the old name ends with {ENDS}", DeprecationWarning)
    return {ARGUMENTS[name] if name in old else name: value for name, value in keywords.items()}


def moved_where(is_old: Callable[[Any], bool], successor: Callable[..., Any], *without: str) -> Callable[[F], F]:
    """A decorator: if `is_old` accepts an argument, `successor` is called, without some keywords and with a warning."""

    def marked(function: F) -> F:
        @functools.wraps(function)
        def called(*values: Any, **keywords: Any) -> Any:
            if not any(map(is_old, (*values, *keywords.values()))):
                return function(*values, **keywords)
            message = f"{function.__name__} of sequences: call {successor.__name__}; the old call ends with {ENDS}"
            warn(message, DeprecationWarning)
            return successor(*values, **{name: value for name, value in keywords.items() if name not in without})

        return cast("F", called)

    return marked
