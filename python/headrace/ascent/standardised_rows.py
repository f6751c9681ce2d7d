"""The training and held-out rows of a dual ascent, standardised, and with noise on repeated values.

In a group the rows are checked on all ranks together. Rotations mix all columns and so cannot preserve circles: a
periodic column is cut where its rows are rarest, and mapped to the line. The density of a periodic column is then that
of an interval, whose ends are the two sides of the cut.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace._arrays import caller as _arrays
from headrace._arrays.caller import Caller
from headrace._arrays.device_caller import caller_of
from headrace._base import array_errors as errors
from headrace._base.group import Group
from headrace._base.types import Floats
from headrace._fit import given_rows as _rows
from headrace._fit.residuals import behind
from headrace._fit.source import ArrayRows, RowSource, Shard
from headrace._flow.transforms.support import Support, circles_of


def shared_rows(
    settings: Any, group: Group, x: Any, context: Any, weights: Any, validation: Any
) -> tuple[StandardisedRows, tuple[Support, ...]]:
    """The rows of an ascent in a group, and the maps to their support; `settings` is a `headrace.DualAscentFlow`."""
    from headrace.distributed.groups import same_everywhere, together
    from headrace.distributed.run import check_group
    from headrace.distributed.shards import opened, split

    check_group(group)
    with together(group):
        if context is not None:
            raise ValueError("context: expected None, because an ascent takes none")
        if settings.map == "kink" and settings.copies:
            raise ValueError("copies: expected 0 or None with a group, where an ascent takes rows as they are")
        first = next(iter(x.values()), None) if isinstance(x, Mapping) else x
        caller = Caller() if first is None else caller_of(first)
        if caller.device is not None:
            raise ValueError("x: expected arrays on the CPU with a group")
        features = 0 if first is None else caller.open("x", first, whole=True).shape[-1]
    features = int(group.maximum(np.array([features], np.int64))[0])
    arguments = {name: repr(value) for name, value in vars(settings).items() if name != "history"}
    same_everywhere(group, arguments)
    table = opened(group, features, 0, caller, x, None, weights, seed=settings.seed)
    table, judge = split(table, validation, caller)
    shards = {id(s.data): s for t in (table, judge) if t for s in t.shards}.values()
    ends: tuple[Support, ...] = ()
    with together(group):
        support = settings.support(features, None)
        if support is not None:
            counts = counted(support, np.empty((0, features)))
            for shard in shards:
                _rows.check_inside(f"x of shard {shard.number}", shard.data.x, support, shard.data.names)
                counts += counted(support, shard.data.x)
    if support is not None:
        ends = cut_open(support, group.sum(counts), settings.dtype)
        for shard in shards:
            shard.data.x = behind(shard.data.x.astype(np.float64), ends)
    return StandardisedRows(table, judge, settings.precision, settings.seed, settings.dtype), ends


Parts = list[tuple[Any, Any]]
"""The rows and weights of each part; None in place of weights stands for weights of 1."""

# The defaults of docs/notes/dual_ascent.md.
LOOKED_AT = 16_384  # the number of rows that are searched for repeated values
REPEATED = 0.01  # a column repeats if more than this share of its values equals other values
LEAST_SPREAD = 1e-3  # the least width, in standard deviations, over which repeated values are spread
FLAT = 1e-100  # a column with at most this range, in standard deviations, has no spread

_SPREAD_SEED = 0x5EED  # the seed of the noise on repeated values
_COPIES, _NOISE = 0xC09E, 0x2015  # keys that distinguish the draws of copies and of noise by the same seed


class StandardisedRows:
    """Training rows and held-out rows, in parts, with their standardisation.

    The rows of one process are one part; the rows of a group have one part for each shard of this rank.
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
        """Standardise the rows, and spread repeated values with a warning; `device`: the device as in a `Caller`."""
        root = math.sqrt(precision)
        self.source, self.judge, self.seed, self.dtype, self.device = source, judge, seed, np.dtype(dtype), device
        self.unit = 1.0 / root
        """The base's standard deviation, 1/√λ."""
        mean, std = source.moments(say=source.is_first)
        self.mean, self.std = mean, std * root
        self.own = self._taken(source)
        """The training rows, standardised and with repeated values spread, and their weights."""
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
        """The rows of a fit in one process, from opened arrays."""
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
        """The group whose ranks hold the rows; None for a fit of one process."""
        return self.source.group

    @property
    def count(self) -> int:
        """The number of training rows of all processes."""
        return self.source.size

    def _taken(self, source: RowSource) -> Parts:
        """Standardised rows, and weights scaled to a largest weight of about 1, so that no dtype overflows."""
        blocks = list(source.blocks())
        known = [float(w.max()) for data in blocks if (w := data.weights) is not None and len(w)]
        largest = float(source.maximum(np.array([max(known, default=0.0)]))[0])
        weights = [None if data.weights is None else _near_one(data.weights, largest) for data in blocks]
        return [(self.standardised(data.x), weight) for data, weight in zip(blocks, weights, strict=True)]

    def _rng(self, what: tuple[int, ...], shard: Shard) -> np.random.Generator:
        """The random generator for the rows of a shard; in a group each shard has its own generator."""
        return np.random.default_rng([self.seed, *what, *(() if self.group is None else (shard.number,))])

    def _find_repeated(self) -> None:
        """Find the columns whose values vary, and add noise to repeated values of these columns."""
        n = len(self.mean)
        ends = np.full((2, n), -np.inf)
        for z, _ in self.own:
            if len(z):
                ends = np.maximum(ends, np.stack([-_arrays.on_host(z.min(axis=0)), _arrays.on_host(z.max(axis=0))]))
        less, most = self.source.maximum(ends)
        self.active = np.flatnonzero(most + less > FLAT)
        """The indices of columns with a spread; all other columns are only shifted."""
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
                f"x: values repeat in {repeated.size} columns ({_rows.listing([*map(str, repeated)])}); the fit "
                "spreads them between one value and the next, or over a thousandth of the standard deviation where "
                "that is more",
                RuntimeWarning,
                stacklevel=5,
            )

    def given(self) -> list[NDArray[Any]]:
        """The training rows in the data's units, after noise on repeated values, one array for each part."""
        if self.group is None and not self.spread.any():
            return [data.x for data in self.source.blocks()]
        return [z * _arrays.library(z).asarray(self.std) + _arrays.library(z).asarray(self.mean) for z, _ in self.own]

    def held_out(self) -> list[NDArray[Any]]:
        """The held-out rows as the caller passed them, one array for each part; [] without held-out rows."""
        return [] if self.judge is None else [data.x for data in self.judge.blocks()]

    def to_refine(self, copies: int, jitter: float, rng: np.random.Generator) -> tuple[Any, Any, Any]:
        """The arguments of a joint training: the rows or their noisy copies, the weights, and the held-out rows.

        A column whose values do not vary becomes normal noise, because no network can learn a spike. In a group each
        shard has its own random generator.
        """
        flat = np.setdiff1d(np.arange(len(self.mean)), self.active)
        rows = []
        for shard, x, (_, weights) in zip(self.source.shards, self.given(), self.own, strict=True):
            if copies:
                generator = rng if self.group is None else self._rng((_COPIES,), shard)
                x, weights = jittered(x, weights, copies, jitter * self.std * self.unit, generator)
            if flat.size:
                generator = self._rng((_SPREAD_SEED, 1) if self.group is None else (_NOISE,), shard)
                noise = self.mean[flat] + self.std[flat] * self.unit * generator.standard_normal((len(x), flat.size))
                library = _arrays.library(x)
                x[:, library.asarray(flat)] = library.asarray(noise.astype(x.dtype))
            rows.append((x, weights))
        judge = None
        if self.judge is not None:
            held = self.held_out()
            judge = self._as_given(self.judge, held), None, self._weights(self.judge, self.others)
        return self._as_given(self.source, [x for x, _ in rows]), self._weights(self.source, rows), judge

    def _as_given(self, source: RowSource, parts: list[Any]) -> Any:
        """The parts in the form that `Flow.fit` takes: an array, or a dict of shards in a group."""
        if self.group is None:
            return parts[0]
        pairs = zip(source.shards, parts, strict=True)
        return {shard.number: part for shard, part in pairs if part is not None}

    def _weights(self, source: RowSource, parts: Parts) -> Any:
        joined = self._as_given(source, [weights for _, weights in parts])
        return None if self.group is not None and not joined else joined

    def standardised(self, x: NDArray[Any]) -> Floats:
        """Rows standardised in float64, as the flow's last transform does."""
        asarray = _arrays.library(x).asarray
        z: Floats = x.astype(np.float64)
        z -= asarray(self.mean)
        z /= asarray(self.std)
        return z


def off_support(
    ends: Sequence[Support], x: NDArray[Any], validation: Any, caller: Caller, names: tuple[str, ...]
) -> tuple[NDArray[Any], Any]:
    """The unbounded values, in float64, of training rows and of held-out rows; invalid rows stay unchanged, because
    later checks refuse them with an error.

    `ends`: the supports from latent to data, as in `AscentFlow`.
    """
    support = ends[-1]

    def taken(name: str, array: NDArray[Any]) -> NDArray[Any]:
        if array.ndim != 2 or array.shape[1] != support.features or not np.isfinite(array).all():
            return array
        _rows.check_inside(name, array, support, names)
        maps = ends if caller.device is None else [end.to(repr(caller.device)) for end in ends]
        return behind(array.astype(np.float64), maps)

    if validation is not None and not _rows.is_share(validation):
        parts = validation if isinstance(validation, tuple) else (validation,)
        if parts and _arrays.is_array(parts[0]):
            validation = (taken("validation x", caller.open("validation x", parts[0], whole=True)), *parts[1:])
    return taken("x", x), validation


def _near_one(weights: NDArray[Any], largest: float) -> NDArray[Any]:
    """The weights times the power of two that makes `largest` about 1."""
    return np.ldexp(weights.astype(np.float64), -int(np.frexp(largest)[1]))


def _spread(x: Floats) -> float:
    """The width over which repeated values of a column of variance 1 are spread; 0 if few values repeat.

    The width is the least distance between two different values, limited to the range from LEAST_SPREAD to 1.
    """
    steps = np.diff(np.sort(x))
    if (steps == 0).sum() <= REPEATED * x.size:
        return 0.0
    return min(max(float(steps[steps > 0].min(initial=1.0)), LEAST_SPREAD), 1.0)


def jittered(
    x: NDArray[Any], weights: NDArray[Any] | None, copies: int, spread: Any, rng: np.random.Generator
) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """The rows repeated `copies` times, with independent noise for each copy, and the repeated weights."""
    many = np.tile(x, (copies, 1))
    many += _arrays.library(x).asarray((spread * rng.standard_normal(many.shape)).astype(x.dtype))
    return many, None if weights is None else np.tile(weights, copies)


BINS, WINDOW = 256, 16  # the bins of a circle, and the number of bins that one moving average sums
OVERLAP = {4: 2.0**-16, 8: 2.0**-36}  # the overlap of a cut's two ends, in radii, by the dtype's bytes


def counted(support: Support, x: NDArray[np.floating]) -> NDArray[np.int64]:
    """The number of rows in each bin of each periodic column, shape (columns, bins)."""
    circles = circles_of(support)
    if not circles:
        return np.empty((0, BINS), np.int64)
    alone = Support(None, [support.periodic[c] for c in circles])
    turns = (np.asarray(alone.inverse(np.asarray(_arrays.on_host(x[:, circles]), np.float64))[0]) + 1.0) / 2.0
    turns = turns[np.isfinite(turns).all(axis=1)]  # a fit refuses rows that are not finite with an error
    places = np.minimum((BINS * turns).astype(np.int64), BINS - 1)
    return np.array([np.bincount(column, minlength=BINS) for column in places.T], np.int64).reshape(len(circles), BINS)


def cut_open(support: Support, counts: NDArray[np.int64], dtype: np.dtype[np.floating]) -> tuple[Support, ...]:
    """The map of unbounded values to a support with circles, from latent to data; `counts` is the result of `counted`.

    The two ends of a cut overlap by less than the dtype can resolve, so that no row lies on an end.
    """
    if not any(support.periodic):
        return (support,)
    n = len(support.periodic)
    inside: list[tuple[float, float] | None] = [None] * n
    cut: list[tuple[float, float] | None] = [None] * n
    reach = 1.0 + OVERLAP[np.dtype(dtype).itemsize]
    for of_column, c in zip(counts, circles_of(support), strict=True):
        inside[c] = (-reach, reach)
        middle = _rarest(of_column) + 1.0
        cut[c] = (middle - 1.0, middle + 1.0)
    return Support(inside), Support([None] * n, cut), support


def _rarest(counts: NDArray[np.int64]) -> float:
    """The point on [-1, 1) where rows are rarest: the middle of the longest run of the emptiest windows."""
    around = np.concatenate([counts, counts[: WINDOW - 1]])
    windows = np.convolve(around, np.ones(WINDOW, np.int64), "valid")  # the window of bins i, ..., i + WINDOW - 1
    empty = windows == windows.min()
    if empty.all():
        return -1.0
    start = int(np.argmin(empty))  # a window that is not among the emptiest
    best, run, end = 0, 0, 0
    for i in range(start, start + BINS + 1):
        run = run + 1 if empty[i % BINS] else 0
        if run > best:
            best, end = run, i
    middle = end - (best - 1) / 2.0 + WINDOW / 2.0
    return float((2.0 * middle / BINS) % 2.0 - 1.0)
