"""The common base of densities of several flows: names of columns, parameters and files."""

from __future__ import annotations

import os
from typing import Any

from numpy.typing import NDArray

from headrace import files
from headrace._arrays.names import Named
from headrace._base.types import Self


class OfFlows(Named):
    """A density whose parameters are those of several flows."""

    _advice = ""
    """The end of a graph's refusal."""
    device: Any
    matmul: Any

    @property
    def _parts(self) -> dict[str, Any]:
        """The flows by the beginning of the names of their arrays in a file."""
        raise NotImplementedError

    @property
    def n_parameters(self) -> int:
        """The number of trained parameters in all flows."""
        return sum(flow.n_parameters for flow in self._parts.values())

    def named_parameters(self) -> dict[str, NDArray[Any]]:
        """Dense copies of the parameters by name, of an ensemble such as "members.0.transforms.0.layers.0.weight"."""
        return self._named(lambda flow: flow.named_parameters())

    def _fixed_arrays(self) -> dict[str, NDArray[Any]]:
        return self._named(lambda flow: flow._fixed_arrays())

    def _named(self, of: Any) -> dict[str, NDArray[Any]]:
        return {f"{part}.{name}": array for part, flow in self._parts.items() for name, array in of(flow).items()}

    def __reduce__(self) -> Any:
        """Pickle the bytes of a file, as flows do."""
        return files.unpickled, (files.to_bytes(self), self.device, self.matmul)  # type: ignore[arg-type]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one safetensors file with all flows, which `headrace.load` reads; see `Flow.save`."""
        files.save(self, path)  # type: ignore[arg-type]

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, allow_non_finite: bool = False) -> Self:
        """Read a file that has such a density; see `Flow.load`."""
        return files.load_as(cls, path, allow_non_finite)

    def to_onnx(self, path: str | os.PathLike[str], verb: str = "log_prob") -> None:
        """Raise an error: a graph is made of one flow, by `Flow.to_onnx`."""
        raise TypeError(f"flow: expected one flow for a graph, got {self._advice}")
