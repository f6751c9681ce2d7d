"""Rows of a dual ascent: those to fit and those held out, standardised, with repeated values spread."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace._arrays import caller as _arrays
from headrace._arrays.caller import Caller
from headrace._base import array_errors as errors
from headrace._base.types import Floats
from headrace._fit import given_rows as _rows
from headrace._fit.source import ArrayRows, RowSource, Shard
from headrace._flow.transforms.support import Support
from headrace.ascent.periodic import off

Parts = list[tuple[Any, Any]]
"""Rows and their weights, None for 1 each, part by part."""

# Defaults of docs/notes/dual_ascent.md.
LOOKED_AT = 16_384  # rows in which repeated values are looked for
REPEATED = 0.01  # the share of them with another row's value from which a column counts as repeating
LEAST_SPREAD = 1e-3  # standard deviations over which its values are spread at least
FLAT = 1e-100  # below, in units of the deviation, a column has no spread

_SPREAD_SEED = 0x5EED  # of draws on which no other draw depends
_COPIES, _NOISE = 0xC09E, 0x2015  # distinguish draws from others of the same seed


class StandardisedRows:
    """Rows to fit and rows held out, in parts, with their standardisation.

    Rows of one process are one part, those of a group a part for each shard that this rank holds.
    """

    def __init__(
        self,
        source: RowSource,
        judge: RowSource | None,
        precision: float,
        seed: int = 0,
        dtype: Any = np.float64,
        device: Any = None,
    ) -> None:
        """Columns without spread are warned of by name, and those with repeated values; `device`: as of a `Caller`."""
        root = math.sqrt(precision)
        self.source, self.judge, self.seed, self.dtype, self.device = source, judge, seed, np.dtype(dtype), device
        self.unit = 1.0 / root
        """The base's standard deviation, 1/√λ."""
        mean, std = source.moments(say=source.is_first)
        self.mean, self.std = mean, std * root
        self.own = self._taken(source)
        """Rows to fit, standardised and spread, and weights."""
        self.others = [] if judge is None else self._taken(judge)
        self._find_repeated()

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
    ) -> StandardisedRows:
        """Rows of one process from opened arrays."""
        if x.ndim != 2 or not x.shape[1]:
            raise errors.wrong_shape("x", "(rows, features) with at least one feature", x.shape)
        rows = x.shape[0]
        if rows == 0:
            raise ValueError(f"x: expected at least one row, got shape {x.shape}")
        _arrays.context_rows(context, rows, 0, "context", caller)
        with caller.queue():
            _rows.check_finite("x", x)
        counts = _arrays.row_weights("weights", weights, rows, caller, any_sum=True)[0]
        if counts is not None:
            counts = _near_one(counts, float(counts.max()))
        source, judge = ArrayRows(_rows.Data(x, None, counts)).split(validation, rng, caller)
        return cls(source, judge, precision, seed, dtype, caller.device)

    @property
    def group(self) -> Any:
        """The group with the other rows; None for a fit of one process."""
        return self.source.group

    @property
    def count(self) -> int:
        """Rows to fit, of all processes."""
        return self.source.size

    def _taken(self, source: RowSource) -> Parts:
        """Standardised rows with weights, of which the largest is about 1, so that any dtype holds them."""
        blocks = list(source.blocks())
        known = [float(w.max()) for data in blocks if (w := data.weights) is not None and len(w)]
        largest = float(source.maximum(np.array([max(known, default=0.0)]))[0])
        weights = [None if data.weights is None else _near_one(data.weights, largest) for data in blocks]
        return [(self.standardised(data.x), own) for data, own in zip(blocks, weights, strict=True)]

    def _rng(self, what: tuple[int, ...], shard: Shard) -> np.random.Generator:
        """The generator for the rows of a shard; in a group that of each shard differs."""
        return np.random.default_rng([self.seed, *what, *(() if self.group is None else (shard.number,))])

    def _find_repeated(self) -> None:
        """Find columns with a spread, and spread repeated values."""
        n = len(self.mean)
        ends = np.full((2, n), -np.inf)
        for z, _ in self.own:
            if len(z):
                ends = np.maximum(ends, np.stack([-_arrays.on_host(z.min(axis=0)), _arrays.on_host(z.max(axis=0))]))
        less, most = self.source.maximum(ends)
        self.active = np.flatnonzero(most + less > FLAT)
        """Columns with a spread; the others are only shifted."""
        places = np.arange(0, self.count, -(-self.count // LOOKED_AT))
        looked_at = self.source.picked(places, [z for z, _ in self.own])
        self.spread = np.zeros(n)
        """Shape (features,): the width over which repeated values of each column are spread; 0 without repeats."""
        for k in self.active:
            column = looked_at[:, k].astype(self.dtype).astype(np.float64) / self.unit
            self.spread[k] = self.unit * _spread(column)
        repeated = np.flatnonzero(self.spread)
        if not repeated.size:
            return
        for shard, (z, _) in zip(self.source.shards, self.own, strict=True):
            drawn = self._rng((_SPREAD_SEED,), shard).random(z.shape)
            z += _arrays.library(z).asarray(self.spread * (drawn - 0.5))
        if self.source.is_first:
            warnings.warn(
                f"x: values repeat in {repeated.size} columns ({_listing(repeated)}); the fit spreads them "
                "between one value and the next, or over a thousandth of the standard deviation where that is more",
                RuntimeWarning,
                stacklevel=5,
            )

    def given(self) -> list[NDArray[Any]]:
        """The rows to fit in the data's units, part by part, as given or spread."""
        if self.group is None and not self.spread.any():
            return [data.x for data in self.source.blocks()]
        return [z * _arrays.library(z).asarray(self.std) + _arrays.library(z).asarray(self.mean) for z, _ in self.own]

    def held_out(self) -> list[NDArray[Any]]:
        """The rows held out as they were given, part by part."""
        return [] if self.judge is None else [data.x for data in self.judge.blocks()]

    def to_refine(self, copies: int, jitter: float, rng: np.random.Generator) -> tuple[Any, Any, Any]:
        """The arguments of a joint training: rows, with `copies` noisy copies of each, weights, and rows to judge by.

        Columns without spread become normal noise of a given variance, because no network can learn a spike. In a
        group each shard has its own draws.
        """
        flat = np.setdiff1d(np.arange(len(self.mean)), self.active)
        rows = []
        for shard, x, (_, weights) in zip(self.source.shards, self.given(), self.own, strict=True):
            if copies:
                own = rng if self.group is None else self._rng((_COPIES,), shard)
                x, weights = jittered(x, weights, copies, jitter * self.std * self.unit, own)
            if flat.size:
                own = self._rng((_SPREAD_SEED, 1) if self.group is None else (_NOISE,), shard)
                noise = self.mean[flat] + self.std[flat] * self.unit * own.standard_normal((len(x), flat.size))
                library = _arrays.library(x)
                x[:, library.asarray(flat)] = library.asarray(noise.astype(x.dtype))
            rows.append((x, weights))
        judge = None
        if self.judge is not None:
            held = self.held_out()
            judge = self._as_given(self.judge, held), None, self._weights(self.judge, self.others)
        return self._as_given(self.source, [x for x, _ in rows]), self._weights(self.source, rows), judge

    def _as_given(self, source: RowSource, parts: list[Any]) -> Any:
        """Parts as `Flow.fit` takes them."""
        if self.group is None:
            return parts[0]
        pairs = zip(source.shards, parts, strict=True)
        return {shard.number: part for shard, part in pairs if part is not None}

    def _weights(self, source: RowSource, parts: Parts) -> Any:
        found = self._as_given(source, [weights for _, weights in parts])
        return None if self.group is not None and not found else found

    def standardised(self, x: NDArray[Any]) -> Floats:
        """Standardised rows in float64, as by the flow's last transform."""
        asarray = _arrays.library(x).asarray
        z: Floats = x.astype(np.float64)
        z -= asarray(self.mean)
        z /= asarray(self.std)
        return z


def off_support(
    ends: Sequence[Support], x: NDArray[Any], validation: Any, caller: Caller, names: tuple[str, ...]
) -> tuple[NDArray[Any], Any]:
    """Rows to fit and rows to hold out as unbounded values, float64; others pass, because later checks refuse them.

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
            validation = (taken("validation x", caller.open("validation x", parts[0], whole=True)), *parts[1:])
    return taken("x", x), validation


def _near_one(weights: NDArray[Any], largest: float) -> NDArray[Any]:
    """Weights times the power of two that makes `largest` about 1."""
    return np.ldexp(weights.astype(np.float64), -int(np.frexp(largest)[1]))


def _spread(x: Floats) -> float:
    """The width over which values of variance 1 are to be spread; 0 where few of them repeat.

    The least distance between two of them, which is their step if they have one; from LEAST_SPREAD to 1.
    """
    steps = np.diff(np.sort(x))
    if (steps == 0).sum() <= REPEATED * x.size:
        return 0.0
    return min(max(float(steps[steps > 0].min(initial=1.0)), LEAST_SPREAD), 1.0)


def jittered(
    x: NDArray[Any], weights: NDArray[Any] | None, copies: int, spread: Any, rng: np.random.Generator
) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """A number of copies of rows, each with noise of its own."""
    many = np.tile(x, (copies, 1))
    many += _arrays.library(x).asarray((spread * rng.standard_normal(many.shape)).astype(x.dtype))
    return many, None if weights is None else np.tile(weights, copies)


def _listing(numbers: NDArray[Any]) -> str:
    return ", ".join(map(str, numbers[:5])) + (", ..." if len(numbers) > 5 else "")
