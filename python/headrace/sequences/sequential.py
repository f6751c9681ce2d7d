"""The base of modules over time: sizes beyond those of rows, and refused devices."""

from __future__ import annotations

from typing import Any

import numpy as np

from headrace import _arguments as check
from headrace._core.device import Device
from headrace._module import Parametrised

__all__ = ["Sequential"]


class Sequential(Parametrised):
    """A module on sequences: sizes beyond those of rows, and refusals."""

    def __init__(self, features: int, context: int, covariates: int, hop: int, dtype: np.dtype[Any]) -> None:
        """Store sizes; a subclass then calls `_take_parameters`."""
        super().__init__(features, context, dtype)
        self._covariates, self._hop = covariates, hop

    @property
    def covariates(self) -> int:
        """Number of columns that are known of time, 0 for none."""
        return self._covariates

    @property
    def hop(self) -> int:
        """Steps from one row of the covariates to the next."""
        return self._hop

    def to(self, device: str, matmul: str = "exact") -> Any:
        """A copy on the CPU, the only device for sequences.

        Args:
            device: "cpu".
            matmul: "exact", or for float32 "bf16": with the weights of causal networks rounded to 8 significant bits
                (docs/sequences.md). It belongs to the density and is kept in files.

        Raises:
            ValueError: another device, other products, or "bf16" for float64.
        """
        if device != "cpu":
            raise ValueError(
                f"device: expected 'cpu' for {type(self).__name__}, because sequences are computed on the CPU alone, "
                f"got {device!r}"
            )
        return self._on(None, matmul)

    def _place(self, device: Device | None, products: str = "exact") -> None:
        super()._place(device, check.choice("matmul", products, ("exact", "bf16")))
