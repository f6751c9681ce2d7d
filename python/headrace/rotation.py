"""Rotations: products with an orthogonal matrix."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from headrace import _arguments as check
from headrace._stored import Stored, storable
from headrace.transforms import _Fixed

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Rotation"]

MOST_FEATURES = 2**13  # the matrix of more takes half a gigabyte


@storable
class Rotation(_Fixed):
    """x = Q z with an orthogonal matrix Q (a reflection counts too); log_det is 0.

    The matrix is no trainable parameter. It is kept in float64.

    Args:
        matrix: Shape (features, features), with QᵀQ the identity within 1e-6.

    >>> import numpy as np, headrace as hr
    >>> hr.Rotation([[0.0, -1.0], [1.0, 0.0]]).forward(np.array([[2.0, 3.0]]))[0].tolist()
    [[-3.0, 2.0]]
    """

    def __init__(self, matrix: Any) -> None:
        """See the class."""
        self.matrix = _orthogonal(matrix)
        super().__init__(len(self.matrix))

    @classmethod
    def random(cls, features: int, seed: Any = None) -> Self:
        """A matrix drawn evenly from all orthogonal ones (Haar's measure).

        >>> import headrace as hr
        >>> hr.Rotation.random(3, seed=0).features
        3
        """
        n = check.integer("features", features, least=1, most=MOST_FEATURES)
        q, r = np.linalg.qr(np.random.default_rng(seed).standard_normal((n, n)))
        return cls(q * np.where(np.diagonal(r) < 0, -1.0, 1.0))  # of a QR with a positive diagonal

    def _steps(self, inverted: bool = False) -> list[tuple[Any, ...]]:
        return [("rotation", inverted, self.matrix)]

    def _header(self) -> dict[str, Any]:
        return {"features": self._features, "matrix": self.matrix.ravel().tolist()}

    @classmethod
    def _from_file(cls, stored: Stored) -> Self:
        features, numbers = stored.size("features", least=1), stored.items("matrix")
        check.length("matrix", numbers, features * features)
        return cls(np.reshape(check.vector("matrix", numbers, features * features), (features, features)))

    def __repr__(self) -> str:
        """The size."""
        return f"Rotation({self._features} x {self._features})"


def _orthogonal(value: Any) -> NDArray[np.float64]:
    """A read-only float64 copy, checked."""
    given = np.asarray(value)
    if given.dtype.kind not in "fiu":
        raise TypeError(f"matrix: expected an array of numbers, got {check.kind_of(value)} of {given.dtype}")
    if given.ndim != 2 or given.shape[0] != given.shape[1] or not 1 <= given.shape[0] <= MOST_FEATURES:
        raise ValueError(f"matrix: expected shape (n, n) with n from 1 to {MOST_FEATURES}, got {given.shape}")
    matrix = np.array(given, np.float64)
    error = np.abs(matrix.T @ matrix - np.eye(len(matrix))).max()
    if not error <= 1e-6:  # a NaN is no orthogonal matrix either
        raise ValueError(f"matrix: expected an orthogonal matrix, got one with QᵀQ off the identity by {error:.3g}")
    matrix.flags.writeable = False
    return matrix
