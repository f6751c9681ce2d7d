"""Conversion of a `state_dict` without a model: objects represent the model's parts, with settings from the caller.

A `state_dict` has weights, masks and orders, but neither settings, such as activations, slopes and bounds, nor a
density to compare with. Settings are never assumed: the caller must give them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace._base import arguments as check
from headrace._flow.flow import Flow
from headrace.convert._parts import Numbers, Place, dtype_of, numbers
from headrace.convert._verify import compare

Node = Mapping[str, Any]
"""The tensors of a part by name, and nested mappings for its parts."""


def is_file(model: Any) -> bool:
    """Whether a model is a `state_dict`."""
    return isinstance(model, Mapping)


class Stand:
    """An object with given attributes that represents an object of a class in a package."""

    def __init__(self, package: str, name: str, parts: Any = (), **attributes: Any) -> None:
        self._stands_for = package, name
        self._parts = list(parts)
        self.__dict__.update(attributes)

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...

    def __iter__(self) -> Any:
        """The parts of a container."""
        return iter(self._parts)

    def __call__(self) -> Any:
        """The first part: the distribution or transform that a lazy object makes."""
        return self._parts[0]

    def parameters(self) -> list[Any]:
        """An empty list, because a `state_dict` does not record which parameters were trained."""
        return []


class UnrecordedSettings:
    """The caller's values of settings that a `state_dict` does not record; use of a missing setting raises an error."""

    def __init__(self, settings: Mapping[str, Any], known: Mapping[str, str], library: str = "") -> None:
        """`known`: hints about defaults, by name; `library`: the library's name, if several libraries share parts."""
        self.library = library
        self._given, self._known = {name: value for name, value in settings.items() if value is not None}, known
        if extra := set(self._given) - set(known):
            names = ", ".join(name for name, hint in known.items() if hint)
            raise TypeError(f"{sorted(extra)[0]}: expected only {names} beside a state_dict")

    def take(self, name: str) -> Any:
        """The setting `name`; raises ValueError if the caller gave no value."""
        if name not in self._given:
            raise ValueError(f"{name}: expected a value, because a state_dict does not record it; {self._known[name]}")
        return self._given[name]


def without_files(settings: Mapping[str, Any]) -> None:
    """Raise TypeError for settings that a model, unlike a `state_dict`, records."""
    if names := sorted(name for name, value in settings.items() if value is not None):
        raise TypeError(f"{names[0]}: expected none beside a model, which has it; it is for a state_dict")


def tree_of(state: Mapping[str, Any]) -> dict[str, Any]:
    """A `state_dict` as nested dictionaries, whose keys are the names between dots."""
    tree: dict[str, Any] = {}
    for key, value in state.items():
        if not isinstance(key, str) or not hasattr(value, "shape"):
            raise TypeError(f"model: expected a state_dict of tensors by name, got {key!r}: {check.kind_of(value)}")
        *path, last = key.split(".")
        node = tree
        for name in path:
            node = node.setdefault(name, {})
            if not isinstance(node, dict):
                raise TypeError(f"model: expected names that make a tree, got {key!r} below a tensor")
        node[last] = value
    return tree


def listed(node: Node, place: Place) -> list[Any]:
    """The parts of a list of modules, in order; raises an error if a part has no tensors."""
    missing = sorted(set(map(str, range(len(node)))) - set(node))
    if missing:
        raise place.at(int(missing[0])).refused("a part with tensors, got one without, which no state_dict describes")
    return [node[str(i)] for i in range(len(node))]


def linear(package: str, node: Node) -> Stand:
    """A `Stand` that represents a linear layer, masked or not."""
    name = "MaskedLinear" if "mask" in node else "Linear"
    masked = {"mask": node["mask"]} if "mask" in node else {}
    return Stand(package, name, weight=node["weight"], bias=node.get("bias"), **masked)


def finished_file(place: Place, state: Mapping[str, Any], verify: Any, make: Callable[[], Flow]) -> Flow:
    """The flow in the dtype of the `state_dict`, after a comparison with the log densities in `verify`."""
    if verify is True:
        expected = "(x, log_prob), or (x, log_prob, context), rows and what the library has made of them, or False"
        raise ValueError(f"verify: a state_dict has no density to compare with: give {expected}")
    flow = make()
    if verify is not False:
        if not isinstance(verify, (tuple, list)) or len(verify) != 2 + bool(flow.context):
            wanted = "(x, log_prob, context)" if flow.context else "(x, log_prob)"
            raise TypeError(f"verify: expected {wanted}, True or False, got {check.kind_of(verify)}")
        x, log_prob, *context = map(numbers, verify)
        rows: Numbers | None = context[0] if context else None
        is_single = any("float32" in str(getattr(array, "dtype", "")) for array in verify)
        compare(flow, x, log_prob, rows, np.full(len(x), 1e-3 if is_single else 1e-7))
    dtype = dtype_of(place, list(state.values()))
    return flow if dtype == "float64" else flow.astype(dtype)
