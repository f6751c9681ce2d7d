"""The default ascent: each step is a turn, then a spline for every coordinate, which makes its marginal normal."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace._arrays import caller as _arrays
from headrace._base.types import Floats
from headrace._core import cpu
from headrace._fit.starts.scores import Score, normal_scores
from headrace._flow.transforms.elementwise import Elementwise
from headrace._flow.transforms.transform import Transform
from headrace.ascent import directions as _directions
from headrace.ascent.ascent import SLOPE, Ascent, Judged, kink_map

BOUND = 5.0  # the number of standard deviations beyond which a spline is the identity
KNOTS = 40  # the number of knots of the function to which a kinked line is fitted


class SplineAscent(Ascent):
    """An ascent whose steps map marginals to the normal density by splines."""

    def __init__(self, *arguments: Any, bins: int) -> None:
        self.default_directions = "sliced" if len(arguments[1].active) > 2 else "random"
        super().__init__(*arguments)
        self.bins = bins
        self.steps: list[list[Transform]] = []
        self.judged: list[Judged] = []

    def taken(self) -> Iterator[Judged]:
        """Take all steps and yield log-likelihoods; see `Ascent`."""
        s = self.settings
        self._begin()
        bandwidth = s.bandwidth or (2.0 if self.n >= 5 else 1.0)
        yield self._judge()
        for step in range(self.n_steps):
            turn = self._turn(self._places(), self.rng) if step else _directions.Turn.none(self.sizes)
            turns = self._turn_transforms(turn)
            if step:
                self._move(turns)
            curves = self._curves(bandwidth if step else 1.0)
            if step:
                maps: list[Transform] = [self._spline([curve and curve.shrunk(s.rate) for curve in curves])]
            else:
                maps = self._first_maps(curves)
            self._move(maps)
            self.steps.append([*maps, *turns])
            yield self._judge()

    def transforms(self, count: int) -> list[list[Transform]]:
        """The transforms of the first `count` steps; see `Ascent`."""
        return self.steps[:count]

    def checks(self) -> tuple[list[Judged], Any, Any]:
        """The log-likelihoods of all rows after each step; see `Ascent`."""
        return self.judged, None, None

    def _begin(self) -> None:
        """Put training rows and held-out rows at the start of the ascent, with a log-Jacobian of 0."""
        zeros = self.library.zeros
        parties = self.own, self.others
        self.parties = [[(self._of_columns(z), zeros(len(z)), weights) for z, weights in of] for of in parties]

    def _places(self) -> list[NDArray[Any]]:
        """The training rows' current values in columns whose values vary, one array for each part."""
        return [self._active(z) for z, _, _ in self.parties[0]]

    def _curves(self, bandwidth: float) -> list[Score | None]:
        """The map of each column's marginal to N(0, 1), or None for a column without a map."""
        parts, unit = self._places(), self.rows.unit
        columns = [[part[:, k].astype(np.float64) / unit for part in parts] for k in range(self.n)]
        return normal_scores(columns, self.counts, self.shares, bandwidth, self.rows.source)

    def _of_columns(self, z: Floats) -> NDArray[Any]:
        """The rows with all columns in the flow's dtype; columns whose values do not vary are 0."""
        if self.n == self.features:
            return z.astype(self.settings.dtype)
        every: NDArray[Any] = self.library.zeros((len(z), self.features), self.settings.dtype)
        every[:, self.library.asarray(self.rows.active)] = z
        return every

    def _move(self, links: list[Transform]) -> None:
        """Move all rows by the inverses of the links, from the last link to the first."""
        device = self.rows.device
        moves = [link if device is None else link.to(repr(device)) for link in links]
        for parts in self.parties:
            for i, (z, log_jacobian, weights) in enumerate(parts):
                for link in reversed(moves):
                    z, log_det = link.inverse(z)
                    log_jacobian += log_det
                parts[i] = (z, log_jacobian, weights)

    def _judge(self) -> Judged:
        own, others = self.parties
        means = self._mean(own), math.nan if self.rows.judge is None else self._mean(others)
        self.judged.append(self._judged(means))
        return self.judged[-1]

    def _mean(self, parts: list[tuple[Any, Any, Any]]) -> float:
        sums = []
        for z, log_jacobian, weights in parts:
            terms = log_jacobian - 0.5 * self.settings.precision * np.multiply(z, z, dtype=np.float64).sum(axis=1)
            sums.append(_arrays.weighted_sum(terms, weights))
        total = self._total([(z, weights) for z, _, weights in parts])
        return self._sum(sums) / total if total else math.nan

    def _spline(self, curves: list[Any]) -> Elementwise:
        """The marginal splines through the curves, which are in units of the base's standard deviation."""
        rest = [spline_parameters(curve, self.bins, BOUND, SLOPE) for curve in curves]
        packed = np.zeros((self.features, 3 * self.bins - 1))
        packed[self.rows.active] = rest
        raw = {
            "width": packed[:, : self.bins],
            "height": packed[:, self.bins : 2 * self.bins],
            "derivative": packed[:, 2 * self.bins :],
        }
        return Elementwise._of(
            raw, map="rq_spline", dtype=self.settings.dtype, slope=SLOPE, bins=self.bins, bound=BOUND * self.rows.unit
        )

    def _first_maps(self, curves: list[Any]) -> list[Transform]:
        """The maps of the first step: a kinked line with a curve's straight ends, then a spline for the remainder."""
        kinks: list[tuple[float, ...]] = []
        rest: list[Score | None] = []
        for curve in curves:
            if curve is None:
                kinks.append((1.0, 0.0, 0.0, 0.0, 1.0))
                rest.append(None)
                continue
            a, b, gamma, center, epsilon = kink_parameters(curve)
            kinks.append((a, b, gamma, center, epsilon))
            w = curve.x - center
            r = np.hypot(epsilon, w)
            slope = curve.slope / (a * (1.0 + gamma * w / r))
            rest.append(Score(a * (curve.x + gamma * r) + b, curve.y, slope))
        a, b, gamma, center, epsilon = np.array(kinks).T
        unit = self.rows.unit
        lines = self._lines(a, b * unit, gamma, center * unit, np.maximum(epsilon * unit, cpu.least_kink_width))
        return [self._spline(rest), kink_map(lines, self.settings.dtype)]


def kink_parameters(score: Score) -> tuple[float, float, float, float, float]:
    """The parameters ``(a, b, γ, center, ε)`` of a kinked line that passes both ends of a curve and stays near it."""
    points = score.knots(KNOTS)
    x, y = points.x, points.y
    inner = (x > x[0]) & (x < x[-1])
    best = (math.inf, 1.0, 1.0, 0.0, 0.0)
    for center, height in zip(x[inner], y[inner], strict=True):
        left, right = (height - y[0]) / (center - x[0]), (y[-1] - height) / (x[-1] - center)
        off = np.abs(height + np.where(x < center, left, right) * (x - center) - y).max()
        if off < best[0] and left > 0 < right:
            best = (off, left, right, center, height)
    _, left, right, center, height = best
    a, gamma = 0.5 * (left + right), np.clip((right - left) / (right + left), -0.99, 0.99)
    epsilon = max(0.1 * min(center - x[0], x[-1] - center), 2e-3)
    return float(a), float(height - a * center), float(gamma), float(center), float(epsilon)


def spline_parameters(score: Score | None, bins: int, bound: float, slope: float) -> Floats:
    """The raw parameters of an `rq_spline` with knots on a curve, the identity beyond ±bound: shape (3 bins - 1,).

    A knot is moved if it exceeds the spline's limits on widths, heights and slopes.
    """
    raw = np.zeros(3 * bins - 1)
    if score is None:
        return raw
    inner = score.knots(bins - 1)
    gap = 1e-3 * bound * np.arange(1, bins)  # keeps knots apart and inside of the bound
    x = np.minimum(np.maximum(inner.x, -bound + gap), bound - gap[::-1])
    y = np.minimum(np.maximum(inner.y, -bound + gap), bound - gap[::-1])
    limit = np.log(1.0 / slope)
    for i, knots in enumerate((x, y)):
        sizes = np.log(np.maximum(np.diff(knots, prepend=-bound, append=bound), 1e-6 * bound))
        sizes -= 0.5 * (sizes.max() + sizes.min())
        sizes = np.clip(sizes, -0.45 * limit, 0.45 * limit)
        raw[i * bins : (i + 1) * bins] = sizes / (1.0 - 2.0 * np.abs(sizes) / limit)
    log_slope = np.clip(np.log(inner.slope), -0.9 * limit, 0.9 * limit)
    raw[2 * bins :] = log_slope / (1.0 - np.abs(log_slope) / limit)
    return raw
