"""Fixed marginal splines, whose inverse maps each data column to an approximately normal distribution."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace._base import arguments as check
from headrace._base import array_errors as errors
from headrace._base.stored import Stored, storable
from headrace._base.types import Floats, Self
from headrace._core.maps import MAPS, interval_of
from headrace._core.settings import Settings
from headrace._core.steps import StepSpec
from headrace._flow.program.bias_table import unread
from headrace._flow.transforms.elementwise import Elementwise
from headrace._flow.transforms.fixed import Fixed, Standardize
from headrace._flow.transforms.transform import Transform

LEAST = 1e-6  # the least distance of knots as a share of their range, and the least slope in units of ranges
MOST_KNOTS = 65

# The settings of the spline that a file stores, under the names that `Elementwise` has.
_KEYS = ("map", "scale", "slope", "bins", "bound", "min_bin", "formula")


@storable
class Gaussianize(Fixed):
    """A map of each column by an increasing curve through given points, without trainable parameters.

    The curve from data to latent (`inverse`) passes the points (data, latent) with the slopes `slopes`: between two
    points the curve is a rational quadratic function (Gregory and Delbourgo 1982, as in Durkan et al. 2019, eq. 4), and
    beyond the outermost points a straight line. With points at quantiles of a column and of N(0, 1), the column's
    latent distribution is about normal: marginal Gaussianization (Chen and Gopinath 2000). `Flow.fit` puts a
    `Gaussianize` before `Standardize` if the loss on held-out rows improves.

    Args:
        data: Shape (features, knots), ascending in each row, with 3 to 65 knots.
        latent: Shape (knots,), ascending; the values are the same for all columns.
        slopes: Shape (features, knots), positive: d latent / d data at the knots.

    Raises:
        ValueError: shapes are wrong; knots do not ascend, or two knots are closer than 2e-6 of their range; or slopes
            are not positive.

    >>> import numpy as np, headrace as hr
    >>> t = hr.transforms.Gaussianize([[0.0, 1.0, 4.0]], [-1.0, 0.0, 1.0], [[1.0, 0.5, 0.25]])
    >>> z, log_det = t.inverse(np.array([[0.0], [4.0], [8.0]]))
    >>> z.ravel().round(6).tolist()
    [-1.0, 1.0, 2.0]
    """

    def __init__(self, data: Any, latent: Any, slopes: Any) -> None:
        self.latent = check.vector("latent", latent, None)
        self.data = _matrix("data", data, self.latent.size)
        self.slopes = _matrix("slopes", slopes, self.latent.size)
        if not 3 <= self.latent.size <= MOST_KNOTS:
            raise ValueError(f"latent: expected from 3 to {MOST_KNOTS} knots, got {self.latent.size}")
        if self.slopes.shape != self.data.shape:
            raise errors.wrong_shape("slopes", f"{self.data.shape}, as data", self.slopes.shape)
        for name, knots in (("data", self.data), ("latent", self.latent[None])):
            gaps = np.diff(knots, axis=1)
            short = (gaps <= 2 * LEAST * np.abs(knots[:, -1:] - knots[:, :1])).any(axis=1)
            if short.any():
                worst = int(np.argmax(short))
                raise ValueError(
                    f"{name}: expected knots that ascend, at least {2 * LEAST:g} of their range apart, got "
                    f"{knots[worst].tolist()} in row {worst}"
                )
        if not (self.slopes > 0).all():
            raise ValueError(f"slopes: expected positive numbers, got {self.slopes.min()}")
        low, high = self.latent[0], self.latent[-1]
        std = (self.data[:, -1] - self.data[:, 0]) / (high - low)
        bins = self.latent.size - 1
        shares = [np.diff(knots, axis=1) / (knots[:, -1:] - knots[:, :1]) for knots in (self.data, self.latent[None])]
        width, height = (np.log((share - LEAST) / (1 - bins * LEAST)) for share in shares)
        slope = np.maximum(self.slopes * std[:, None], 2 * LEAST) - LEAST
        raw = {
            "width": width,
            "height": np.tile(height, (len(self.data), 1)),
            "derivative": slope + np.log(-np.expm1(-slope)),  # softplus of this value is the slope
        }
        self._take((float(low), float(high)), Standardize(self.data[:, 0] - std * low, std), raw)

    def _take(self, ends: tuple[float, float], scale: Standardize, raw: dict[str, Floats]) -> None:
        """Store a spline between `ends`, by raw parameters of shape (features, values), and its affine map to data."""
        self._scale, self._raw = scale, raw
        self._settings = Settings(
            features=scale.features,
            map="rq_spline_free",
            formula="to_latent",
            bins=raw["width"].shape[1],
            bound=ends,
            min_bin=LEAST,
            slope=LEAST,
        )
        super().__init__(scale.features)

    def _steps(self, inverted: bool = False) -> list[StepSpec]:
        raw = np.concatenate(list(self._raw.values()), axis=1).ravel()
        steps = [
            StepSpec("MarginalStep", inverted=inverted, transform=unread(self._settings), parameters=raw.tolist()),
            *self._scale._steps(inverted),
        ]
        return steps[::-1] if inverted else steps

    def trained(self, dtype: Any) -> tuple[Elementwise, Standardize]:
        """The spline as a transform with trained parameters, and the fixed map from the spline to data."""
        spline = {key: value for key, value in self._settings.header().items() if key in _KEYS}
        return Elementwise._of(self._raw, dtype=dtype, **spline), self._scale

    def _part(self, kept: tuple[int, ...]) -> Transform:
        columns = list(kept)
        return self._of(
            interval_of(self._settings.map, self._settings.bound),
            Standardize(self._scale.mean[columns], self._scale.std[columns]),
            {name: array[columns] for name, array in self._raw.items()},
        )

    @classmethod
    def _of(cls, ends: tuple[float, float], scale: Standardize, raw: dict[str, Floats]) -> Self:
        """A transform from the arguments of `_take`; the knots are computed from the raw parameters."""
        self = cls.__new__(cls)
        low, high = ends
        bins = raw["width"].shape[1]

        def knots(parts: Floats) -> Floats:
            shares = np.exp(parts - parts.max(axis=1, keepdims=True))
            shares = LEAST + (1 - bins * LEAST) * shares / shares.sum(axis=1, keepdims=True)
            return low + (high - low) * np.concatenate([np.zeros((len(parts), 1)), np.cumsum(shares, axis=1)], axis=1)

        self.data = scale.mean[:, None] + scale.std[:, None] * knots(raw["width"])
        self.latent = knots(raw["height"][:1])[0]
        self.slopes = (LEAST + np.logaddexp(0.0, raw["derivative"])) / scale.std[:, None]
        for array in (self.data, self.latent, self.slopes):
            array.flags.writeable = False
        self._take(ends, scale, raw)
        return self

    def _fixed_arrays(self) -> dict[str, NDArray[Any]]:
        return self._raw

    def _header(self) -> dict[str, Any]:
        scale = {"mean": self._scale.mean.tolist(), "std": self._scale.std.tolist()}
        own = self._settings.header()
        return {"features": self._features, **scale, **{key: own[key] for key in _KEYS}}

    @classmethod
    def of_file(cls, bound: Any, raw: dict[str, Floats]) -> Self:
        """A transform from a file's raw parameters, whose affine map from the spline to data is the identity."""
        n = len(raw["width"])
        return cls._of(interval_of("rq_spline_free", bound), Standardize(np.zeros(n), np.ones(n)), raw)

    @classmethod
    def _from_file(cls, stored: Stored) -> Self:
        n = stored.size("features", least=1)
        mean, std = (check.vector(name, stored.numbers(name), n, positive=name == "std") for name in ("mean", "std"))
        settings = Settings(features=n, **{key: stored.take(key) for key in _KEYS})
        expected = {"map": "rq_spline_free", "formula": "to_latent", "min_bin": LEAST, "slope": LEAST}
        for key, value in expected.items():
            if getattr(settings, key) != value:
                raise ValueError(f"{key}: expected {value!r} of a Gaussianize, got {getattr(settings, key)!r}")
        groups = MAPS[settings.map].groups(settings.bins)
        raw = {name: stored.array(name, (n, size), np.float64) for name, size in groups.items()}
        for name, array in raw.items():
            if not (np.abs(array) <= np.finfo(stored.dtype or np.float64).max).all():
                raise ValueError(f"{name}: expected finite numbers of the file's dtype, got {np.abs(array).max():g}")
        if (raw["height"] != raw["height"][:1]).any():
            raise ValueError("height: expected the same numbers for all columns")
        return cls._of(interval_of(settings.map, settings.bound), Standardize(mean, std), raw)

    def __repr__(self) -> str:
        """The class name and the numbers of columns and of knots."""
        return f"Gaussianize({self._features} columns, {self.latent.size} knots)"


def _matrix(name: str, value: Any, knots: int) -> Floats:
    try:
        matrix = np.array(value, np.float64)
    except (TypeError, ValueError):
        raise TypeError(f"{name}: expected a matrix of numbers, got {check.kind_of(value)}") from None
    if matrix.ndim != 2 or not len(matrix) or matrix.shape[1] != knots:
        raise errors.wrong_shape(name, f"(features, {knots})", matrix.shape)
    if not np.isfinite(matrix).all():
        raise ValueError(f"{name}: expected finite numbers, got NaN or an infinity")
    matrix.flags.writeable = False
    return matrix
