"""Statistics of log densities that come in blocks."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Scores:
    """Number, mean, spread and range of the finite ones; two sets are merged as by Chan, Golub, LeVeque 1983."""

    def __init__(self) -> None:
        """Statistics of no rows."""
        self.rows = self.finite = 0
        self.mean = self.squares = 0.0  # the latter of deviations from the mean
        self.least, self.most = math.inf, -math.inf

    def add(self, log_prob: NDArray[Any]) -> None:
        """Add rows, shape (rows,)."""
        finite = log_prob[np.isfinite(log_prob)].astype(np.float64)
        self.rows += log_prob.size
        if not finite.size:
            return
        mean, before = float(finite.mean()), self.finite
        self.finite += finite.size
        away = mean - self.mean
        self.mean = mean if before == 0 else self.mean + away * finite.size / self.finite
        self.squares += float(np.square(finite - mean).sum()) + away * away * before * finite.size / self.finite
        self.least, self.most = min(self.least, float(finite.min())), max(self.most, float(finite.max()))

    def report(self) -> dict[str, Any]:
        """The statistics for a JSON object; NaN for undefined ones."""
        n = self.finite
        return {
            "rows": self.rows,
            "not_finite": self.rows - n,
            "log_likelihood": self.mean if n else math.nan,
            "standard_error": math.sqrt(self.squares / (n - 1) / n) if n > 1 else math.nan,
            "least": self.least if n else math.nan,
            "most": self.most if n else math.nan,
        }
