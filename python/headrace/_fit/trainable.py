"""What a fit needs of a flow: the one place where the two meet."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["Trainable"]


class Trainable(Protocol):
    """A flow, as a fit sees it; `headrace.flow.Flow` is one."""

    parameters: Any
    _chain: tuple[Any, ...]  # its transforms, whose last may be a Standardize to be set
    _program: Any  # compiled anew by _rescale
    _device: Any  # None: on the CPU
    _caller: Any

    @property
    def features(self) -> int:
        """Number of coordinates."""

    @property
    def context(self) -> int:
        """Number of context columns."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of parameters and results."""

    @property
    def standardize_context(self) -> Any:
        """Mean and standard deviation of context columns, or None."""

    def log_prob(self, x: Any, context: Any = None, *, parameters: Any = None) -> Any:
        """Log density of each row."""

    def _blocks(self) -> list[tuple[str, Any]]:
        """Prefixes and blocks of the parameters, in the order of the vector."""

    def _vector(self) -> NDArray[Any]:
        """The parameters on the host, a copy."""

    def _rescale(self, links: Any, context: Any, parameters: Any = None) -> None:
        """Standardise data or context from now on."""
