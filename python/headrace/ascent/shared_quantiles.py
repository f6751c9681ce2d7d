"""Marginal maps of columns with rows on several ranks: quantiles by bisection, and masses by sums of integers."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace._base.group import Group
from headrace._base.types import Floats
from headrace.ascent import marginals as _marginals
from headrace.distributed.exact import exact_sum


def shared_scores(
    group: Group, columns: list[list[Floats]], counts: list[Any], shares: _marginals.Shares, bandwidth: float
) -> list[_marginals.Curve | None]:
    """`headrace.ascent.marginals.normal_score` of each column; see `shared_summaries`."""
    ascending = [_ascending(of_parts, counts) for of_parts in columns]
    curves = []
    for (x, own), summary in zip(ascending, shared_summaries(group, columns, ascending, counts, shares), strict=True):

        def masses_on(first: float, step: float, cells: int, x: Any = x, own: Any = own) -> tuple[float, Floats]:
            found = np.zeros((2, cells), np.int64)
            if x.size:
                found[:] = _marginals.before(x, own, first, step, cells)
            found = group.sum(found)
            return _marginals.masses(found[0], found[1], shares.total)

        curves.append(_marginals.curve_of(summary, masses_on, shares.rows, bandwidth))
    return curves


def _ascending(parts: list[Floats], counts: list[Any]) -> tuple[Floats, Any]:
    """The values of a column on this rank, and their weights; None for 1 each."""
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
    """The summaries of `headrace.ascent.marginals` for each column: quantiles, exactly those of all rows, and variance.

    Args:
        group: The processes that sum.
        columns: This rank's values, part by part.
        ascending: The result of `_ascending` for them.
        counts: The weights of the rows of each part; None for 1 each.
        shares: The weights of all rows.
    """
    wanted = np.array([share * shares.total for share in _marginals.quantiles_for(shares.rows)])
    keys = [_key(x) for x, _ in ascending]
    sums = [np.arange(1, x.size + 1) if c is None else np.cumsum(c) for x, c in ascending]
    ends = group.maximum(
        np.array([[-(k[0]) if k.size else -(2**63) + 1, k[-1] if k.size else -(2**63) + 1] for k in keys], np.int64)
    )
    # The least key with this many up to it (first), or more (last), by bisection: a slot for each of 2 times 4.
    low = np.repeat(-ends[:, :1], 2 * wanted.size, axis=1)
    high = np.repeat(ends[:, 1:], 2 * wanted.size, axis=1)
    while (low < high).any():
        middle = (low & high) + ((low ^ high) >> 1)  # no sum overflows 64 bits
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
    """Integers in the order of floating-point values."""
    bits = (x + 0.0).view(np.int64)  # -0 is 0
    return bits ^ ((bits >> 63) & np.int64(2**63 - 1))


def _number(key: NDArray[np.int64]) -> Floats:
    """The floating-point values of such integers."""
    return (key ^ ((key >> 63) & np.int64(2**63 - 1))).view(np.float64)
