"""The base classes of modules over time, with covariates and devices."""

from __future__ import annotations

import abc
from typing import Any

import numpy as np

from headrace._base import arguments as check
from headrace._core.device import Device, device_named
from headrace._flow.program.module import Parametrised, Program
from headrace.sequences.program import Link, SequenceProgram


class Sequential(Parametrised):
    """A module on sequences: with `covariates` and `hop`, which modules on rows lack, and with a device."""

    _moves = False  # whether the module may be on a device

    def __init__(self, features: int, context: int, covariates: int, hop: int, dtype: np.dtype[Any] | None) -> None:
        """Store sizes; a subclass then calls `_take_parameters`."""
        super().__init__(features, context, dtype)
        self._covariates, self._hop = covariates, hop

    @property
    def covariates(self) -> int:
        """The number of covariates, columns that are known over time; 0 for none."""
        return self._covariates

    @property
    def hop(self) -> int:
        """The number of steps from one frame of the covariates to the next."""
        return self._hop

    def to(self, device: str, matmul: str = "exact") -> Any:
        """A copy on another device. A `SequenceFlow` is copied with its transforms, and then takes arrays on the new
        device (docs/gpu.md).

        Args:
            device: "cpu", or for a flow a CUDA device such as "cuda:0", or "cuda" for CuPy's current device.
            matmul: "exact", or on the CPU for float32 "bf16": with the weights of causal networks rounded to 8
                significant bits (docs/sequences.md). Rounding is part of the density, and files store whether weights
                are rounded.

        Raises:
            CudaUnavailable: there is no such device, or CuPy is not installed; the message gives the reason.
            ValueError: unknown products, "bf16" for float64 or on a device, a transform alone on a device, or a flow
                without kernels on the device: one with a spline or an inner flow as the map of a `CausalConvolution`.
        """
        if device == "cpu":
            return self._on(None, matmul)
        if not self._moves:
            raise ValueError(f"device: expected 'cpu', because transforms move with their flow, got {device!r}")
        other = self._on(device_named(device, check.choice("matmul", matmul, ("exact",))))
        _ = other._program  # compiled now: raises an error for flows without kernels, and takes memory
        return other

    def _place(self, device: Device | None, products: str = "exact") -> None:
        super()._place(device, check.choice("matmul", products, ("exact", "bf16")))


class OverTime(Sequential):
    """A transform that reads earlier steps; only a `SequenceFlow` with the transform in the chain computes it."""

    is_network = False  # whether the transform is a network, with context, covariates and a precision of products

    @property
    @abc.abstractmethod
    def field(self) -> int:
        """The number of earlier steps on which a step depends."""

    @abc.abstractmethod
    def _link(self, dtype: np.dtype[Any], products: str) -> Link:
        """The transform in the core's form, as a link of a chain; `products`: the precision of its products."""

    def _link_on(self, device: Device, dtype: np.dtype[Any]) -> Any:
        """The transform as a link of a chain on a device."""
        raise ValueError(f"transforms: expected transforms with kernels on a device, got {self!r}; call .to('cpu')")

    def _compile(self, dtype: np.dtype[Any]) -> Program:
        blocks = [[], [block for _, block in self._blocks()]]
        return SequenceProgram([self._link(dtype, self._products)], blocks, self._features, dtype)
