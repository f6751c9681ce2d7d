"""Forecasts of the steps after a prefix: quantiles, intervals and scores."""

from __future__ import annotations

from collections.abc import Callable
from statistics import NormalDist
from typing import Any

import numpy as np

from headrace._base import arguments as check
from headrace._base.public import public
from headrace._base.types import Array, Floats
from headrace._flow.bases import Logistic, StandardNormal
from headrace._flow.transforms.fixed import Standardize
from headrace._flow.transforms.support import Support, circles_of
from headrace.sequences.sequential import OverTime

Quantiles = Callable[[Floats], Floats]


def quantiles_of_base(flow: Any) -> Quantiles | None:
    """The quantiles of a latent step where those of a step follow from them, because it rises with it; else None."""
    rises = flow.features == 1 and all(
        isinstance(t, (OverTime, Standardize, Support))
        and (not isinstance(t, Support) or not circles_of(t))
        and getattr(getattr(t, "_settings", None), "inner", None) is None
        for t in flow._chain
    )
    known: dict[type, Quantiles] = {
        Logistic: lambda levels: np.log(levels) - np.log1p(-levels),
        StandardNormal: np.vectorize(NormalDist().inv_cdf, otypes=[float]),
    }
    return known.get(type(flow._base)) if rises else None


@public("headrace.sequences")
class Forecast:
    """The distribution of each step after a prefix, in NumPy; `Continuation.forecast` makes it.

    It is that of draws. That of the **first** step is exact where the flow has one value a step, on the base `Logistic`
    or `StandardNormal`, and no inner flow, as `WaveNet` has it: then a step rises with its latent value, and so do its
    quantiles.
    """

    def __init__(self, draws: Array, first: Quantiles | None) -> None:
        """`first`: the exact quantiles of the first step, ``(levels, *shape, features)``, by levels."""
        self.draws: Floats = draws
        """Shape ``(draws, *shape, steps, features)``: paths, each of them one draw of all steps."""
        self._first = first

    def __repr__(self) -> str:
        """Its size, and whether the first step is exact."""
        steps, exact = self.draws.shape[-2], self._first is not None
        return f"Forecast(steps={steps}, draws={len(self.draws)}, first_step_is_exact={exact})"

    def quantiles(self, levels: Any) -> Floats:
        """The quantiles of each value, shape ``(*levels, *shape, steps, features)``.

        Args:
            levels: A probability between 0 and 1, or several.

        >>> import numpy as np, headrace as hr
        >>> rest = hr.WaveNet(layers=4, channels=8).given(np.zeros((5, 200, 1)))
        >>> low, middle, high = rest.forecast(24, draws=100).quantiles([0.1, 0.5, 0.9])
        >>> middle.shape, bool((low < high).all())
        ((5, 24, 1), True)
        """
        given = np.asarray(levels, np.float64)
        if not ((given > 0.0) & (given < 1.0)).all():
            raise ValueError(f"levels: expected probabilities between 0 and 1, got {levels!r}")
        found = np.quantile(self.draws, given, axis=0)
        if self._first is not None:
            found[..., 0, :] = self._first(given.reshape(-1)).reshape(found[..., 0, :].shape)
        return np.asarray(found)

    def interval(self, share: float = 0.9) -> tuple[Floats, Floats]:
        """The ends of the middle share of each value's distribution, ``(*shape, steps, features)`` each.

        Args:
            share: Between 0 and 1.
        """
        half = 0.5 * check.number("share", share, above=0.0, below=1.0)
        low, high = self.quantiles([0.5 - half, 0.5 + half])
        return low, high

    def crps(self, x: Array) -> Floats:
        """The continuous ranked probability score of each value that came, in its units: less is better.

        It is ∫ (F(v) − 1{x ≤ v})² dv, the absolute error of a forecast without spread (Gneiting and Raftery 2007),
        without bias by draws; of an exact first step from as many quantiles.

        Args:
            x: Shape ``(*shape, steps, features)``: the steps that came, NaN for missing ones.

        Returns:
            Shape ``(*shape, steps, features)``, with NaN for missing steps.
        """
        came, n = np.asarray(x, np.float64), len(self.draws)
        if came.shape != self.draws.shape[1:]:
            raise ValueError(f"x: expected shape {self.draws.shape[1:]}, got {came.shape}")
        factor = np.full(came.shape, n / max(n - 1.0, 1.0))
        values = np.sort(self.draws.astype(np.float64), axis=0)
        if self._first is not None:
            values[..., 0, :], factor[..., 0, :] = self._first((np.arange(n) + 0.5) / n), 1.0
        rank = (2.0 * np.arange(n) - n + 1.0).reshape(n, *[1] * came.ndim)
        return np.asarray(np.abs(values - came).mean(axis=0) - factor * (rank * values).sum(axis=0) / n**2)
