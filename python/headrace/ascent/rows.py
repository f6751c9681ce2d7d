"""What a dual ascent is made of rows: those to fit and those held out, standardised, with repeated values spread."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from headrace._arrays import caller as _arrays
from headrace._arrays.caller import Caller
from headrace._fit import rows as _rows
from headrace._fit.source import ArrayRows
from headrace.ascent.circles import off
from headrace.transforms.support import Support

if TYPE_CHECKING:
    from headrace.distributed.groups import Group

__all__ = ["Rows", "jittered", "off_support"]

Floats = NDArray[np.float64]

# By docs/notes/dual_ascent.md.
LOOKED_AT = 16_384  # rows in which repeated values are looked for
REPEATED = 0.01  # the share of them with the value of another from which a column is said to repeat
LEAST_SPREAD = 1e-3  # standard deviations over which its values are spread at least
FLAT = 1e-100  # below, in units of the deviation, a column has no spread

_SPREAD_SEED = 0x5EED  # of draws that no other draw depends on


@dataclass
class Rows:
    """Rows to fit and rows held out, with what standardises them."""

    data: _rows.Data
    train: NDArray[np.int64]
    held_out: _rows.Data | None
    mean: Floats
    std: Floats  # times √λ
    unit: float  # the base's standard deviation, 1/√λ
    device: Any  # as of a `Caller`
    seed: int
    dtype: np.dtype[Any]
    group: Group | None = None  # who has the other rows; see `headrace.distributed.ascent`

    @classmethod
    def of(
        cls,
        caller: Caller,
        x: NDArray[Any],
        context: Any,
        weights: Any,
        validation: Any,
        rng: Any,
        precision: float,
        seed: int = 0,
        dtype: Any = np.float64,
    ) -> Rows:
        """Of rows that are open. Columns without spread are warned of by name, and those whose values repeat."""
        if x.ndim != 2 or not x.shape[1]:
            raise ValueError(f"x: expected shape (rows, features) with at least one feature, got {x.shape}")
        rows, features = x.shape
        if rows == 0:
            raise ValueError(f"x: expected at least one row, got shape {x.shape}")
        _arrays.context_rows(context, rows, 0, "context", caller)
        with caller.queue():
            _rows.check_finite("x", x)
        counts = _arrays.row_weights("weights", weights, rows, caller, any_sum=True)[0]
        data = _rows.Data(x, None, _near_one(counts))
        source, judge = ArrayRows(data).split(validation, rng, caller)
        held_out = None
        if judge is not None:
            held_out = judge.data.rows(judge.part.all())
            held_out = _rows.Data(held_out.x, None, _near_one(held_out.weights))
        mean, std = source.moments(say=True)
        train = source.part.all()
        root = math.sqrt(precision)
        made = cls(data, train, held_out, mean, std * root, 1.0 / root, caller.device, seed, np.dtype(dtype))
        repeated = np.flatnonzero(made.spread)
        if repeated.size:
            warnings.warn(
                f"x: values repeat in {repeated.size} columns ({_listing(repeated)}); the fit spreads them "
                "between one value and the next, or over a thousandth of the standard deviation where that is more",
                RuntimeWarning,
                stacklevel=4,
            )
        return made

    @cached_property
    def _standard(self) -> tuple[Floats, NDArray[np.int64], Floats]:
        """Training rows, standardised; columns that have a spread; and over what width repeated values are spread."""
        z = self.standardised(self.data.x[self._index])
        low, high = (_arrays.on_host(edge) for edge in (z.min(axis=0), z.max(axis=0)))
        active = np.flatnonzero(high - low > FLAT)
        looked_at = _arrays.on_host(z[:: -(-len(z) // LOOKED_AT)])
        spread = np.zeros(z.shape[1])
        for k in active:
            spread[k] = self.unit * _spread(looked_at[:, k].astype(self.dtype).astype(np.float64) / self.unit)
        if spread.any():
            rng, library = np.random.default_rng([self.seed, _SPREAD_SEED]), _arrays.library(z)
            z += library.asarray(spread * (rng.random(z.shape) - 0.5))
        return z, active, spread

    @property
    def _index(self) -> Any:
        return _arrays.library(self.data.x).asarray(self.train)

    @property
    def count(self) -> int:
        """Training rows."""
        return int(self.train.size)

    @property
    def active(self) -> NDArray[np.int64]:
        """Columns with a spread: the others are shifted, and no more."""
        return self._standard[1]

    @property
    def spread(self) -> Floats:
        """Shape (features,): over what width repeated values of each column are spread; 0 where they do not repeat."""
        return self._standard[2]

    @property
    def z(self) -> Floats:
        """The training rows, standardised and spread."""
        return self._standard[0]

    @property
    def weights(self) -> NDArray[Any] | None:
        """Of the training rows."""
        return None if self.data.weights is None else self.data.weights[self._index]

    def given(self) -> NDArray[Any]:
        """The training rows in the data's units: as they were given, or spread."""
        if not self.spread.any():
            x: NDArray[Any] = self.data.x[self._index]
            return x
        asarray = _arrays.library(self.z).asarray
        spread: NDArray[Any] = self.z * asarray(self.std) + asarray(self.mean)
        return spread

    def with_noise_for_flat_columns(self, x: NDArray[Any]) -> NDArray[Any]:
        """Columns without spread as normal numbers of the variance that they are given: nothing can learn a spike."""
        flat = np.setdiff1d(np.arange(x.shape[1]), self.active)
        if flat.size:
            library, rng = _arrays.library(x), np.random.default_rng([self.seed, _SPREAD_SEED, 1])
            noise = self.mean[flat] + self.std[flat] * self.unit * rng.standard_normal((len(x), flat.size))
            x[:, library.asarray(flat)] = library.asarray(noise.astype(x.dtype))
        return x

    def to_refine(self, copies: int, jitter: float, rng: np.random.Generator) -> tuple[Any, Any, Any]:
        """What a joint training takes: rows, so many copies of them with noise, weights, and rows to judge by."""
        x, weights = self.given(), self.weights
        if copies:
            x, weights = jittered(x, weights, copies, jitter * self.std * self.unit, rng)
        x = self.with_noise_for_flat_columns(x)
        held_out = None if self.held_out is None else (self.held_out.x, None, self.held_out.weights)
        return x, weights, held_out

    def standardised(self, x: NDArray[Any]) -> Floats:
        """As the flow's last transform does it, in float64."""
        asarray = _arrays.library(x).asarray
        z: Floats = x.astype(np.float64)
        z -= asarray(self.mean)
        z /= asarray(self.std)
        return z


def off_support(
    ends: Sequence[Support], x: NDArray[Any], validation: Any, caller: Caller, names: tuple[str, ...]
) -> tuple[NDArray[Any], Any]:
    """Rows to fit and rows to hold out as unbounded numbers, float64; others go through, as what comes next refuses.

    `ends`: from latent to data, see `AscentFlow`.
    """
    support = ends[-1]

    def taken(name: str, array: NDArray[Any]) -> NDArray[Any]:
        if array.ndim != 2 or array.shape[1] != support.features or not np.isfinite(array).all():
            return array
        _rows.check_inside(name, array, support, names)
        return off(ends if caller.device is None else [end.to(repr(caller.device)) for end in ends], array)

    if validation is not None and not _rows.is_share(validation):
        parts = validation if isinstance(validation, tuple) else (validation,)
        if parts and _arrays.is_array(parts[0]):
            validation = (taken("validation x", caller.open("validation x", parts[0])), *parts[1:])
    return taken("x", x), validation


def _near_one(weights: NDArray[Any] | None) -> NDArray[Any] | None:
    """The same weights times a power of two that makes the largest of them about 1, so that any dtype holds them."""
    if weights is None:
        return None
    return np.ldexp(weights.astype(np.float64), -int(np.frexp(float(weights.max()))[1]))


def _spread(x: Floats) -> float:
    """Over what width numbers of variance 1 are to be spread: 0 where few of them repeat.

    The least distance between two of them, which is their step if they have one; from LEAST_SPREAD to 1.
    """
    steps = np.diff(np.sort(x))
    if (steps == 0).sum() <= REPEATED * x.size:
        return 0.0
    return min(max(float(steps[steps > 0].min(initial=1.0)), LEAST_SPREAD), 1.0)


def jittered(
    x: NDArray[Any], weights: NDArray[Any] | None, copies: int, spread: Any, rng: np.random.Generator
) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """So many copies of rows, each with noise of its own."""
    many = np.tile(x, (copies, 1))
    many += _arrays.library(x).asarray((spread * rng.standard_normal(many.shape)).astype(x.dtype))
    return many, None if weights is None else np.tile(weights, copies)


def _listing(numbers: NDArray[Any]) -> str:
    return ", ".join(map(str, numbers[:5])) + (", ..." if len(numbers) > 5 else "")
