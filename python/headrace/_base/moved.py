"""Modules that moved: for one version an old public name still imports its module, with a warning."""

from __future__ import annotations

import importlib
import sys
import warnings
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

ENDS = "0.7"  # the version without the old names
PUBLIC = {
    "headrace.bases": "headrace._flow.bases",
    "headrace.conditional": "headrace._flow.conditional",
    "headrace.ensemble": "headrace._fit.ensemble",
    "headrace.flow": "headrace._flow.flow",
    "headrace.flows": "headrace._flow.flows",
    "headrace.many": "headrace._fit.many",
    "headrace.network": "headrace._flow.transforms.network",
    "headrace.tails": "headrace._flow.tails",
    "headrace.transforms": "headrace._flow.transforms",
}
"""Modules whose public names are those of `headrace`."""
PICKLED = {
    "headrace._tables.names": "headrace._arrays.names",
    "headrace.choosing.columns": "headrace._tables.density",
    "headrace._xla": "headrace.jax._calls",
}
"""Private modules that pickles of earlier versions name: these warn nobody."""
MOVED = PUBLIC | PICKLED


def _successor(name: str) -> str | None:
    """The module that an old name stands for; that of a folder stands for its files, too."""
    folder, _, file = name.rpartition(".")
    return MOVED.get(name) or (f"{MOVED[folder]}.{file}" if folder in MOVED else None)


class _Finder:
    """Finds the moved modules by their old names, before the finder that would import a file twice."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        return ModuleSpec(name, self) if _successor(name) else None  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> None:
        """Python makes an empty one, which `exec_module` replaces."""

    def exec_module(self, module: ModuleType) -> None:
        name = module.__name__
        if name in PUBLIC:
            warnings.warn(
                f"{name}: import its names from headrace, because the module moved; the old name ends with {ENDS}",
                DeprecationWarning,
                stacklevel=2,
            )
        sys.modules[name] = importlib.import_module(str(_successor(name)))


def find_moved_modules() -> None:
    """Let old names be imported from now on."""
    if not any(isinstance(one, _Finder) for one in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
