"""The base of modules over time: sizes beyond those of rows, and refused devices."""

from __future__ import annotations

from typing import Any

import numpy as np

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
        """A copy on the CPU, the only device for sequences, with exact products.

        Raises:
            ValueError: another device or other products.
        """
        if device != "cpu" or matmul != "exact":
            raise ValueError(
                f"device, matmul: expected 'cpu' and 'exact' for {type(self).__name__}, as sequences are computed on "
                f"the CPU alone, got {device!r} and {matmul!r}"
            )
        return self.__copy__()
