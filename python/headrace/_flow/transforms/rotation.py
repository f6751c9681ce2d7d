"""Rotations: products with an orthogonal matrix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace._base import arguments as check
from headrace._base import array_errors as errors
from headrace._base.rng import Rng, takes_rng
from headrace._base.stored import Stored, storable
from headrace._base.types import Self
from headrace._core.steps import StepSpec
from headrace._flow.transforms.fixed import Fixed

MOST_FEATURES = 2**13  # a matrix of this size takes half a gigabyte

Matrix = NDArray[np.float64]


@storable
class Rotation(Fixed):
    """x = Q z with an orthogonal matrix Q, which may be a reflection; log_det is 0.

    The matrix is kept in float64 and is not trainable.

    A block diagonal rotation (`from_blocks`) costs one multiply-add a row for each entry of its blocks. A `Permutation`
    between two block diagonal rotations lets all coordinates mix.

    Args:
        matrix: Shape (features, features), with QᵀQ the identity within 1e-6; at most 8192 features.

    >>> import numpy as np, headrace as hr
    >>> hr.transforms.Rotation([[0.0, -1.0], [1.0, 0.0]]).forward(np.array([[2.0, 3.0]]))[0].tolist()
    [[-3.0, 2.0]]
    """

    blocks: tuple[Matrix, ...]
    """The read-only blocks on the diagonal; a single block is the whole matrix."""

    def __init__(self, matrix: Any) -> None:
        self._take((_orthogonal("matrix", matrix),))

    @classmethod
    def from_blocks(cls, blocks: Sequence[Any]) -> Self:
        """A rotation with a block diagonal matrix.

        Args:
            blocks: Orthogonal matrices of any sizes, in the order of the coordinates.

        >>> import numpy as np, headrace as hr
        >>> t = hr.transforms.Rotation.from_blocks([[[0.0, -1.0], [1.0, 0.0]], [[1.0]]])
        >>> t.forward(np.array([[2.0, 3.0, 4.0]]))[0].tolist()
        [[-3.0, 2.0, 4.0]]
        """
        if isinstance(blocks, (str, bytes)) or not np.iterable(blocks):
            raise TypeError(f"blocks: expected a sequence of matrices, got {check.kind_of(blocks)}")
        matrices = tuple(_orthogonal(f"blocks[{i}]", block) for i, block in enumerate(blocks))
        features = sum(map(len, matrices))
        if not 1 <= features <= MOST_FEATURES:
            raise ValueError(f"blocks: expected from 1 to {MOST_FEATURES} features in all, got {features}")
        self = cls.__new__(cls)
        self._take(matrices)
        return self

    @classmethod
    @takes_rng
    def random(cls, features: int, seed: Any = None, *, rng: Rng = None, block: int | None = None) -> Self:
        """A rotation by a random orthogonal matrix, uniformly distributed (Haar's measure).

        Args:
            features: The number of rows of the matrix.
            seed: The seed of the draw: an argument of `numpy.random.default_rng`.
            block: The number of rows of each block of a block diagonal matrix, where the last block may have fewer;
                None for one block.

        >>> import headrace as hr
        >>> hr.transforms.Rotation.random(3, seed=0).features
        3
        >>> hr.transforms.Rotation.random(200, seed=0, block=32)
        Rotation(200 x 200, 7 blocks)
        """
        n = check.integer("features", features, least=1, most=MOST_FEATURES)
        width = n if block is None else check.integer("block", block, least=1)
        rng = np.random.default_rng(seed)
        return cls.from_blocks([_haar(min(width, n - start), rng) for start in range(0, n, width)])

    def _take(self, blocks: tuple[Matrix, ...]) -> None:
        self.blocks = blocks
        super().__init__(sum(map(len, blocks)))

    @property
    def matrix(self) -> Matrix:
        """The matrix with all blocks, shape (features, features), read-only."""
        return self.blocks[0] if len(self.blocks) == 1 else matrix_of(self._numbers(), self._sizes())

    def _numbers(self) -> Matrix:
        """The entries of all blocks, row by row, one block after another."""
        return np.concatenate([block.ravel() for block in self.blocks])

    def _sizes(self) -> list[int]:
        return [len(block) for block in self.blocks]

    def _steps(self, inverted: bool = False) -> list[StepSpec]:
        return [StepSpec("RotationStep", inverted=inverted, matrix=self._numbers(), blocks=self._sizes())]

    def _fixed_arrays(self) -> dict[str, NDArray[Any]]:
        return {"blocks": self._numbers()}

    def _header(self) -> dict[str, Any]:
        return {"features": self._features, "blocks": self._sizes()}

    @classmethod
    def _from_file(cls, stored: Stored) -> Self:
        features = stored.size("features", least=1)
        if stored.has("matrix"):  # files of version 0.3.0 have the matrix in the header
            numbers = stored.numbers("matrix")
            check.length("matrix", numbers, features * features)
            return cls(np.reshape(check.vector("matrix", numbers, features * features), (features, features)))
        sizes = check.integers("blocks", stored.items("blocks"), least=1, most=MOST_FEATURES)
        if sum(sizes) != features:
            raise ValueError(f"blocks: expected sizes that add up to {features}, got {sum(sizes)}")
        ends = np.cumsum([size * size for size in sizes])
        parts = np.split(stored.array("blocks", (int(ends[-1]),), np.float64), ends[:-1])
        return cls.from_blocks([part.reshape(size, size) for part, size in zip(parts, sizes, strict=True)])

    def __repr__(self) -> str:
        """The size, and the number of blocks if there are several."""
        blocks = f", {len(self.blocks)} blocks" if len(self.blocks) > 1 else ""
        return f"Rotation({self._features} x {self._features}{blocks})"


def matrix_of(numbers: NDArray[Any], sizes: Sequence[int]) -> Matrix:
    """The read-only matrix of blocks whose entries are in `numbers` row by row, one block after another."""
    whole, start, at = np.zeros((sum(sizes), sum(sizes))), 0, 0
    for size in sizes:
        whole[at : at + size, at : at + size] = numbers[start : start + size * size].reshape(size, size)
        start, at = start + size * size, at + size
    whole.flags.writeable = False
    return whole


def _haar(n: int, rng: np.random.Generator) -> Matrix:
    q, r = np.linalg.qr(rng.standard_normal((n, n)))
    return q * np.where(np.diagonal(r) < 0, -1.0, 1.0)  # Q is unique if R's diagonal is positive


def square(name: str, value: Any) -> Matrix:
    """A float64 copy of a square matrix, whose shape and size are checked."""
    matrix = np.asarray(value)
    if matrix.dtype.kind not in "fiu":
        raise TypeError(f"{name}: expected an array of numbers, got {check.kind_of(value)} of {matrix.dtype}")
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not 1 <= matrix.shape[0] <= MOST_FEATURES:
        raise errors.wrong_shape(name, f"(n, n) with n from 1 to {MOST_FEATURES}", matrix.shape)
    return np.array(matrix, np.float64)


def _orthogonal(name: str, value: Any) -> Matrix:
    """A read-only float64 copy of a matrix, checked to be orthogonal."""
    matrix = square(name, value)
    with np.errstate(over="ignore", invalid="ignore"):  # infinite and NaN errors are refused
        error = np.abs(matrix.T @ matrix - np.eye(len(matrix))).max()
    if not error <= 1e-6:  # this also refuses NaN
        raise ValueError(f"{name}: expected an orthogonal matrix, got one with QᵀQ off the identity by {error:.3g}")
    matrix.flags.writeable = False
    return matrix
