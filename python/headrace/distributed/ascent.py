"""Ascents on several ranks: each moves its rows, and sums say to all of them what the next step is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace._core import cpu
from headrace.ascent import directions as _directions
from headrace.ascent import marginals as _marginals
from headrace.ascent.ascent import Ascent, Parts, Settings
from headrace.ascent.kinks import ANCHORS, KinkAscent
from headrace.ascent.points import Points
from headrace.ascent.splines import SplineAscent
from headrace.distributed.ascent_rows import SharedRows, shared_rows, turns_alike
from headrace.distributed.exact import exact_sum
from headrace.distributed.groups import Group

__all__ = ["SharedKinkAscent", "SharedSplineAscent", "shared_rows"]

Floats = NDArray[np.float64]

CHECKED_SHARDS = 8  # whose checked rows stand for all


class SharedAscent(Ascent):
    """What both kinds share: all that reads rows, of those of all ranks."""

    rows: SharedRows

    def __init__(
        self, settings: Settings, rows: SharedRows, rng: np.random.Generator, n_steps: int, copies: int
    ) -> None:
        """See `Ascent`."""
        self._set_up(settings, rows, rng, n_steps)
        self.group: Group = rows.table.group
        self.copies, self.count, self.library = 0, rows.count, np
        self.fit_parts = [(z[:, rows.active], weights) for z, weights in rows.own]
        self.judge_parts = [(z[:, rows.active], weights) for z, weights in rows.others]
        self.flat = [self._flat(list(rows.own)), self._flat(list(rows.others))]
        self.shares, self.counts = _shares(self.group, [w for _, w in self.fit_parts], rows.count)
        self.effective_rows = self.shares.rows

    def _sum(self, of_parts: list[float]) -> float:
        return float(exact_sum(self.group, [[0.0], *([one] for one in of_parts)])[0])

    def _given(self) -> Parts:
        return [(x, weights) for x, (_, weights) in zip(self.rows.given_parts(), self.rows.own, strict=True)]

    def _given_held_out(self) -> Parts:
        return [(z * self.rows.std + self.rows.mean, weights) for z, weights in self.rows.others]

    def _alike(self, turn: _directions.Turn) -> _directions.Turn:
        return replace(turn, blocks=turns_alike(self.group, turn.blocks))

    def _turn(self, parts: list[Any], rng: np.random.Generator, moved: Any = None) -> _directions.Turn:
        """See `Ascent`."""
        if self.directions == "random":
            return self._alike(_directions.random_turn(self.sizes, rng))

        def pick(places: NDArray[np.int64]) -> Floats:
            return self.rows.picked(places, parts)

        unit = math.sqrt(self.settings.precision)
        return self._alike(_directions.sliced_turn_of(self.count, pick, self.sizes, rng, unit, moved))


def _shares(group: Group, weights: list[Floats | None], rows: int) -> tuple[_marginals.Shares, list[Any]]:
    """What all rows count together, and for each of this rank's parts what its rows count; see `Shares`."""
    weighted = bool(group.maximum(np.array([any(w is not None for w in weights)], np.int64))[0])
    if not weighted:
        return _marginals.Shares(None, rows, float(rows)), [None] * len(weights)
    known = [w for w in weights if w is not None]
    largest = float(group.maximum(np.array([max((float(w.max(initial=0.0)) for w in known), default=0.0)]))[0])
    total = float(exact_sum(group, [[0.0], *([float((w / largest).sum())] for w in known)])[0])
    bits = _marginals._TOTAL_BITS - math.ceil(math.log2(total))
    counts = [np.rint(w / largest * 2.0**bits).astype(np.int64) for w in known]
    found = int(group.sum(np.array([sum(int(c.sum()) for c in counts)], np.int64))[0])
    square = float(exact_sum(group, [[0.0], *([float(np.square(c, dtype=np.float64).sum())] for c in counts)])[0])
    return _marginals.Shares(None, found, float(found) * found / square), counts


# ---- kinks -----------------------------------------------------------------------------------------------------------


class SharedKinkAscent(KinkAscent, SharedAscent):
    """See `KinkAscent`."""

    def _begin(self) -> Any:
        places = self.rng.choice(self.count, min(ANCHORS, self.count), replace=False)
        anchors = self.rows.picked(places, [z for z, _ in self.fit_parts])
        self.shared = SharedChosen(self, anchors)
        return self.shared

    def _places(self) -> list[Any]:
        return [points.values() for points in self.shared.points]

    def _checked(self) -> tuple[list[Any], list[Any]]:
        return self.shared.checked, self.shared.checked_others

    def coordinates(self, count: int) -> list[Floats]:
        """Not known."""
        return []


class SharedChosen:
    """`headrace.ascent.points.Chosen`, whose points are on several ranks."""

    def __init__(self, ascent: SharedKinkAscent, anchors: Floats) -> None:
        """See the class."""
        s, self.group, self.n = ascent.settings, ascent.group, ascent.n
        self.precision, self.rule = s.precision, s.rule
        self.neighbours = s.neighbours / (2.0 * ascent.effective_rows)
        self.anchors = Points(anchors, None, np.float64)
        own, others = ascent.fit_parts, ascent.judge_parts
        self.points = [Points(z, w, s.dtype, keeps_log_jacobian=False) for z, w in own]
        self.others = [Points(z, w, s.dtype, keeps_log_jacobian=False) for z, w in others]
        shards, judged = ascent.rows.table.shards, [] if ascent.rows.judge is None else ascent.rows.judge.shards
        numbers = [shard.number for shard in shards], [shard.number for shard in judged if shard.held_out is not None]
        self.checked, self.checked_others = (
            [
                points.checked_rows()[: None if number < CHECKED_SHARDS else 0]
                for points, number in zip(*of, strict=True)
            ]
            for of in ((self.points, numbers[0]), (self.others, numbers[1]))
        )
        self.parties = [
            _Party(self.group, self.points, own, self.checked, s.dtype),
            _Party(self.group, self.others, others, self.checked_others, s.dtype),
        ]
        self.last = np.tile([1.0, 0.0, 0.0, 0.0, 1.0], (self.n, 1))  # a, b, c, center and ε² of each coordinate
        self._kinks: list[Floats] = []
        self._found: list[list[float]] = []

    def kink(self, blocks: Sequence[Floats], order: Sequence[int], rows: list[int], drawn: list[float]) -> None:
        """See `Chosen`."""
        step = self._step(blocks, order)
        self.anchors.compiled.step(*step[:4], None, *step[4:])
        values, at = self.anchors.values(), np.array(rows)
        centers = np.where(at < 0, drawn, values[np.maximum(at, 0), np.arange(self.n)])
        near = np.minimum(self.precision * np.square(centers), cpu.most_kink_exponent)
        widths = np.minimum(self.neighbours * math.sqrt(2.0 * math.pi) * np.exp(0.5 * near), 1.0) / math.sqrt(
            self.precision
        )
        following = np.stack([centers, np.square(np.maximum(widths, cpu.least_kink_width))], axis=1)
        sums = self._judge(step, following)
        total = self.parties[0].totals[0]
        chosen = cpu.choose_kinks(sums[: 6 * self.n].reshape(self.n, 6), following, self.precision, total, self.rule)
        self.last = np.ascontiguousarray(chosen[:, :5])
        self._kinks.append(self.last)

    def finish(self) -> None:
        """See `Chosen`."""
        self._judge(self._step([np.ones((1, 1))] * self.n, range(self.n)), None)

    def _step(self, blocks: Sequence[Floats], order: Sequence[int]) -> tuple[Any, ...]:
        """That through the last kinks, and then turned."""
        a, b, c, center, square = self.last.T
        maps = np.stack([c / a, center, square], axis=1)
        places, numbers, shift, first = list(order), [], [], 0
        for block in blocks:
            columns = places[first : first + len(block)]
            numbers.append((block * a[columns]).ravel())
            shift.append((block * b[columns]).sum(axis=1))
            first += len(block)
        return (
            maps,
            float(np.log(a).sum()),
            np.concatenate(numbers),
            np.concatenate(shift),
            [len(x) for x in blocks],
            places,
        )

    def _judge(self, step: tuple[Any, ...], following: Floats | None) -> Floats:
        """Move all points; the sums of those to fit."""
        found = [
            party.moved(step, next, self.precision) for party, next in zip(self.parties, (following, None), strict=True)
        ]
        (sums, mean, checked), (_, other_mean, other_checked) = found
        self._found.append([mean, other_mean, checked, other_checked])
        return sums

    def kinks(self) -> Floats:
        """See `Chosen`."""
        return np.array(self._kinks).reshape(-1, self.n, 5)

    def log_likelihoods(self) -> Floats:
        """See `Chosen`."""
        return np.array(self._found).reshape(-1, 4)


class _Party:
    """The points to fit, or those held out, of all ranks."""

    def __init__(
        self,
        group: Group,
        points: list[Points],
        parts: list[tuple[Any, Any]],
        checked: list[Any],
        dtype: Any,
    ) -> None:
        self.group, self.points, self.checks = group, points, [bool(rows.size) for rows in checked]
        sums = []
        for (z, weights), rows in zip(parts, checked, strict=True):
            counts = np.ones(len(z)) if weights is None else weights.astype(dtype).astype(np.float64)
            sums.append([float(counts.sum()), float(counts[rows].sum())])
        self.totals = exact_sum(group, [[0.0, 0.0], *sums]).tolist()
        self.log_jacobian = [0.0, 0.0]

    def moved(self, step: tuple[Any, ...], following: Floats | None, precision: float) -> tuple[Floats, float, float]:
        """The sums of all points, and mean log-likelihoods of all and of the checked ones."""
        n = len(step[0])
        parts = [np.zeros((2, 7 * n))]
        for points, checked in zip(self.points, self.checks, strict=True):
            found = points.compiled.step_and_sum(*step[:4], following, *step[4:])
            if not checked:
                found[1] = 0.0
            parts.append(found)
        sums = exact_sum(self.group, np.reshape(parts, (len(parts), -1))).reshape(2, -1)
        means = []
        for i, total in enumerate(self.totals):
            self.log_jacobian[i] += total * step[1] + float(sums[i, 6 * n :].sum())
            squares = float(sums[i, 1 : 6 * n : 6].sum())
            means.append((self.log_jacobian[i] - 0.5 * precision * squares) / total if total else math.nan)
        return sums[0], means[0], means[1]


# ---- splines ---------------------------------------------------------------------------------------------------------


class SharedSplineAscent(SplineAscent, SharedAscent):
    """See `SplineAscent`."""

    def _begin(self) -> None:
        self._begin_with(list(self.fit_parts), list(self.judge_parts))

    def _curves(self, bandwidth: float) -> list[_marginals.Curve | None]:
        parts, unit, shares = self._places(), self.rows.unit, self.shares
        columns = [[part[:, k].astype(np.float64) / unit for part in parts] for k in range(self.n)]
        ascending = [_ascending(of_parts, self.counts) for of_parts in columns]
        summaries = shared_summaries(self.group, columns, ascending, self.counts, shares)
        curves = []
        for (x, counts), summary in zip(ascending, summaries, strict=True):

            def masses_on(
                first: float, step: float, cells: int, x: Any = x, counts: Any = counts
            ) -> tuple[float, Floats]:
                found = np.zeros((2, cells), np.int64)
                if x.size:
                    found[:] = _marginals.before(x, counts, first, step, cells)
                found = self.group.sum(found)
                return _marginals.masses(found[0], found[1], shares.total)

            curves.append(_marginals.curve_of(summary, masses_on, shares.rows, bandwidth))
        return curves


def _ascending(parts: list[Floats], counts: list[Any]) -> tuple[Floats, Any]:
    """This rank's numbers of a column, and what they count; None for 1 each."""
    x = np.concatenate([np.empty(0), *parts])
    known = [c for c in counts if c is not None]
    if not known:
        return np.sort(x), None
    order = np.argsort(x)
    return x[order], np.concatenate(known)[order]


def shared_summaries(
    group: Group,
    columns: list[list[Floats]],
    ascending: list[tuple[Floats, Any]],
    counts: list[Any],
    shares: _marginals.Shares,
) -> list[list[float]]:
    """As `headrace.ascent.marginals` does it, of each column: quantiles, exactly those of all rows, and a variance.

    Args:
        group: Who sums.
        columns: This rank's numbers, part by part.
        ascending: What `_ascending` makes of them.
        counts: What the rows of each part count; None for 1 each.
        shares: What all rows count together.
    """
    wanted = np.array([share * shares.total for share in _marginals.quantiles_for(shares.rows)])
    keys = [_key(x) for x, _ in ascending]
    sums = [np.arange(1, x.size + 1) if c is None else np.cumsum(c) for x, c in ascending]
    ends = group.maximum(
        np.array([[-(k[0]) if k.size else -(2**63) + 1, k[-1] if k.size else -(2**63) + 1] for k in keys], np.int64)
    )
    # The least key up to which there are so many (first), or more (last), by halving: a place for each of 2 times 4.
    low = np.repeat(-ends[:, :1], 2 * wanted.size, axis=1)
    high = np.repeat(ends[:, 1:], 2 * wanted.size, axis=1)
    while (low < high).any():
        middle = (low & high) + ((low ^ high) >> 1)  # no sum leaves 64 bits
        below = np.zeros(middle.shape, np.int64)
        for k, (key, total) in enumerate(zip(keys, sums, strict=True)):
            at = np.searchsorted(key, middle[k], side="right")
            below[k] = np.where(at > 0, total[np.maximum(at, 1) - 1], 0) if key.size else 0
        below = group.sum(below).astype(np.float64)
        enough = np.concatenate([below[:, : wanted.size] >= wanted, below[:, wanted.size :] > wanted], axis=1)
        low, high = np.where(enough, low, middle + 1), np.where(enough, middle, high)
    values = _number(low)
    quantiles = 0.5 * (values[:, : wanted.size] + values[:, wanted.size :])
    known: list[Any] = [1 if c is None else c for c in counts]
    first = [[float((c * x).sum()) for x, c in zip(parts, known, strict=True)] for parts in columns]
    mean = exact_sum(group, [np.zeros(len(columns)), *np.transpose(first)]) / shares.total
    second = [
        [float((c * np.square(x - m)).sum()) for x, c in zip(parts, known, strict=True)]
        for parts, m in zip(columns, mean, strict=True)
    ]
    variance = exact_sum(group, [np.zeros(len(columns)), *np.transpose(second)]) / shares.total
    found: list[list[float]] = np.concatenate([quantiles, variance[:, None]], axis=1).tolist()
    return found


def _key(x: Floats) -> NDArray[np.int64]:
    """Integers in the order of numbers."""
    bits = (x + 0.0).view(np.int64)  # -0 is 0
    return bits ^ ((bits >> 63) & np.int64(2**63 - 1))


def _number(key: NDArray[np.int64]) -> Floats:
    """The way back."""
    return (key ^ ((key >> 63) & np.int64(2**63 - 1))).view(np.float64)
