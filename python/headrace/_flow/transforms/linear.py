"""Linear maps by triangular factors, trained between networks or fixed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from headrace._base import arguments as check
from headrace._base.rng import Rng, takes_rng
from headrace._base.stored import Stored, storable
from headrace._base.types import Self
from headrace._core.settings import Settings
from headrace._core.steps import StepSpec
from headrace._core.structure import MaskedNetwork, Staircase
from headrace._flow.program.bias_table import BiasTable, Named
from headrace._flow.program.module import Block
from headrace._flow.transforms.restriction import Mixed
from headrace._flow.transforms.rotation import MOST_FEATURES, Matrix, square
from headrace._flow.transforms.transform import Transform


class _Triangle:
    """A unit triangular factor: the weights of a network without hidden layers, whose bias is fixed at zero."""

    def __init__(self, name: str, features: int, order: Sequence[int], unbiased: Sequence[int]) -> None:
        """`order`: the coordinates from first to last; each coordinate reads the coordinates before it."""
        settings = Settings(features=features, map="additive", scale="exp", reads="latent")
        options = {**settings.options(range(features), range(features)), "unbiased": list(unbiased)}
        levels = [0] * features
        for level, coordinate in enumerate(order, start=1):
            levels[coordinate] = level
        self.network = MaskedNetwork(options, Staircase(levels, []))
        self.name, self.features = name, features

    @property
    def size(self) -> int:
        return self.network.size

    def named(self, packed: NDArray[Any]) -> Named:
        return {self.name: self.network.unpack(packed)[0][0]}

    def pack_named(self, named: Named) -> NDArray[Any]:
        weight = named[self.name]
        return self.network.pack([weight], [np.zeros(self.features, weight.dtype)])


class _Diagonal(BiasTable):
    """The positive diagonal factor D: the raw scales of a network without inputs, whose shifts stay zero."""

    def named(self, packed: NDArray[Any]) -> Named:
        return {"log_diagonal": super().named(packed)["log_diagonal"]}

    def pack_named(self, named: Named) -> NDArray[Any]:
        return super().pack_named({"": np.zeros_like(named["log_diagonal"]), **named})


class _Last(_Triangle):
    """The factor L; the signed permutation P, which follows L, turns L's bias into the shift of the whole map."""

    def __init__(self, features: int, order: Sequence[int], signs: Sequence[int]) -> None:
        super().__init__("lower", features, range(features), ())
        self.order, self.signs = np.array(order), np.array(signs)

    def named(self, packed: NDArray[Any]) -> Named:
        weights, biases = self.network.unpack(packed)
        return {"lower": weights[0], "shift": biases[0][self.order] * self.signs.astype(packed.dtype)}

    def pack_named(self, named: Named) -> NDArray[Any]:
        shift = named["shift"]
        bias = np.empty_like(shift)
        bias[self.order] = shift * self.signs.astype(shift.dtype)
        return self.network.pack([named["lower"]], [bias])


@storable
class Linear(Transform):
    """x = P L D U z + shift: a linear map of all coordinates, trained between networks, or fixed.

    L is lower triangular and U upper triangular, both with ones on their diagonals, and D is diagonal and positive, so
    that every choice of parameters has an inverse (Kingma, Dhariwal 2018). The factor P is fixed: it changes the order
    of the coordinates, and may change signs, which some matrices need. A new `Linear` only reorders coordinates. Both
    directions apply one factor after another, with D² multiply-adds a row, and need no inverse matrix; log_det is the
    sum of the logarithms of D's diagonal.

    Args:
        features: The number of coordinates D; at most 8192.
        order: The permutation of P: x[i] = signs[i] · y[order[i]] + shift[i] with y = L D U z. The order is a
            permutation of 0, ..., D - 1, or "random", which draws one by the seed; by default ascending.
        seed: The seed of a random order.
        rng: A generator or seed in place of `seed`; see `Flow.sample`.
        dtype: "float32" or "float64".
        trainable: Whether the factors and the shift are parameters. If the factors are not trainable, results have the
            dtype of the argument, as for a `Rotation`, each factor is applied as one float64 matrix, and L and U are
            inverted once.

    The parameters are "upper" (D, D), U above its diagonal; "log_diagonal" (D,), the logarithms of D's diagonal;
    "lower" (D, D), L below its diagonal; and "shift" (D,). All other entries of the matrices stay zero, even if values
    are assigned to them.

    >>> import numpy as np, headrace as hr
    >>> t = hr.transforms.Linear.from_matrix([[0.0, 2.0], [1.0, 0.5]], dtype="float64")
    >>> x, log_det = t.forward(np.array([[1.0, 3.0]]))
    >>> x.round(12).tolist(), round(float(log_det[0]), 4)  # log 2
    ([[6.0, 2.5]], 0.6931)
    """

    order: tuple[int, ...]
    """The permutation of P: x[i] = signs[i] · y[order[i]] + shift[i]."""

    signs: tuple[int, ...]
    """The signs of P, 1 or -1; only `from_matrix` sets -1."""

    trainable: bool
    """Whether the factors and the shift are parameters."""

    @takes_rng
    def __init__(
        self,
        features: int,
        order: Sequence[int] | str | None = None,
        *,
        seed: int | Sequence[int] = 0,
        rng: Rng = None,
        dtype: DTypeLike = "float32",
        trainable: bool = True,
    ) -> None:
        n = check.integer("features", features, least=1, most=MOST_FEATURES)
        key = check.integers("seed", seed if np.iterable(seed) else (seed,))
        if isinstance(order, str):
            check.choice("order", order, ("random",))
            chosen = tuple(map(int, np.random.default_rng(list(key)).permutation(n)))
        else:
            chosen = check.permutation("order", range(n) if order is None else order, n)
        kind = check.float_dtype("dtype", dtype)
        square = np.zeros((n, n), kind)
        zeros = {"upper": square, "log_diagonal": np.zeros(n, kind), "lower": square, "shift": np.zeros(n, kind)}
        self._take(chosen, (1,) * n, zeros, bool(trainable))

    def _take(self, order: tuple[int, ...], signs: tuple[int, ...], named: Named, trainable: bool = True) -> None:
        n, dtype = len(order), named["shift"].dtype
        super().__init__(n, 0, dtype if trainable else None)
        self.order, self.signs, self.trainable = order, signs, trainable
        if not trainable:
            self._factors: tuple[Any, ...] = ()
            self._fixed = {name: np.array(array, np.float64) for name, array in named.items()}
            self._fixed |= {"upper": np.triu(self._fixed["upper"], 1), "lower": np.tril(self._fixed["lower"], -1)}
            for array in self._fixed.values():
                array.flags.writeable = False
            self._take_parameters(np.zeros(0, np.float32))
            return
        upper = _Triangle("upper", n, range(n - 1, -1, -1), range(n))
        diagonal = _Diagonal.of_lines(n, "", "log_diagonal", unbiased=list(range(0, 2 * n, 2)))
        self._factors = (upper, diagonal, _Last(n, order, signs))  # the factors in the order in which they act on z
        self._take_parameters(np.concatenate([factor.pack_named(named) for factor in self._factors]))

    @classmethod
    def from_matrix(
        cls, matrix: Any, shift: Any = 0.0, *, dtype: DTypeLike = "float32", trainable: bool = True
    ) -> Self:
        """The map x = A z + b, from Gaussian elimination with row pivoting.

        Args:
            matrix: The matrix A, shape (D, D), which must have an inverse.
            shift: The vector b, shape (D,), or one number for all coordinates.
            dtype: "float32" or "float64"; the factors must be representable in it.
            trainable: Whether the factors are parameters.

        Raises:
            TypeError: an argument is no array of numbers.
            ValueError: the matrix is not square or not finite, its condition number is beyond the resolution of the
                dtype, or its factors are beyond the range of the dtype.

        >>> import headrace as hr
        >>> a, b = hr.transforms.Linear.from_matrix([[0.0, -1.0], [1.0, 0.0]], [5.0, 6.0]).to_matrix()
        >>> a.tolist(), b.tolist()
        ([[0.0, -1.0], [1.0, 0.0]], [5.0, 6.0])
        """
        kind = check.float_dtype("dtype", dtype)
        regular = _regular("matrix", matrix, kind)
        n = len(regular)
        b = check.vector("shift", shift, n)
        rows, packed = _eliminated(regular)
        diagonal = np.diagonal(packed).copy()
        flips = np.where(diagonal < 0, -1, 1)
        # The signs S in A[rows] = L (S D) U are moved to the left of L by L S = S (S L S), and become a part of the
        # permutation.
        order = np.argsort(rows)
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):  # overflow is refused below
            named = {
                "upper": np.triu(packed / diagonal[:, None], 1).astype(kind),
                "log_diagonal": np.log(np.abs(diagonal)).astype(kind),
                "lower": (flips[:, None] * np.tril(packed, -1) * flips).astype(kind),
                "shift": b.astype(kind),
            }
        limits, sizes = np.finfo(kind), np.abs(diagonal)
        if not np.isfinite(named["shift"]).all():
            raise ValueError(f"shift: expected numbers that {kind} holds, got some that are larger")
        if not (np.isfinite(named["upper"]).all() and limits.tiny <= sizes.min() and sizes.max() <= limits.max):
            raise ValueError(f"matrix: expected one whose factors {kind} holds, got factors that overflow or underflow")
        self = cls.__new__(cls)
        self._take(tuple(map(int, order)), tuple(map(int, flips[order])), named, bool(trainable))
        error = float(np.abs(self.to_matrix()[0] - regular).max() / np.abs(regular).max())
        if not error <= float(limits.eps) ** 0.5:
            raise ValueError(
                "matrix: expected one that elimination with row pivoting takes apart to half of the digits of "
                f"{kind}, got one that comes back with an error of {error:.3g} of its largest number"
            )
        return self

    def to_matrix(self) -> tuple[Matrix, Matrix]:
        """``(A, b)`` in x = A z + b, shapes (D, D) and (D,), computed from the parameters in float64.

        >>> import headrace as hr
        >>> a, b = hr.transforms.Linear(2, order=[1, 0]).to_matrix()
        >>> a.tolist(), b.tolist()
        ([[0.0, 1.0], [1.0, 0.0]], [0.0, 0.0])
        """
        values = self.named_parameters() if self.trainable else self._fixed
        named = {name: value.astype(np.float64) for name, value in values.items()}
        identity = np.eye(self._features)
        product = (named["lower"] + identity) @ (np.exp(named["log_diagonal"])[:, None] * (named["upper"] + identity))
        return np.array(self.signs)[:, None] * product[list(self.order)] + 0.0, named["shift"]  # + 0 makes -0 to 0

    def _steps(self, inverted: bool = False) -> list[StepSpec]:
        n = self._features
        steps = [factor.network.step(inverted) for factor in self._factors]
        if not self.trainable:
            steps = self._fixed_steps(inverted)
        back = [int(i) for i in np.argsort(self.order)]
        if -1 in self.signs:  # signs of coordinates before the permutation, as 1 x 1 blocks
            signs = np.array([self.signs[i] for i in back], np.float64)
            steps.append(StepSpec("RotationStep", inverted=inverted, matrix=signs, blocks=[1] * n))
        if self.order != tuple(range(n)):
            steps.append(StepSpec("PermutationStep", order=back if inverted else list(self.order)))
        if not self.trainable and self._fixed["shift"].any():
            steps.append(_scaled(self._fixed["shift"], np.ones(n), inverted))
        return steps[::-1] if inverted else steps

    def _fixed_steps(self, inverted: bool) -> list[StepSpec]:
        """Products with the factors that are not the identity, as steps in the order in which they act on z."""
        n, identity = self._features, np.eye(self._features)
        steps = []
        for name in ("upper", "log_diagonal", "lower"):
            factor = self._fixed[name]
            if not factor.any():
                continue
            if name == "log_diagonal":
                # `math.exp` is the C library's function, which the readers of files in C and C++ also use.
                steps.append(_scaled(np.zeros(n), np.array([math.exp(value) for value in factor]), inverted))
                continue
            matrix = identity + factor
            back = _inverse_of_unit(matrix, is_lower=name == "lower")
            fields: dict[str, Any] = {"matrix": matrix.ravel(), "inverse": back.ravel(), "blocks": [n]}
            steps.append(StepSpec("RotationStep", inverted=inverted, **fields))
        return steps

    def _fixed_arrays(self) -> Named:
        return {} if self.trainable else self._fixed

    def _part(self, kept: tuple[int, ...]) -> Transform | None:
        """The part of a fixed map without reordering for the `kept` coordinates, if these depend on no others."""
        if self.trainable or self.order != tuple(range(self._features)):
            return super()._part(kept)
        matrix, shift = self.to_matrix()
        removed = [c for c in range(self._features) if c not in kept]
        for c in kept:
            needed = [other for other in removed if matrix[c, other]]
            if needed:
                raise Mixed(f"makes coordinate {c} from coordinate {needed[0]}")
        columns = list(kept)
        part = matrix[np.ix_(columns, columns)]
        if (np.diagonal(part) == 1.0).all() and not ((part - np.eye(len(part))) @ (part - np.eye(len(part)))).any():
            return Linear._shear(part, shift[columns])
        return Linear.from_matrix(part, shift[columns], dtype="float64", trainable=False)

    @classmethod
    def _shear(cls, matrix: Matrix, shift: Any = 0.0) -> Linear:
        """The fixed map of a matrix with a diagonal of ones in which no coordinate is both changed and read.

        If no coordinate is both changed and read, (1 + L) (1 + U) = 1 + L + U, whose inverse is 1 - L - U.
        """
        n = len(matrix)
        named = {"upper": np.triu(matrix, 1), "lower": np.tril(matrix, -1), "log_diagonal": np.zeros(n)}
        self = cls.__new__(cls)
        self._take(tuple(range(n)), (1,) * n, {**named, "shift": np.broadcast_to(shift, n)}, False)
        return self

    def _blocks(self) -> list[tuple[str, Block]]:
        return [("", factor) for factor in self._factors]

    def _header(self) -> dict[str, Any]:
        fixed = {} if self.trainable else {"trainable": False}
        return {"features": self._features, "order": list(self.order), "signs": list(self.signs), **fixed}

    @classmethod
    def _from_file(cls, stored: Stored) -> Self:
        n = stored.size("features", least=1)
        if n > MOST_FEATURES:
            raise ValueError(f"features: expected at most {MOST_FEATURES}, got {n}")
        signs = stored.items("signs")
        check.length("signs", signs, n)
        order = check.permutation("order", stored.items("order"), n)
        for i, sign in enumerate(signs):
            if type(sign) is not int or sign not in (1, -1):
                raise ValueError(f"signs[{i}]: expected 1 or -1, got {sign!r}")
        trainable = stored.flag("trainable", True)
        shapes = {"upper": (n, n), "log_diagonal": (n,), "lower": (n, n), "shift": (n,)}
        dtype = None if trainable else np.float64
        named = {name: stored.array(name, shape, dtype) for name, shape in shapes.items()}
        for name, array in named.items():
            if not trainable and not np.isfinite(array).all():
                raise ValueError(f"{name}: expected finite numbers, got NaN or an infinity")
        self = cls.__new__(cls)
        self._take(order, tuple(signs), named, trainable)
        return self

    def __repr__(self) -> str:
        """The size, the order if it is not ascending, and whether the map is fixed."""
        n = self._features
        order = "" if self.order == tuple(range(n)) else f", order={list(self.order)}"
        return f"Linear({n}{order}{'' if self.trainable else ', trainable=False'})"


def _scaled(mean: Matrix, std: Matrix, inverted: bool) -> StepSpec:
    return StepSpec("StandardizeStep", inverted=inverted, mean=mean.tolist(), std=std.tolist())


def _inverse_of_unit(matrix: Matrix, *, is_lower: bool) -> Matrix:
    """The inverse of a triangular matrix with ones on its diagonal, by substitution.

    If no coordinate is both changed and read, the inverse has the same entries with opposite signs, to the last bit.
    """
    n = len(matrix)
    inverse = np.eye(n)
    for i in range(n) if is_lower else range(n - 1, -1, -1):
        for k in range(i) if is_lower else range(i + 1, n):
            if matrix[i, k]:
                inverse[i] -= matrix[i, k] * inverse[k]  # terms in the order of cpp/c/lowered_file.cpp
    return inverse


def _regular(name: str, value: Any, dtype: np.dtype[Any]) -> Matrix:
    """A float64 copy of a matrix, checked to have an inverse that the dtype resolves."""
    matrix = square(name, value)
    if not np.isfinite(matrix).all():
        raise ValueError(f"{name}: expected finite numbers, got NaN or infinity")
    most = 1.0 / float(np.finfo(dtype).eps)
    largest = np.abs(matrix).max()
    condition = float(np.linalg.cond(matrix / largest)) if largest > 0 else np.inf
    if not condition < most:
        raise ValueError(f"{name}: expected a condition number below {most:.3g} for {dtype}, got {condition:.3g}")
    return matrix


def _eliminated(matrix: Matrix) -> tuple[NDArray[np.intp], Matrix]:
    """``(rows, factors)`` of matrix[rows] = L V: L is below the diagonal of `factors`, V on and above the diagonal."""
    a, n = matrix.copy(), len(matrix)
    rows = np.arange(n)
    for k in range(n):
        pivot = k + int(np.argmax(np.abs(a[k:, k])))
        if pivot != k:
            a[[k, pivot]], rows[[k, pivot]] = a[[pivot, k]], rows[[pivot, k]]
        if a[k, k] == 0.0:
            raise ValueError("matrix: expected a matrix with an inverse, got a singular one")
        a[k + 1 :, k] /= a[k, k]
        a[k + 1 :, k + 1 :] -= np.outer(a[k + 1 :, k], a[k, k + 1 :])
    return rows, a
