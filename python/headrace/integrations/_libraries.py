"""`headrace.accelerate_libraries`: acceleration of the models that other libraries make, in unchanged programs."""

from __future__ import annotations

import functools
import importlib.util
import logging
import sys
from collections.abc import Iterable
from importlib.abc import Loader, MetaPathFinder
from types import ModuleType, TracebackType
from typing import Any

from headrace._base import arguments as check
from headrace._base.install import install

LOG = logging.getLogger("headrace.libraries")

CLASSES = {
    "zuko": {"zuko.lazy": ("Flow",)},
    "nflows": {"nflows.flows.base": ("Flow",)},
    "normflows": {"normflows.core": ("NormalizingFlow",)},
    "sbi": {
        "sbi.neural_nets.estimators.nflows_flow": ("NFlowsFlow",),
        "sbi.neural_nets.estimators.zuko_flow": ("ZukoFlow",),
    },
}
"""By library and module, the classes whose models are accelerated, together with the library's subclasses."""


def accelerate_libraries(*names: str) -> Acceleration:
    """From now on replace each flow that the named libraries make by the result of `headrace.accelerate`, if possible.

    Classes do not change: earlier imports, `isinstance`, subclasses and pickles stay valid. Fresh weights are
    those that the library draws, and later random values do not change. A flow stays as it is if headrace refuses
    it, if its class is not the library's own, if it comes from a pickle or a copy, or if another of the libraries makes
    it in order to use its parts. The logger "headrace.libraries" has one line for each kind of model: accelerated, or
    the reason why not. A flow is made from a copy of its parts: an optimiser must take ``flow.parameters()`` and not
    the parameters of a transform that was made before.

    Libraries are patched when the program imports them, and not imported by this call. ``python -m headrace run
    script.py`` accelerates the libraries' flows in an unchanged program.

    Args:
        *names: Names among "zuko", "nflows", "normflows" and "sbi"; without names, all installed libraries.

    Returns:
        A context manager; its `undo`, or the end of its ``with`` block, ends the acceleration.

    Raises:
        ValueError: a name is unknown.
        ImportError: a library is not installed.
    """
    for name in names:
        check.choice("names", name, tuple(CLASSES))
        if importlib.util.find_spec(name) is None:
            raise ImportError(f"names: expected an installed library, got {name!r}: {install(name)}")
    return Acceleration(names or CLASSES)


class Acceleration(MetaPathFinder):
    """The changes of classes by `accelerate_libraries`, until `undo`."""

    def __init__(self, names: Iterable[str]) -> None:
        self._waiting = {module: kinds for name in names for module, kinds in CLASSES[name].items()}
        self._patched: list[tuple[Any, Any]] = []  # patched classes with their former constructors
        for module in [*self._waiting]:
            if module in sys.modules:
                self._patch(sys.modules[module])
        sys.meta_path.insert(0, self)

    def undo(self) -> None:
        """End the acceleration of new models; accelerated models stay accelerated."""
        if self in sys.meta_path:
            sys.meta_path.remove(self)
        while self._patched:
            kind, before = self._patched.pop()
            kind.__new__ = before

    def __enter__(self) -> Acceleration:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: Any, trace: TracebackType | None) -> None:
        self.undo()

    def _patch(self, module: ModuleType) -> None:
        for name in self._waiting.pop(module.__name__):
            kind = getattr(module, name)
            # A class whose own `__new__` was deleted does not get `object.__new__` back, so that `_plain` replaces it.
            self._patched.append((kind, vars(kind).get("__new__", staticmethod(_plain))))
            kind.__new__ = staticmethod(functools.partial(_made, kind.__module__.split(".")[0]))

    # ---- modules that are imported later -----------------------------------------------------------------------------

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """The spec of a library's module, with a loader that patches its classes after the import."""
        if name not in self._waiting:
            return None
        finders = (finder for finder in sys.meta_path if finder is not self)
        spec = next((spec for finder in finders if (spec := finder.find_spec(name, path, target))), None)
        if spec is not None and spec.loader is not None:
            spec.loader = _Patching(spec.loader, self)
        return spec


class _Patching(Loader):
    """A loader that patches the classes of its module after the import."""

    def __init__(self, loader: Any, acceleration: Acceleration) -> None:
        self._loader, self._acceleration = loader, acceleration

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: Any) -> Any:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__.loader = module.__loader__ = self._loader  # type: ignore[union-attr]
        self._loader.exec_module(module)
        self._acceleration._patch(module)


# ---- the calls of classes --------------------------------------------------------------------------------------------


def _plain(kind: Any, *arguments: Any, **settings: Any) -> Any:
    return object.__new__(kind)


def _made(library: str, kind: Any, *arguments: Any, **settings: Any) -> Any:
    """A model, accelerated if possible: the result has another type, so that Python does not call `__init__` again.

    Calls without arguments come from pickles and copies, and calls from libraries use a flow's parts: models of such
    calls stay unaccelerated.
    """
    model = object.__new__(kind)
    caller = str(sys._getframe(1).f_globals.get("__name__")).split(".")[0]
    inner = caller in CLASSES and library != "sbi"
    if not (arguments or settings) or inner or kind.__module__.split(".")[0] != library:
        return model
    model.__init__(*arguments, **settings)
    return _accelerated(f"{kind.__module__}.{kind.__qualname__}", model)


def _accelerated(name: str, model: Any) -> Any:
    from headrace.integrations._accelerate import accelerate

    try:
        made = accelerate(model)
    except (NotImplementedError, TypeError, ValueError) as error:
        _say(f"{name} stays as it is: {error}")
        return model
    _say(f"{name} is accelerated")
    return made


@functools.cache
def _say(line: str) -> None:
    LOG.info(" ".join(line.split()))
