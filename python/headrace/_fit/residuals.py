"""Columns that other columns nearly determine: a fit replaces these columns by their scaled residuals.

A network hardly learns a narrow direction: if x₃ = x₁ + 1e-6 noise, its density is 9 nats too low. Where a column is
nearly linear in other columns (its 1 - R² is small), the residual, divided by its standard deviation, has the same
information and is as wide as any other column. The explaining columns stay unchanged, so that marginal curves still fit
them: the map is triangular, with ones on its diagonal, and the logarithm of its determinant is 0. In a flow with a
fixed order of columns, whose first columns have a density of their own (`Flow.given`), only earlier columns explain a
column.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from headrace._arrays import caller as _arrays
from headrace._base.types import Floats
from headrace._base.warn import warn
from headrace._fit.gaussian import LEAST_ROOT, MOST_FEATURES
from headrace._fit.given_rows import Moments, listing
from headrace._fit.source import ArrayRows, RowSource
from headrace._flow.internals import Interior
from headrace._flow.transforms.fixed import Standardize
from headrace._flow.transforms.linear import Linear
from headrace._flow.transforms.support import circles_of
from headrace._flow.transforms.transform import Transform

ALWAYS = 1e-3  # 1 - R² below which a column is replaced without a trial
TRIED = 0.05  # limit of 1 - R² below which a trial decides
ROWS = 1 << 14  # largest size of the sample that represents all rows
LEAST_ROWS = 50  # least number of rows for a search
ROWS_OF_A_COLUMN = 3  # least number of rows for each column
ROUNDS = 3  # rounds of the search: residuals may again be nearly linear in each other
ALIKE = 2.0  # of the columns with up to this multiple of the least 1 - R², the last is taken
RESOLVED = {np.dtype(np.float32): 4e-7, np.dtype(np.float64): 1e-11}  # least deviation of a residual above rounding
LEAST_SHARE = 1e-32  # least 1 - R² that is stored, in place of zero
MULTIPLE = 1e-6  # 1 - R² below which a warning names the column
BINS, EACH = 0.1, 0.1  # width of a bin in deviations, and least share of rows of a frequent value


@dataclass(frozen=True)
class Residuals:
    """Columns of standardised rows that other columns nearly determine, and links that replace them by residuals."""

    links: tuple[Transform, ...] = ()
    """A scale and a linear map for each round, in order from latent to standardised data."""
    shares: dict[int, float] = field(default_factory=dict)
    """1 - R² of each column that is replaced."""
    rounding: dict[int, float] = field(default_factory=dict)
    """1 - R² of columns that are multiples or sums of others up to rounding, and stay as they are."""


def looked_for(interior: Interior) -> bool:
    """Whether a fit searches for columns that others determine: a flow's first fit, if the base has one mode."""
    return interior.is_fresh and interior.is_over_a_bell and interior.standardize is not None


def behind(z: Floats, links: Sequence[Transform]) -> Floats:
    """Map standardised rows to the latent side of some links."""
    for link in reversed(links):
        z = link.inverse(z)[0]
    return z


def measured(
    source: ArrayRows, scale: Moments, limit: float, dtype: np.dtype[Any], order: Sequence[int] | None = None
) -> Residuals:
    """Search a sample of the training rows for columns with 1 - R² below a limit; see `of_rows`."""
    data, rows = source.some(ROWS)
    z = (_arrays.on_host(data.unbounded(rows)) - scale[0]) / scale[1]
    share = np.ones(len(z)) if data.weights is None else _arrays.on_host(data.weights[rows]).astype(np.float64)
    return of_rows(z, share, limit, circles_of(data.support), dtype, order)


def of_rows(
    z: Floats,
    share: Floats,
    limit: float,
    circles: Sequence[int] = (),
    dtype: Any = np.float32,
    order: Sequence[int] | None = None,
) -> Residuals:
    """Search standardised rows for columns with 1 - R² below a limit, by regression on the columns that stay.

    Args:
        z: Standardised rows, shape (rows, columns).
        share: Weights of the rows, shape (rows,).
        limit: The limit of 1 - R²; 1 - R² is adjusted for the number of regressors.
        circles: Columns of angles, which are neither replaced nor used as regressors.
        dtype: The flow's dtype: a column stays if the dtype cannot tell its residual from rounding.
        order: The order of all columns, if only earlier columns may determine a column.
    """
    features = z.shape[1]
    size = float(share.sum() ** 2 / np.square(share).sum()) if share.any() else 0.0
    line = [c for c in order or range(features) if c not in set(circles) and z[:, c].std() > 0]
    if not 2 <= len(line) <= MOST_FEATURES or size < max(LEAST_ROWS, ROWS_OF_A_COLUMN * len(line)):
        return Residuals()
    share = share / share.sum()
    rounding: dict[int, float] = {}
    shares: dict[int, float] = {}
    links: tuple[Transform, ...] = ()
    least = RESOLVED[np.dtype(dtype)]
    for _ in range(ROUNDS):
        taken = _round(z, share, size, limit, [c for c in line if c not in rounding], least, order is not None)
        rounding |= taken.rounding
        if not taken.links:
            break
        z = behind(z, taken.links)
        links = (*taken.links, *links)
        for c, value in taken.shares.items():
            shares[c] = shares.get(c, 1.0) * value
    return Residuals(links, {c: shares[c] for c in sorted(shares)}, {c: rounding[c] for c in sorted(rounding)})


def _round(
    z: Floats, share: Floats, size: float, limit: float, line: list[int], least: float, ordered: bool
) -> Residuals:
    """One round of the search among the columns in `line`; if `ordered`, only earlier ones are regressors."""
    chosen = z[:, line]
    mean = (share[:, None] * chosen).sum(axis=0)
    away = chosen - mean
    std = np.sqrt((share[:, None] * np.square(away)).sum(axis=0))
    away = away / std
    correlation = np.einsum("ni,nj->ij", away * share[:, None], away)
    stay, taken = _taken_out(correlation, size, limit, ordered)
    rounding: dict[int, float] = {}
    shares: dict[int, float] = {}
    matrix, scale, at = np.eye(z.shape[1]), np.ones(z.shape[1]), np.zeros(z.shape[1])
    for j in taken:
        readers = [k for k in stay if k < j] if ordered else stay
        slopes = np.linalg.solve(correlation[np.ix_(readers, readers)], correlation[readers, j])
        residual = away[:, j] - np.einsum("nk,k->n", away[:, readers], slopes)
        rest = np.einsum("n,nk->k", residual * share, away[:, readers])
        more = np.linalg.solve(correlation[np.ix_(readers, readers)], rest)
        slopes, residual = slopes + more, residual - np.einsum("nk,k->n", away[:, readers], more)  # refined
        deviation = float(np.sqrt((share * np.square(residual)).sum()))
        if deviation * std[j] < least or _has_few_values(residual, deviation, share):
            rounding[line[j]] = max(deviation**2, LEAST_SHARE)
            continue
        if deviation**2 >= limit:  # 1 - R² rose when other columns were taken out
            continue
        weights = slopes * std[j] / std[readers]
        matrix[line[j], [line[k] for k in readers]] = weights
        shares[line[j]] = deviation**2
        scale[line[j]] = deviation * std[j]
        at[line[j]] = mean[j] - float(weights @ mean[readers])
    if not shares:
        return Residuals(rounding=rounding)
    return Residuals((Standardize(at, scale), Linear._shear(matrix)), shares, rounding)


def _taken_out(correlation: Floats, size: float, limit: float, ordered: bool) -> tuple[list[int], list[int]]:
    """The columns that stay, and the columns taken out one by one: each time one with nearly the least 1 - R².

    `ordered`: regress each column only on the earlier ones of the remaining columns.
    """
    stay, taken = list(range(len(correlation))), list[int]()
    while len(stay) > 1:
        part = correlation[np.ix_(stay, stay)] + 1e-15 * np.eye(len(stay))
        if ordered:
            unexplained, readers = np.square(np.diagonal(np.linalg.cholesky(part))), np.arange(1.0, len(stay) + 1.0)
        else:
            unexplained, readers = 1.0 / np.diagonal(np.linalg.inv(part)), np.full(len(stay), float(len(stay)))
        unexplained = np.maximum(unexplained, 1e-16) * (size - 1.0) / np.maximum(size - readers, 1.0)
        if not unexplained.min() < limit:
            break
        last = int(np.flatnonzero(unexplained <= ALIKE * unexplained.min())[-1])
        taken.append(stay.pop(last))
    return stay, taken


def _has_few_values(residual: Floats, deviation: float, share: Floats) -> bool:
    """Whether residuals lie close to a few values with gaps between them, as rounded decimals of a table do."""
    counts, _ = np.histogram(residual / max(deviation, 1e-300), np.arange(-2.5, 2.5 + BINS / 2, BINS), weights=share)
    filled = counts > 0
    if not filled.any() or filled.sum() > filled.size // 4:
        return False
    ends = np.flatnonzero(np.diff(np.concatenate([[0], filled.astype(int), [0]])))
    runs = [counts[begin:end].sum() for begin, end in zip(ends[::2], ends[1::2], strict=True)]
    return bool(sum(run >= EACH for run in runs) >= 2)


def warn_of_columns(source: RowSource, taken: Residuals) -> None:
    """Warn of columns that are linear combinations of other columns, nearly or up to rounding."""
    names = source.names or tuple(f"column {i}" for i in range(max([*taken.shares, *taken.rounding], default=-1) + 1))
    near = [c for c, share in taken.shares.items() if share < MULTIPLE]
    if near:
        verb, most = "differs" if len(near) == 1 else "differ", max(taken.shares[c] for c in near) ** 0.5
        warn(
            f"x: {listing(names, near)} {verb} from a linear combination of other columns by {most:.2g} standard "
            "deviations at most; if that is the rounding of the data, the density along it means little: leave such "
            "columns out"
        )
    if taken.rounding:
        verb = "are linear combinations" if len(taken.rounding) > 1 else "is a linear combination"
        warn(
            f"x: {listing(names, list(taken.rounding))} {verb} of other columns up to rounding, which no density "
            f"describes; a Gaussian has a deviation of {LEAST_ROOT:g} of the columns' there, and other flows what "
            "networks reach; leave such columns out"
        )
