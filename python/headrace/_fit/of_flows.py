"""The common base class of densities of several flows: names of columns, parameters and files."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from headrace import files
from headrace._arrays.names import Names
from headrace._base.types import Self


class OfFlows:
    """A density that consists of several flows and has their parameters."""

    _names: Names
    _advice = ""
    """The end of the error message of `to_onnx`."""
    features: Any
    context: Any
    device: Any
    matmul: Any

    @property
    def _parts(self) -> dict[str, Any]:
        """The flows, by the prefixes that the names of their arrays have in a file."""
        raise NotImplementedError

    @property
    def n_parameters(self) -> int:
        """The number of trained parameters in all flows."""
        return sum(flow.n_parameters for flow in self._parts.values())

    @property
    def feature_names(self) -> tuple[str, ...] | None:
        """See `Flow.feature_names`."""
        return self._names.features

    @property
    def context_names(self) -> tuple[str, ...] | None:
        """See `Flow.context_names`."""
        return self._names.context or None

    def named_parameters(self) -> dict[str, NDArray[Any]]:
        """Dense copies of the parameters by name: in an ensemble, "members.0.transforms.0.layers.0.weight"."""
        return self._named(lambda flow: flow.named_parameters())

    def _fixed_arrays(self) -> dict[str, NDArray[Any]]:
        return self._named(lambda flow: flow._fixed_arrays())

    def _named(self, of: Any) -> dict[str, NDArray[Any]]:
        return {f"{part}.{name}": array for part, flow in self._parts.items() for name, array in of(flow).items()}

    def _notes(self) -> dict[str, str]:
        return Names(self._names.features, self._names.context if self.context else ()).notes()

    def _with_notes(self, notes: Mapping[str, Any]) -> Self:
        self._names = Names.of_notes(notes, self.features, self.context)
        return self

    def __reduce__(self) -> Any:
        """Pickle the bytes of a file, as flows do."""
        return files.unpickled, (files.to_bytes(self), self.device, self.matmul)  # type: ignore[arg-type]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one safetensors file with all flows, which `headrace.load` reads; see `Flow.save`."""
        files.save(self, path)  # type: ignore[arg-type]

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, allow_non_finite: bool = False) -> Self:
        """Read a file with a density of this class; see `Flow.load`."""
        return files.load_as(cls, path, allow_non_finite)

    def to_onnx(self, path: str | os.PathLike[str], verb: str = "log_prob") -> None:
        """Raise TypeError, because only a single flow becomes an ONNX graph, by `Flow.to_onnx`."""
        raise TypeError(f"flow: expected one flow for a graph, got {self._advice}")
